"""Figures of a classifier for a report: NumPy in, numbers out, no backend.

Every function takes integer labels `(samples,)` and, for each sample, a probability of every class. A class that the labels
lack (as happens in a subgroup, or a bootstrap resample) is left out of a mean over classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from dermaseg.metrics.ratios import ratio_or_nan, share_of

__all__ = [
    "balanced_accuracy",
    "choose_threshold",
    "class_scores",
    "classification_scores",
    "confusion_matrix",
    "macro_auc",
    "roc_curve",
    "sensitivity_at_specificity",
    "specificity_at_sensitivity",
]


def classification_scores(labels: Any, probabilities: Any) -> dict[str, float]:
    """Return the figures that stand at the head of a report.

    Args:
        labels: Integers `(samples,)`.
        probabilities: `(samples, classes)`; the predicted class has the largest probability.

    Returns:
        `accuracy`; `majority_share`, the accuracy of always naming the labels' commonest class, to read accuracy beside;
        `balanced_accuracy`; and `macro_auc`.

    Raises:
        ValueError: If shapes do not fit, a label is no class, or a probability is not finite.

    Examples:
        >>> scores = classification_scores([0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
        >>> scores["accuracy"], scores["majority_share"], round(scores["balanced_accuracy"], 3)
        (0.75, 0.75, 0.833)
    """
    labels, probabilities = check_predictions(labels, probabilities)
    return {
        "accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "majority_share": float(np.bincount(labels).max() / len(labels)),
        "balanced_accuracy": balanced_accuracy(labels, probabilities),
        "macro_auc": macro_auc(labels, probabilities),
    }


def class_scores(labels: Any, probabilities: Any, class_names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return each class's figures against all others.

    Args:
        labels: As for `classification_scores`.
        probabilities: As for `classification_scores`.
        class_names: One name per class.

    Returns:
        For each class `count` (its samples), `sensitivity`, `specificity` and `auc`; NaN where the labels do not define one.

    Raises:
        ValueError: As for `classification_scores`, or if there is not one name per class.

    Examples:
        >>> probabilities = [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.6, 0.4]]
        >>> class_scores([0, 0, 1, 1], probabilities, ["benign", "malignant"])["malignant"]
        {'count': 2, 'sensitivity': 0.5, 'specificity': 0.5, 'auc': 0.75}
    """
    labels, probabilities = check_predictions(labels, probabilities)
    if len(class_names) != probabilities.shape[1]:
        raise ValueError(f"class_names has {len(class_names)} names for {probabilities.shape[1]} classes.")
    confusion = confusion_matrix(labels, probabilities)
    found, true, predicted = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)
    others = len(labels) - true
    sensitivity, specificity = ratio_or_nan(found, true), ratio_or_nan(others - predicted + found, others)
    figures = zip(true.tolist(), sensitivity.tolist(), specificity.tolist(), _aucs(labels, probabilities), strict=True)
    return {
        name: {"count": count, "sensitivity": hit, "specificity": spared, "auc": float(auc)}
        for name, (count, hit, spared, auc) in zip(class_names, figures, strict=True)
    }


def confusion_matrix(labels: Any, probabilities: Any) -> np.ndarray:
    """Return the counts of true class (rows) against predicted class (columns).

    Args:
        labels: Integers `(samples,)`, 0 to classes - 1.
        probabilities: `(samples, classes)`; the predicted class has the largest probability.

    Returns:
        Integers `(classes, classes)`; they sum to the number of samples.

    Raises:
        ValueError: If shapes do not fit, a label is no class, or a probability is not finite.

    Examples:
        >>> confusion_matrix([0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]).tolist()
        [[2, 1], [0, 1]]
    """
    labels, probabilities = check_predictions(labels, probabilities)
    classes = probabilities.shape[1]
    pairs = labels * classes + probabilities.argmax(axis=1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(labels: Any, probabilities: Any) -> float:
    """Return the mean sensitivity over the classes that the labels hold, the figure of ISIC 2018 Task 3.

    Args:
        labels: Integers `(samples,)`, 0 to classes - 1.
        probabilities: `(samples, classes)`; the predicted class has the largest probability.

    Returns:
        0 to 1; always naming the same of the k classes that the labels hold scores 1 / k.

    Raises:
        ValueError: If shapes do not fit, a label is no class, or a probability is not finite.

    Examples:
        >>> round(balanced_accuracy([0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]]), 3)
        0.833
    """
    confusion = confusion_matrix(labels, probabilities)
    return float(np.nanmean(ratio_or_nan(confusion.diagonal(), confusion.sum(axis=1))))


def macro_auc(labels: Any, probabilities: Any) -> float:
    """Return the mean over classes of the area under the ROC curve, one class against the rest.

    AUC = (R - n (n + 1) / 2) / (n m), with R the sum of the ranks of the class's n samples among all n + m by its
    probability: the chance that one of them ranks above one of the m others, a tie counting half.

    Args:
        labels: Integers `(samples,)`, 0 to classes - 1.
        probabilities: `(samples, classes)`.

    Returns:
        0 to 1, 0.5 for chance; a class that the labels lack is left out. NaN where the labels hold one class only.

    Raises:
        ValueError: If shapes do not fit, a label is no class, or a probability is not finite.

    Examples:
        >>> macro_auc([0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
        1.0

    References:
        Hanley and McNeil, 1982, "The meaning and use of the area under a receiver operating characteristic (ROC) curve".
    """
    labels, probabilities = check_predictions(labels, probabilities)
    aucs = _aucs(labels, probabilities)
    defined = ~np.isnan(aucs)
    return float(aucs[defined].mean()) if defined.any() else math.nan


def roc_curve(positive: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the receiver operating characteristic: a point for every threshold that changes anything.

    Args:
        positive: Truth values `(samples,)`, some of each.
        scores: `(samples,)`, higher where positive is likelier.

    Returns:
        1 - specificity and sensitivity, `(thresholds + 1,)` each, from (0, 0) to (1, 1); equal scores are one step.

    Raises:
        ValueError: If shapes do not fit, a score is not finite, or there are no positives or no negatives.

    Examples:
        >>> alarms, sensitivity = roc_curve([False, True, True], [0.1, 0.4, 0.4])
        >>> alarms.tolist(), sensitivity.tolist()
        ([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])

    References:
        Fawcett, 2006, "An introduction to ROC analysis", algorithm 1.
    """
    positive, scores = _check_binary(positive, scores)
    if positive.all() or not positive.any():
        raise ValueError("positive must hold some of each: a curve needs positives and negatives.")
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))  # of each run of equal scores
    found = np.concatenate([[0], np.cumsum(positive[order])[last]])
    named = np.concatenate([[0], last + 1])
    return (named - found) / (~positive).sum(), found / positive.sum()


def sensitivity_at_specificity(positive: Any, scores: Any, *, specificity: float) -> float:
    """Return the largest sensitivity that a threshold reaches with at least that specificity.

    Only thresholds that the data offer are used: nothing is interpolated between points of the ROC curve.

    Args:
        positive: Whether each sample is positive (as a melanoma), `(samples,)`.
        scores: `(samples,)`, larger for positive.
        specificity: Share of the negatives that must stay negative, above 0, at most 1.

    Returns:
        0 to 1; NaN where a side has no sample.

    Raises:
        ValueError: If shapes differ, a score is not finite, or `specificity` is outside its range.

    Examples:
        >>> sensitivity_at_specificity([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], specificity=1.0)
        0.5
    """
    positive, scores = _check_binary(positive, scores)
    rank = _rank("specificity", specificity, int(np.count_nonzero(~positive)))
    if positive.all() or not positive.any():
        return math.nan
    return float(np.mean(scores[positive] > np.sort(scores[~positive])[rank]))


def specificity_at_sensitivity(positive: Any, scores: Any, *, sensitivity: float) -> float:
    """Return the largest specificity that a threshold reaches with at least that sensitivity.

    Args:
        positive: As for `sensitivity_at_specificity`.
        scores: As for `sensitivity_at_specificity`.
        sensitivity: Share of the positives that must be found, above 0, at most 1.

    Returns:
        0 to 1; NaN where a side has no sample.

    Raises:
        ValueError: As for `sensitivity_at_specificity`.

    Examples:
        >>> specificity_at_sensitivity([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], sensitivity=1.0)
        0.5
    """
    positive, scores = _check_binary(positive, scores)
    if positive.all() or not positive.any():
        return math.nan
    return float(np.mean(scores[~positive] < choose_threshold(positive, scores, sensitivity=sensitivity)))


def choose_threshold(positive: Any, scores: Any, *, sensitivity: float) -> float:
    """Return the largest threshold t for which `score >= t` finds at least that share of the positives.

    Choose it on the validation part: on the test part it would be fitted to what it is judged by.

    Args:
        positive: As for `sensitivity_at_specificity`, with at least one positive.
        scores: As for `sensitivity_at_specificity`.
        sensitivity: Wanted share, above 0, at most 1.

    Returns:
        One of the positives' scores.

    Raises:
        ValueError: As for `sensitivity_at_specificity`, or if no sample is positive.

    Examples:
        >>> choose_threshold([0, 1, 1, 1, 1], [0.7, 0.9, 0.8, 0.6, 0.2], sensitivity=0.75)
        0.6
    """
    positive, scores = _check_binary(positive, scores)
    if not positive.any():
        raise ValueError("a threshold for a sensitivity needs at least one positive sample.")
    found = np.sort(scores[positive])[::-1]
    return float(found[_rank("sensitivity", sensitivity, len(found))])


def check_predictions(labels: Any, probabilities: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return both as arrays, or say what is wrong with them."""
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2 or labels.shape != probabilities.shape[:1] or not labels.size:
        raise ValueError(
            "labels must be (samples,) and probabilities (samples, classes) with two or more classes and a sample, got "
            f"{labels.shape} and {probabilities.shape}. For one sigmoid unit pass np.stack([1 - p, p], axis=1)."
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be integers, got {labels.dtype}.")
    if not 0 <= labels.min() <= labels.max() < probabilities.shape[1]:
        raise ValueError(f"labels must lie between 0 and {probabilities.shape[1] - 1}, got {labels.min()} to {labels.max()}.")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities must be finite.")
    return labels.astype(np.int64), probabilities  # a uint8 times the number of classes would overflow


def _check_binary(positive: Any, scores: Any) -> tuple[np.ndarray, np.ndarray]:
    positive, scores = np.asarray(positive).astype(bool), np.asarray(scores)
    if positive.ndim != 1 or positive.shape != scores.shape:
        raise ValueError(f"positive and scores must be (samples,) and agree, got {positive.shape} and {scores.shape}.")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite.")
    return positive, scores


def _rank(name: str, share: float, count: int) -> int:
    """Return the position of the last of the `count` sorted samples that a share needs."""
    if not 0 < share <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, got {share!r}.")
    return max(0, int(share_of(count, share)) - 1)


def _aucs(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    ranks = stats.rankdata(probabilities, axis=0)
    own = labels[:, None] == np.arange(probabilities.shape[1])
    count = own.sum(axis=0)
    return ratio_or_nan((ranks * own).sum(axis=0) - count * (count + 1) / 2, count * (len(labels) - count))
