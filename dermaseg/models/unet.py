"""U-Net for lesion masks: any size in, the same size out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import layers

from dermaseg.layers.padding import PadToStride
from dermaseg.models.blocks import check_filters, decode, encode, mask_head
from dermaseg.models.encoders import build_encoder
from dermaseg.pretrained import with_weights

__all__ = ["build_unet"]

DEFAULT_FILTERS = (16, 32, 64, 128, 256, 384)
PRETRAINED_FILTERS = (16, 32, 64, 128, 256)


def build_unet(
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 1,
    filters: Sequence[int] | None = None,
    stem_stride: int = 2,
    encoder: str | None = None,
    encoder_weights: str | None = None,
    deep_supervision: bool = False,
    dropout: float = 0.0,
    classifier_activation: str | None = "auto",
    weights: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Build a U-Net from raw pixels to mask probabilities.

    The default is a residual U-Net whose first convolution halves the picture and whose last step is a bilinear upsampling:
    a lesion's outline is smooth at that scale, and the time saved buys depth. `stem_stride=1` gives the usual
    full-resolution network; `encoder` puts a network of keras.applications in the encoder's place.

    Args:
        input_shape: Height and width may be None. Without an encoder, a feature map of odd size is mirrored by one row or
            column before it is halved; with one, the picture is mirrored up to multiples of 32. The output is cropped back.
        num_classes: Channels of the mask: 1 for lesion against skin (sigmoid), more for exclusive regions (softmax).
        filters: Channels per stage, finest first; their number is the depth. With an encoder: the decoder's channels, of
            which the coarsest are used where the encoder has fewer stages. None takes (16, 32, 64, 128, 256, 384), or
            (16, 32, 64, 128, 256) with an encoder.
        stem_stride: 1 or 2, the stride of the first convolution. Not used with an encoder.
        encoder: None, or a name in `dermaseg.models.ENCODERS`. Its own preprocessing is inside the model.
        encoder_weights: None, `"imagenet"`, or the path of a weights file.
        deep_supervision: Also predict the mask from the two next coarser decoder maps, each brought to full size
            (Lee et al., 2015): the model then returns a dict of `mask`, `mask_coarse` and `mask_coarsest`.
        dropout: Rate, 0 to 1, of spatial dropout on the coarsest map.
        classifier_activation: `"auto"`, the name of an activation, or None for logits.
        weights: None, or the name of a preset, `dermaseg.list_presets()`, whose weights to start from; a head with
            another number of classes keeps its random weights; one with the same number takes the preset's, even if the classes
            differ.
        name: Name of the model.

    Returns:
        An uncompiled model from `(batch, height, width, 3)`, 0 to 255, to `(batch, height, width, num_classes)` float32.

    Raises:
        ValueError: If an argument is outside its range.

    Examples:
        >>> model = build_unet(filters=(8, 16))
        >>> model(keras.ops.zeros((1, 45, 60, 3))).shape == (1, 45, 60, 1)
        True

    References:
        Ronneberger et al., 2015, "U-Net". Deviations: residual blocks (He et al., 2016), batch normalisation, padded
        convolutions, skips added instead of concatenated, a strided stem, nearest-neighbour upsampling after a 1x1
        convolution.
    """
    inputs = keras.Input(input_shape, name="images")
    pyramid = build_pyramid(
        inputs,
        filters=filters,
        stem_stride=stem_stride,
        encoder=encoder,
        encoder_weights=encoder_weights,
        dropout=dropout,
    )
    decoded = decode(pyramid.features, pyramid.decoder_filters)
    masks = build_masks(
        decoded,
        inputs,
        stride=pyramid.stride,
        num_classes=num_classes,
        deep_supervision=deep_supervision,
        classifier_activation=classifier_activation,
    )
    return with_weights(keras.Model(inputs, masks, name=name or "unet"), weights)


class Pyramid(NamedTuple):
    """What an encoder gives to a decoder."""

    features: list[Any]
    """Maps, finest first, each half the height and width of the one before, rounded up."""
    decoder_filters: tuple[int, ...]
    """Channels of the decoder at each skip, finest first."""
    stride: int
    """Stride of the finest map."""
    multiple: int
    """What height and width of the picture were mirrored out to multiples of."""


def build_pyramid(
    inputs: Any,
    *,
    filters: Sequence[int] | None,
    stem_stride: int,
    encoder: str | None,
    encoder_weights: str | None,
    dropout: float,
) -> Pyramid:
    """Encode raw pixels, with the library's own encoder or one of keras.applications."""
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, got {dropout!r}.")
    if encoder is None:
        if stem_stride not in (1, 2):
            raise ValueError(f"stem_stride must be 1 or 2, got {stem_stride!r}.")
        if encoder_weights is not None:
            raise ValueError("encoder_weights needs an encoder: name one, or leave encoder_weights=None.")
        widths = check_filters(filters or DEFAULT_FILTERS)
        pyramid = Pyramid(encode(inputs, widths, stem_stride=stem_stride), widths[:-1], stem_stride, 1)
    else:
        coarsest = 32
        features = build_encoder(encoder, encoder_weights=encoder_weights)(PadToStride(coarsest, name="pad")(inputs))
        widths = check_filters(filters or PRETRAINED_FILTERS)
        skips = len(features) - 1
        if len(widths) < skips:
            raise ValueError(f"filters must hold at least {skips} integers for {encoder}, got {filters!r}.")
        pyramid = Pyramid(features, widths[len(widths) - skips :], coarsest >> skips, coarsest)
    if dropout:
        pyramid.features[-1] = layers.SpatialDropout2D(dropout, name="bottleneck_dropout")(pyramid.features[-1])
    return pyramid


def build_masks(
    decoded: Sequence[Any],
    inputs: Any,
    *,
    stride: int,
    num_classes: int,
    deep_supervision: bool,
    classifier_activation: str | None,
) -> Any:
    """Turn decoder maps, finest first, into the mask output, or into a dict of three under deep supervision."""
    names = ("mask", "mask_coarse", "mask_coarsest") if deep_supervision else ("mask",)
    if len(decoded) < len(names):
        raise ValueError(f"deep_supervision needs at least {len(names)} decoder maps, got {len(decoded)}: add filters.")
    masks = {
        mask: mask_head(
            x,
            inputs,
            num_classes=num_classes,
            stride=stride * 2**level,
            classifier_activation=classifier_activation,
            name=mask,
        )
        for level, (mask, x) in enumerate(zip(names, decoded, strict=False))
    }
    return masks if deep_supervision else masks["mask"]
