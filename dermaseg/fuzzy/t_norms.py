"""The fuzzy "and" and "or" of two memberships: t-norms, and the t-conorms dual to them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

__all__ = [
    "T_NORMS",
    "frank_t_norm",
    "godel_t_norm",
    "hamacher_t_norm",
    "lukasiewicz_t_norm",
    "product_t_norm",
    "t_conorm",
    "t_norm",
]


def godel_t_norm(p: Any, mu: Any) -> Any:
    """Return min(p, mu), the largest t-norm and the only one with T(p, p) = p.

    Args:
        p: Memberships in [0, 1], any shape.
        mu: Memberships in [0, 1], of a shape that broadcasts with `p`.

    Returns:
        Memberships in [0, 1], the shape of both together.

    Examples:
        >>> float(godel_t_norm(0.75, 0.5))
        0.5
    """
    return ops.minimum(p, mu)


def product_t_norm(p: Any, mu: Any) -> Any:
    """Return p mu, the "and" of independent events.

    Args:
        p: Memberships in [0, 1], any shape.
        mu: Memberships in [0, 1], of a shape that broadcasts with `p`.

    Returns:
        Memberships in [0, 1], the shape of both together.

    Examples:
        >>> float(product_t_norm(0.75, 0.5))
        0.375
    """
    return ops.multiply(p, mu)


def lukasiewicz_t_norm(p: Any, mu: Any) -> Any:
    """Return max(0, p + mu - 1), the smallest t-norm of Frank's family.

    Args:
        p: Memberships in [0, 1], any shape.
        mu: Memberships in [0, 1], of a shape that broadcasts with `p`.

    Returns:
        Memberships in [0, 1], the shape of both together.

    Examples:
        >>> float(lukasiewicz_t_norm(0.75, 0.5))
        0.25
    """
    return ops.maximum(ops.add(p, mu) - 1.0, 0.0)


def frank_t_norm(p: Any, mu: Any, lam: float) -> Any:
    """Return log_lam(1 + (lam^p - 1)(lam^mu - 1) / (lam - 1)), which runs from Gödel to Łukasiewicz.

    Frank's family holds exactly the t-norms with T + S = p + mu (and their ordinal sums), which lets a loss count a union as
    sum p + sum mu - I. As written the formula overflows or cancels for most lam; here it is Gödel's min plus a correction,
    with theta = ln lam < 0, m = min(p, mu) and M = max(p, mu),
    T = m + ln(1 - e^(theta (M - m)) (e^(theta (1 - M)) - 1) (e^(theta m) - 1) / (e^theta - 1)) / theta,
    in which no exponent is positive; lam > 1 follows from T_lam(p, mu) = p - T_(1/lam)(p, 1 - mu).

    Args:
        p: Memberships in [0, 1].
        mu: Memberships in [0, 1].
        lam: At least 0. The limits are exact: 0 is Gödel, 1 the product, infinity Łukasiewicz.

    Returns:
        Memberships in [0, 1], up to rounding.

    Raises:
        ValueError: If `lam` is negative or NaN.

    Examples:
        >>> round(float(frank_t_norm(0.5, 0.5, 4.0)), 4)
        0.2075

    References:
        Frank, 1979, "On the simultaneous associativity of F(x, y) and x + y - F(x, y)". Klement, Mesiar and Pap, 2000,
        "Triangular Norms", example 2.6. Nelsen, 2006, "An Introduction to Copulas", section 2.7, for the reflection.
    """
    if not lam >= 0:
        raise ValueError(f"lam of Frank's t-norm must be at least 0, got {lam!r}.")
    if lam == 0:
        return godel_t_norm(p, mu)
    if lam == 1:
        return product_t_norm(p, mu)
    if lam == math.inf:
        return lukasiewicz_t_norm(p, mu)
    if lam > 1:
        return p - frank_t_norm(p, 1.0 - mu, 1.0 / lam)
    theta = math.log(lam)
    low = ops.minimum(p, mu)
    # Not ops.maximum: its subgradient at p == mu would not match the minimum's on every backend.
    high = ops.add(p, mu) - low
    ratio = ops.expm1(theta * (1.0 - high)) * ops.expm1(theta * low) / math.expm1(theta)
    return low + ops.log1p(-ops.exp(theta * (high - low)) * ratio) / theta


def hamacher_t_norm(p: Any, mu: Any, gamma: float) -> Any:
    """Return p mu / (gamma + (1 - gamma)(p + mu - p mu)), with T(0, 0) = 0.

    The family of rational t-norms: gamma 0 is the Hamacher product, 1 the product, 2 Einstein's product, and infinity the
    drastic product. T + S = p + mu holds for gamma 1 only.

    Args:
        p: Memberships in [0, 1].
        mu: Memberships in [0, 1].
        gamma: At least 0, finite.

    Returns:
        Memberships in [0, 1], up to rounding.

    Raises:
        ValueError: If `gamma` is negative, infinite or NaN.

    Examples:
        >>> round(float(hamacher_t_norm(0.5, 0.5, 2.0)), 4)
        0.2

    References:
        Hamacher, 1978, "Über logische Verknüpfungen unscharfer Aussagen und deren zugehörige Bewertungsfunktionen".
    """
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma of Hamacher's t-norm must be finite and at least 0, got {gamma!r}.")
    both = ops.multiply(p, mu)
    # The same denominator as a sum of two terms that are not negative.
    return ops.divide_no_nan(both, (ops.add(p, mu) - both) + gamma * (1.0 - p) * (1.0 - mu))


T_NORMS: dict[str, Callable[..., Any]] = {
    "godel": godel_t_norm,
    "product": product_t_norm,
    "lukasiewicz": lukasiewicz_t_norm,
    "frank": frank_t_norm,
    "hamacher": hamacher_t_norm,
}
"""The t-norms by name; `"frank"` and `"hamacher"` are families and take a parameter."""

_FAMILIES = {"frank": "lam", "hamacher": "gamma"}


def t_norm(name: str, parameter: float | None = None) -> Callable[[Any, Any], Any]:
    """Return the fuzzy "and" T(p, mu) of a name.

    Args:
        name: A key of `T_NORMS`.
        parameter: lam of `"frank"` or gamma of `"hamacher"`; the others have none.

    Returns:
        A function of p and mu, memberships in [0, 1] that broadcast, as `godel_t_norm` is.

    Raises:
        ValueError: If the name is unknown, a family has no parameter, or another t-norm has one.

    Examples:
        >>> float(t_norm("lukasiewicz")(0.75, 0.5))
        0.25
    """
    if name not in T_NORMS:
        raise ValueError(f"t_norm must be one of {', '.join(T_NORMS)}, got {name!r}.")
    function = T_NORMS[name]
    if name not in _FAMILIES:
        if parameter is not None:
            raise ValueError(f"The t-norm {name!r} takes no parameter, got {parameter!r}.")
        return function
    if parameter is None:
        raise ValueError(f"The t-norm {name!r} is a family: give its parameter {_FAMILIES[name]}.")
    function(0.5, 0.5, parameter)  # a parameter outside its range is named here, not in the middle of a training
    return lambda p, mu: function(p, mu, parameter)


def t_conorm(name: str, parameter: float | None = None) -> Callable[[Any, Any], Any]:
    """Return the fuzzy "or" dual to a t-norm, S(p, mu) = 1 - T(1 - p, 1 - mu) (De Morgan).

    Args:
        name: A key of `T_NORMS`.
        parameter: As for `t_norm`.

    Returns:
        A function of p and mu, memberships in [0, 1] that broadcast, to memberships in [0, 1].

    Raises:
        ValueError: As for `t_norm`.

    Examples:
        >>> float(t_conorm("godel")(0.75, 0.5))
        0.75
    """
    conjunction = t_norm(name, parameter)
    return lambda p, mu: 1.0 - conjunction(1.0 - p, 1.0 - mu)
