"""The optimizer of every training."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["AdamW", "planned_adamw"]


@keras.saving.register_keras_serializable("dermaseg")
class AdamW(keras.optimizers.Adam):
    """Adam with decoupled weight decay: the steps of `keras.optimizers.AdamW`, and less waiting for the first of them.

    Keras decays the weights in a pass of its own, which on TensorFlow puts a copy of the learning rate's whole schedule into
    the graph for each of them. Here the update of a weight decays it as well, by the rate that it is given anyway.

    Args:
        learning_rate: As for `keras.optimizers.Adam`.
        decay: Share of each weight that a step takes off, times the learning rate.
        **options: Of `keras.optimizers.Adam`.

    References:
        Loshchilov and Hutter, 2019, "Decoupled weight decay regularization", algorithm 2; the schedule multiplies the decay.
    """

    def __init__(self, learning_rate: Any = 1e-3, *, decay: float = 0.0, **options: Any) -> None:
        super().__init__(learning_rate, **options)
        self.decay = decay

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay one variable, then move it along its gradient."""
        if self.decay:
            self.assign_sub(variable, variable * ops.cast(learning_rate * self.decay, variable.dtype))
        super().update_step(gradient, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make it again."""
        return {**super().get_config(), "decay": self.decay}


def planned_adamw(learning_rate: float, *, steps: int, decay: float = 0.0, **options: Any) -> AdamW:
    """Make the optimizer of a training of so many steps, as `dermaseg.train` plans it.

    The rate rises linearly over the first twentieth, and falls along half a cosine to a hundredth of its peak.

    Args:
        learning_rate: The peak.
        steps: Of the whole training.
        decay: As for `AdamW`.
        **options: Of `keras.optimizers.Adam`.

    References:
        Loshchilov and Hutter, 2017, "SGDR: stochastic gradient descent with warm restarts", equation 5, without restarts.
    """
    warmup = steps // 20
    rate = keras.optimizers.schedules.CosineDecay(
        learning_rate / 100, steps - warmup, alpha=0.01, warmup_target=learning_rate, warmup_steps=warmup
    )
    return AdamW(rate, decay=decay, **options)
