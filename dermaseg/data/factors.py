"""Factors that chance draws, of size and of light alike."""

from __future__ import annotations

import numpy as np

__all__ = ["draw_factors"]


def draw_factors(rng: np.random.Generator, limit: float, shape: int | tuple[int, ...]) -> np.ndarray:
    """Draw factors from `1 / (1 + limit)` to `1 + limit`, evenly on a logarithmic scale: both directions are equally likely."""
    return np.exp(rng.uniform(-1, 1, shape) * np.log1p(limit))
