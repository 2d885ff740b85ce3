"""The black rim that a round field of view leaves in a picture's corners."""

from __future__ import annotations

import numpy as np

from dermaseg.arrays import check_image, check_image_and_mask
from dermaseg.artefacts.regions import away_from, middle
from dermaseg.data.hair import hair_width

__all__ = ["DARK_CORNER_THRESHOLD", "dark_corner_pixels", "dark_corner_score", "lit_pixels"]

DARK_CORNER_THRESHOLD = 0.004
"""`dark_corner_score` from which a picture counts as having dark corners."""

_DARKEST_CORNER = 70  # grey levels: a vignette is darker, on any skin


def dark_corner_score(image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the share of the picture that is black rim in its corners.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.
        mask: The lesion, 0 and 1, or bool, `(height, width)` or `(height, width, 1)`: a dark lesion that reaches a corner is
            then no rim.

    Returns:
        0 to 1; a round field of view that just touches all four edges of a square leaves 0.21.

    Raises:
        ValueError: If `image` or `mask` has another shape, type or range.

    Examples:
        >>> y, x = np.mgrid[-50:50, -50:50]
        >>> image = np.full((100, 100, 3), (225, 185, 165), np.uint8)
        >>> image[np.hypot(x, y) > 50] = 0
        >>> round(dark_corner_score(image), 2)
        0.21
    """
    image, inside = check_image_and_mask(image, mask)
    corners = dark_corner_pixels(image)
    return float((corners if inside is None else corners & ~inside).mean())


def dark_corner_pixels(image: np.ndarray) -> np.ndarray:
    """Find the black rim that a round field of view leaves in a picture's corners.

    A pixel belongs to it that is darker than 70 grey levels and than half of the picture's median, and connected with a
    corner by such pixels. What lies within 35 % of the shorter side about the middle never does.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.

    Returns:
        bool, `(height, width)`.

    Raises:
        ValueError: If `image` has another shape, type or range.
    """
    from scipy import ndimage

    sums = _channel_sums(check_image(image))
    if (sums[[0, 0, -1, -1], [0, -1, 0, -1]] >= 3 * _DARKEST_CORNER).all():
        return np.zeros(sums.shape, bool)  # closing makes nothing darker
    width = hair_width(sums.shape)
    grey = ndimage.grey_closing(sums, size=(width, width))  # dark hairs in a corner are no rim
    dark = (grey < min(3 * _DARKEST_CORNER, np.median(grey) / 2)) & ~middle(grey.shape)
    labels, _ = ndimage.label(dark)
    corners = labels[[0, 0, -1, -1], [0, -1, 0, -1]]
    return np.isin(labels, corners[corners > 0])


def lit_pixels(image: np.ndarray) -> np.ndarray:
    """Return the pixels away from dark corners, which fade in over some pixels and have an edge like a hair's."""
    return away_from(dark_corner_pixels(image))


def _channel_sums(image: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(image.astype(np.uint16), -1, 0)
    return red + green + blue
