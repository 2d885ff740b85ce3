"""Pieces that several model families share: convolutions, an encoder, a decoder, heads.

Layers are named by where they stand (`encoder_3_...`, `decoder_8_...`), so that two families built from these blocks
hand their weights to each other by name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from keras import layers

from dermaseg.layers.normalization import BatchNormalization
from dermaseg.layers.padding import CropLike, PadToStride
from dermaseg.layers.upsampling import SmoothUpsampling

__all__ = [
    "SkipGate",
    "activation_name",
    "check_filters",
    "convolution",
    "decode",
    "dense_head",
    "encode",
    "mask_head",
    "residual_block",
    "to_pixels",
]

SkipGate = Callable[[Any, Any, str], Any]
"""Changes a skip: `gate(skip, decoder_features, name) -> skip`; the decoder's map is half the skip's height and width."""


def activation_name(classifier_activation: str | None, num_classes: int) -> str:
    """Return the output activation: `"auto"` is sigmoid for one class and softmax for more; None is `"linear"` (logits).

    Raises:
        ValueError: If `num_classes` is not a positive integer.
    """
    if not _is_positive_integer(num_classes):
        raise ValueError(f"num_classes must be a positive integer, got {num_classes!r}.")
    if classifier_activation == "auto":
        return "sigmoid" if num_classes == 1 else "softmax"
    return "linear" if classifier_activation is None else classifier_activation


def check_filters(filters: Sequence[int]) -> tuple[int, ...]:
    """Return the channel counts as a tuple.

    Raises:
        ValueError: If there are fewer than two stages, or one is not a positive integer.
    """
    counts = tuple(filters)
    if len(counts) < 2 or not all(_is_positive_integer(count) for count in counts):
        raise ValueError(f"filters must hold two or more positive integers, one per stage, got {filters!r}.")
    return tuple(operator.index(count) for count in counts)


def _is_positive_integer(value: Any) -> bool:
    """Tell it of Python's integers and NumPy's."""
    try:
        return not isinstance(value, bool) and operator.index(value) > 0
    except TypeError:
        return False


def convolution(
    x: Any, filters: int, *, kernel_size: int = 3, stride: int = 1, activation: str | None = "relu", name: str
) -> Any:
    """Convolve, normalise over the batch, activate. The normalisation has the bias, so that exports can fold it."""
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(x)
    # Keras's momentum of 0.99 needs thousands of steps to forget its start; short trainings have fewer.
    x = BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return layers.Activation(activation, name=f"{name}_act")(x) if activation else x


def residual_block(x: Any, filters: int, *, stride: int = 1, name: str) -> Any:
    """Add two 3x3 convolutions to their input (He et al., 2016), averaged down and projected where shapes differ.

    The shortcut averages before it projects, as in ResNet-D (He et al., 2019): a strided 1x1 convolution would look at
    one pixel in four.
    """
    shortcut = layers.AveragePooling2D(stride, name=f"{name}_pool")(x) if stride > 1 else x
    if shortcut.shape[-1] != filters:
        shortcut = convolution(shortcut, filters, kernel_size=1, activation=None, name=f"{name}_shortcut")
    x = convolution(x, filters, stride=stride, name=f"{name}_1")
    x = convolution(x, filters, activation=None, name=f"{name}_2")
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def encode(images: Any, filters: Sequence[int], *, stem_stride: int = 2, blocks: Sequence[int] | None = None) -> list[Any]:
    """Turn raw pixels into one feature map per stage, finest first: strides `stem_stride`, `2 stem_stride`, ...

    An odd map is mirrored by one row or column before it is halved. Padding the picture to the total stride instead, as is
    usual, makes 128 by 192 pixels of 111 by 148: half as much work again.

    Args:
        images: `(batch, height, width, 3)`, values 0 to 255, any height and width.
        filters: Channels per stage.
        stem_stride: 1 keeps the first stage at full resolution; 2 halves it in the first convolution.
        blocks: Residual blocks per stage, by default one each.
    """
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(images)
    if stem_stride > 1:
        x = PadToStride(stem_stride, name="pad")(x)
    x = convolution(x, filters[0], stride=stem_stride, name="stem")
    features = []
    for stage, (width, count) in enumerate(zip(filters, blocks or [1] * len(filters), strict=True)):
        if stage:
            x = PadToStride(2, name=f"encoder_{stage}_pad")(x)
        for block in range(count):
            stride = 2 if stage and not block else 1
            x = residual_block(x, width, stride=stride, name=f"encoder_{stage}_{block}")
        features.append(x)
    return features


def decode(features: Sequence[Any], filters: Sequence[int], *, skip_gate: SkipGate | None = None) -> list[Any]:
    """Climb from the coarsest feature map to the finest, adding each skip on the way.

    A 1x1 convolution narrows the coarse map before nearest-neighbour upsampling: the convolution then costs a quarter, and
    no resizing kernel is needed, which mixed precision could not compile. Skips are added, not concatenated: on a
    CPU that trains about 10 % faster.

    Args:
        features: Finest first, as `encode` returns them: each half the height and width of the one before, rounded up.
        filters: Channels of the decoder at each skip, finest first: one fewer than there are features.
        skip_gate: Changes each skip before it is added.

    Returns:
        The decoder's maps, finest first, one for each skip.
    """
    x = features[-1]
    decoded: list[Any] = []
    for level in reversed(range(len(features) - 1)):
        skip, width = features[level], filters[level]
        if skip.shape[-1] != width:
            skip = convolution(skip, width, kernel_size=1, activation=None, name=f"decoder_{level}_skip")
        x = convolution(x, width, kernel_size=1, activation=None, name=f"decoder_{level}_up")
        if skip_gate is not None:
            even = PadToStride(2, name=f"gate_{level}_pad")(skip)
            skip = CropLike(name=f"gate_{level}_crop")([skip_gate(even, x, f"gate_{level}"), skip])
        x = layers.UpSampling2D(2, interpolation="nearest", name=f"decoder_{level}_upsample")(x)
        x = CropLike(name=f"decoder_{level}_crop")([x, skip])
        x = layers.Add(name=f"decoder_{level}_add")([x, skip])
        x = layers.Activation("relu", name=f"decoder_{level}_join")(x)
        x = convolution(x, width, name=f"decoder_{level}")
        decoded.insert(0, x)
    return decoded


def mask_head(x: Any, like: Any, *, num_classes: int, stride: int, classifier_activation: str | None, name: str) -> Any:
    """Turn features at `stride` into float32 mask probabilities at the height and width of `like`."""
    activation = activation_name(classifier_activation, num_classes)
    x = layers.Conv2D(num_classes, 3, padding="same", dtype="float32", name=f"{name}_logits")(x)
    return layers.Activation(activation, dtype="float32", name=name)(to_pixels(x, like, stride=stride, name=name))


def to_pixels(x: Any, like: Any, *, stride: int, name: str) -> Any:
    """Bring a map at `stride` to the height and width of `like`, in float32."""
    if stride > 1:
        x = SmoothUpsampling(stride, dtype="float32", name=f"{name}_upsample")(x)
    return CropLike(dtype="float32", name=f"{name}_crop")([x, like])


def dense_head(x: Any, *, num_classes: int, dropout: float, classifier_activation: str | None, name: str) -> Any:
    """Turn a feature vector `(batch, channels)` into float32 class probabilities `(batch, num_classes)`."""
    activation = activation_name(classifier_activation, num_classes)
    if dropout:
        x = layers.Dropout(dropout, name=f"{name}_dropout")(x)
    x = layers.Dense(num_classes, dtype="float32", name=f"{name}_logits")(x)
    return layers.Activation(activation, dtype="float32", name=name)(x)
