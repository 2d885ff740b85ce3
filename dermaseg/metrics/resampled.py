"""Figures of the classes for all resamples of a bootstrap at once, from how often each photograph was drawn.

A figure stays the same statistic in every resample: it is over the classes that the whole part holds, and has no value where
one of them was not drawn.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dermaseg.metrics.calibration import bin_of
from dermaseg.metrics.classification import check_predictions
from dermaseg.metrics.ratios import ratio_or_nan, share_of

__all__ = ["Weighted", "alarm_figures", "class_figures"]

# How often each sample was drawn, (resamples, samples), to a figure for each resample, NaN where it has no value.
Weighted = Callable[[np.ndarray], np.ndarray]


def class_figures(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Weighted]:
    """Return the figures of all classes, as `dermaseg.metrics` defines them.

    Args:
        labels: Integers `(samples,)`, 0 to classes - 1.
        probabilities: `(samples, classes)`, rows that sum to 1.

    Returns:
        `majority_share`, `balanced_accuracy`, `macro_auc`, `calibration_error`. In a resample, the share is of the class that
        is the commonest of all the samples, and the error adds up the bins' gaps with the signs that they have over all; a
        sum below 0 counts as 0.

    Raises:
        ValueError: As for `balanced_accuracy`: a network that has diverged has no figures.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    own = (labels[:, None] == np.arange(probabilities.shape[1])).astype(float)
    named, most = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = (named == labels).astype(float)
    counts, gaps = own.sum(axis=0), np.bincount(bin_of(most), weights=right - most)
    present, commonest = np.flatnonzero(counts), own[:, counts.argmax()]
    apart = [index for index in present if counts[index] < len(labels)]  # classes with an ROC curve
    # The absolute value of each resample's own gaps would count chance twice, and lie above the figure itself.
    signed = np.sign(gaps)[bin_of(most)] * (right - most)

    def majority_share(weights: np.ndarray) -> np.ndarray:
        return weights @ commonest / weights.sum(axis=1)

    def balanced_accuracy(weights: np.ndarray) -> np.ndarray:
        return ratio_or_nan(weights @ (own * right[:, None]), weights @ own)[:, present].mean(axis=1)

    def macro_auc(weights: np.ndarray) -> np.ndarray:
        areas = [_auc(weights, own[:, index], probabilities[:, index]) for index in apart]
        return np.mean(areas, axis=0) if areas else np.full(len(weights), np.nan)

    def calibration_error(weights: np.ndarray) -> np.ndarray:
        return np.maximum(weights @ signed / weights.sum(axis=1), 0)

    return {
        "majority_share": majority_share,
        "balanced_accuracy": balanced_accuracy,
        "macro_auc": macro_auc,
        "calibration_error": calibration_error,
    }


def alarm_figures(positive: np.ndarray, scores: np.ndarray, *, rate: float) -> dict[str, Weighted]:
    """Return what an alarm finds at a wanted rate on the other side; NaN where a side has no sample.

    Args:
        positive: Truth values `(samples,)`.
        scores: `(samples,)`, larger for positive.
        rate: Wanted specificity, or sensitivity, above 0, at most 1.

    Returns:
        `alarm_sensitivity` as `sensitivity_at_specificity`, and `alarm_specificity` as `specificity_at_sensitivity`.
    """

    def sensitivity(weights: np.ndarray) -> np.ndarray:
        return _share_beyond(weights, scores, ~positive, rate)

    def specificity(weights: np.ndarray) -> np.ndarray:
        # The same from the other end: of the negatives, those below the score of the last positive that is needed.
        return _share_beyond(weights, -scores, positive, rate)

    return {"alarm_sensitivity": sensitivity, "alarm_specificity": specificity}


def _auc(weights: np.ndarray, own: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """The chance that one of a class scores above one of the others, a tie counting half."""
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(scores[order]) != 0))  # of each run of equal scores
    sorted_weights = weights[:, order]
    ones = np.add.reduceat(sorted_weights * own[order], starts, axis=1)
    others = np.add.reduceat(sorted_weights * (1 - own[order]), starts, axis=1)
    won = (ones * (np.cumsum(others, axis=1) - others / 2)).sum(axis=1)
    return ratio_or_nan(won, ones.sum(axis=1) * others.sum(axis=1))


def _share_beyond(weights: np.ndarray, scores: np.ndarray, kept: np.ndarray, rate: float) -> np.ndarray:
    """Share of the others above the lowest threshold that leaves at least `rate` of the kept ones at or below it."""
    order = np.argsort(scores[kept], kind="stable")
    sorted_scores, counts = scores[kept][order], np.cumsum(weights[:, kept][:, order], axis=1)
    total, others = weights[:, kept].sum(axis=1), weights[:, ~kept]
    if not sorted_scores.size:
        return np.full(len(weights), np.nan)
    needed = np.maximum(share_of(total, rate), 1)
    last = np.minimum((counts < needed[:, None]).sum(axis=1), len(sorted_scores) - 1)
    found = (others * (scores[~kept] > sorted_scores[last][:, None])).sum(axis=1)
    return np.where(total > 0, ratio_or_nan(found, others.sum(axis=1)), np.nan)
