"""Distances between two outlines, in pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

__all__ = ["average_boundary_distance", "boundary_distances", "boundary_jaccard", "hausdorff95"]


def boundary_distances(mask_true: np.ndarray, mask_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far each outline pixel of one mask is from the other's outline.

    An outline is the lesion's own border pixels: those that touch skin, or the picture's edge, by a side.

    Args:
        mask_true: `(height, width)`, 0 or 1.
        mask_pred: The same shape.

    Returns:
        Distances of the predicted outline from the true one, and of the true one from the predicted one, in pixels; both
        empty where either mask is empty.

    Raises:
        ValueError: If the masks are not two-dimensional or differ in shape.
    """
    true, pred = _as_masks(mask_true, mask_pred)
    if not (true.any() and pred.any()):
        return np.empty(0), np.empty(0)
    # Nothing outside the box of both lesions is measured: on a usual photograph that leaves a quarter of the work.
    rows, columns = np.nonzero(true | pred)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    outline_true, outline_pred = _outline(true[box]), _outline(pred[box])
    from_true = ndimage.distance_transform_edt(~outline_true)[outline_pred]
    from_pred = ndimage.distance_transform_edt(~outline_pred)[outline_true]
    return from_true, from_pred


def hausdorff95(mask_true: np.ndarray, mask_pred: np.ndarray) -> float:
    """Return the 95 % Hausdorff distance: the larger of the two outlines' 95th percentiles of distance to the other.

    Args:
        mask_true: `(height, width)`, 0 or 1.
        mask_pred: The same shape.

    Returns:
        Pixels; 0 where both masks are empty, NaN where one is: there is no outline to be far from.

    References:
        Huttenlocher et al., 1993, "Comparing images using the Hausdorff distance" (the ranked distance).
    """
    return _distance(mask_true, mask_pred, lambda a, b: max(np.percentile(a, 95), np.percentile(b, 95)))


def average_boundary_distance(mask_true: np.ndarray, mask_pred: np.ndarray) -> float:
    """Return the average symmetric distance: the mean over all pixels of both outlines of the distance to the other.

    Arguments and result are those of `hausdorff95`.

    References:
        Heimann et al., 2009, "Comparison and evaluation of methods for liver segmentation from CT datasets", equation 4.
    """
    return _distance(mask_true, mask_pred, lambda a, b: np.concatenate([a, b]).mean())


def boundary_jaccard(mask_true: np.ndarray, mask_pred: np.ndarray, *, width: float = 0.02) -> float:
    """Return the Jaccard index of the bands inside both outlines: large lesions can't hide a poor border.

    Args:
        mask_true: `(height, width)`, 0 or 1.
        mask_pred: The same shape.
        width: Of the bands, as a share of the picture's diagonal; at least one pixel.

    Returns:
        0 to 1; 1 where both masks are empty.

    References:
        Cheng et al., 2021, "Boundary IoU", equation 1.
    """
    true, pred = _as_masks(mask_true, mask_pred)
    thickness = max(1.0, width * float(np.hypot(*true.shape)))
    bands = [_band(mask, thickness) for mask in (true, pred)]
    union = np.count_nonzero(bands[0] | bands[1])
    return 1.0 if union == 0 else np.count_nonzero(bands[0] & bands[1]) / union


def _as_masks(mask_true: np.ndarray, mask_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    true, pred = np.asarray(mask_true).astype(bool), np.asarray(mask_pred).astype(bool)
    if true.ndim != 2 or true.shape != pred.shape:
        raise ValueError(f"masks must be (height, width) and agree, got {true.shape} and {pred.shape}.")
    return true, pred


def _outline(mask: np.ndarray) -> np.ndarray:
    return mask & ~ndimage.binary_erosion(mask)


def _band(mask: np.ndarray, thickness: float) -> np.ndarray:
    # A frame of background: a lesion cut by the picture's edge has its border there.
    inside = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return mask & (inside <= thickness)


def _distance(
    mask_true: np.ndarray, mask_pred: np.ndarray, summarise: Callable[[np.ndarray, np.ndarray], float]
) -> float:
    true, pred = _as_masks(mask_true, mask_pred)
    if not true.any() and not pred.any():
        return 0.0
    from_true, from_pred = boundary_distances(true, pred)
    return float(summarise(from_true, from_pred)) if from_true.size else float("nan")
