"""Sets of classes that hold the true one as often as wanted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np

from dermaseg.conformal.checks import check_share
from dermaseg.metrics.ratios import share_of

__all__ = ["ConformalClassifier", "coverage_interval"]

METHODS = ("lac", "aps")


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
        check_share("coverage", self.coverage)

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
                which grow with how hard the photograph is. The likeliest class is in every set, also where it is likelier
                than q, unless `randomized`.
            per_class: Set each class's threshold on its own photographs, so that the coverage holds within every class. A
                class with fewer than coverage / (1 - coverage) photographs then belongs to every set.
            randomized: For APS: count y's own probability by a share drawn evenly from 0 to 1. Coverage is then exact instead
                of at least as wanted; sets are smaller, and may be empty.
            seed: Seed of those draws.

        Raises:
            ValueError: If the shapes do not fit, a probability or an argument is outside its range.
        """
        blank = cls((), method, coverage, per_class, randomized)
        labels, probabilities = np.asarray(labels), _check_classes(probabilities)
        classes = probabilities.shape[1]
        if labels.shape != probabilities.shape[:1]:
            raise ValueError(f"labels must be (samples,), one per row of probabilities, got {labels.shape}.")
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
            seed: Seed of the draws of randomized APS; another one for each batch.

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
        sets = self._scores(probabilities, np.random.default_rng([1, seed])) <= np.array(self.thresholds)
        if self.method == "aps" and not self.randomized:
            # The class that carries the sum over q still belongs to the set: else the surest photographs would have none.
            sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
        return sets

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
    for scores without ties, which only ever raise the coverage. For APS that is not randomized the lower end alone holds: its
    sets always name the likeliest class, which may cover more than was asked.

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
    check_share("coverage", coverage)
    check_share("level", level)
    if calibration < 1 or test < 1:
        raise ValueError(f"calibration and test must be at least 1, got {calibration!r} and {test!r}.")
    rank = _rank(calibration, coverage)
    if rank > calibration:
        return 1.0, 1.0
    from scipy import stats  # half a second, which a prediction does without

    covered = stats.betabinom(test, rank, calibration + 1 - rank)
    return float(covered.ppf((1 - level) / 2)) / test, float(covered.ppf((1 + level) / 2)) / test


def _rank(samples: int, coverage: float) -> int:
    return int(share_of(samples + 1, coverage))


def _quantile(scores: np.ndarray, coverage: float) -> float:
    rank = _rank(len(scores), coverage)
    return float(np.partition(scores, rank - 1)[rank - 1]) if rank <= len(scores) else math.inf


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
