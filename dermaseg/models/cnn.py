"""Convolutional classifiers that are trained from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import layers

from dermaseg.models.blocks import check_filters, dense_head, encode
from dermaseg.pretrained import with_weights

__all__ = ["build_cnn"]

RESIDUAL_FILTERS = (16, 32, 64, 128, 256)
RESIDUAL_BLOCKS = (1, 1, 1, 2, 2)
PLAIN_FILTERS = (32, 64, 128)


def build_cnn(
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int,
    filters: Sequence[int] | None = None,
    blocks: Sequence[int] | None = None,
    stem_stride: int = 2,
    variant: Literal["residual", "plain"] = "residual",
    dropout: float = 0.0,
    classifier_activation: str | None = "auto",
    weights: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Build a classifier from raw pixels to class probabilities.

    `"residual"` is the encoder of `build_unet` under global average pooling. Its layers have the same names, so that a
    segmentation network of the same `filters` can lend it its weights. Its 3x3 convolutions are dense: a CPU runs them near
    its peak, and depthwise ones far from it. `"plain"` is the baseline that most notebooks train: convolutions and max
    pooling by turns, flattened into a wide dense layer.

    Args:
        input_shape: Height and width may be None for `"residual"`, which takes any size; `"plain"`
            needs both, for its dense layer reads every spatial position.
        num_classes: 1 for a yes or no (sigmoid), more for exclusive classes (softmax).
        filters: Channels per stage; each stage after the first halves the map. None takes
            (16, 32, 64, 128, 256), or (32, 64, 128) for `"plain"`.
        blocks: Residual blocks per stage; None takes one each, and with `filters=None` (1, 1, 1, 2, 2): depth costs least where
            the map is small. Not used by `"plain"`.
        stem_stride: 1 or 2, the stride of the first convolution. Not used by `"plain"`.
        variant: `"residual"` or `"plain"`.
        dropout: Rate, 0 to 1, before the last dense layer.
        classifier_activation: `"auto"`, the name of an activation, or None for logits.
        weights: None, or the name of a preset, `dermaseg.list_presets()`, whose weights to start from; a head with
            another number of classes keeps its random weights; one with the same number takes the preset's, even if the classes
            differ.
        name: Name of the model.

    Returns:
        An uncompiled model from `(batch, height, width, 3)`, 0 to 255, to `(batch, num_classes)` float32.

    Raises:
        ValueError: If an argument is outside its range.

    Examples:
        >>> model = build_cnn(num_classes=7, filters=(8, 16))
        >>> model(keras.ops.zeros((1, 45, 60, 3))).shape == (1, 7)
        True

    References:
        He et al., 2016, "Deep residual learning", and He et al., 2019, "Bag of tricks", model tweak D. Deviations: a 3x3
        stem without max pooling, and fewer, narrower stages: thousands of photographs, not a million.
    """
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}.")
    inputs = keras.Input(input_shape, name="images")
    if variant == "residual":
        if filters is None:
            filters, blocks = RESIDUAL_FILTERS, blocks or RESIDUAL_BLOCKS
        features = _residual(inputs, filters, blocks, stem_stride)
    elif variant == "plain":
        features = _plain(inputs, filters or PLAIN_FILTERS)
    else:
        raise ValueError(f"variant must be 'residual' or 'plain', got {variant!r}.")
    outputs = dense_head(
        features, num_classes=num_classes, dropout=dropout, classifier_activation=classifier_activation, name="label"
    )
    return with_weights(keras.Model(inputs, outputs, name=name or "cnn"), weights)


def _residual(images: Any, filters: Sequence[int], blocks: Sequence[int] | None, stem_stride: int) -> Any:
    widths = check_filters(filters)
    if stem_stride not in (1, 2):
        raise ValueError(f"stem_stride must be 1 or 2, got {stem_stride!r}.")
    if blocks is not None and (len(blocks) != len(widths) or min(blocks) < 1):
        raise ValueError(f"blocks must hold {len(widths)} positive integers, one per stage, got {blocks!r}.")
    features = encode(images, widths, stem_stride=stem_stride, blocks=blocks)
    # float32: bfloat16 has three digits, too few for a sum over every place.
    return layers.GlobalAveragePooling2D(dtype="float32", name="pool")(features[-1])


def _plain(images: Any, filters: Sequence[int]) -> Any:
    if None in images.shape[1:]:
        raise ValueError(f"input_shape must give height and width for variant='plain', got {images.shape[1:]}.")
    x = layers.Rescaling(1 / 255, name="rescale")(images)
    for stage, width in enumerate(check_filters(filters)):
        x = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"stage_{stage}_conv")(x)
        x = layers.MaxPooling2D(2, name=f"stage_{stage}_pool")(x)
    x = layers.Flatten(name="flatten")(x)
    return layers.Dense(128, activation="relu", name="dense")(x)
