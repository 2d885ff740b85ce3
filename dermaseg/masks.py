"""Masks as a photograph of one lesion has them."""

from __future__ import annotations

import numpy as np

from dermaseg.arrays import check_plane

__all__ = ["clean_mask"]


def clean_mask(mask: np.ndarray, *, largest_component: bool = False, fill_holes: bool = False) -> np.ndarray:
    """Tidy a mask: a photograph for these networks shows one lesion.

    Args:
        mask: `(height, width)` or `(height, width, 1)`, 0 or 1.
        largest_component: Keep the largest connected region (8 neighbours); of equals, the first from the top.
        fill_holes: Fill skin that is enclosed by lesion.

    Returns:
        A mask of the same height and width, uint8.

    Raises:
        ValueError: If it has another shape, or values other than 0 and 1.

    Examples:
        >>> clean_mask(np.array([[1, 0, 1], [0, 0, 1]]), largest_component=True).tolist()
        [[0, 0, 1], [0, 0, 1]]
    """
    mask = check_plane(mask).astype(np.uint8)
    if largest_component:
        from scipy.ndimage import label

        regions, _ = label(mask, structure=np.ones((3, 3)))
        counts = np.bincount(regions.ravel())[1:]
        mask = (regions == counts.argmax() + 1).astype(np.uint8) if counts.size else mask
    if fill_holes and mask.any():
        from scipy.ndimage import binary_fill_holes, find_objects

        (box,) = find_objects(mask)  # filling takes its time by the pixel, and holes lie within the lesion's box
        mask[box] = binary_fill_holes(mask[box])
    return mask
