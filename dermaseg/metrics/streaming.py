"""Streaming Keras metrics of classes, to watch while training. Reports use `dermaseg.metrics.classification`."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["BalancedAccuracy"]


@keras.saving.register_keras_serializable(package="dermaseg")
class BalancedAccuracy(keras.metrics.Metric):
    """Mean sensitivity over the classes seen so far: what accuracy would be if all classes were equally common.

    Args:
        num_classes: Number of classes, at least 2.
        name: Name of the metric.
        dtype: As for `keras.metrics.Metric`.

    Examples:
        >>> metric = BalancedAccuracy(num_classes=2)
        >>> metric.update_state([0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]])
        >>> float(metric.result())  # the majority class alone is worth chance
        0.5
    """

    def __init__(self, num_classes: int, name: str = "balanced_accuracy", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes!r}.")
        self.num_classes = num_classes
        self.correct = self.add_weight(name="correct", shape=(num_classes,), initializer="zeros")
        self.total = self.add_weight(name="total", shape=(num_classes,), initializer="zeros")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Add a batch.

        Args:
            y_true: Classes `(batch,)` or `(batch, 1)`, or one-hot `(batch, classes)`, of which the largest counts.
            y_pred: Probabilities or logits `(batch, classes)`; for two classes also one sigmoid probability `(batch, 1)`.
            sample_weight: `(batch,)` or None.

        Raises:
            ValueError: If the number of columns of `y_pred` does not fit `num_classes`.
        """
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        columns = y_pred.shape[-1]
        if len(y_pred.shape) != 2 or columns not in ({1, 2} if self.num_classes == 2 else {self.num_classes}):
            raise ValueError(
                f"{self.name}: y_pred must be (batch, {self.num_classes}), one column per class, got {tuple(y_pred.shape)}."
            )
        if len(y_true.shape) == 2 and y_true.shape[-1] == self.num_classes:
            y_true = ops.argmax(y_true, axis=-1)
        predicted = ops.cast(y_pred[:, 0] > 0.5, "int32") if columns == 1 else ops.argmax(y_pred, axis=-1)
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        own = ops.one_hot(labels, self.num_classes, dtype=self.total.dtype)
        if sample_weight is not None:
            own = own * ops.cast(ops.reshape(sample_weight, (-1, 1)), own.dtype)
        right = ops.cast(ops.equal(labels, ops.cast(predicted, "int32")), own.dtype)
        self.correct.assign_add(ops.sum(own * right[:, None], axis=0))
        self.total.assign_add(ops.sum(own, axis=0))

    def result(self) -> Any:
        """Return the figure over all that was added, a scalar; 0 before anything was."""
        # Tensors first: jax.numpy.where takes no Keras variable.
        correct, total = ops.convert_to_tensor(self.correct), ops.convert_to_tensor(self.total)
        sensitivity = ops.where(total > 0, correct / ops.where(total > 0, total, 1.0), 0.0)
        return ops.sum(sensitivity) / ops.maximum(ops.sum(ops.cast(total > 0, total.dtype)), 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the metric."""
        return {**super().get_config(), "num_classes": self.num_classes}
