"""Trainable or exportable pieces, each a Keras layer with a complete config."""

from dermaseg.layers.colour import ShadesOfGray, shades_of_gray
from dermaseg.layers.fuzzy import FuzzyMembership, FuzzySkipGate
from dermaseg.layers.gates import AttentionSkipGate
from dermaseg.layers.normalization import BatchNormalization
from dermaseg.layers.padding import CropLike, PadToStride
from dermaseg.layers.pooling import BorderPooling, LesionPooling
from dermaseg.layers.uncertainty import UncertaintyWeights
from dermaseg.layers.upsampling import SmoothUpsampling

__all__ = [
    "AttentionSkipGate",
    "BatchNormalization",
    "BorderPooling",
    "CropLike",
    "FuzzyMembership",
    "FuzzySkipGate",
    "LesionPooling",
    "PadToStride",
    "ShadesOfGray",
    "SmoothUpsampling",
    "UncertaintyWeights",
    "shades_of_gray",
]
