"""What a model costs that may leave the doubtful photographs to a person: NumPy, no backend."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["area_under_risk_coverage", "risk_coverage_curve"]


def risk_coverage_curve(errors: Any, confidence: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean error of the most confident samples, for every share of them.

    Whoever sends the doubtful photographs to a colleague reads here what the rest cost. Samples of equal confidence enter in
    random order, on average: the curve does not depend on the order of the rows.

    Args:
        errors: Cost of each sample, `(samples,)`: 0 or 1 for a class, 1 - Jaccard for a mask.
        confidence: `(samples,)`, larger for what the model is surer of.

    Returns:
        Coverage, 1 / n to 1, and the risk at each, both `(samples,)`.

    Raises:
        ValueError: If the shapes differ, there is no sample, or a value is not finite.

    Examples:
        >>> coverage, risk = risk_coverage_curve([0, 1, 0, 1], [0.9, 0.4, 0.8, 0.6])
        >>> coverage.tolist(), risk.round(3).tolist()
        ([0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.333, 0.5])

    References:
        El-Yaniv and Wiener, 2010, "On the foundations of noise-free selective classification".
    """
    errors, confidence = np.asarray(errors, dtype="float64"), np.asarray(confidence, dtype="float64")
    if errors.ndim != 1 or errors.shape != confidence.shape or not errors.size:
        raise ValueError(f"errors and confidence must be (samples,) and agree, got {errors.shape} and {confidence.shape}.")
    if not (np.isfinite(errors).all() and np.isfinite(confidence).all()):
        raise ValueError("errors and confidence must be finite.")
    _, tie, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    expected = np.repeat(np.bincount(tie, weights=errors) / count, count)
    accepted = np.arange(1, len(errors) + 1)
    return accepted / len(errors), np.cumsum(expected) / accepted


def area_under_risk_coverage(errors: Any, confidence: Any) -> float:
    """Return the mean risk over all coverages (AURC): lower where a model's confidence ranks its errors better.

    Args:
        errors: As for `risk_coverage_curve`.
        confidence: As for `risk_coverage_curve`.

    Returns:
        Between the smallest and the largest error; without information in the confidence, the mean error.

    Raises:
        ValueError: As for `risk_coverage_curve`.

    Examples:
        >>> area_under_risk_coverage([0, 0, 1, 1], [4, 3, 2, 1]) < area_under_risk_coverage([0, 0, 1, 1], [1, 2, 3, 4])
        True

    References:
        Geifman, Uziel and El-Yaniv, 2019, "Bias-reduced uncertainty estimation for deep neural classifiers", section 3.
    """
    return float(risk_coverage_curve(errors, confidence)[1].mean())
