"""U-Net encoders out of keras.applications, with skips that line up at every size."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

__all__ = ["ENCODERS", "build_encoder"]

# Name -> the range its weights were trained on, where keras.applications leaves rescaling to the caller (None: built in).
ENCODERS: dict[str, tuple[float, float] | None] = {
    "ConvNeXtTiny": None,
    "EfficientNetV2B0": None,
    "InceptionResNetV2": (-1.0, 1.0),
    "MobileNetV3Large": None,
    "ResNet50V2": (-1.0, 1.0),
}

_STRIDES = (2, 4, 8, 16, 32)


def build_encoder(encoder: str, *, encoder_weights: str | None = None, name: str = "encoder") -> keras.Model:
    """Build a feature pyramid from a network of keras.applications.

    Each map is the network's last one at its stride, found by tracing shapes; so it stands before the next halving, where
    a skip belongs. Inception-ResNet-V2's unpadded convolutions become padded ones: the weights stay the same, and every
    map has exactly the input's size over its stride.

    Args:
        encoder: One of `ENCODERS`.
        encoder_weights: None for random weights, `"imagenet"` (downloaded by Keras), or the path of a weights file.
        name: Name of the returned model.

    Returns:
        A model from `(batch, height, width, 3)` raw pixels, 0 to 255, height and width multiples of 32, to a list of maps,
        finest first, at strides 2, 4, 8, 16 and 32; ConvNeXt has none at 2.

    Raises:
        ValueError: If the encoder is unknown, or its weights can't be had.

    References:
        Tan and Le, 2021 (EfficientNetV2); Howard et al., 2019 (MobileNetV3); He et al., 2016 (ResNetV2);
        Szegedy et al., 2017 (Inception-ResNet-V2); Liu et al., 2022 (ConvNeXt).
    """
    if encoder not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(sorted(ENCODERS))}, got {encoder!r}.")
    backbone = _application(encoder, encoder_weights)
    maps = _last_at_each_stride(backbone)
    pyramid = keras.Model(backbone.inputs, maps, name=f"{name}_pyramid")
    value_range = ENCODERS[encoder]
    if value_range is None:
        return keras.Model(pyramid.inputs, pyramid.outputs, name=name)
    low, high = value_range
    images = keras.Input((None, None, 3), name="images")
    scaled = layers.Rescaling((high - low) / 255.0, offset=low, name="rescale")(images)
    return keras.Model(images, pyramid(scaled), name=name)


def _application(encoder: str, weights: str | None) -> keras.Model:
    build = getattr(keras.applications, encoder)
    try:
        backbone = build(include_top=False, weights=weights, input_shape=(None, None, 3))
    except Exception as error:
        if weights is None:
            raise
        raise ValueError(
            f"encoder_weights={weights!r} could not be loaded for {encoder}: {error} "
            "Keras looks for downloaded weights in ~/.keras/models; without a network put the file there, "
            "pass its path as encoder_weights, or train from scratch with encoder_weights=None."
        ) from error
    return _pad_every_convolution(backbone) if encoder == "InceptionResNetV2" else backbone


def _pad_every_convolution(backbone: keras.Model) -> keras.Model:
    def padded(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if config.get("padding") == "valid":
            config["padding"] = "same"
        return layer.__class__.from_config(config)

    clone = keras.models.clone_model(backbone, clone_function=padded)
    clone.set_weights(backbone.get_weights())
    return clone


def _last_at_each_stride(backbone: keras.Model) -> list[Any]:
    """Trace a 256-pixel image through the network, without computing, and keep the last map at each stride."""
    probe = keras.Model(backbone.inputs, [layer.output for layer in backbone.layers])
    traced = probe.compute_output_spec(keras.KerasTensor((1, 256, 256, 3)))
    last: dict[int, Any] = {}
    for layer, spec in zip(backbone.layers, traced, strict=True):
        shape = spec.shape
        # Squeeze-and-excitation branches are 1x1 maps; padding layers give sizes that no stride explains.
        if len(shape) == 4 and shape[1] == shape[2] and shape[1] * 32 >= 256 and 256 % shape[1] == 0:
            last[256 // shape[1]] = layer.output
    return [last[stride] for stride in _STRIDES if stride in last]
