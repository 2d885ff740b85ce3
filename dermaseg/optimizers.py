"""The optimizer of every training."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

__all__ = ["AdamW", "planned_adamw"]


@keras.saving.register_keras_serializable("dermaseg")
class AdamW(keras.optimizers.Adam):
    """Adam with decoupled weight decay: the steps of `keras.optimizers.AdamW`, faster on TensorFlow.

    There Keras composes the update of each weight of some forty single operations, and decays the weights in a pass of its
    own, with a copy of the learning rate's whole schedule for each. Here a weight takes one fused kernel, and what all of them
    share is computed once, so that less is traced before the first step. Other backends, and AMSGrad, take Keras's own update.

    Args:
        learning_rate: As for `keras.optimizers.Adam`.
        weight_decay: Weight decay: each step subtracts learning rate x decay x weight. Unlike in Keras's AdamW it is 0 unless
            asked for, which is plain Adam.
        kernels_only: Decay the kernels of convolutions and dense layers and nothing else: not biases, the scales and offsets of
            normalisation, the sets of fuzzy rules or the weights of losses, of which 0 is no simpler a value than another.
        **options: Other arguments of `keras.optimizers.Adam`.

    References:
        Loshchilov and Hutter, 2019, "Decoupled weight decay regularization", algorithm 2; the schedule multiplies the decay.
    """

    def __init__(
        self, learning_rate: Any = 1e-3, *, weight_decay: float | None = 0.0, kernels_only: bool = False, **options: Any
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay or 0.0, **options)
        self.kernels_only = kernels_only
        self._shared: _Shared | None = None

    def apply(self, grads: Any, trainable_variables: Any = None) -> None:
        """Make one step."""
        self._shared = None
        try:
            super().apply(grads, trainable_variables)
        finally:
            self._shared = None  # it may be of a graph that ends here

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Decay one variable, then move it along its gradient."""
        if self._shared is None:
            self._shared = self._share(learning_rate)
        shared = self._shared
        if self.weight_decay and self._decays(variable):
            self.assign_sub(variable, variable * ops.cast(shared.decay, variable.dtype))
        if keras.backend.backend() != "tensorflow" or self.amsgrad:
            super().update_step(gradient, variable, learning_rate)
            return
        import tensorflow as tf

        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=ops.cast(shared.beta_1_power, variable.dtype),
            beta2_power=ops.cast(shared.beta_2_power, variable.dtype),
            lr=ops.cast(shared.learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=tf.convert_to_tensor(tf.cast(gradient, variable.dtype)),  # an embedding's is sparse
        )

    def _apply_weight_decay(self, variables: Any) -> None:
        """Leave out Keras's pass over all weights: `update_step` decays each."""

    def _decays(self, variable: Any) -> bool:
        # TensorFlow's variable comes here, or one device's part of it: Keras's own knows its name.
        name = self._trainable_variables[self._get_variable_index(variable)].name
        return self._use_weight_decay(variable) and (not self.kernels_only or name.endswith("kernel"))

    def _share(self, learning_rate: Any) -> _Shared:
        rate, step = (ops.cast(value, "float32") for value in (learning_rate, self.iterations + 1))
        return _Shared(rate, rate * self.weight_decay, ops.power(self.beta_1, step), ops.power(self.beta_2, step))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments that make it again."""
        return {**super().get_config(), "kernels_only": self.kernels_only}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> AdamW:
        """Make it again, also as saved when `weight_decay` was called `decay`."""
        if "decay" in config:
            config = {**config, "weight_decay": config["decay"]}
            del config["decay"]
        return super().from_config(config, custom_objects)


class _Shared(NamedTuple):
    """What the updates of one step have in common."""

    learning_rate: Any
    decay: Any
    beta_1_power: Any
    beta_2_power: Any


def planned_adamw(learning_rate: float, *, steps: int, weight_decay: float = 0.0, **options: Any) -> AdamW:
    """Make the optimizer of a training of so many steps, as `dermaseg.train` plans it.

    The rate rises linearly over the first twentieth, and falls along half a cosine to a hundredth of its peak. Kernels alone
    decay.

    Args:
        learning_rate: The peak.
        steps: Steps of the whole training.
        weight_decay: As for `AdamW`.
        **options: Other arguments of `keras.optimizers.Adam`.

    References:
        Loshchilov and Hutter, 2017, "SGDR: stochastic gradient descent with warm restarts", equation 5, without restarts.
    """
    warmup = steps // 20
    rate = keras.optimizers.schedules.CosineDecay(
        learning_rate / 100, steps - warmup, alpha=0.01, warmup_target=learning_rate, warmup_steps=warmup
    )
    return AdamW(rate, weight_decay=weight_decay, kernels_only=True, **options)
