"""Where the lesion is not."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["away_from", "middle", "surroundings"]

_MARGIN = 0.05  # of the shorter side: experts' outlines differ by about as much
_MIDDLE = 0.35  # of the shorter side: the radius about the middle that is left out where no mask says where the lesion is


def surroundings(shape: tuple[int, ...], inside: np.ndarray | None) -> np.ndarray:
    """Return the pixels away from a lesion, or from the middle of the picture where nothing says where the lesion is.

    Args:
        shape: `(height, width)` and more.
        inside: The lesion, bool, `(height, width)`, or None.

    Returns:
        bool, `(height, width)`.
    """
    return ~middle(shape) if inside is None else away_from(inside)


def away_from(region: np.ndarray) -> np.ndarray:
    """Return the pixels farther from a region than the margin."""
    from scipy import ndimage

    far = np.ones(region.shape, bool)
    if region.any():
        margin = _MARGIN * min(region.shape)
        rows, columns = ndimage.find_objects(region.astype(np.uint8))[0]
        reach = math.ceil(margin)
        near = (
            slice(max(0, rows.start - reach), rows.stop + reach),
            slice(max(0, columns.start - reach), columns.stop + reach),
        )
        far[near] = ndimage.distance_transform_edt(~region[near]) > margin
    return far


def middle(shape: tuple[int, ...]) -> np.ndarray:
    """Return the disc about the middle of a picture that stands for the lesion where nothing says where the lesion is."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2) < _MIDDLE * min(shape[:2])
