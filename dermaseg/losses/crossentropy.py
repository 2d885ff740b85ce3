"""The cross-entropy of masks, and its sum with an overlap loss, which is what the U-Net learns by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from dermaseg.losses.base import EPSILON, FunctionLoss, check_pair, check_tversky, plain_weights
from dermaseg.losses.dice import dice_loss, jaccard_loss
from dermaseg.reduction import pixel_mean

__all__ = ["OverlapCrossentropy", "mask_crossentropy", "overlap_crossentropy"]


def mask_crossentropy(y_true: Any, y_pred: Any, *, from_logits: bool = False) -> Any:
    """Return the cross-entropy of each picture: binary for one channel, categorical for more; the mean over its pixels.

    Args:
        y_true: Masks, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions of the same shape, probabilities clipped to [1e-7, 1 - 1e-7], or logits, used exactly.
        from_logits: Whether `y_pred` are logits.

    Returns:
        Losses of shape `(batch,)`, float32, in nats, at least 0.

    Raises:
        ValueError: If the shapes differ or are not of rank 4.

    Examples:
        >>> mask = ops.ones((1, 2, 2, 1))
        >>> round(float(mask_crossentropy(mask, 0.5 * mask)[0]), 4)  # ln 2
        0.6931
    """
    y_true, y_pred = check_pair(y_true, y_pred)
    if y_true.shape[-1] > 1:
        pixels = ops.categorical_crossentropy(y_true, y_pred, from_logits=from_logits)
    elif keras.backend.backend() != "torch":
        # On TensorFlow, Keras goes back to the logits of a sigmoid: a pixel that is surely wrong still has a gradient.
        pixels = ops.binary_crossentropy(y_true, y_pred, from_logits=from_logits)
    # PyTorch's raises where a network has diverged, instead of costing NaN, and rounds small losses.
    elif from_logits:
        pixels = y_true * ops.softplus(-y_pred) + (1.0 - y_true) * ops.softplus(y_pred)
    else:
        y_pred = ops.clip(y_pred, EPSILON, 1.0 - EPSILON)
        pixels = -(y_true * ops.log(y_pred) + (1.0 - y_true) * ops.log(1.0 - y_pred))
    return pixel_mean(pixels)


def overlap_crossentropy(
    y_true: Any,
    y_pred: Any,
    *,
    overlap: Literal["dice", "jaccard"] = "jaccard",
    weight: float = 0.5,
    smooth: float = 1.0,
    class_weights: Sequence[float] | None = None,
    from_logits: bool = False,
) -> Any:
    """Return weight x overlap loss + (1 - weight) x cross-entropy of each picture.

    The overlap term asks for the figure that is reported; cross-entropy gives every pixel a gradient from the first step,
    and keeps probabilities honest.

    Args:
        y_true: As for `tversky_loss`.
        y_pred: As for `tversky_loss`.
        overlap: `"dice"` or `"jaccard"`.
        weight: Weight of the overlap term, 0 to 1.
        smooth: Smoothing of the overlap term, in pixels, above 0.
        class_weights: Weights of the channels in the overlap term, at least 0.
        from_logits: Whether `y_pred` are logits (sigmoid for one channel, else softmax).

    Returns:
        Losses of shape `(batch,)`, float32, at least 0.

    Raises:
        ValueError: As for `tversky_loss`, or if `overlap` or `weight` is outside its range.

    Examples:
        >>> mask = ops.ones((1, 2, 2, 1))
        >>> round(float(overlap_crossentropy(mask, 0.5 * mask)[0]), 4)  # a Jaccard loss of 0.4, and ln 2
        0.5466

    References:
        Taghanaki et al., 2019, "Combo loss". Deviation: one weight between the terms, no weight between the classes of
        the cross-entropy.
    """
    _check_overlap(overlap, weight)
    ratio = dice_loss if overlap == "dice" else jaccard_loss
    loss = ratio(y_true, y_pred, smooth=smooth, class_weights=class_weights, from_logits=from_logits)
    return weight * loss + (1.0 - weight) * mask_crossentropy(y_true, y_pred, from_logits=from_logits)


def _check_overlap(overlap: str, weight: float) -> None:
    if overlap not in ("dice", "jaccard"):
        raise ValueError(f"overlap must be 'dice' or 'jaccard', got {overlap!r}.")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must lie between 0 and 1, got {weight!r}.")


@keras.saving.register_keras_serializable(package="dermaseg")
class OverlapCrossentropy(FunctionLoss):
    """`overlap_crossentropy` as a Keras loss. The U-Net's default.

    Args:
        overlap: As for `overlap_crossentropy`.
        weight: As for `overlap_crossentropy`.
        smooth: As for `overlap_crossentropy`.
        class_weights: As for `overlap_crossentropy`.
        from_logits: As for `overlap_crossentropy`.
        name: Name of the loss.
        **kwargs: `reduction` and `dtype` of `keras.losses.Loss`.

    Raises:
        ValueError: If a parameter is outside its range.
    """

    def __init__(
        self,
        overlap: Literal["dice", "jaccard"] = "jaccard",
        weight: float = 0.5,
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = False,
        name: str = "overlap_crossentropy",
        **kwargs: Any,
    ) -> None:
        _check_overlap(overlap, weight)
        check_tversky(1.0, 1.0, smooth, class_weights)
        parameters = {
            "overlap": overlap,
            "weight": weight,
            "smooth": smooth,
            "class_weights": plain_weights(class_weights),
            "from_logits": from_logits,
        }
        super().__init__(overlap_crossentropy, parameters, name=name, **kwargs)
