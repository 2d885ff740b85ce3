"""The figures of scored arms, and by how much an arm differs from its control: intervals over lesions, beside the seeds."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import digamma

from benchmarks.fuzzy_comparison.arms import ARMS, LOSSES, NETWORKS, Arm
from dermaseg.errors import DataError
from dermaseg.metrics import Interval, Reliability, area_under_risk_coverage, bootstrap_statistic, paired_bootstrap
from dermaseg.runs import read_json

__all__ = ["FIGURES", "Difference", "Scored", "binned_aurc", "compare", "pixel_aurc", "questions", "read_scored"]


@dataclass(frozen=True, slots=True)
class Scored:
    """One arm and seed, scored on one part.

    Args:
        arm: The arm.
        seed: The seed.
        part: Name of the part.
        ids: Of the photographs, `(photographs,)`.
        groups: Lesion of each photograph.
        rows: Each figure of each photograph, NaN where it has none.
        counts: Pixel counts of each photograph, `(photographs, bins)`.
        training: What `training.json` says.
    """

    arm: Arm
    seed: int
    part: str
    ids: tuple[str, ...]
    groups: np.ndarray
    rows: dict[str, np.ndarray]
    counts: dict[str, np.ndarray]
    training: dict[str, Any]

    def pooled(self, key: str, weights: np.ndarray | None = None) -> np.ndarray:
        """Add the counts of all photographs, each `weights` times."""
        counts = self.counts[key]
        return counts.sum(axis=0) if weights is None else weights @ counts


@dataclass(frozen=True, slots=True)
class Figure:
    """A column of the tables.

    Args:
        title: Its head.
        meaning: One line for readers.
        higher: Whether higher is better.
        digits: After the point.
        column: The per-photograph figure whose mean it is; None where it is a figure of the whole part.
        whole: Of the whole part: from the scores and positions of photographs, with repeats, to the figure.
    """

    title: str
    meaning: str
    higher: bool
    digits: int = 4
    column: str | None = None
    whole: Callable[[Scored, np.ndarray], float] | None = None

    def value(self, scored: Scored) -> float:
        """Return the figure of one arm and seed."""
        if self.whole is not None:
            return self.whole(scored, np.arange(len(scored.ids)))
        return float(np.nanmean(scored.rows[str(self.column)]))


def _calibration_error(scored: Scored, positions: np.ndarray) -> float:
    times = np.bincount(positions, minlength=len(scored.ids))
    return Reliability(*(scored.pooled(key, times) for key in ("count", "probability_sum", "outcome_sum"))).calibration_error


def pixel_aurc(scored: Scored, positions: np.ndarray, uncertainty: str = "mask") -> float:
    """Return the area under the risk-coverage curve of all pixels, ranked by `"mask"` or by the entropy of the `"rules"`."""
    times = np.bincount(positions, minlength=len(scored.ids))
    return binned_aurc(scored.pooled(f"{uncertainty}_pixels", times), scored.pooled(f"{uncertainty}_wrong", times))


def _photograph_aurc(scored: Scored, positions: np.ndarray) -> float:
    return area_under_risk_coverage(1.0 - scored.rows["jaccard"][positions], -scored.rows["doubt"][positions])


FIGURES = {
    "jaccard": Figure("Jaccard", "mean over photographs of the hard Jaccard index at their own size", True, column="jaccard"),
    "thresholded_jaccard": Figure(
        "thresholded Jaccard", "the same, 0 where it is below 0.65", True, column="thresholded_jaccard"
    ),
    "boundary_jaccard": Figure(
        "boundary Jaccard", "Jaccard index of the bands along the outlines", True, column="boundary_jaccard"
    ),
    "hausdorff95_px": Figure(
        "Hausdorff 95 % [px]", "larger 95th percentile of the distance between the outlines", False, 2, "hausdorff95_px"
    ),
    "calibration_error": Figure(
        "pixel calibration error", "expected calibration error of all pixels, 15 bins", False, 5, whole=_calibration_error
    ),
    "pixel_aurc": Figure(
        "pixel AURC",
        "mean error rate of the pixels that are kept when the most uncertain by 1 - |2 p - 1| go first, over all shares kept",
        False,
        6,
        whole=pixel_aurc,
    ),
    "photograph_aurc": Figure(
        "photograph AURC",
        "the same for 1 - Jaccard of photographs, the most doubtful first: by 1 - soft Jaccard of p with its own mask",
        False,
        5,
        whole=_photograph_aurc,
    ),
}


@dataclass(frozen=True, slots=True)
class Difference:
    """What one figure of an arm is more or less than that of its control.

    Args:
        figure: Key of `FIGURES`.
        interval: Mean difference over the seeds, with its interval over lesions.
        by_seed: The difference of each seed.
        left_out: Photographs without a value in one of the runs.
    """

    figure: str
    interval: Interval
    by_seed: tuple[float, ...]
    left_out: int = 0

    @property
    def verdict(self) -> str:
        """`"better"` or `"worse"` only if the interval excludes 0 and every one of two or more seeds has that sign."""
        if len(self.by_seed) < 2:
            return "one seed"
        up = self.interval.low > 0 and min(self.by_seed) > 0
        down = self.interval.high < 0 and max(self.by_seed) < 0
        if not (up or down):
            return "not shown"
        return "better" if up == FIGURES[self.figure].higher else "worse"

    def __str__(self) -> str:
        digits = FIGURES[self.figure].digits
        value, low, high = (f"{number:+.{digits}f}" for number in (self.interval.value, self.interval.low, self.interval.high))
        return f"{value} [{low}, {high}] {self.verdict}"


def binned_aurc(pixels: np.ndarray, wrong: np.ndarray) -> float:
    """Return the area under the risk-coverage curve of pixels counted by confidence, the least sure bin first.

    Within a bin wrong pixels are spread evenly, as `risk_coverage_curve` has it for ties: with N pixels and E wrong ones
    before a bin of n at the error rate r, the sum over k = N + 1 ... N + n of (E + (k - N) r) / k is
    n r + (E - N r) (H(N + n) - H(N)), H the harmonic numbers.
    """
    filled = pixels > 0
    n, e = pixels[filled][::-1].astype(float), wrong[filled][::-1].astype(float)
    rate = e / n
    before, wrong_before = np.cumsum(n) - n, np.cumsum(e) - e
    harmonic = digamma(before + n + 1) - digamma(before + 1)
    return float((n * rate + (wrong_before - before * rate) * harmonic).sum() / n.sum())


def read_scored(output: Path, part: str) -> list[Scored]:
    """Read every run that was scored on a part, the best-known arms first.

    Raises:
        DataError: If two runs were scored on different photographs.
    """
    found = []
    for card in sorted((output / "runs").glob(f"*/{part}.json")):
        saved = read_json(card)
        with card.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        with np.load(card.with_suffix(".npz")) as arrays:
            counts = dict(arrays)
        figures = [name for name in table[0] if name not in ("id", "group")]
        found.append(
            Scored(
                Arm.parse(saved["arm"]),
                int(saved["seed"]),
                part,
                tuple(row["id"] for row in table),
                np.array([int(row["group"]) for row in table]),
                {name: np.array([float(row[name]) for row in table]) for name in figures},
                counts,
                read_json(card.with_name("training.json")),
            )
        )
        if found[-1].ids != found[0].ids:
            raise DataError(f"{card}: not the photographs of {found[0].arm}, seed {found[0].seed}. Score them again.")
    return sorted(found, key=lambda scored: (_rank(scored.arm), scored.seed))


def questions(arms: Sequence[Arm]) -> Iterator[tuple[str, Arm, Arm]]:
    """Yield what the arms at hand can answer: the question, the arm, and the control that differs in just that."""
    networks, losses = list(NETWORKS), list(LOSSES)
    asked = [
        *(("the fuzzy loss", Arm(network, "fuzzy"), Arm(network, "overlap")) for network in networks),
        ("the calibration of the fuzzy loss, against soft Dice", Arm("unet", "fuzzy"), Arm("unet", "dice")),
        ("the fuzzy overlap, beyond a soft target", Arm("unet", "fuzzy"), Arm("unet", "soft")),
        ("a soft target, without overlap terms", Arm("unet", "soft"), Arm("unet", "crossentropy")),
        ("the soft Jaccard term", Arm("unet", "overlap"), Arm("unet", "crossentropy")),
        *(("the fuzzy gates", Arm("fuzzy", loss), Arm("unet", loss)) for loss in losses),
        *(("the fuzzy gates, beyond their parameters", Arm("fuzzy", loss), Arm("wide", loss)) for loss in losses),
        *(("the fuzzy gates, beyond attention", Arm("fuzzy", loss), Arm("attention", loss)) for loss in losses),
        *(("the Gaussian sets, beyond hyperplanes", Arm("fuzzy", loss), Arm("linear", loss)) for loss in losses),
        *(("gates that leave the identity faster", Arm("eager", loss), Arm("fuzzy", loss)) for loss in losses),
        *(("gates for each pixel", Arm("pixel", loss), Arm("fuzzy", loss)) for loss in losses),
        *(("a gate on the coarsest map", Arm("bottleneck", loss), Arm("fuzzy", loss)) for loss in losses),
        *(("three times the rules", Arm("rules", loss), Arm("fuzzy", loss)) for loss in losses),
        ("gates and loss together", Arm("fuzzy", "fuzzy"), Arm("unet", "overlap")),
    ]
    yield from (row for row in asked if row[1] in arms and row[2] in arms)


def compare(first: Sequence[Scored], second: Sequence[Scored], *, resamples: int = 2000) -> list[Difference]:
    """Compare an arm with its control on the seeds that both have, lesion by lesion.

    Args:
        first: The arm, one entry a seed.
        second: The control.
        resamples: Bootstrap resamples of lesions; figures of the whole part get a quarter of them.
    """
    pairs = [(a, b) for a in first for b in second if a.seed == b.seed]
    if not pairs:
        return []
    groups = pairs[0][0].groups
    found = []
    for key, figure in FIGURES.items():
        if figure.whole is None:
            values = np.array([[scored.rows[str(figure.column)] for scored in pair] for pair in pairs])
            known = np.isfinite(values).all(axis=(0, 1))
            if not known.any():
                continue
            mine, theirs = values[:, 0, known], values[:, 1, known]
            interval = paired_bootstrap(mine.mean(axis=0), theirs.mean(axis=0), groups=groups[known], resamples=resamples)
            by_seed = tuple((mine - theirs).mean(axis=1).tolist())
            found.append(Difference(key, interval, by_seed, int((~known).sum())))
        else:
            interval, by_seed = _whole_difference(figure.whole, pairs, groups, max(1, resamples // 4))
            found.append(Difference(key, interval, by_seed))
    return found


def _whole_difference(
    whole: Callable[[Scored, np.ndarray], float],
    pairs: Sequence[tuple[Scored, Scored]],
    groups: np.ndarray,
    resamples: int,
) -> tuple[Interval, tuple[float, ...]]:
    def by_seed(positions: np.ndarray) -> list[float]:
        return [whole(a, positions) - whole(b, positions) for a, b in pairs]

    interval = bootstrap_statistic(
        lambda positions: float(np.mean(by_seed(positions))), len(groups), groups=groups, resamples=resamples
    )
    return interval, tuple(by_seed(np.arange(len(groups))))


def _rank(arm: Arm) -> tuple[int, str]:
    return (ARMS.index(arm) if arm in ARMS else len(ARMS), str(arm))
