"""Losses between a predicted and a *fuzzy* target mask.

On a crisp mask T(p, 0) = 0 and T(p, 1) = p for every t-norm T, so every loss of the Tversky kind here equals its ordinary
twin in `dermaseg.losses.dice`: fuzziness in the formula is worth nothing without fuzziness in the target. Make the target
with `dermaseg.fuzzy.fuzzify_mask` in the data pipeline, or let `FuzzySegmentation(tau_px=...)` soften a crisp one.

p is the prediction, mu the target, both memberships in [0, 1]; each channel is a fuzzy set of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from dermaseg import fuzzy
from dermaseg.fuzzy.masks import check_tau
from dermaseg.losses.base import EPSILON, FunctionLoss, check_pair, check_tversky
from dermaseg.reduction import pixel_mean, pixel_sum

__all__ = [
    "FuzzyCMeans",
    "FuzzyCrossentropy",
    "FuzzyDice",
    "FuzzyEntropy",
    "FuzzyJaccard",
    "FuzzySegmentation",
    "FuzzyTversky",
    "fuzzy_c_means_loss",
    "fuzzy_crossentropy_loss",
    "fuzzy_dice_loss",
    "fuzzy_entropy_loss",
    "fuzzy_jaccard_loss",
    "fuzzy_segmentation_loss",
    "fuzzy_tversky_loss",
]


def fuzzy_tversky_loss(
    y_true: Any,
    y_pred: Any,
    *,
    t_norm: str = "godel",
    t_norm_parameter: float | None = None,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1.0,
    from_logits: bool = False,
) -> Any:
    """Return 1 - (I + s) / (I + alpha (sum p - I) + beta (sum mu - I) + s), I = sum T(p, mu), of each picture.

    With Gödel's min the loss of (mu, mu) is 0, and at alpha = beta = 1 the loss is a metric: sum min / sum max is the
    Jaccard index of multisets, and s is one more element that both share. With the product or Łukasiewicz's t-norm a pixel
    with mu = 1/2 is cheapest at p = 1: the prediction is pushed past its target, so min is the default. At equal arguments
    Gödel <= product <= Łukasiewicz.

    Args:
        y_true: Fuzzy masks mu, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions p of the same shape, probabilities 0 to 1, or logits.
        t_norm: A key of `dermaseg.fuzzy.T_NORMS`.
        t_norm_parameter: lam of `"frank"` or gamma of `"hamacher"`. Outside Frank's family sum p + sum mu - I is not the sum
            of a t-conorm, so the denominator is then no fuzzy union; the formula is the same.
        alpha: Weight of false positives, at least 0.
        beta: Weight of false negatives, at least 0; above alpha it favours finding the whole lesion.
        smooth: s, in pixels, above 0; it makes an empty mask that is predicted empty cost 0.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1; the mean over channels.

    Raises:
        ValueError: If shapes differ, or a parameter is outside its range.

    Examples:
        >>> mu = ops.reshape([0.0, 0.25, 0.75, 1.0], (1, 2, 2, 1))
        >>> float(fuzzy_tversky_loss(mu, mu)[0])
        0.0

    References:
        Salehi et al., 2017, "Tversky loss function for image segmentation using 3D fully convolutional deep networks",
        equation 3. Wang et al., 2023, "Jaccard metric losses: optimizing the Jaccard index with soft labels", for min and
        the metric. Deviation: any t-norm for I.
    """
    conjunction = _check_tversky(t_norm, t_norm_parameter, alpha, beta, smooth)
    y_true, y_pred = check_pair(y_true, y_pred, from_logits=from_logits)
    overlap = pixel_sum(conjunction(y_pred, y_true))
    false_positives = pixel_sum(y_pred) - overlap
    false_negatives = pixel_sum(y_true) - overlap
    index = (overlap + smooth) / (overlap + alpha * false_positives + beta * false_negatives + smooth)
    return ops.mean(1.0 - index, axis=-1)


def fuzzy_dice_loss(
    y_true: Any,
    y_pred: Any,
    *,
    t_norm: str = "godel",
    t_norm_parameter: float | None = None,
    smooth: float = 1.0,
    from_logits: bool = False,
) -> Any:
    """Return `fuzzy_tversky_loss` at alpha = beta = 1/2: 1 - (2 I + 2 s) / (sum p + sum mu + 2 s).

    Args:
        y_true: Fuzzy masks mu, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions p of the same shape, probabilities 0 to 1, or logits.
        t_norm: A key of `dermaseg.fuzzy.T_NORMS`.
        t_norm_parameter: As for `fuzzy_tversky_loss`.
        smooth: s, in pixels, above 0; it makes an empty mask that is predicted empty cost 0.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1; the mean over channels.

    Raises:
        ValueError: If shapes differ, or a parameter is outside its range.

    Examples:
        >>> crisp, p = ops.ones((1, 2, 2, 1)), 0.5 * ops.ones((1, 2, 2, 1))
        >>> round(float(fuzzy_dice_loss(crisp, p)[0]), 4)
        0.25
    """
    return fuzzy_tversky_loss(
        y_true,
        y_pred,
        t_norm=t_norm,
        t_norm_parameter=t_norm_parameter,
        alpha=0.5,
        beta=0.5,
        smooth=smooth,
        from_logits=from_logits,
    )


def fuzzy_jaccard_loss(
    y_true: Any,
    y_pred: Any,
    *,
    t_norm: str = "godel",
    t_norm_parameter: float | None = None,
    smooth: float = 1.0,
    from_logits: bool = False,
) -> Any:
    """Return `fuzzy_tversky_loss` at alpha = beta = 1: 1 - (I + s) / (sum p + sum mu - I + s).

    Args:
        y_true: Fuzzy masks mu, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions p of the same shape, probabilities 0 to 1, or logits.
        t_norm: A key of `dermaseg.fuzzy.T_NORMS`.
        t_norm_parameter: As for `fuzzy_tversky_loss`.
        smooth: s, in pixels, above 0; it makes an empty mask that is predicted empty cost 0.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1; the mean over channels.

    Raises:
        ValueError: If shapes differ, or a parameter is outside its range.

    Examples:
        >>> crisp, p = ops.ones((1, 2, 2, 1)), 0.5 * ops.ones((1, 2, 2, 1))
        >>> round(float(fuzzy_jaccard_loss(crisp, p)[0]), 4)
        0.4
    """
    return fuzzy_tversky_loss(
        y_true,
        y_pred,
        t_norm=t_norm,
        t_norm_parameter=t_norm_parameter,
        alpha=1.0,
        beta=1.0,
        smooth=smooth,
        from_logits=from_logits,
    )


def fuzzy_crossentropy_loss(y_true: Any, y_pred: Any, *, from_logits: bool = False) -> Any:
    """Return the mean over pixels of BCE(p, mu) - H(mu), the Kullback-Leibler divergence, of each picture.

    Zero exactly at p = mu, where plain cross-entropy has a floor of H(mu) that differs from picture to picture. The gradient
    is that of cross-entropy; from the logits of one channel it is p - mu, never larger than 1. From probabilities a
    logarithm's argument is held above 1e-7.

    Args:
        y_true: Fuzzy masks mu, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions p of the same shape, probabilities 0 to 1, or logits.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, in nats, at least 0 up to rounding.

    Raises:
        ValueError: If shapes differ.

    Examples:
        >>> mu = ops.reshape([0.0, 0.25, 0.75, 1.0], (1, 2, 2, 1))
        >>> float(fuzzy_crossentropy_loss(mu, mu)[0])
        0.0

    References:
        Kullback and Leibler, 1951, "On information and sufficiency"; De Luca and Termini, 1972, for H.
    """
    single_logit = from_logits and y_pred.shape[-1] == 1
    y_true, y_pred = check_pair(y_true, y_pred, from_logits=from_logits and not single_logit)
    pixels = ops.softplus(y_pred) - y_pred * y_true if single_logit else _crossentropy(y_true, y_pred)
    return pixel_mean(pixels - _crossentropy(y_true, y_true))


def fuzzy_c_means_loss(y_true: Any, y_pred: Any, *, m: float = 2.0, calibrated: bool = True, from_logits: bool = False) -> Any:
    """Return the mean over pixels of p^m (1 - mu)^(m - 1) + (1 - p)^m mu^(m - 1) of each picture.

    Fuzzy c-means with lesion and skin as clusters and 1 - mu, mu as distances, raised so that p = mu is cheapest for every
    m > 1. On a crisp mask and m = 2 it is the squared error. At p = mu it is not 0 (mu (1 - mu) for m = 2), only least.

    Args:
        y_true: Fuzzy masks mu, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions p of the same shape, probabilities 0 to 1, or logits.
        m: Fuzzifier, above 1.
        calibrated: False takes the published distances (1 - mu)^2 and mu^2, whose cheapest p for m = 2 is
            mu^2 / (mu^2 + (1 - mu)^2): more certain than its target.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1.

    Raises:
        ValueError: If shapes differ, or `m` is not above 1.

    Examples:
        >>> crisp, p = ops.ones((1, 2, 2, 1)), 0.5 * ops.ones((1, 2, 2, 1))
        >>> float(fuzzy_c_means_loss(crisp, p)[0])
        0.25

    References:
        Bezdek, 1981, "Pattern Recognition with Fuzzy Objective Function Algorithms". Chen et al., 2021, "Learning fuzzy
        clustering for SPECT/CT segmentation via convolutional neural networks", for the supervised form. Deviation: the
        exponent m - 1 on the distances.
    """
    _check_fuzzifier(m)
    y_true, y_pred = check_pair(y_true, y_pred, from_logits=from_logits)
    power = m - 1.0 if calibrated else 2.0
    pixels = ops.power(y_pred, m) * ops.power(1.0 - y_true, power)
    pixels = pixels + ops.power(1.0 - y_pred, m) * ops.power(y_true, power)
    return pixel_mean(pixels)


def fuzzy_entropy_loss(y_true: Any, y_pred: Any, *, from_logits: bool = False) -> Any:
    """Return the mean over pixels of `dermaseg.fuzzy.fuzzy_entropy(p)` of each picture: a regulariser, not a fit.

    Added with a small weight it makes predictions crisper, subtracted softer. The target is not looked at.

    Args:
        y_true: Ignored but for its shape.
        y_pred: Predictions p, `(batch, height, width, channels)`, probabilities 0 to 1, or logits.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, 0 (crisp) to 1 (1/2 everywhere).

    Raises:
        ValueError: If shapes differ.

    Examples:
        >>> half = 0.5 * ops.ones((1, 2, 2, 1))
        >>> float(fuzzy_entropy_loss(half, half)[0])
        1.0

    References:
        De Luca and Termini, 1972, "A definition of a nonprobabilistic entropy in the setting of fuzzy sets theory".
    """
    _, y_pred = check_pair(y_true, y_pred, from_logits=from_logits)
    return pixel_mean(fuzzy.fuzzy_entropy(y_pred))


def fuzzy_segmentation_loss(
    y_true: Any, y_pred: Any, *, tau_px: float = 0.0, smooth: float = 1.0, from_logits: bool = False
) -> Any:
    """Return half `fuzzy_crossentropy_loss`, half Gödel `fuzzy_jaccard_loss`, of each picture: the Fuzzy U-Net's default.

    The first gives every pixel a gradient and honest probabilities, the second asks for the figure that is reported; both
    are 0 at p = mu and nowhere else, so they never pull apart.

    Args:
        y_true: Fuzzy masks mu, or crisp ones with `tau_px`; `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions p of the same shape, probabilities 0 to 1, or logits.
        tau_px: Above 0 the loss softens crisp masks itself, by `dermaseg.fuzzy.soften_mask`; about 1.5 at 256 pixels. Leave
            0 where the data pipeline has fuzzified them.
        smooth: As for `fuzzy_tversky_loss`.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, at least 0 up to rounding.

    Raises:
        ValueError: If shapes differ, or a parameter is outside its range.

    Examples:
        >>> mu = ops.reshape([0.0, 0.25, 0.75, 1.0], (1, 2, 2, 1))
        >>> float(fuzzy_segmentation_loss(mu, mu)[0])
        0.0

    References:
        As `fuzzy_crossentropy_loss` and `fuzzy_tversky_loss`.
    """
    y_true, y_pred = check_pair(y_true, y_pred)
    y_true = fuzzy.soften_mask(y_true, tau_px)
    divergence = fuzzy_crossentropy_loss(y_true, y_pred, from_logits=from_logits)
    return 0.5 * (divergence + fuzzy_jaccard_loss(y_true, y_pred, smooth=smooth, from_logits=from_logits))


@keras.saving.register_keras_serializable(package="dermaseg")
class FuzzyTversky(FunctionLoss):
    """`fuzzy_tversky_loss` as a Keras loss.

    Args:
        t_norm: As for `fuzzy_tversky_loss`.
        t_norm_parameter: As for `fuzzy_tversky_loss`.
        alpha: As for `fuzzy_tversky_loss`.
        beta: As for `fuzzy_tversky_loss`.
        smooth: As for `fuzzy_tversky_loss`.
        from_logits: As for `fuzzy_tversky_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.

    Examples:
        >>> FuzzyTversky("frank", 10.0, alpha=0.3, beta=0.7).get_config()["t_norm_parameter"]
        10.0
    """

    def __init__(
        self,
        t_norm: str = "godel",
        t_norm_parameter: float | None = None,
        alpha: float = 0.5,
        beta: float = 0.5,
        smooth: float = 1.0,
        from_logits: bool = False,
        name: str = "fuzzy_tversky",
        **kwargs: Any,
    ) -> None:
        _check_tversky(t_norm, t_norm_parameter, alpha, beta, smooth)
        parameters = {
            "t_norm": t_norm,
            "t_norm_parameter": t_norm_parameter,
            "alpha": alpha,
            "beta": beta,
            "smooth": smooth,
            "from_logits": from_logits,
        }
        super().__init__(fuzzy_tversky_loss, parameters, name=name, **kwargs)


class _FixedFuzzyTversky(FunctionLoss):
    """A fuzzy Tversky loss whose two weights are part of its name."""

    twin: staticmethod

    def __init__(
        self,
        t_norm: str = "godel",
        t_norm_parameter: float | None = None,
        smooth: float = 1.0,
        from_logits: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        _check_tversky(t_norm, t_norm_parameter, 1.0, 1.0, smooth)
        parameters = {
            "t_norm": t_norm,
            "t_norm_parameter": t_norm_parameter,
            "smooth": smooth,
            "from_logits": from_logits,
        }
        super().__init__(self.twin, parameters, name=name or self.twin.__name__.removesuffix("_loss"), **kwargs)


@keras.saving.register_keras_serializable(package="dermaseg")
class FuzzyDice(_FixedFuzzyTversky):
    """`fuzzy_dice_loss` as a Keras loss.

    Args:
        t_norm: As for `fuzzy_dice_loss`.
        t_norm_parameter: As for `fuzzy_dice_loss`.
        smooth: As for `fuzzy_dice_loss`.
        from_logits: As for `fuzzy_dice_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.
    """

    twin = staticmethod(fuzzy_dice_loss)


@keras.saving.register_keras_serializable(package="dermaseg")
class FuzzyJaccard(_FixedFuzzyTversky):
    """`fuzzy_jaccard_loss` as a Keras loss.

    Args:
        t_norm: As for `fuzzy_jaccard_loss`.
        t_norm_parameter: As for `fuzzy_jaccard_loss`.
        smooth: As for `fuzzy_jaccard_loss`.
        from_logits: As for `fuzzy_jaccard_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.
    """

    twin = staticmethod(fuzzy_jaccard_loss)


@keras.saving.register_keras_serializable(package="dermaseg")
class FuzzyCrossentropy(FunctionLoss):
    """`fuzzy_crossentropy_loss` as a Keras loss.

    Args:
        from_logits: As for `fuzzy_crossentropy_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.
    """

    def __init__(self, from_logits: bool = False, name: str = "fuzzy_crossentropy", **kwargs: Any) -> None:
        super().__init__(fuzzy_crossentropy_loss, {"from_logits": from_logits}, name=name, **kwargs)


@keras.saving.register_keras_serializable(package="dermaseg")
class FuzzyCMeans(FunctionLoss):
    """`fuzzy_c_means_loss` as a Keras loss.

    Args:
        m: As for `fuzzy_c_means_loss`.
        calibrated: As for `fuzzy_c_means_loss`.
        from_logits: As for `fuzzy_c_means_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If `m` is not above 1.
    """

    def __init__(
        self,
        m: float = 2.0,
        calibrated: bool = True,
        from_logits: bool = False,
        name: str = "fuzzy_c_means",
        **kwargs: Any,
    ) -> None:
        _check_fuzzifier(m)
        parameters = {"m": m, "calibrated": calibrated, "from_logits": from_logits}
        super().__init__(fuzzy_c_means_loss, parameters, name=name, **kwargs)


@keras.saving.register_keras_serializable(package="dermaseg")
class FuzzyEntropy(FunctionLoss):
    """`fuzzy_entropy_loss` as a Keras loss.

    Args:
        from_logits: As for `fuzzy_entropy_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.
    """

    def __init__(self, from_logits: bool = False, name: str = "fuzzy_entropy", **kwargs: Any) -> None:
        super().__init__(fuzzy_entropy_loss, {"from_logits": from_logits}, name=name, **kwargs)


@keras.saving.register_keras_serializable(package="dermaseg")
class FuzzySegmentation(FunctionLoss):
    """`fuzzy_segmentation_loss` as a Keras loss. The Fuzzy U-Net's default.

    Args:
        tau_px: As for `fuzzy_segmentation_loss`.
        smooth: As for `fuzzy_segmentation_loss`.
        from_logits: As for `fuzzy_segmentation_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.
    """

    def __init__(
        self,
        tau_px: float = 0.0,
        smooth: float = 1.0,
        from_logits: bool = False,
        name: str = "fuzzy_segmentation",
        **kwargs: Any,
    ) -> None:
        check_tau(tau_px)
        _check_tversky("godel", None, 1.0, 1.0, smooth)
        parameters = {"tau_px": tau_px, "smooth": smooth, "from_logits": from_logits}
        super().__init__(fuzzy_segmentation_loss, parameters, name=name, **kwargs)


def _crossentropy(mu: Any, p: Any) -> Any:
    # A floor under each logarithm, not a clip of p: 0 ln 0 is then exactly 0, and so is the divergence of (mu, mu).
    return -mu * ops.log(ops.maximum(p, EPSILON)) - (1.0 - mu) * ops.log(ops.maximum(1.0 - p, EPSILON))


def _check_tversky(
    t_norm: str, t_norm_parameter: float | None, alpha: float, beta: float, smooth: float
) -> Callable[[Any, Any], Any]:
    check_tversky(alpha, beta, smooth)
    return fuzzy.t_norm(t_norm, t_norm_parameter)


def _check_fuzzifier(m: float) -> None:
    if not m > 1:
        raise ValueError(f"m must be above 1, got {m!r}.")
