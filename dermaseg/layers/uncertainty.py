"""Learn how much each of several losses counts."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["UncertaintyWeights"]

_LIMIT = 4.0


@keras.saving.register_keras_serializable(package="dermaseg")
class UncertaintyWeights(keras.layers.Layer):
    """Sum losses, each weighed by a learned certainty.

    total = sum_k exp(-s_k) L_k + c_k s_k / 2. A loss that stays high gets a large s_k, its log variance, and counts less; the
    second term keeps s_k from growing without end. c_k is the share of the batch that had a target for loss k: without it, a
    batch with no target would pull s_k down though nothing was learned about the loss. s_k starts at 0, where the total is
    the plain sum, and stays within +-4, a weight from 1/55 to 55.

    Args:
        count: How many losses, at least 1.

    Input: `weigh(losses, shares)`, both `(count,)`, the shares 0 to 1.
    Output shape: `()`, float32.

    Raises:
        ValueError: If `count` is not a positive integer.

    Examples:
        >>> float(UncertaintyWeights(2)(ops.convert_to_tensor([0.5, 2.0]), ops.ones(2)))
        2.5

    References:
        Kendall, Gal and Cipolla, 2018, "Multi-task learning using uncertainty to weigh losses", equation 10, with
        s = ln sigma^2. Deviations: no factor 1/2 for regression losses, the bound, and the shares.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"count must be a positive integer, got {count!r}.")
        self.count = count
        self.log_variance = self.add_weight(
            shape=(count,), initializer="zeros", constraint=_Bounded(), autocast=False, name="log_variance"
        )
        self.built = True

    def call(self, losses: Any, shares: Any) -> Any:
        """Return the weighted sum."""
        log_variance = ops.convert_to_tensor(self.log_variance)
        losses, shares = ops.cast(losses, "float32"), ops.cast(shares, "float32")
        return ops.sum(ops.exp(-log_variance) * losses + 0.5 * shares * log_variance)

    def compute_output_shape(self, *_shapes: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of a scalar."""
        return ()

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "count": self.count}


class _Bounded(keras.constraints.Constraint):
    # A constraint, not a clip in `call`: there the gradient would vanish beyond the bound, and the weight never come back.
    def __call__(self, w: Any) -> Any:
        return ops.clip(w, -_LIMIT, _LIMIT)
