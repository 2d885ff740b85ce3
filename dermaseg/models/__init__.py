"""Builders: keyword-only functions that return an uncompiled `keras.Model` from raw pixels to probabilities."""

from dermaseg.models.encoders import ENCODERS
from dermaseg.models.unet import build_unet

__all__ = ["ENCODERS", "build_unet"]
