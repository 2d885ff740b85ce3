"""Overlap of a prediction with a fuzzy mask, by a t-norm: Tversky, Dice and Jaccard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from dermaseg import fuzzy
from dermaseg.losses.base import FunctionLoss, check_pair, check_tversky
from dermaseg.reduction import pixel_sum

__all__ = ["FuzzyDice", "FuzzyJaccard", "FuzzyTversky", "fuzzy_dice_loss", "fuzzy_jaccard_loss", "fuzzy_tversky_loss"]


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


def _check_tversky(
    t_norm: str, t_norm_parameter: float | None, alpha: float, beta: float, smooth: float
) -> Callable[[Any, Any], Any]:
    check_tversky(alpha, beta, smooth)
    return fuzzy.t_norm(t_norm, t_norm_parameter)
