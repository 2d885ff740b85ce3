"""Bootstrap intervals over lesions: photographs of one lesion are not independent, so lesions are resampled."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Interval", "bootstrap_interval", "bootstrap_statistic", "paired_bootstrap"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its bootstrap interval.

    Args:
        value: The figure on all of the data.
        low: Lower end; NaN where the data say nothing of the figure's spread, as one group alone.
        high: Upper end; NaN as the lower one.
        level: Coverage that the interval is built for.
        count: Values behind the figure.
        groups: Independent groups among them.

    Examples:
        >>> print(Interval(0.9012, 0.8961, 0.9058, level=0.95, count=1278, groups=1120))
        0.901 [0.896, 0.906]
        >>> print(bootstrap_interval(np.array([0.25, 0.75]), groups=np.array(["one lesion", "one lesion"])))
        0.500
    """

    value: float
    low: float
    high: float
    level: float
    count: int
    groups: int

    def __str__(self) -> str:
        value = f"{self.value:.3f}"
        return value if math.isnan(self.low) else f"{value} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap_interval(
    values: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return a mean with its percentile interval, resampling whole groups with replacement.

    Args:
        values: `(samples,)`, finite.
        groups: `(samples,)`, the group (lesion) of each value; None takes each value for itself.
        level: Wanted coverage, between 0 and 1.
        resamples: Bootstrap resamples, at least 1.
        seed: Seed of the resampling.

    Returns:
        The mean over the values, and the interval of the resampled means; of one group there is none, so that it is NaN.

    Raises:
        ValueError: If there are no values, some are not finite, a group is missing (None or NaN), shapes differ, or `level` or
            `resamples` is outside its range.

    Examples:
        >>> interval = bootstrap_interval(np.arange(100.0))
        >>> interval.low < interval.value < interval.high
        True

    References:
        Efron and Tibshirani, 1993, "An introduction to the bootstrap", chapter 13; Field and Welsh, 2007,
        "Bootstrapping clustered data" (the cluster bootstrap).
    """
    values = np.asarray(values, dtype=float)
    index, count = _groups(values, groups)
    sums = np.bincount(index, weights=values, minlength=count)
    sizes = np.bincount(index, minlength=count).astype(float)
    means = [sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1) for drawn in _draws(count, resamples, seed)]
    return _interval(float(values.mean()), np.concatenate(means), level, len(values), count)


def bootstrap_statistic(
    statistic: Callable[[np.ndarray], Any],
    samples: int,
    *,
    weighted: bool = False,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 500,
    seed: int = 0,
) -> Interval:
    """Return any statistic with its percentile interval, resampling whole groups with replacement.

    Args:
        statistic: From positions `(n,)`, with repeats, to a number; a resample for which it is not finite is dropped, as for
            an AUC without a positive. Or, where `weighted`, from how often each sample was drawn in each of some resamples,
            `(resamples, samples)`, to a number for each of them.
        samples: How many positions there are.
        weighted: What `statistic` takes. One that can be written as products and sums over samples is then many times faster.
        groups: As for `bootstrap_interval`.
        level: As for `bootstrap_interval`.
        resamples: As for `bootstrap_interval`.
        seed: As for `bootstrap_interval`.

    Returns:
        The statistic of all positions, and the interval of the finite resampled ones. There is none, so that it is NaN, of one
        group; where no resample is finite; and where some are not and all others agree: the figure then hangs on a few groups,
        as the sensitivity for a class of one lesion does.

    Raises:
        ValueError: If `samples` is 0, or as for `bootstrap_interval`.

    Examples:
        >>> values = np.arange(100.0)
        >>> interval = bootstrap_statistic(lambda positions: float(np.median(values[positions])), len(values))
        >>> interval.value, interval.low < interval.value < interval.high
        (49.5, True)
        >>> mean = bootstrap_statistic(lambda drawn: drawn @ values / drawn.sum(axis=1), len(values), weighted=True)
        >>> mean.value, mean.low < mean.value < mean.high
        (49.5, True)
    """
    everything = np.arange(samples)
    index, count = _groups(everything.astype(float), groups)
    if weighted:
        found = np.concatenate([statistic(_times(drawn, count)[:, index]) for drawn in _draws(count, resamples, seed)])
        value = float(statistic(np.ones((1, samples)))[0])
    else:
        members = np.split(np.argsort(index, kind="stable"), np.cumsum(np.bincount(index, minlength=count))[:-1])
        drawn_groups = (resample for drawn in _draws(count, resamples, seed) for resample in drawn)
        found = np.array([statistic(np.concatenate([members[group] for group in drawn])) for drawn in drawn_groups], float)
        value = float(statistic(everything))
    finite = found[np.isfinite(found)]
    spread = finite.size == found.size or (finite.size and np.ptp(finite) > 0)
    return _interval(value, finite if spread else np.array([math.nan]), level, samples, count)


def paired_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean difference `first - second` on the same photographs, with its interval over groups.

    Two models meet the same easy and hard lesions; pairing takes that spread out of the difference.

    Args:
        first: `(samples,)`, scores of one model.
        second: `(samples,)`, scores of the other, in the same order.
        groups: As for `bootstrap_interval`.
        level: As for `bootstrap_interval`.
        resamples: As for `bootstrap_interval`.
        seed: As for `bootstrap_interval`.

    Returns:
        The mean difference, above 0 where the first is larger, with the interval of its resampled means.

    Raises:
        ValueError: If the shapes differ, or as for `bootstrap_interval`.

    Examples:
        >>> print(paired_bootstrap(np.array([0.75, 0.5]), np.array([0.5, 0.25])))
        0.250 [0.250, 0.250]
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"paired scores must have one shape, got {first.shape} and {second.shape}.")
    return bootstrap_interval(first - second, groups=groups, level=level, resamples=resamples, seed=seed)


def _groups(values: np.ndarray, groups: np.ndarray | None) -> tuple[np.ndarray, int]:
    if values.ndim != 1 or not values.size:
        raise ValueError(f"values must have shape (samples,) with at least one sample, got {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError("values must be finite: leave out those that are not known, and say how many.")
    if groups is None:
        return np.arange(len(values)), len(values)
    names = np.asarray(groups)
    if names.shape != values.shape:
        raise ValueError(f"groups must have the shape of values, got {names.shape} and {values.shape}.")
    # Of the groups as they came: beside text in a list, NumPy makes text of a NaN. NaN alone differs from itself.
    missing = sum(group is None or group != group for group in groups)
    if missing:
        raise ValueError(
            f"groups lacks {missing} of {len(names)} values: give each photograph of an unknown lesion a group of its own."
        )
    names, index = np.unique(names, return_inverse=True)
    return index, len(names)


def _draws(groups: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Yield the groups that each resample holds, `(resamples in the block, groups)`."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples!r}.")
    random = np.random.default_rng(seed)
    block = max(1, 2**20 // groups)
    for start in range(0, resamples, block):
        yield random.integers(0, groups, (min(block, resamples - start), groups), dtype=np.int32)


def _times(drawn: np.ndarray, groups: int) -> np.ndarray:
    """How often each group stands in each row of `_draws`, `(resamples, groups)`."""
    rows = np.arange(len(drawn))[:, None] * groups
    return np.bincount((drawn + rows).ravel(), minlength=drawn.size).reshape(drawn.shape).astype(float)


def _interval(value: float, found: np.ndarray, level: float, count: int, groups: int) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}.")
    low, high = (math.nan, math.nan) if groups == 1 else np.quantile(found, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(value, low, high, level, count, groups)
