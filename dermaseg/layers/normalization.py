"""Batch normalisation that TensorFlow trains with its fused kernels."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["BatchNormalization"]


@keras.saving.register_keras_serializable(package="dermaseg")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras's batch normalisation, faster to train on TensorFlow.

    Keras 3 composes it of single operations, in float32 whatever the policy: about ten passes over the features and back.
    TensorFlow has one kernel for each direction, which reads features in their own format and keeps statistics in float32.
    Same weights, same figures within rounding; on other backends, in inference, and wherever the kernel does not do what is
    asked (masks, other axes than the last, renormalisation, statistics shared between replicas) it is Keras's own. It takes the
    arguments of `keras.layers.BatchNormalization`.

    Examples:
        >>> layer = BatchNormalization()
        >>> features = keras.random.normal((4, 8, 8, 3), mean=5.0)
        >>> bool(ops.all(ops.abs(ops.mean(layer(features, training=True), axis=(0, 1, 2))) < 1e-3))
        True

    References:
        Ioffe and Szegedy, 2015, "Batch normalization".
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any | None = None) -> Any:
        """Normalise, by the batch's own statistics in training."""
        if not (training and self.trainable and mask is None and self._is_fused(inputs)):
            return super().call(inputs, training=training, mask=mask)
        from tensorflow import raw_ops

        normalised, mean, variance, *_ = raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=ops.cast(self.gamma, "float32"),
            offset=ops.cast(self.beta, "float32"),
            mean=[],
            variance=[],
            epsilon=self.epsilon,
            is_training=True,
        )
        # The kernel returns the unbiased variance, Keras accumulates the biased one.
        count = ops.cast(ops.prod(ops.shape(inputs)[:-1]), "float32")
        variance = variance * (count - 1.0) / count
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + ops.cast(batch, moving.dtype) * (1.0 - self.momentum))
        return normalised

    def _is_fused(self, inputs: Any) -> bool:
        plain = self.scale and self.center and not self.synchronized and not self.renorm
        plain = plain and keras.backend.standardize_dtype(inputs.dtype) in ("float32", "bfloat16", "float16")
        return plain and keras.backend.backend() == "tensorflow" and len(inputs.shape) == 4 and self.axis in (-1, 3)
