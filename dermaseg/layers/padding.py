"""Make any height and width fit a network's stride, and take the padding off again."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["CropLike", "PadToStride"]


def _padding(size: Any, stride: int) -> tuple[Any, Any]:
    """Return how many pixels stand before and after `size` pixels (an int, or a tensor where it is dynamic)."""
    total = -size % stride
    return total // 2, total - total // 2


@keras.saving.register_keras_serializable(package="dermaseg")
class PadToStride(keras.layers.Layer):
    """Mirror the borders until height and width are multiples of `stride`.

    Reflection keeps skin next to skin: a black or constant frame would look like the dark corner of a dermatoscope
    and be segmented. Mirroring goes on as often as it must, so that even one pixel can be padded to `stride`.

    Args:
        stride: The network's total stride in pixels, at least 1.

    Input shape: `(batch, height, width, channels)`, any height and width.
    Output shape: `(batch, ceil(height / stride) * stride, ceil(width / stride) * stride, channels)`.

    Raises:
        ValueError: If `stride` is not a positive integer.

    Examples:
        >>> PadToStride(32)(ops.zeros((1, 101, 97, 3))).shape[1:3] == (128, 128)
        True
    """

    def __init__(self, stride: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(stride, int) or stride < 1:
            raise ValueError(f"stride must be a positive integer, got {stride!r}.")
        self.stride = stride

    def call(self, images: Any) -> Any:
        """Return the images, mirrored out to the stride."""
        for axis in (1, 2):
            images = self._mirror(images, axis)
        return images

    def _mirror(self, images: Any, axis: int) -> Any:
        size = ops.shape(images)[axis]
        before, after = _padding(size, self.stride)
        if isinstance(size, int) and before + after == 0:
            return images
        # A triangle wave over the pixel indices: ... 2 1 0 1 2 ... n-1 n-2 ..., without repeating the border pixel.
        period = ops.maximum(2 * size - 2, 1)
        positions = ops.arange(size + before + after) - before
        phase = ops.mod(positions, period)
        return ops.take(images, ops.minimum(phase, period - phase), axis=axis)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the padded shape; None where the size is not known."""
        batch, height, width, channels = input_shape
        return batch, self._padded(height), self._padded(width), channels

    def _padded(self, size: int | None) -> int | None:
        return None if size is None else size + -size % self.stride

    def compute_output_spec(self, images: Any) -> keras.KerasTensor:
        """Return shape and type without computing (a dynamic size has no arange to trace)."""
        return keras.KerasTensor(self.compute_output_shape(images.shape), dtype=images.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable(package="dermaseg")
class CropLike(keras.layers.Layer):
    """Undo `PadToStride`: cut the middle out of a padded map, at the height and width of the reference.

    Input: `[padded, reference]`, `(batch, padded_height, padded_width, channels)` and `(batch, height, width, any)`.
    Output shape: `(batch, height, width, channels)`.

    Examples:
        >>> CropLike()([ops.zeros((1, 128, 128, 1)), ops.zeros((1, 101, 97, 3))]).shape[1:3] == (101, 97)
        True
    """

    def call(self, inputs: Any) -> Any:
        """Return the middle of the padded map."""
        padded, reference = inputs
        height, width = ops.shape(reference)[1:3]
        top = (ops.shape(padded)[1] - height) // 2
        left = (ops.shape(padded)[2] - width) // 2
        return padded[:, top : top + height, left : left + width]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the reference's height and width with the map's channels."""
        padded, reference = input_shape
        return padded[0], reference[1], reference[2], padded[3]

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Return shape and type without computing."""
        padded, reference = inputs
        return keras.KerasTensor(self.compute_output_shape((padded.shape, reference.shape)), dtype=padded.dtype)
