"""Overlap losses: Dice, Jaccard, Tversky, focal Tversky, and their sums with cross-entropy.

All are one ratio. With I = sum p t over a picture's pixels, FP = sum p - I and FN = sum t - I,

    T = (I + s) / (I + alpha FP + beta FN + s),      loss = 1 - T.

alpha = beta = 1/2 is Dice, alpha = beta = 1 is Jaccard. The ratio is taken for each picture (and class), never over a batch:
a picture's loss does not depend on its neighbours. The smoothing s makes an empty mask that is predicted empty cost 0; a
false positive of mass FP on an empty mask costs alpha FP / (alpha FP + s), so with s = 1 one sure pixel costs half.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from dermaseg.losses.base import EPSILON, check_pair, pixel_axes

__all__ = [
    "Dice",
    "FocalTversky",
    "Jaccard",
    "OverlapCrossentropy",
    "Tversky",
    "dice_loss",
    "focal_tversky_loss",
    "jaccard_loss",
    "mask_crossentropy",
    "overlap_crossentropy",
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
        smooth: s above, in pixels, above 0.
        class_weights: One weight a channel for the mean over channels; None weighs them alike.
        from_logits: Whether `y_pred` are logits.

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1.

    Raises:
        ValueError: If shapes differ, or a parameter is outside its range.

    Example:
        >>> mask = ops.ones((1, 2, 2, 1))
        >>> float(tversky_loss(mask, mask)[0])
        0.0

    References:
        Salehi et al., 2017, "Tversky loss function for image segmentation using 3D fully convolutional deep networks",
        equation 3.
    """
    _check_parameters(alpha, beta, smooth)
    y_true, y_pred = check_pair(y_true, y_pred, from_logits=from_logits)
    overlap = ops.sum(y_true * y_pred, axis=pixel_axes())
    false_positives = ops.sum(y_pred, axis=pixel_axes()) - overlap
    false_negatives = ops.sum(y_true, axis=pixel_axes()) - overlap
    index = (overlap + smooth) / (overlap + alpha * false_positives + beta * false_negatives + smooth)
    return _mean_over_classes(1.0 - index, class_weights)


def dice_loss(
    y_true: Any,
    y_pred: Any,
    *,
    smooth: float = 1.0,
    class_weights: Sequence[float] | None = None,
    from_logits: bool = False,
) -> Any:
    """Return one minus the soft Dice score, 1 - (2 I + 2 s) / (sum p + sum t + 2 s), of each picture.

    Arguments, result and errors are those of `tversky_loss` at alpha = beta = 1/2.

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

    Arguments, result and errors are those of `tversky_loss` at alpha = beta = 1.

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
    """Return the Tversky loss of each picture to the power gamma.

    gamma below 1 keeps a gradient on pictures that are almost right, above 1 on those that are wrong.

    Args:
        y_true: As for `tversky_loss`.
        y_pred: As for `tversky_loss`.
        alpha: Weight of false positives.
        beta: Weight of false negatives.
        gamma: Exponent, above 0. (The paper writes it 1 / gamma, with gamma = 4/3.)
        smooth: As for `tversky_loss`.
        class_weights: As for `tversky_loss`.
        from_logits: As for `tversky_loss`.

    Returns:
        Losses of shape `(batch,)`, float32, 0 to 1.

    Raises:
        ValueError: As for `tversky_loss`, or if gamma is not above 0.

    References:
        Abraham and Khan, 2019, "A novel focal Tversky loss function with improved attention U-Net for lesion
        segmentation", equation 4. Deviation: the power is taken of the mean over classes.
    """
    if not gamma > 0:
        raise ValueError(f"gamma must be above 0, got {gamma!r}.")
    loss = tversky_loss(
        y_true,
        y_pred,
        alpha=alpha,
        beta=beta,
        smooth=smooth,
        class_weights=class_weights,
        from_logits=from_logits,
    )
    # The slope of x ** gamma at 0 is infinite for gamma < 1: a perfect picture would give a gradient of NaN.
    return ops.where(loss > EPSILON, ops.power(ops.maximum(loss, EPSILON), gamma), 0.0)


def mask_crossentropy(y_true: Any, y_pred: Any, *, from_logits: bool = False) -> Any:
    """Return the cross-entropy of each picture: binary for one channel, categorical for more; the mean over its pixels.

    Args:
        y_true: Masks, `(batch, height, width, channels)`, 0 to 1.
        y_pred: Predictions of the same shape, probabilities clipped to [1e-7, 1 - 1e-7], or logits, used exactly.
        from_logits: Whether `y_pred` are logits.

    Returns:
        Losses of shape `(batch,)`, float32, in nats.
    """
    y_true, y_pred = check_pair(y_true, y_pred)
    if y_true.shape[-1] == 1:
        pixels = ops.binary_crossentropy(y_true, y_pred, from_logits=from_logits)[..., 0]
    else:
        pixels = ops.categorical_crossentropy(y_true, y_pred, from_logits=from_logits)
    return ops.mean(pixels, axis=pixel_axes())


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
        weight: Of the overlap term, 0 to 1.
        smooth: Of the overlap term.
        class_weights: Of the overlap term.
        from_logits: Whether `y_pred` are logits.

    Returns:
        Losses of shape `(batch,)`, float32.

    Raises:
        ValueError: As for `tversky_loss`, or if `overlap` or `weight` is outside its range.

    References:
        Taghanaki et al., 2019, "Combo loss". Deviation: one weight between the terms, no weight between the classes of
        the cross-entropy.
    """
    _check_overlap(overlap, weight)
    ratio = dice_loss if overlap == "dice" else jaccard_loss
    loss = ratio(y_true, y_pred, smooth=smooth, class_weights=class_weights, from_logits=from_logits)
    return weight * loss + (1.0 - weight) * mask_crossentropy(y_true, y_pred, from_logits=from_logits)


@keras.saving.register_keras_serializable(package="dermaseg")
class Tversky(keras.losses.Loss):
    """`tversky_loss` as a Keras loss; parameters as there.

    Example:
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
        super().__init__(name=name, **kwargs)
        _check_parameters(alpha, beta, smooth)
        self.alpha = alpha
        self.beta = beta
        self.smooth = smooth
        self.class_weights = class_weights
        self.from_logits = from_logits

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each picture, `(batch,)`."""
        return tversky_loss(
            y_true,
            y_pred,
            alpha=self.alpha,
            beta=self.beta,
            smooth=self.smooth,
            class_weights=self.class_weights,
            from_logits=self.from_logits,
        )

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "beta": self.beta,
            "smooth": self.smooth,
            "class_weights": self.class_weights,
            "from_logits": self.from_logits,
        }


class _FixedTversky(Tversky):
    """A Tversky loss whose two weights are part of its name."""

    weight: float

    def __init__(
        self,
        smooth: float = 1.0,
        class_weights: Sequence[float] | None = None,
        from_logits: bool = False,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            self.weight,
            self.weight,
            smooth,
            class_weights,
            from_logits,
            name=name or type(self).__name__.lower(),
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["alpha"], config["beta"]
        return config


@keras.saving.register_keras_serializable(package="dermaseg")
class Dice(_FixedTversky):
    """`dice_loss` as a Keras loss; parameters as there."""

    weight = 0.5


@keras.saving.register_keras_serializable(package="dermaseg")
class Jaccard(_FixedTversky):
    """`jaccard_loss` as a Keras loss; parameters as there."""

    weight = 1.0


@keras.saving.register_keras_serializable(package="dermaseg")
class FocalTversky(Tversky):
    """`focal_tversky_loss` as a Keras loss; parameters as there."""

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
        super().__init__(alpha, beta, smooth, class_weights, from_logits, name=name, **kwargs)
        if not gamma > 0:
            raise ValueError(f"gamma must be above 0, got {gamma!r}.")
        self.gamma = gamma

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each picture, `(batch,)`."""
        return focal_tversky_loss(
            y_true,
            y_pred,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            smooth=self.smooth,
            class_weights=self.class_weights,
            from_logits=self.from_logits,
        )

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        return {**super().get_config(), "gamma": self.gamma}


@keras.saving.register_keras_serializable(package="dermaseg")
class OverlapCrossentropy(keras.losses.Loss):
    """`overlap_crossentropy` as a Keras loss; parameters as there. The default loss of `dermaseg train segment`."""

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
        super().__init__(name=name, **kwargs)
        _check_overlap(overlap, weight)
        _check_parameters(1.0, 1.0, smooth)
        self.overlap = overlap
        self.weight = weight
        self.smooth = smooth
        self.class_weights = class_weights
        self.from_logits = from_logits

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the loss of each picture, `(batch,)`."""
        return overlap_crossentropy(
            y_true,
            y_pred,
            overlap=self.overlap,
            weight=self.weight,
            smooth=self.smooth,
            class_weights=self.class_weights,
            from_logits=self.from_logits,
        )

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        return {
            **super().get_config(),
            "overlap": self.overlap,
            "weight": self.weight,
            "smooth": self.smooth,
            "class_weights": self.class_weights,
            "from_logits": self.from_logits,
        }


def _mean_over_classes(losses: Any, class_weights: Sequence[float] | None) -> Any:
    """Average `(batch, channels)` over the channels."""
    if class_weights is None:
        return ops.mean(losses, axis=-1)
    if len(class_weights) != losses.shape[-1]:
        raise ValueError(f"class_weights has {len(class_weights)} entries for {losses.shape[-1]} channels.")
    weights = ops.convert_to_tensor(class_weights, dtype="float32")
    return ops.sum(losses * weights, axis=-1) / ops.sum(weights)


def _check_parameters(alpha: float, beta: float, smooth: float) -> None:
    if alpha < 0 or beta < 0:
        raise ValueError(f"alpha and beta must be at least 0, got alpha={alpha!r}, beta={beta!r}.")
    if not smooth > 0:
        raise ValueError(f"smooth must be above 0 (it defines the loss of empty masks), got {smooth!r}.")


def _check_overlap(overlap: str, weight: float) -> None:
    if overlap not in ("dice", "jaccard"):
        raise ValueError(f"overlap must be 'dice' or 'jaccard', got {overlap!r}.")
    if not 0 <= weight <= 1:
        raise ValueError(f"weight must lie between 0 and 1, got {weight!r}.")
