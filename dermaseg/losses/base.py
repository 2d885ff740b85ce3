"""What the losses share: the check of their arguments, and the class round a loss function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

__all__ = ["EPSILON", "FunctionLoss", "check_pair", "check_tversky", "plain_weights"]

# The smallest step that float32 resolves next to 1: probabilities are clipped by it before a logarithm.
EPSILON = 1e-7


def check_pair(y_true: Any, y_pred: Any, *, from_logits: bool = False) -> tuple[Any, Any]:
    """Bring targets and predictions to float32 probabilities of one shape.

    Half precision is left before anything is summed: float16 overflows at 65504, which a 256 pixel mask passes, and
    bfloat16 stops counting at 256.

    Args:
        y_true: `(batch, height, width, channels)`, 0 to 1, any numeric type.
        y_pred: The same shape; probabilities, or logits under `from_logits`.
        from_logits: Whether to pass the predictions through a sigmoid (one channel) or a softmax (more).

    Returns:
        Both as float32 tensors.

    Raises:
        ValueError: If the shapes differ or are not of rank 4.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    if len(y_true.shape) != 4 or len(y_pred.shape) != 4:
        raise ValueError(
            f"masks must be (batch, height, width, channels): y_true has shape {tuple(y_true.shape)}, "
            f"y_pred {tuple(y_pred.shape)}. A missing channel is added by masks[..., None]."
        )
    known = [(a, b) for a, b in zip(y_true.shape, y_pred.shape, strict=True) if a is not None and b is not None]
    if any(a != b for a, b in known):
        raise ValueError(f"y_true has shape {tuple(y_true.shape)}, y_pred {tuple(y_pred.shape)}: they must agree.")
    y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
    if from_logits:
        y_pred = ops.sigmoid(y_pred) if y_pred.shape[-1] == 1 else ops.softmax(y_pred, axis=-1)
    return y_true, y_pred


def check_tversky(alpha: float, beta: float, smooth: float, class_weights: Sequence[float] | None = None) -> None:
    """Refuse weights of an overlap loss that are outside their range.

    Raises:
        ValueError: If `alpha`, `beta` or a class weight is negative, `smooth` is not above 0, or no class weight is.
    """
    if not (alpha >= 0 and beta >= 0):
        raise ValueError(f"alpha and beta must be at least 0, got alpha={alpha!r}, beta={beta!r}.")
    if not smooth > 0:
        raise ValueError(f"smooth must be above 0 (it defines the loss of empty masks), got {smooth!r}.")
    if class_weights is not None and not (min(class_weights, default=-1) >= 0 and sum(class_weights) > 0):
        raise ValueError(f"class_weights must be at least 0, and one above 0, got {class_weights!r}.")


def plain_weights(class_weights: Sequence[float] | None) -> list[float] | None:
    """Return class weights as a config keeps them: of an array, a saved model could not be loaded."""
    return None if class_weights is None else [float(weight) for weight in class_weights]


class FunctionLoss(keras.losses.Loss):
    """A loss function with its keyword arguments, which are the config.

    Args:
        function: From `(y_true, y_pred, **parameters)` to the losses `(batch,)`.
        parameters: Its keyword arguments, checked by the subclass, under the names that the subclass's constructor has.
        **kwargs: `name`, `reduction` and `dtype` of `keras.losses.Loss`.
    """

    def __init__(self, function: Callable[..., Any], parameters: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function
        self.parameters = parameters

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Return the losses, `(batch,)`."""
        return self.function(y_true, y_pred, **self.parameters)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the loss."""
        return {**super().get_config(), **self.parameters}
