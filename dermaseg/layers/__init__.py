"""Trainable or exportable pieces, each a Keras layer with a complete config."""

from dermaseg.layers.padding import CropLike, PadToStride

__all__ = ["CropLike", "PadToStride"]
