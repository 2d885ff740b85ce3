"""Whom to refer: the level of doubt from which on a photograph goes to a colleague."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from dermaseg.conformal.checks import check_share
from dermaseg.metrics.selective import risk_coverage_curve

__all__ = ["Rejection", "choose_rejection"]


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
        """Return which photographs to refer, bool: those above the threshold, and those whose uncertainty is NaN."""
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

    Returns:
        The largest uncertainty to accept, the share of this part that it accepts and their mean error; its `refer` judges other
        photographs.

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
        check_share("share", share)
        wanted = complete & (coverage <= 1 - share + 1e-12)
        reason = f"share={share} would refer everything, for the surest {complete.argmax() + 1} are equally uncertain."
    if not wanted.any():
        raise ValueError(reason)
    last = np.flatnonzero(wanted)[-1]
    return Rejection(float(ordered[last]), float(coverage[last]), float(risks[last]), len(ordered))
