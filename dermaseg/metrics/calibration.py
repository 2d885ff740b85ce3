"""Whether probabilities mean what they say, and how to make them: NumPy and SciPy, no backend.

A classifier is calibrated when, of the samples it calls 80 % sure, 80 % are right. Fit a temperature on the validation part,
never on the part that is reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dermaseg.metrics.ratios import ratio_or_nan

__all__ = [
    "Reliability",
    "apply_temperature",
    "brier_score",
    "expected_calibration_error",
    "fit_temperature",
    "reliability",
]


@dataclass(frozen=True, slots=True)
class Reliability:
    """Outcomes counted by the probability they were given, in bins of equal width over 0 to 1.

    Two counts over the same bins add up, so the pixels of a whole test part need never be in memory at once.

    Args:
        count: Outcomes in each bin, `(bins,)`.
        probability_sum: Sum of their probabilities.
        outcome_sum: How many of them came true.

    Examples:
        >>> halves = reliability([0, 1], [0.9, 0.9], bins=2) + reliability([1, 1], [0.9, 0.9], bins=2)
        >>> halves.frequency.tolist(), round(halves.calibration_error, 3)
        ([nan, 0.75], 0.15)
    """

    count: np.ndarray
    probability_sum: np.ndarray
    outcome_sum: np.ndarray

    def __add__(self, other: Reliability) -> Reliability:
        if len(self.count) != len(other.count):
            raise ValueError(f"both must have the same bins, got {len(self.count)} and {len(other.count)}.")
        return Reliability(
            self.count + other.count,
            self.probability_sum + other.probability_sum,
            self.outcome_sum + other.outcome_sum,
        )

    @property
    def probability(self) -> np.ndarray:
        """Mean probability in each bin, NaN where it is empty: the x of a reliability diagram."""
        return ratio_or_nan(self.probability_sum, self.count)

    @property
    def frequency(self) -> np.ndarray:
        """Share that came true in each bin, NaN where it is empty: the y of a reliability diagram."""
        return ratio_or_nan(self.outcome_sum, self.count)

    @property
    def calibration_error(self) -> float:
        """Mean over outcomes of |frequency - probability| of their bin, 0 to 1."""
        return float(np.abs(self.outcome_sum - self.probability_sum).sum() / self.count.sum())


def reliability(outcomes: Any, probabilities: Any, *, bins: int = 15) -> Reliability:
    """Count outcomes by the probability they were given.

    Args:
        outcomes: Whether each event came true, 0 or 1, any shape: correct predictions, samples of a class, lesion pixels.
        probabilities: What the model gave it, 0 to 1, the same shape.
        bins: Number of bins, at least 1; a probability on an edge belongs to the bin above, 1 to the last.

    Returns:
        The counts, which add up with those of other batches.

    Raises:
        ValueError: If the shapes differ, there is nothing to count, an outcome is not 0 or 1, or a probability is outside its
            range.

    Examples:
        >>> counted = reliability([0, 1, 1, 1], [0.2, 0.4, 0.9, 0.9], bins=2)
        >>> counted.count.tolist(), counted.probability.round(2).tolist(), counted.frequency.tolist()
        ([2, 2], [0.3, 0.9], [0.5, 1.0])
    """
    outcomes, probabilities = np.asarray(outcomes), np.asarray(probabilities)
    if outcomes.shape != probabilities.shape or not outcomes.size:
        raise ValueError(
            f"outcomes and probabilities must agree in shape and not be empty, got {outcomes.shape} and {probabilities.shape}."
        )
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins!r}.")
    probabilities = check_probabilities(probabilities).ravel().astype("float64")
    outcomes = _check_outcomes(outcomes.ravel())
    index = bin_of(probabilities, bins)
    return Reliability(
        np.bincount(index, minlength=bins),
        np.bincount(index, weights=probabilities, minlength=bins),
        np.bincount(index, weights=outcomes, minlength=bins),
    )


def bin_of(probabilities: np.ndarray, bins: int = 15) -> np.ndarray:
    """The bin of each probability; one on an edge belongs to the bin above, 1 to the last."""
    return np.minimum((probabilities * bins).astype(int), bins - 1)


def expected_calibration_error(
    labels: Any, probabilities: Any, *, bins: int = 15, kind: Literal["top_label", "per_class"] = "top_label"
) -> float:
    """Return the mean gap between what a model says and what comes true, over bins of equal width.

    ECE = sum_b n_b / n |frequency_b - probability_b|. It is a biased estimate: with few samples per bin, chance alone makes it
    positive, so compare models on the same samples and bins only.

    Args:
        labels: Integers `(samples,)`; or, for one probability per event (a sigmoid unit, the pixels of masks), 0 or 1 in the
            shape of `probabilities`.
        probabilities: `(samples, classes)`, or of any shape that the labels have.
        bins: Number of bins, at least 1.
        kind: `"top_label"`: the probability of the predicted class, against whether it is right. `"per_class"`: the mean
            over classes of each class's own error, which also sees the probabilities of classes that were not predicted.
            Without effect for one probability per event.

    Returns:
        0 (calibrated) to 1.

    Raises:
        ValueError: If the shapes do not fit, a label is no class, a probability is outside 0 to 1, or `kind` is unknown.

    Examples:
        >>> round(expected_calibration_error([0, 0, 0, 1], [[0.9, 0.1]] * 4), 3)
        0.15

    References:
        Guo et al., 2017, "On calibration of modern neural networks", equation 3. Nixon et al., 2019, "Measuring calibration
        in deep learning", section 3 (per class).
    """
    if kind not in ("top_label", "per_class"):
        raise ValueError(f"kind must be 'top_label' or 'per_class', got {kind!r}.")
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if labels.shape == probabilities.shape:
        _refuse_one_hot(labels, probabilities)
        return reliability(labels, probabilities, bins=bins).calibration_error
    outcomes = _one_hot(labels, probabilities)
    if kind == "per_class":
        columns = zip(outcomes.T, probabilities.T, strict=True)
        return float(np.mean([reliability(own, column, bins=bins).calibration_error for own, column in columns]))
    right = probabilities.argmax(axis=1) == labels
    return reliability(right, probabilities.max(axis=1), bins=bins).calibration_error


def brier_score(labels: Any, probabilities: Any) -> float:
    """Return the mean squared error of the probabilities, which calibration and sharpness both lower.

    Args:
        labels: As for `expected_calibration_error`.
        probabilities: As for `expected_calibration_error`.

    Returns:
        For one probability per event the mean of (p - y)^2, 0 to 1; for classes its sum over them, 0 to 2.

    Raises:
        ValueError: If the shapes do not fit or are empty, a label is no class, or a probability is outside 0 to 1.

    Examples:
        >>> round(brier_score([1, 0], [0.8, 0.4]), 3), round(brier_score([1, 0], [[0.2, 0.8], [0.6, 0.4]]), 3)
        (0.1, 0.2)

    References:
        Brier, 1950, "Verification of forecasts expressed in terms of probability", equation 2.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype="float64")
    if labels.shape == probabilities.shape:
        _refuse_one_hot(labels, probabilities)
        if not labels.size:
            raise ValueError("labels and probabilities are empty: there is nothing to score.")
        return float(np.mean((check_probabilities(probabilities) - _check_outcomes(labels)) ** 2))
    outcomes = _one_hot(labels, probabilities)
    return float(np.mean(np.sum((check_probabilities(probabilities) - outcomes) ** 2, axis=1)))


def fit_temperature(labels: Any, probabilities: Any) -> float:
    """Return the temperature T that makes softmax(log p / T) most likely, above 1 for a model that is too sure.

    One number cannot reorder the classes of a sample: its prediction, and so the accuracy, stays as it is.

    Args:
        labels: Integers `(samples,)` of the validation part; 0 or 1 for one sigmoid unit.
        probabilities: `(samples, classes)`, or `(samples,)` for one sigmoid unit. Logits may be given as their softmax.

    Returns:
        T between 0.01 and 100; an end of that range where the data set no bound (all right, or no better than chance).

    Raises:
        ValueError: If the shapes do not fit, or a probability is outside 0 to 1.

    Examples:
        >>> temperature = fit_temperature([0, 0, 0, 1], [[0.9, 0.1]] * 4)  # said 90 %, right in 75 %
        >>> round(temperature, 3), apply_temperature([[0.9, 0.1]], temperature).round(3).tolist()
        (2.0, [[0.75, 0.25]])

    References:
        Guo et al., 2017, "On calibration of modern neural networks", equation 9.
    """
    labels, logits = np.asarray(labels), _log_probabilities(probabilities)
    if labels.shape != logits.shape[:1]:
        raise ValueError(f"labels must be (samples,), one per row of probabilities, got {labels.shape} for {len(logits)}.")
    chosen = _one_hot(labels, logits)
    from scipy import optimize, special  # a prediction, which fits nothing, starts without

    def negative_log_likelihood(log_temperature: float) -> float:
        return -float(np.sum(chosen * special.log_softmax(logits / np.exp(log_temperature), axis=1)))

    # The likelihood has one maximum in 1 / T, hence in log T.
    found = optimize.minimize_scalar(negative_log_likelihood, bounds=(np.log(0.01), np.log(100.0)), method="bounded")
    return float(np.exp(found.x))


def apply_temperature(probabilities: Any, temperature: float) -> np.ndarray:
    """Return softmax(log p / T), or sigmoid(logit p / T) for one probability per event.

    Args:
        probabilities: `(samples, classes)`, or `(samples,)` for one sigmoid unit.
        temperature: T, above 0.

    Returns:
        Probabilities of the same shape, float64.

    Raises:
        ValueError: If `temperature` is not above 0, or a probability is outside 0 to 1.

    Examples:
        >>> apply_temperature([[0.8, 0.2]], 2.0).round(3).tolist()
        [[0.667, 0.333]]
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature!r}.")
    scaled = _log_probabilities(probabilities) / temperature
    tempered = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    tempered /= tempered.sum(axis=1, keepdims=True)
    return tempered if np.ndim(probabilities) == 2 else tempered[:, 1]


def check_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Return probabilities as they are, or raise `ValueError` where one is not between 0 and 1."""
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError(
            f"probabilities must lie between 0 and 1, got {probabilities.min():g} to {probabilities.max():g}: "
            "pass logits through a sigmoid or softmax first."
        )
    return probabilities


def _check_outcomes(outcomes: np.ndarray) -> np.ndarray:
    if outcomes.dtype != bool and not np.all((outcomes == 0) | (outcomes == 1)):
        raise ValueError(f"outcomes must be 0 or 1, got {outcomes.min()} to {outcomes.max()}: cut masks of 255 at 127.")
    return outcomes.astype("float64")


def _refuse_one_hot(labels: np.ndarray, probabilities: np.ndarray) -> None:
    """Raise `ValueError` for classes as rows of 0 and 1, which would be taken for so many single events."""
    if labels.ndim != 2 or labels.shape[1] < 2 or not labels.size:
        return
    if (labels.sum(axis=1) == 1).all() and np.allclose(probabilities.sum(axis=1), 1, atol=1e-3):
        raise ValueError(f"labels {labels.shape} are one-hot: pass the classes themselves, labels.argmax(axis=1).")


def _one_hot(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not labels.size:
        raise ValueError(
            "labels must be (samples,) with probabilities (samples, classes), or have the shape of probabilities, got "
            f"{labels.shape} and {probabilities.shape}."
        )
    _refuse_one_column(probabilities)
    classes = probabilities.shape[1]
    if not (np.issubdtype(labels.dtype, np.integer) and 0 <= labels.min() <= labels.max() < classes):
        raise ValueError(f"labels must be integers between 0 and {classes - 1}.")
    return labels[:, None] == np.arange(classes)


def _refuse_one_column(probabilities: np.ndarray) -> None:
    """Raise `ValueError` for what one sigmoid unit of Keras gives: the softmax of one column is 1, whatever it holds."""
    if probabilities.shape[1] == 1:
        raise ValueError(f"probabilities {probabilities.shape} are of one sigmoid unit: pass them as (samples,), p[:, 0].")


def _log_probabilities(probabilities: Any) -> np.ndarray:
    """Return log p, `(samples, classes)`; a sigmoid unit becomes two classes."""
    probabilities = check_probabilities(np.asarray(probabilities, dtype="float64"))
    if probabilities.ndim == 1:
        probabilities = np.stack([1.0 - probabilities, probabilities], axis=1)
    elif probabilities.ndim != 2:
        raise ValueError(f"probabilities must be (samples, classes) or (samples,), got {probabilities.shape}.")
    _refuse_one_column(probabilities)
    sums = probabilities.sum(axis=1)
    if not np.allclose(sums, 1, atol=1e-2):
        raise ValueError(
            f"probabilities must sum to 1 over the classes, got sums from {sums.min():g} to {sums.max():g}: pass independent "
            "events one by one, as (samples,)."
        )
    # A saturated float32 sigmoid or softmax knows no difference below 1e-7 from 1: the same floor on both sides.
    return np.log(np.maximum(probabilities, 1e-7))
