"""Masks that miss no more of a lesion than wanted, on average."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from dermaseg.conformal.checks import check_share

__all__ = ["MaskRiskControl"]

# Evenly spaced in the logit: networks put most of their pixels near 0 and 1. Rounded to float32, the type of masks, so that
# `probability > threshold` decides the same wherever NumPy compares in float32. And -1, at which nothing is missed: theorem 1
# wants a threshold that keeps the level whatever the network.
_GRID = np.append(-1.0, (1 / (1 + np.exp(-np.linspace(-12.0, 12.0, 2401)))).astype(np.float32))


@dataclass(frozen=True, slots=True)
class MaskRiskControl:
    """Set the threshold of a mask so that the share of a lesion that it misses is at most `level`, on average.

    L_i(t) is the share of lesion i's pixels whose probability is not above t; it never falls as t rises. The largest t with
    n / (n + 1) mean_i L_i(t) + 1 / (n + 1) <= level makes the expected share missed of a new lesion at most `level`, if it is
    exchangeable with the n. It is a mean over lesions: a single one may be missed altogether. And it says nothing of the skin
    that is marked besides: look at the Jaccard index that the threshold costs. Where the network gives too many pixels of
    lesions a probability near 0, only the whole photograph misses little enough: the threshold is then -1.

    Args:
        threshold: t, for `probability > t`: what `Predictor` takes, but for -1, the whole photograph.
        level: What was asked for.
        risk: Mean share missed at that threshold on the part that set it.
        samples: Lesions in that part.

    References:
        Angelopoulos, Bates, Fisch, Lei and Schuster, 2024, "Conformal risk control" (first 2022), equation 4, theorem 1 and
        section 3.1, with B = 1. Deviation: t is sought on 2401 values, evenly spaced in the logit from -12 to 12, and -1.
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
            ValueError: If there are too few lesions for the level, one iterable ends before the other, shapes differ, or a
                value is outside its range.

        Examples:
            >>> masks = [np.array([[0.9, 0.8], [0.6, 0.1]])] * 20
            >>> control = MaskRiskControl.fit(masks, [np.array([[1, 1], [1, 0]])] * 20)
            >>> round(control.threshold, 2), control.risk
            (0.6, 0.0)
        """
        check_share("level", level)
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
        best = np.flatnonzero((missed + 1.0) / (samples + 1) <= level + 1e-9)[-1]
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
