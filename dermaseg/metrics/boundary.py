"""Distances between two outlines, and the overlap of the bands along them. NumPy and SciPy; no backend."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from dermaseg.arrays import check_plane

__all__ = [
    "BoundaryDistances",
    "average_boundary_distance",
    "boundary_distances",
    "boundary_jaccard",
    "hausdorff95",
]


class BoundaryDistances(NamedTuple):
    """How far the outline pixels of two masks are from each other's outline.

    Attributes:
        from_true: Distance of each pixel of the predicted outline from the true outline.
        from_pred: Distance of each pixel of the true outline from the predicted outline.
        both_empty: Whether neither mask has an outline: then nothing is apart.
    """

    from_true: np.ndarray
    from_pred: np.ndarray
    both_empty: bool

    @property
    def hausdorff95(self) -> float:
        """The larger of the two 95th percentiles; 0 for two empty masks, NaN where one is empty."""
        if self._undefined:
            return self._without_outline
        return float(max(np.percentile(self.from_true, 95), np.percentile(self.from_pred, 95)))

    @property
    def average(self) -> float:
        """The mean over the pixels of both outlines; 0 for two empty masks, NaN where one is empty."""
        if self._undefined:
            return self._without_outline
        return float(np.concatenate([self.from_true, self.from_pred]).mean())

    @property
    def _undefined(self) -> bool:
        return not (self.from_true.size and self.from_pred.size)

    @property
    def _without_outline(self) -> float:
        return 0.0 if self.both_empty else float("nan")


def boundary_distances(
    mask_true: np.ndarray, mask_pred: np.ndarray, *, spacing: tuple[float, float] = (1.0, 1.0)
) -> BoundaryDistances:
    """Measure how far each outline pixel of one mask is from the other's outline.

    An outline is the lesion's own border pixels: those that touch skin, or the picture's edge, by a side.

    Args:
        mask_true: `(height, width)`, 0 or 1.
        mask_pred: The same shape.
        spacing: Height and width of a pixel, in the unit of the result.

    Returns:
        Both sets of distances, each at least 0, one per pixel of an outline; empty where one mask is.

    Raises:
        ValueError: If the masks are not two-dimensional, hold anything but 0 and 1, or differ in shape.

    Examples:
        >>> true, pred = np.zeros((2, 8, 8), bool)
        >>> true[2:4, 2:4], pred[2:4, 3:5] = True, True
        >>> boundary_distances(true, pred).average
        0.5
    """
    true, pred = check_masks(mask_true, mask_pred)
    if not (true.any() and pred.any()):
        return BoundaryDistances(np.empty(0), np.empty(0), both_empty=not (true.any() or pred.any()))
    # Nothing outside the box of both lesions is measured, which leaves a quarter of the work on a usual photograph.
    box = _box(true | pred)
    outline_true, outline_pred = (mask & ~ndimage.binary_erosion(mask) for mask in (true[box], pred[box]))
    from_true = ndimage.distance_transform_edt(~outline_true, sampling=spacing)[outline_pred]
    from_pred = ndimage.distance_transform_edt(~outline_pred, sampling=spacing)[outline_true]
    return BoundaryDistances(from_true, from_pred, both_empty=False)


def hausdorff95(mask_true: np.ndarray, mask_pred: np.ndarray, *, spacing: tuple[float, float] = (1.0, 1.0)) -> float:
    """Return the 95 % Hausdorff distance: the larger of the two outlines' 95th percentiles of distance to the other.

    Args:
        mask_true: `(height, width)`, 0 or 1.
        mask_pred: The same shape.
        spacing: Height and width of a pixel, in the unit of the result.

    Returns:
        At least 0, in pixels unless `spacing` says otherwise; 0 where both masks are empty, NaN where one is: there is no
        outline to be far from. Say beside a mean how many are missing, since they are the worst masks.

    Raises:
        ValueError: If the masks are not two-dimensional, hold anything but 0 and 1, or differ in shape.

    Examples:
        >>> true, pred = np.zeros((2, 100, 100), bool)
        >>> true[20:80, 20:80], pred[22:82, 20:80] = True, True
        >>> hausdorff95(true, pred), hausdorff95(true, pred, spacing=(0.5, 0.5))  # pixels; at 0.5 mm per pixel, millimetres
        (2.0, 1.0)

    References:
        Huttenlocher et al., 1993, "Comparing images using the Hausdorff distance" (the ranked distance).
    """
    return boundary_distances(mask_true, mask_pred, spacing=spacing).hausdorff95


def average_boundary_distance(
    mask_true: np.ndarray, mask_pred: np.ndarray, *, spacing: tuple[float, float] = (1.0, 1.0)
) -> float:
    """Return the average symmetric distance: the mean over the pixels of both outlines of the distance to the other.

    Args:
        mask_true: `(height, width)`, 0 or 1.
        mask_pred: The same shape.
        spacing: Height and width of a pixel, in the unit of the result.

    Returns:
        At least 0, in pixels unless `spacing` says otherwise; 0 where both masks are empty, NaN where one is.

    Raises:
        ValueError: If the masks are not two-dimensional, hold anything but 0 and 1, or differ in shape.

    Examples:
        >>> true, pred = np.zeros((2, 8, 8), bool)
        >>> true[2:4, 2:4], pred[2:4, 3:5] = True, True
        >>> average_boundary_distance(true, pred)
        0.5

    References:
        Heimann et al., 2009, "Comparison and evaluation of methods for liver segmentation from CT datasets", equation 4.
    """
    return boundary_distances(mask_true, mask_pred, spacing=spacing).average


def boundary_jaccard(mask_true: np.ndarray, mask_pred: np.ndarray, *, width: float = 0.02) -> float:
    """Return the Jaccard index of the bands inside both outlines: large lesions can't hide a poor border.

    Args:
        mask_true: `(height, width)`, 0 or 1.
        mask_pred: The same shape.
        width: Width of the bands, as a share of the picture's diagonal; at least one pixel.

    Returns:
        0 to 1; 1 where both masks are empty, 0 where one is.

    Raises:
        ValueError: If the masks are not two-dimensional, hold anything but 0 and 1, or differ in shape.

    Examples:
        >>> true, pred = np.zeros((2, 100, 100), bool)
        >>> true[20:80, 20:80], pred[22:82, 20:80] = True, True
        >>> round(boundary_jaccard(true, pred), 3)  # the Jaccard index of the whole masks is 0.935
        0.333

    References:
        Cheng et al., 2021, "Boundary IoU: improving object-centric image segmentation evaluation", section 5. Deviation: the
        band is exact in Euclidean distance; the authors' code repeats a 3 x 3 erosion, a chessboard distance.
    """
    true, pred = check_masks(mask_true, mask_pred)
    if not (true.any() or pred.any()):
        return 1.0
    thickness = max(1.0, width * float(np.hypot(*true.shape)))
    box = _box(true | pred)
    band_true, band_pred = _band(true[box], thickness), _band(pred[box], thickness)
    return float(np.count_nonzero(band_true & band_pred) / np.count_nonzero(band_true | band_pred))


def check_masks(mask_true: np.ndarray, mask_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both masks as bool, `(height, width)`.

    Raises:
        ValueError: If one is no mask of 0 and 1, or they differ in shape.
    """
    true, pred = check_plane(mask_true), check_plane(mask_pred)
    if true.shape != pred.shape:
        raise ValueError(f"masks must be (height, width) and agree, got {true.shape} and {pred.shape}.")
    return true, pred


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _band(mask: np.ndarray, thickness: float) -> np.ndarray:
    # A frame of background: a lesion cut by the picture's edge has its border there.
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return mask & (inside <= thickness)
