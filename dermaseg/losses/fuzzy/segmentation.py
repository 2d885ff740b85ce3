"""The Fuzzy U-Net's loss: each pixel for itself, and their overlap."""

from __future__ import annotations

from typing import Any

import keras

from dermaseg import fuzzy
from dermaseg.fuzzy.masks import check_tau
from dermaseg.losses.base import FunctionLoss, check_pair, check_tversky
from dermaseg.losses.fuzzy.overlap import fuzzy_jaccard_loss
from dermaseg.losses.fuzzy.pixels import fuzzy_crossentropy_loss

__all__ = ["FuzzySegmentation", "fuzzy_segmentation_loss"]


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
        >>> mu = keras.ops.reshape([0.0, 0.25, 0.75, 1.0], (1, 2, 2, 1))
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
        check_tversky(1.0, 1.0, smooth)
        parameters = {"tau_px": tau_px, "smooth": smooth, "from_logits": from_logits}
        super().__init__(fuzzy_segmentation_loss, parameters, name=name, **kwargs)
