"""Overlap losses: Dice, Jaccard, Tversky, focal Tversky.

All are one ratio. With I = sum p t, FP = sum p (1 - t) and FN = sum (1 - p) t over a picture's pixels,

    T = (I + s) / (I + alpha FP + beta FN + s),      loss = 1 - T = (alpha FP + beta FN) / (I + alpha FP + beta FN + s).

alpha = beta = 1/2 is Dice, alpha = beta = 1 is Jaccard. The ratio is taken for each picture and channel, never over a batch:
a picture's loss does not depend on its neighbours. The smoothing s, in pixels, makes an empty mask that is predicted empty
cost 0; a false positive of FP pixels on an empty mask costs alpha FP / (alpha FP + s): with s = 1 and Jaccard's alpha the
first pixel costs 1/2, nine cost 0.9. The same holds for a class that a picture lacks.

Targets are meant to be crisp: on a pixel with 0 < t < 1 these losses are cheapest at p = 0 or 1, not at p = t. The losses of
`dermaseg.losses.fuzzy` are made for fuzzy targets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from dermaseg.losses.base import EPSILON, FunctionLoss, check_pair, check_tversky, plain_weights
from dermaseg.reduction import pixel_sum

__all__ = [
    "Dice",
    "FocalTversky",
    "Jaccard",
    "Tversky",
    "dice_loss",
    "focal_tversky_loss",
    "jaccard_loss",
    "tversky_loss",
]


def tversky_loss(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    smooth: float = 1.0,
    class_weights: Sequence[float] | None = None,
    from_logits: bool = False,
) -> Any:
    """Return one minus the Tversky index of each picture.

    Args:
        y_true: Masks, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions of the same shape, probabilities 0 to 1, or logits.
        alpha: Weight of false positives, at least 0.
        beta: Weight of false negatives, at least 0; above alpha it favours finding the whole lesion.
        smooth: s of the module's formula, in pixels, above 0; it makes an empty mask that is predicted empty cost 0.
        class_weights: One weight per channel, at least 0, for the mean over channels; None weighs them alike.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1.

    Raises:
        ValueError: If shapes differ, or a parameter is outside its range.

    Examples:
        >>> mask = ops.ones((1, 2, 2, 1))
        >>> float(tversky_loss(mask, mask)[0]), float(tversky_loss(0 * mask, mask, smooth=2.0)[0])
        (0.0, 0.5)

    References:
        Salehi et al., 2017, "Tversky loss function for image segmentation using 3D fully convolutional deep networks",
        equation 3.
    """
    check_tversky(alpha, beta, smooth, class_weights)
    return _mean_over_channels(_tversky(y_true, y_pred, alpha, beta, smooth, from_logits), class_weights)


def dice_loss(
    y_true: Any,
    y_pred: Any,
    *,
    smooth: float = 1.0,
    class_weights: Sequence[float] | None = None,
    from_logits: bool = False,
) -> Any:
    """Return one minus the soft Dice score, 1 - (2 I + 2 s) / (sum p + sum t + 2 s), of each picture.

    Args:
        y_true: Masks, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions of the same shape, probabilities 0 to 1, or logits.
        smooth: s, in pixels, above 0; it makes an empty mask that is predicted empty cost 0.
        class_weights: One weight per channel, at least 0, for the mean over channels; None weighs them alike.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1: `tversky_loss` at alpha = beta = 1/2.

    Raises:
        ValueError: If shapes differ, or a parameter is outside its range.

    Examples:
        >>> mask = ops.ones((1, 2, 2, 1))
        >>> float(dice_loss(mask, mask)[0]), float(dice_loss(0 * mask, mask)[0])
        (0.0, 0.6666666865348816)

    References:
        Milletari et al., 2016, "V-Net". Deviation: sums of p and t, not of their squares, so that the crisp case is the
        Dice score.
    """
    return tversky_loss(
        y_true, y_pred, alpha=0.5, beta=0.5, smooth=smooth, class_weights=class_weights, from_logits=from_logits
    )


def jaccard_loss(
    y_true: Any,
    y_pred: Any,
    *,
    smooth: float = 1.0,
    class_weights: Sequence[float] | None = None,
    from_logits: bool = False,
) -> Any:
    """Return one minus the soft Jaccard index, 1 - (I + s) / (sum p + sum t - I + s), of each picture.

    Args:
        y_true: Masks, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions of the same shape, probabilities 0 to 1, or logits.
        smooth: s, in pixels, above 0; it makes an empty mask that is predicted empty cost 0.
        class_weights: One weight per channel, at least 0, for the mean over channels; None weighs them alike.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1: `tversky_loss` at alpha = beta = 1.

    Raises:
        ValueError: If shapes differ, or a parameter is outside its range.

    Examples:
        >>> mask = ops.ones((1, 2, 2, 1))
        >>> round(float(jaccard_loss(mask, 0.5 * mask)[0]), 4), round(float(jaccard_loss(0 * mask, mask)[0]), 4)
        (0.4, 0.8)

    References:
        Rahman and Wang, 2016, "Optimizing intersection-over-union in deep neural networks for image segmentation".
    """
    return tversky_loss(
        y_true, y_pred, alpha=1.0, beta=1.0, smooth=smooth, class_weights=class_weights, from_logits=from_logits
    )


def focal_tversky_loss(
    y_true: Any,
    y_pred: Any,
    *,
    alpha: float = 0.3,
    beta: float = 0.7,
    gamma: float = 0.75,
    smooth: float = 1.0,
    class_weights: Sequence[float] | None = None,
    from_logits: bool = False,
) -> Any:
    """Return the Tversky loss of each picture and channel to the power gamma, averaged over the channels.

    gamma below 1 keeps a gradient on pictures that are almost right, above 1 on those that are wrong.

    Args:
        y_true: As for `tversky_loss`.
        y_pred: As for `tversky_loss`.
        alpha: Weight of false positives, at least 0.
        beta: Weight of false negatives, at least 0; above alpha it favours finding the whole lesion.
        gamma: Exponent, above 0. (The paper writes it 1 / gamma, with gamma = 4/3.)
        smooth: As for `tversky_loss`.
        class_weights: As for `tversky_loss`.
        from_logits: As for `tversky_loss`.

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1.

    Raises:
        ValueError: As for `tversky_loss`, or if gamma is not above 0.

    Examples:
        >>> mask = ops.ones((1, 2, 2, 1))
        >>> plain = tversky_loss(mask, 0.5 * mask, alpha=0.3, beta=0.7)
        >>> round(float(plain[0]), 4), round(float(focal_tversky_loss(mask, 0.5 * mask)[0]), 4)  # 0.3182^0.75
        (0.3182, 0.4236)

    References:
        Abraham and Khan, 2019, "A novel focal Tversky loss function with improved attention U-Net for lesion
        segmentation", equation 4. Deviations: the mean over classes, not the sum; the paper's alpha weighs false
        negatives.
    """
    check_tversky(alpha, beta, smooth, class_weights)
    _check_gamma(gamma)
    loss = _tversky(y_true, y_pred, alpha, beta, smooth, from_logits)
    # x ** gamma, with the straight line to 0 below EPSILON: for gamma < 1 the slope at 0 is infinite, and a perfect picture
    # would give a gradient of NaN.
    return _mean_over_channels(loss * ops.power(ops.maximum(loss, EPSILON), gamma - 1.0), class_weights)


def _tversky(y_true: Any, y_pred: Any, alpha: float, beta: float, smooth: float, from_logits: bool) -> Any:
    """Return the loss of each picture and channel, `(batch, channels)`."""
    y_true, y_pred = check_pair(y_true, y_pred, from_logits=from_logits)
    overlap = pixel_sum(y_true * y_pred)
    # Sums of products, not differences of sums: never below 0, and exact however small beside the overlap.
    false_positives = pixel_sum((1.0 - y_true) * y_pred)
    false_negatives = pixel_sum(y_true * (1.0 - y_pred))
    wrong = alpha * false_positives + beta * false_negatives
    return wrong / (overlap + wrong + smooth)


def _mean_over_channels(losses: Any, class_weights: Sequence[float] | None) -> Any:
    if class_weights is None:
        return ops.mean(losses, axis=-1)
    if len(class_weights) != losses.shape[-1]:
        raise ValueError(f"class_weights has {len(class_weights)} entries for {losses.shape[-1]} channels.")
    weights = ops.convert_to_tensor(class_weights, dtype="float32")
    return ops.sum(losses * weights, axis=-1) / ops.sum(weights)


def _check_gamma(gamma: float) -> None:
    if not gamma > 0:
        raise ValueError(f"gamma must be above 0, got {gamma!r}.")


@keras.saving.register_keras_serializable(package="dermaseg")
class Tversky(FunctionLoss):
    """`tversky_loss` as a Keras loss.

    Args:
        alpha: As for `tversky_loss`.
        beta: As for `tversky_loss`.
        smooth: As for `tversky_loss`.
        class_weights: As for `tversky_loss`.
        from_logits: As for `tversky_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.

    Examples:
        >>> Tversky(alpha=0.3, beta=0.7).get_config()["beta"]
        0.7
    """

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = False,
        name: str = "tversky",
        **kwargs: Any,
    ) -> None:
        check_tversky(alpha, beta, smooth, class_weights)
        parameters = {
            "alpha": alpha,
            "beta": beta,
            "smooth": smooth,
            "class_weights": plain_weights(class_weights),
            "from_logits": from_logits,
        }
        super().__init__(tversky_loss, parameters, name=name, **kwargs)


class _FixedTversky(FunctionLoss):
    """A Tversky loss whose alpha and beta are part of its name."""

    twin: Callable[..., Any]

    def __init__(
        self,
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        check_tversky(1.0, 1.0, smooth, class_weights)
        parameters = {"smooth": smooth, "class_weights": plain_weights(class_weights), "from_logits": from_logits}
        super().__init__(self.twin, parameters, name=name or type(self).__name__.lower(), **kwargs)


@keras.saving.register_keras_serializable(package="dermaseg")
class Dice(_FixedTversky):
    """`dice_loss` as a Keras loss.

    Args:
        smooth: As for `dice_loss`.
        class_weights: As for `dice_loss`.
        from_logits: As for `dice_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.
    """

    twin = staticmethod(dice_loss)


@keras.saving.register_keras_serializable(package="dermaseg")
class Jaccard(_FixedTversky):
    """`jaccard_loss` as a Keras loss.

    Args:
        smooth: As for `jaccard_loss`.
        class_weights: As for `jaccard_loss`.
        from_logits: As for `jaccard_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.
    """

    twin = staticmethod(jaccard_loss)


@keras.saving.register_keras_serializable(package="dermaseg")
class FocalTversky(FunctionLoss):
    """`focal_tversky_loss` as a Keras loss.

    Args:
        alpha: As for `focal_tversky_loss`.
        beta: As for `focal_tversky_loss`.
        gamma: As for `focal_tversky_loss`.
        smooth: As for `focal_tversky_loss`.
        class_weights: As for `focal_tversky_loss`.
        from_logits: As for `focal_tversky_loss`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.
    """

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.7,
        gamma: float = 0.75,
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = False,
        name: str = "focal_tversky",
        **kwargs: Any,
    ) -> None:
        check_tversky(alpha, beta, smooth, class_weights)
        _check_gamma(gamma)
        parameters = {
            "alpha": alpha,
            "beta": beta,
            "gamma": gamma,
            "smooth": smooth,
            "class_weights": plain_weights(class_weights),
            "from_logits": from_logits,
        }
        super().__init__(focal_tversky_loss, parameters, name=name, **kwargs)
