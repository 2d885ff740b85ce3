"""Builders: keyword-only functions that return an uncompiled `keras.Model` from raw pixels to probabilities."""

from dermaseg.models.cnn import build_cnn
from dermaseg.models.encoders import ENCODERS, build_encoder
from dermaseg.models.fuzzy_unet import build_fuzzy_unet
from dermaseg.models.hybrid import UncertaintyWeightedModel, build_hybrid
from dermaseg.models.inception_resnet import build_inception_resnet, cache_features, fine_tune, set_trainable, split_head
from dermaseg.models.unet import build_unet

__all__ = [
    "ENCODERS",
    "UncertaintyWeightedModel",
    "build_cnn",
    "build_encoder",
    "build_fuzzy_unet",
    "build_hybrid",
    "build_inception_resnet",
    "build_unet",
    "cache_features",
    "fine_tune",
    "set_trainable",
    "split_head",
]
