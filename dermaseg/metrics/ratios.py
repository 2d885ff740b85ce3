"""Shares and ratios as the metrics count them. NumPy; no backend."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["ratio_or_nan", "ratio_or_one", "share_of"]


def ratio_or_nan(part: Any, whole: Any) -> np.ndarray:
    """Return part / whole of arrays of one shape, NaN where the whole is 0: there is nothing to have a share of."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)


def ratio_or_one(part: np.integer | int, whole: np.integer | int) -> float:
    """Return part / whole of two counts, 1 where both are 0: nothing was wanted, and nothing was missed."""
    return float(part / whole) if whole else 1.0


def share_of(count: Any, share: float) -> Any:
    """Return how many of so many a share needs, rounded up; of numbers or arrays, as floats."""
    # 0.55 * 100 is 55.00000000000001 in floating point.
    return np.ceil(share * count - 1e-9)
