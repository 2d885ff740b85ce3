"""Smooth upsampling that compiles, exports and meets any size."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["SmoothUpsampling"]


@keras.saving.register_keras_serializable(package="dermaseg")
class SmoothUpsampling(keras.layers.Layer):
    """Double height and width, as often as it takes, each time by bilinear interpolation between pixel centres.

    Along an axis, x becomes ..., 3/4 x_i + 1/4 x_(i-1), 3/4 x_i + 1/4 x_(i+1), ...; the border repeats itself. For a factor of
    2 that is bilinear resizing; a larger factor comes out a little smoother. Made of slices and sums, it needs no resizing
    kernel: Keras 3.15's bilinear `UpSampling2D` fails on TensorFlow where a size is only known at run time, and under a mixed
    policy with XLA.

    Args:
        factor: 1, 2, 4, 8 ...

    Input shape: `(batch, height, width, channels)`, any height and width.
    Output shape: `(batch, factor * height, factor * width, channels)`.

    Raises:
        ValueError: If `factor` is not a power of two.

    Examples:
        >>> row = ops.reshape(ops.convert_to_tensor([0.0, 4.0]), (1, 1, 2, 1))
        >>> [float(value) for value in ops.ravel(SmoothUpsampling(2)(row)[0, 0])]
        [0.0, 1.0, 3.0, 4.0]
    """

    def __init__(self, factor: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(factor, int) or factor < 1 or factor & (factor - 1):
            raise ValueError(f"factor must be a power of two, got {factor!r}.")
        self.factor = factor

    def call(self, maps: Any) -> Any:
        """Return the larger maps."""
        for _ in range(self.factor.bit_length() - 1):
            batch, height, width, channels = ops.shape(maps)
            wider = ops.concatenate([maps[:, :1], maps, maps[:, -1:]], axis=1)
            before, after = wider[:, :-2], wider[:, 2:]
            rows = ops.stack([0.75 * maps + 0.25 * before, 0.75 * maps + 0.25 * after], axis=2)
            maps = ops.reshape(rows, (batch, 2 * height, width, channels))
            wider = ops.concatenate([maps[:, :, :1], maps, maps[:, :, -1:]], axis=2)
            before, after = wider[:, :, :-2], wider[:, :, 2:]
            columns = ops.stack([0.75 * maps + 0.25 * before, 0.75 * maps + 0.25 * after], axis=3)
            maps = ops.reshape(columns, (batch, 2 * height, 2 * width, channels))
        return maps

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the larger shape; None where a size is not known."""
        batch, height, width, channels = input_shape
        return batch, height and height * self.factor, width and width * self.factor, channels

    def compute_output_spec(self, maps: Any) -> keras.KerasTensor:
        """Return shape and type without computing."""
        return keras.KerasTensor(self.compute_output_shape(maps.shape), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "factor": self.factor}
