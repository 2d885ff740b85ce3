"""Statements that hold for new photographs: sets of classes, masks that miss little, and whom to refer. No backend.

Each is fitted on a part that neither trained the model nor reports it, and holds on average over photographs that come from
where that part came from. One photograph a lesion: two of one lesion are one piece of evidence, not two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from dermaseg.metrics.calibration import risk_coverage_curve

__all__ = ["ConformalClassifier", "MaskRiskControl", "Rejection", "choose_rejection", "coverage_interval"]

METHODS = ("lac", "aps")

# Evenly spaced in the logit: networks put most of their pixels near 0 and 1. Rounded to float32, the type of masks, so that
# `probability > threshold` decides the same wherever NumPy compares in float32.
_GRID = (1 / (1 + np.exp(-np.linspace(-12.0, 12.0, 2401)))).astype(np.float32).astype(np.float64)


@dataclass(frozen=True, slots=True)
class ConformalClassifier:
    """Name all classes that a photograph may well belong to, so that the true one is among them as often as wanted.

    With a score s(x, y), larger for a label that fits worse, and n photographs whose labels are known, the set of a new x is
    every y with s(x, y) <= q, q the ceil((n + 1) coverage)-th smallest score of the n. If the new photograph is exchangeable
    with the n, its label is in its set with a probability of at least `coverage`, whatever the network; a poor one only has
    larger sets. That is a mean over photographs: it can be lower for a rare class (`per_class` mends that) or a skin colour.

    Args:
        thresholds: q of each class; infinite where the photographs are too few for any statement, so that the class is in
            every set.
        method: `"lac"` or `"aps"`.
        coverage: What was asked for.
        per_class: Whether each class has a threshold of its own.
        randomized: Whether APS draws at the border.
        counts: Calibration photographs of each class.

    Examples:
        >>> labels, probabilities = [0, 1, 0, 1], [[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.4, 0.6]]
        >>> classifier = ConformalClassifier.fit(labels, probabilities, coverage=0.75)
        >>> classifier.sets([[0.95, 0.05], [0.62, 0.38]]).tolist()
        [[True, False], [True, False]]

    References:
        Sadinle, Lei and Wasserman, 2019, "Least ambiguous set-valued classifiers with bounded error levels", theorem 1 (LAC).
        Romano, Sesia and Candès, 2020, "Classification with valid and adaptive coverage", section 2 (APS). Vovk, 2012,
        "Conditional validity of inductive conformal predictors", section 2 (a threshold for each class).
    """

    thresholds: tuple[float, ...]
    method: Literal["lac", "aps"] = "lac"
    coverage: float = 0.9
    per_class: bool = False
    randomized: bool = False
    counts: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method must be 'lac' or 'aps', got {self.method!r}.")
        if self.randomized and self.method != "aps":
            raise ValueError("randomized belongs to method='aps': LAC has nothing to draw.")
        _check_share("coverage", self.coverage)

    @classmethod
    def fit(
        cls,
        labels: Any,
        probabilities: Any,
        *,
        coverage: float = 0.9,
        method: Literal["lac", "aps"] = "lac",
        per_class: bool = False,
        randomized: bool = False,
        seed: int = 0,
    ) -> Self:
        """Set the threshold on photographs whose labels are known.

        Args:
            labels: Integers `(samples,)`.
            probabilities: `(samples, classes)`, each row with the sum 1; np.stack([1 - p, p], axis=1) of one sigmoid unit.
            coverage: Wanted share of photographs with the true class in their set, between 0 and 1.
            method: `"lac"`: s = 1 - p_y, the smallest sets on average; a set may be empty, where no class is likely enough.
                `"aps"`: s = the probabilities of all classes down to y, likeliest first, y's own included; larger sets,
                which grow with how hard the photograph is.
            per_class: Set each class's threshold on its own photographs, so that the coverage holds within every class. A
                class with fewer than coverage / (1 - coverage) photographs then belongs to every set.
            randomized: Of APS: count y's own probability by a share drawn evenly from 0 to 1. Coverage then is exact rather
                than above the wanted, sets are smaller, and may be empty.
            seed: Of those draws.

        Raises:
            ValueError: If the shapes do not fit, a probability or an argument is outside its range.
        """
        blank = cls((), method, coverage, per_class, randomized)
        labels, probabilities = np.asarray(labels), _check_classes(probabilities)
        classes = probabilities.shape[1]
        if labels.shape != probabilities.shape[:1]:
            raise ValueError(f"labels must be (samples,), one a row of probabilities, got {labels.shape}.")
        if not np.issubdtype(labels.dtype, np.integer) or not ((labels >= 0) & (labels < classes)).all():
            raise ValueError(f"labels must be integers from 0 to {classes - 1}.")
        # The draws of `sets` must not repeat those of `fit`: the new photograph would not be as independent as the others.
        own = blank._scores(probabilities, np.random.default_rng([0, seed]))[np.arange(len(labels)), labels]
        parts = [own[labels == c] for c in range(classes)] if per_class else [own] * classes
        thresholds = tuple(_quantile(part, coverage) for part in parts)
        counts = tuple(np.bincount(labels, minlength=classes).tolist())
        return cls(thresholds, method, coverage, per_class, randomized, counts)

    def sets(self, probabilities: Any, *, seed: int = 0) -> np.ndarray:
        """Return which classes belong to each photograph's set.

        Args:
            probabilities: `(samples, classes)`, as for `fit`.
            seed: Of the draws of randomized APS; another one for each batch.

        Returns:
            `(samples, classes)`, bool.

        Raises:
            ValueError: If the number of classes is not that of `fit`, or a probability is outside its range.
        """
        probabilities = _check_classes(probabilities)
        if probabilities.shape[1] != len(self.thresholds):
            raise ValueError(
                f"probabilities must have {len(self.thresholds)} classes, as in fit, got {probabilities.shape[1]}."
            )
        return self._scores(probabilities, np.random.default_rng([1, seed])) <= np.array(self.thresholds)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; an infinite threshold becomes None."""
        return {**asdict(self), "thresholds": [q if math.isfinite(q) else None for q in self.thresholds]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`, also after a round trip through JSON."""
        thresholds = tuple(math.inf if q is None else float(q) for q in values["thresholds"])
        return cls(**{**values, "thresholds": thresholds, "counts": tuple(values["counts"])})

    def _scores(self, probabilities: np.ndarray, random: np.random.Generator) -> np.ndarray:
        if self.method == "lac":
            return 1.0 - probabilities
        # Of equal probabilities the first class counts as the likelier one, in `fit` and in `sets` alike.
        order = np.argsort(-probabilities, axis=1, kind="stable")
        ranked = np.take_along_axis(probabilities, order, axis=1)
        before = np.cumsum(ranked, axis=1) - ranked
        share = random.uniform(size=(len(probabilities), 1)) if self.randomized else 1.0
        scores = np.empty_like(probabilities)
        np.put_along_axis(scores, order, before + share * ranked, axis=1)
        return scores


def coverage_interval(coverage: float, *, calibration: int, test: int, level: float = 0.95) -> tuple[float, float]:
    """Return between which shares the coverage realised on fresh photographs should lie.

    Over draws of both parts the number covered follows a beta-binomial law: with k = ceil((n + 1) coverage), of `test`
    photographs, parameters k and n + 1 - k. A share outside says that the parts differ, or that the code is wrong; it is exact
    for scores without ties, which only ever raise the coverage.

    Args:
        coverage: What was asked of `ConformalClassifier.fit`, between 0 and 1.
        calibration: Photographs that set the threshold; of the class, with `per_class`.
        test: Photographs that the share is counted on; of the class, with `per_class`.
        level: Probability of lying within, between 0 and 1.

    Returns:
        The two ends; both 1 where the calibration photographs are too few, so that every set holds every class.

    Raises:
        ValueError: If an argument is outside its range.

    Examples:
        >>> coverage_interval(0.9, calibration=500, test=500)
        (0.86, 0.934)

    References:
        Vovk, 2012, "Conditional validity of inductive conformal predictors", proposition 2; Angelopoulos and Bates, 2023,
        "Conformal prediction: a gentle introduction", appendix C.
    """
    _check_share("coverage", coverage)
    _check_share("level", level)
    if calibration < 1 or test < 1:
        raise ValueError(f"calibration and test must be at least 1, got {calibration!r} and {test!r}.")
    rank = _rank(calibration, coverage)
    if rank > calibration:
        return 1.0, 1.0
    from scipy import stats  # half a second, which a prediction does without

    covered = stats.betabinom(test, rank, calibration + 1 - rank)
    return float(covered.ppf((1 - level) / 2)) / test, float(covered.ppf((1 + level) / 2)) / test


@dataclass(frozen=True, slots=True)
class MaskRiskControl:
    """Set the threshold of a mask so that the share of a lesion that it misses is at most `level`, on average.

    L_i(t) is the share of lesion i's pixels whose probability is not above t; it never falls as t rises. The largest t with
    n / (n + 1) mean_i L_i(t) + 1 / (n + 1) <= level makes the expected share missed of a new lesion at most `level`, if it is
    exchangeable with the n. It is a mean over lesions: a single one may be missed altogether. And it says nothing of the skin
    that is marked besides: look at the Jaccard index that the threshold costs.

    Args:
        threshold: t, for `probability > t`; what `Predictor` takes.
        level: What was asked for.
        risk: Mean share missed at that threshold on the part that set it.
        samples: Lesions in that part.

    References:
        Angelopoulos, Bates, Fisch, Lei and Schuster, 2024, "Conformal risk control" (first 2022), equation 4 and section 3.1,
        with B = 1. Deviation: t is sought on 2401 values, evenly spaced in the logit from -12 to 12.
    """

    threshold: float
    level: float
    risk: float
    samples: int

    @classmethod
    def fit(cls, probability_masks: Iterable[Any], true_masks: Iterable[Any], *, level: float = 0.1) -> Self:
        """Seek the threshold, with one photograph in memory at a time.

        Args:
            probability_masks: `(height, width)` or `(height, width, 1)` each, 0 to 1, of any sizes; generators will do.
            true_masks: 0 or 1, of the same shapes. A photograph without lesion has nothing to miss: it is passed over, and
                the statement is about photographs with one.
            level: Largest wanted share missed, between 0 and 1. It needs 1 / level - 1 lesions or more.

        Raises:
            ValueError: If there are too few lesions for the level, or no threshold reaches it; if one iterable ends before
                the other, shapes differ, or a value is outside its range.

        Examples:
            >>> masks = [np.array([[0.9, 0.8], [0.6, 0.1]])] * 20
            >>> control = MaskRiskControl.fit(masks, [np.array([[1, 1], [1, 0]])] * 20)
            >>> round(control.threshold, 2), control.risk
            (0.6, 0.0)
        """
        _check_share("level", level)
        missed, samples = np.zeros(len(_GRID)), 0
        end = object()
        for position, (probability, true) in enumerate(itertools.zip_longest(probability_masks, true_masks, fillvalue=end)):
            if probability is end or true is end:
                raise ValueError(f"probability_masks and true_masks must be equally many; one has only {position}.")
            pixels = _lesion_pixels(np.asarray(probability), np.asarray(true), position)
            if pixels.size:
                # The first threshold at which each pixel is missed.
                first = np.searchsorted(_GRID, pixels)
                missed += np.cumsum(np.bincount(first, minlength=len(_GRID) + 1)[:-1]) / pixels.size
                samples += 1
        if (samples + 1) * level < 1 - 1e-9:
            raise ValueError(f"level={level} needs at least {math.ceil(1 / level - 1 - 1e-9)} lesions to hold, got {samples}.")
        allowed = np.flatnonzero((missed + 1.0) / (samples + 1) <= level + 1e-12)
        if not allowed.size:
            raise ValueError(
                f"level={level} is not reached by any threshold: the model gives too many lesion pixels a probability near 0."
            )
        best = allowed[-1]
        return cls(float(_GRID[best]), level, float(missed[best] / samples), samples)

    def mask(self, probability: Any) -> np.ndarray:
        """Return the mask, bool, of probabilities of any shape."""
        return np.asarray(probability) > self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Rejection:
    """From which uncertainty on a photograph goes to a colleague.

    Args:
        threshold: The largest uncertainty that is still accepted.
        coverage: Share of the validation part that is accepted.
        risk: Mean error of the accepted.
        samples: Photographs in that part.
    """

    threshold: float
    coverage: float
    risk: float
    samples: int

    def refer(self, uncertainty: Any) -> np.ndarray:
        """Return whom to refer, bool; also who has an uncertainty that is no number."""
        return ~(np.asarray(uncertainty) <= self.threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Rebuild from `to_dict`."""
        return cls(**values)


def choose_rejection(errors: Any, uncertainty: Any, *, risk: float | None = None, share: float | None = None) -> Rejection:
    """Choose the uncertainty above which to refer, by what the accepted may cost or by how many may be referred.

    Photographs of equal uncertainty go the same way. The threshold is the one that happens to do best on this part, so expect
    a little more risk on new photographs, and none of the promises of `ConformalClassifier`: report the risk on the test part.

    Args:
        errors: Cost of each photograph of the validation part, `(samples,)`: 0 or 1 for a class, 1 - Jaccard for a mask.
        uncertainty: `(samples,)`, larger for what the model is less sure of: entropy, 1 - expected Jaccard.
        risk: Largest wanted mean error of the accepted, 1 - accuracy for classes; as many as possible are accepted.
        share: Smallest wanted share that is referred, between 0 and 1; no more than ties force are referred beyond it.

    Raises:
        ValueError: If not one of `risk` and `share` is given, the values do not fit, or no threshold gives what is wanted.

    Examples:
        >>> choose_rejection([0, 0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4, 0.9], risk=0.25)
        Rejection(threshold=0.4, coverage=0.8, risk=0.25, samples=5)

    References:
        El-Yaniv and Wiener, 2010, "On the foundations of noise-free selective classification". Geifman and El-Yaniv, 2017,
        "Selective classification for deep neural networks", whose bound on the risk is left out here.
    """
    if (risk is None) == (share is None):
        raise ValueError("choose_rejection wants risk or share, one of the two.")
    uncertainty = np.asarray(uncertainty, dtype=np.float64)
    coverage, risks = risk_coverage_curve(errors, -uncertainty)
    ordered = np.sort(uncertainty)
    complete = np.append(ordered[1:] > ordered[:-1], True)  # no part of a tie
    if risk is not None:
        wanted = complete & (risks <= risk + 1e-12)
        reason = f"risk={risk} is not reached: the surest {complete.argmax() + 1} have {risks[complete.argmax()]:.3f}."
    else:
        assert share is not None
        _check_share("share", share)
        wanted = complete & (coverage <= 1 - share + 1e-12)
        reason = f"share={share} would refer everything, for the surest {complete.argmax() + 1} are equally uncertain."
    if not wanted.any():
        raise ValueError(reason)
    last = np.flatnonzero(wanted)[-1]
    return Rejection(float(ordered[last]), float(coverage[last]), float(risks[last]), len(ordered))


def _rank(samples: int, coverage: float) -> int:
    # (99 + 1) * 0.55 is 55.00000000000001 in floating point.
    return math.ceil((samples + 1) * coverage - 1e-9)


def _quantile(scores: np.ndarray, coverage: float) -> float:
    rank = _rank(len(scores), coverage)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


def _check_share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}.")


def _check_classes(probabilities: Any) -> np.ndarray:
    probabilities = np.asarray(probabilities, dtype=np.float64)
    if probabilities.ndim != 2 or probabilities.shape[1] < 2:
        raise ValueError(
            f"probabilities must be (samples, classes) with two or more classes, got the shape {probabilities.shape}. For one "
            "sigmoid unit pass np.stack([1 - p, p], axis=1)."
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all() or not np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-2):
        raise ValueError(
            "probabilities must lie between 0 and 1, each row with the sum 1: pass logits through a softmax first."
        )
    return probabilities


def _lesion_pixels(probability: np.ndarray, true: np.ndarray, position: int) -> np.ndarray:
    """Return the probabilities of the lesion's pixels, `(pixels,)`."""
    if probability.ndim == 3 and probability.shape[-1] == 1:
        probability = probability[..., 0]
    if true.ndim == 3 and true.shape[-1] == 1:
        true = true[..., 0]
    if probability.ndim != 2 or probability.shape != true.shape:
        raise ValueError(
            "probability_masks and true_masks must be (height, width) and agree, got "
            f"{probability.shape} and {true.shape} at position {position}."
        )
    if not ((true == 0) | (true == 1)).all():
        raise ValueError(f"true_masks must hold 0 and 1 only, which those at position {position} do not: divide by 255.")
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError(f"probability_masks must lie between 0 and 1, which those at position {position} do not.")
    return probability[true == 1]
