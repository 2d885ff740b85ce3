"""Fuzzy sets as pure functions: t-norms and t-conorms, membership functions, entropy, and fuzzy masks.

A fuzzy set gives each pixel a membership in [0, 1] where a crisp set gives 0 or 1. Everything here is `keras.ops` without
state, differentiable, and works elementwise on tensors that broadcast; only `fuzzify_mask`, the exact transform for data
pipelines, is NumPy and SciPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from scipy import ndimage, special

__all__ = [
    "T_NORMS",
    "bell_membership",
    "frank_t_norm",
    "fuzzify_mask",
    "fuzzy_entropy",
    "gaussian_membership",
    "godel_t_norm",
    "hamacher_t_norm",
    "lukasiewicz_t_norm",
    "product_t_norm",
    "sigmoid_membership",
    "soften_mask",
    "t_conorm",
    "t_norm",
    "trapezoid_membership",
    "triangular_membership",
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
        slope: Half the exponent, above 0 (not checked); towards infinity the bell becomes an interval.

    Returns:
        Memberships in [0, 1].

    Examples:
        >>> float(bell_membership(3.0, 2.0, 1.0, 4.0))
        0.5
    """
    return 1.0 / (1.0 + ops.power(ops.square((x - center) / width), slope))


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
        >>> ops.convert_to_numpy(triangular_membership(np.array([0.0, 0.5, 1.5, 4.0]), 0, 1, 2)).tolist()
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
        >>> ops.convert_to_numpy(trapezoid_membership(np.array([0.0, 0.5, 1.5, 4.0]), 0, 1, 2, 4)).tolist()
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
        >>> ops.convert_to_numpy(fuzzy_entropy(np.array([0.0, 0.5, 1.0]))).tolist()
        [0.0, 1.0, 0.0]

    References:
        De Luca and Termini, 1972, "A definition of a nonprobabilistic entropy in the setting of fuzzy sets theory",
        equation 8, with K = 1 / ln 2 for each element.
    """
    rest = 1.0 - mu
    nats = -mu * ops.log(ops.maximum(mu, 1e-7)) - rest * ops.log(ops.maximum(rest, 1e-7))
    return nats / math.log(2.0)


def fuzzify_mask(mask: Any, tau_px: float) -> np.ndarray:
    """Blur the border of a mask by its distance: mu = sigmoid(-phi / tau_px).

    phi is the signed distance to the border in pixels, negative inside: the distance to the nearest pixel of the other
    class, less the half pixel from there to the border. Two experts who outline one lesion differ by a few pixels along its
    border and nowhere else; mu says so. mu > 1/2 is the mask again, the complement of a mask gets the complement of mu,
    and an empty or full mask has no border and stays as it is.

    Args:
        mask: 0 and 1 of any type, `(height, width)`, `(height, width, channels)` or `(n, height, width, channels)`; each
            channel of each image on its own.
        tau_px: Softness in pixels, at least 0 (crisp). mu goes from 0.12 to 0.88 within 2 tau_px on either side.

    Returns:
        float32 memberships in the shape of `mask`.

    Raises:
        ValueError: If `tau_px` is negative, the shape is another, or a value is neither 0 nor 1.

    Examples:
        >>> print(fuzzify_mask(np.array([[0, 0, 1, 1]]), tau_px=1.0).round(2))
        [[0.18 0.38 0.62 0.82]]
    """
    check_tau(tau_px)
    mask = np.asarray(mask)
    if mask.ndim not in (2, 3, 4):
        raise ValueError(f"mask must be (h, w), (h, w, channels) or (n, h, w, channels), got the shape {mask.shape}.")
    if not np.all((mask == 0) | (mask == 1)):
        raise ValueError(f"mask must hold 0 and 1 only, got values from {mask.min()} to {mask.max()}.")
    memberships = mask.astype("float32")
    if tau_px == 0:
        return memberships
    stack = memberships.reshape((-1, *mask.shape[-3:])) if mask.ndim > 2 else memberships[None, :, :, None]
    for image, channel in np.ndindex(stack.shape[0], stack.shape[3]):
        plane = stack[image, :, :, channel]
        if plane.min() < plane.max():
            inside = ndimage.distance_transform_edt(plane)
            outside = ndimage.distance_transform_edt(1 - plane)
            # One of the two distances is 0 everywhere, so this is -phi on both sides.
            plane[...] = special.expit((inside - outside - (plane - 0.5)) / tau_px)
    return memberships


def soften_mask(masks: Any, tau_px: float) -> Any:
    """Approximate `fuzzify_mask` by a fixed Gaussian convolution, inside a graph and differentiably.

    Along a straight border a Gaussian of standard deviation sigma turns the step into Phi(-phi / sigma), whose slope at the
    border, 1 / (sigma sqrt(2 pi)), is the sigmoid's 1 / (4 tau_px) for sigma = 4 tau_px / sqrt(2 pi). The two then differ
    by at most 0.018. Where the outline bends within sigma the convolution averages over the bend, and mu > 1/2 need not be
    the mask: use `fuzzify_mask` in a data pipeline, this where only the crisp mask reaches the loss.

    Args:
        masks: `(batch, height, width, channels)`, values in [0, 1].
        tau_px: Softness in pixels, at least 0 (unchanged), fixed when the graph is built.

    Returns:
        float32 memberships in [0, 1], the shape of `masks`.

    Raises:
        ValueError: If `tau_px` is negative.

    Examples:
        >>> crisp = np.repeat([[0.0, 0.0, 0.0, 1.0, 1.0, 1.0]], 6, axis=0).reshape(1, 6, 6, 1)
        >>> print(ops.convert_to_numpy(soften_mask(crisp, tau_px=0.5))[0, 3, :, 0].round(2))
        [0.   0.03 0.27 0.73 0.97 1.  ]
    """
    check_tau(tau_px)
    masks = ops.cast(masks, "float32")
    if tau_px == 0:
        return masks
    sigma = 4.0 * tau_px / math.sqrt(2.0 * math.pi)
    radius = math.ceil(3.0 * sigma)
    # Each tap integrates the Gaussian over its pixel: an axis-parallel step then gives Phi exactly, for small sigma too.
    taps = np.diff(special.ndtr(np.arange(-radius - 0.5, radius + 1.0) / sigma)).astype("float32")
    taps /= taps.sum()
    for axis in (1, 2):
        size = ops.shape(masks)[axis]
        phase = ops.mod(ops.arange(-radius, size + radius), 2 * size)
        # Mirrored as ... b a | a b c | c b ... as often as the radius needs, so that a mask may be smaller than it.
        masks = ops.take(masks, ops.minimum(phase, 2 * size - 1 - phase), axis=axis)
        # Shifted sums, not ops.conv: XLA on a CPU runs a convolution over one channel ten times slower.
        shifts = [masks[:, k : k + size] if axis == 1 else masks[:, :, k : k + size] for k in range(len(taps))]
        masks = sum(tap * shift for tap, shift in zip(taps, shifts, strict=True))
    return ops.clip(masks, 0.0, 1.0)


def check_tau(tau_px: float) -> None:
    """Refuse a softness that is negative, infinite or NaN.

    Raises:
        ValueError: Naming the value.
    """
    if not 0 <= tau_px < math.inf:
        raise ValueError(f"tau_px must be a finite number of pixels, at least 0, got {tau_px!r}.")
