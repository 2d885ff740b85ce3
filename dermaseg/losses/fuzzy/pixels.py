"""Losses of each pixel's membership for itself: divergence, fuzzy c-means, entropy."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from dermaseg import fuzzy
from dermaseg.losses.base import EPSILON, FunctionLoss, check_pair
from dermaseg.reduction import pixel_mean

__all__ = [
    "FuzzyCMeans",
    "FuzzyCrossentropy",
    "FuzzyEntropy",
    "fuzzy_c_means_loss",
    "fuzzy_crossentropy_loss",
    "fuzzy_entropy_loss",
]


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
    y_pred = ops.convert_to_tensor(y_pred)
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


def _crossentropy(mu: Any, p: Any) -> Any:
    # A floor under each logarithm, not a clip of p: 0 ln 0 is then exactly 0, and so is the divergence of (mu, mu).
    return -mu * ops.log(ops.maximum(p, EPSILON)) - (1.0 - mu) * ops.log(ops.maximum(1.0 - p, EPSILON))


def _check_fuzzifier(m: float) -> None:
    if not m > 1:
        raise ValueError(f"m must be above 1, got {m!r}.")
