"""From a value to its membership in a fuzzy set, and how undecided a membership is."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

__all__ = [
    "bell_membership",
    "fuzzy_entropy",
    "gaussian_membership",
    "sigmoid_membership",
    "trapezoid_membership",
    "triangular_membership",
]


def gaussian_membership(x: Any, center: Any, width: Any) -> Any:
    """Return exp(-1/2 ((x - center) / width)^2): 1 at the centre, 0.61 one `width` away.

    Args:
        x: Values, any shape.
        center: Where the membership is 1; broadcasts with `x`.
        width: Standard deviation, in the unit of `x`, above 0; broadcasts with `x`. It is not checked, for it may be a weight
            that is trained.

    Returns:
        Memberships in [0, 1].

    Examples:
        >>> round(float(gaussian_membership(3.0, 2.0, 1.0)), 2)
        0.61
    """
    return ops.exp(-0.5 * ops.square((x - center) / width))


def bell_membership(x: Any, center: Any, width: Any, slope: float) -> Any:
    """Return 1 / (1 + |(x - center) / width|^(2 slope)): 1/2 one `width` away, flatter on top as `slope` grows.

    Args:
        x: Values, any shape.
        center: Where the membership is 1; broadcasts with `x`.
        width: Distance from the centre at which it is 1/2, in the unit of `x`, above 0 (not checked).
        slope: Half the exponent, above 0 (not checked); towards infinity the bell becomes an interval. Below 1/2 the bell has a
            cusp at its centre, where its gradient is taken as 0.

    Returns:
        Memberships in [0, 1].

    Examples:
        >>> float(bell_membership(3.0, 2.0, 1.0, 4.0))
        0.5
    """
    squared = ops.square((x - center) / width)
    away = squared > 0
    # The slope of a power below 1 is infinite at 0, and must not be looked at even where it is not taken.
    power = ops.power(ops.where(away, squared, ops.ones_like(squared)), slope)
    return 1.0 / (1.0 + ops.where(away, power, ops.zeros_like(squared)))


def sigmoid_membership(x: Any, center: Any, slope: Any) -> Any:
    """Return 1 / (1 + exp(-slope (x - center))): an open-ended "large" (slope > 0) or "small" (slope < 0).

    Args:
        x: Values, any shape.
        center: Where the membership is 1/2; broadcasts with `x`.
        slope: Steepness, in one over the unit of `x`, of either sign; the gradient at the centre is slope / 4.

    Returns:
        Memberships in [0, 1].

    Examples:
        >>> float(sigmoid_membership(2.0, 2.0, 5.0))
        0.5
    """
    return ops.sigmoid(slope * (x - center))


def triangular_membership(x: Any, left: float, peak: float, right: float) -> Any:
    """Return the triangle that rises from `left` to 1 at `peak` and falls to `right`.

    Args:
        x: Values, any shape.
        left: Below it the membership is 0.
        peak: Where it is 1.
        right: Above it the membership is 0.

    Returns:
        Memberships in [0, 1], the shape of `x`.

    Raises:
        ValueError: If not left <= peak <= right.

    Examples:
        >>> ops.convert_to_numpy(triangular_membership(ops.array([0.0, 0.5, 1.5, 4.0]), 0, 1, 2)).tolist()
        [0.0, 0.5, 0.5, 0.0]
    """
    return trapezoid_membership(x, left, peak, peak, right)


def trapezoid_membership(x: Any, left: float, top_left: float, top_right: float, right: float) -> Any:
    """Return the trapezoid that rises from `left`, is 1 from `top_left` to `top_right`, and falls to `right`.

    Equal neighbours make an upright side, whose edge belongs to the set.

    Args:
        x: Values, any shape.
        left: Below it the membership is 0.
        top_left: From here on it is 1.
        top_right: Up to here it is 1.
        right: Above it the membership is 0.

    Returns:
        Memberships in [0, 1], the shape of `x`.

    Raises:
        ValueError: If not left <= top_left <= top_right <= right.

    Examples:
        >>> ops.convert_to_numpy(trapezoid_membership(ops.array([0.0, 0.5, 1.5, 4.0]), 0, 1, 2, 4)).tolist()
        [0.0, 0.5, 1.0, 0.0]
    """
    if not left <= top_left <= top_right <= right:
        raise ValueError(f"A trapezoid's corners must not fall, got {(left, top_left, top_right, right)}.")
    rise = ops.where(ops.greater_equal(x, top_left), 1.0, (x - left) / (top_left - left or 1.0))
    fall = ops.where(ops.less_equal(x, top_right), 1.0, (right - x) / (right - top_right or 1.0))
    return ops.clip(ops.minimum(rise, fall), 0.0, 1.0)


def fuzzy_entropy(mu: Any) -> Any:
    """Return De Luca and Termini's entropy of each membership, -[mu ln mu + (1 - mu) ln(1 - mu)] / ln 2.

    How undecided a membership is: exactly 0 at 0 and 1, 1 at 1/2, the same for a set and its complement, and larger for a
    set that is nearer 1/2 everywhere. The slope, infinite at 0 and 1, is held below 25 by a floor of 1e-7 in the logarithm.

    Args:
        mu: Memberships in [0, 1], float32 or wider.

    Returns:
        Entropies in [0, 1], the shape of `mu`.

    Examples:
        >>> ops.convert_to_numpy(fuzzy_entropy(ops.array([0.0, 0.5, 1.0]))).tolist()
        [0.0, 1.0, 0.0]

    References:
        De Luca and Termini, 1972, "A definition of a nonprobabilistic entropy in the setting of fuzzy sets theory",
        equation 8, with K = 1 / ln 2 for each element.
    """
    rest = 1.0 - mu
    nats = -mu * ops.log(ops.maximum(mu, 1e-7)) - rest * ops.log(ops.maximum(rest, 1e-7))
    return nats / math.log(2.0)
