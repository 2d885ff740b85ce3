"""Losses on masks and labels: each a pure function with one value a picture, and a `keras.losses.Loss` twin."""

from dermaseg.losses.dice import (
    Dice,
    FocalTversky,
    Jaccard,
    OverlapCrossentropy,
    Tversky,
    dice_loss,
    focal_tversky_loss,
    jaccard_loss,
    mask_crossentropy,
    overlap_crossentropy,
    tversky_loss,
)

__all__ = [
    "Dice",
    "FocalTversky",
    "Jaccard",
    "OverlapCrossentropy",
    "Tversky",
    "dice_loss",
    "focal_tversky_loss",
    "jaccard_loss",
    "mask_crossentropy",
    "overlap_crossentropy",
    "tversky_loss",
]
