"""Make any height and width fit a network's stride, and take the padding off again.

Padding stands after the last row and column alone: cell i of a map at stride s then shows the pixels from i s to (i + 1) s,
whatever the size of the picture, and a map is brought back to it by cutting off its end.
"""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

__all__ = ["CropLike", "PadToStride", "covered_size"]


def covered_size(size: tuple[int, int], cells: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width in pixels that a map of so many cells covers, the picture's own and the padding behind it.

    Args:
        size: `(height, width)` of the picture, in pixels.
        cells: `(height, width)` of the map, whose stride is a power of two, the same along both sides.

    Examples:
        >>> covered_size((111, 148), (7, 10))
        (112, 160)
    """
    # The larger: of a side that is one cell the stride is not known, only that it is no shorter.
    stride = max(1 << max(0, math.ceil(math.log2(side / count))) for side, count in zip(size, cells, strict=True))
    return cells[0] * stride, cells[1] * stride


@keras.saving.register_keras_serializable(package="dermaseg")
class PadToStride(keras.layers.Layer):
    """Mirror the lower and the right border until height and width are multiples of `stride`.

    Reflection keeps skin next to skin: a black or constant frame would look like the dark corner of a dermatoscope
    and be segmented. Mirroring goes on as often as it must, so that even one pixel can be padded to `stride`.

    Args:
        stride: What height and width are to be multiples of, in pixels, at least 1.

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

    def call(self, maps: Any) -> Any:
        """Return the pictures or maps, mirrored out to the stride."""
        for axis in (1, 2):
            maps = self._mirror(maps, axis)
        return maps

    def _mirror(self, maps: Any, axis: int) -> Any:
        size = ops.shape(maps)[axis]
        missing = -size % self.stride
        if isinstance(size, int) and not missing:
            return maps
        if self.stride == 2:  # by slices: inside a network it is differentiated, and the gradient of a gather is slow
            start = max(size - 2, 0) if isinstance(size, int) else ops.maximum(size - 2, 0)
            # Where the size is known to be odd, the cut takes nothing off. It spares exported graphs a slice that may be empty.
            end = size + missing
            if axis == 1:
                return ops.concatenate([maps, maps[:, start : start + 1]], axis=1)[:, :end]
            return ops.concatenate([maps, maps[:, :, start : start + 1]], axis=2)[:, :, :end]
        # A triangle wave over the pixel indices: 0 1 ... n-1 n-2 ... 1 0 1 ..., without repeating the border pixel.
        period = ops.maximum(2 * size - 2, 1)
        phase = ops.mod(ops.arange(size + missing), period)
        return ops.take(maps, ops.minimum(phase, period - phase), axis=axis)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the padded shape; None where the size is not known."""
        batch, height, width, channels = input_shape
        return batch, self._padded(height), self._padded(width), channels

    def _padded(self, size: int | None) -> int | None:
        return None if size is None else size + -size % self.stride

    def compute_output_spec(self, maps: Any) -> keras.KerasTensor:
        """Return shape and type without computing (a dynamic size has no arange to trace)."""
        return keras.KerasTensor(self.compute_output_shape(maps.shape), dtype=maps.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable(package="dermaseg")
class CropLike(keras.layers.Layer):
    """Undo `PadToStride`: cut a padded map at the height and width of the reference.

    Input: `[padded, reference]`, `(batch, padded_height, padded_width, channels)` and `(batch, height, width, any)`.
    Output shape: `(batch, height, width, channels)`.

    Examples:
        >>> CropLike()([ops.zeros((1, 128, 128, 1)), ops.zeros((1, 101, 97, 3))]).shape[1:3] == (101, 97)
        True
    """

    def call(self, inputs: Any) -> Any:
        """Return the beginning of the padded map."""
        padded, reference = inputs
        height, width = ops.shape(reference)[1:3]
        if isinstance(height, int) and isinstance(width, int) and tuple(padded.shape[1:3]) == (height, width):
            return padded  # nothing to copy
        return padded[:, :height, :width]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Return the reference's height and width with the map's channels."""
        padded, reference = input_shape
        return padded[0], reference[1], reference[2], padded[3]

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Return shape and type without computing."""
        padded, reference = inputs
        return keras.KerasTensor(self.compute_output_shape((padded.shape, reference.shape)), dtype=padded.dtype)
