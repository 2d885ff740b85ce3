"""Losses between a predicted and a *fuzzy* target mask.

On a crisp mask T(p, 0) = 0 and T(p, 1) = p for every t-norm T, so every loss of the Tversky kind here equals its ordinary
twin in `dermaseg.losses.dice`: fuzziness in the formula is worth nothing without fuzziness in the target. Make the target
with `dermaseg.fuzzy.fuzzify_mask` in the data pipeline, or let `FuzzySegmentation(tau_px=...)` soften a crisp one.

p is the prediction, mu the target, both memberships in [0, 1]; each channel is a fuzzy set of its own.
"""

from dermaseg.losses.fuzzy.overlap import (
    FuzzyDice,
    FuzzyJaccard,
    FuzzyTversky,
    fuzzy_dice_loss,
    fuzzy_jaccard_loss,
    fuzzy_tversky_loss,
)
from dermaseg.losses.fuzzy.pixels import (
    FuzzyCMeans,
    FuzzyCrossentropy,
    FuzzyEntropy,
    fuzzy_c_means_loss,
    fuzzy_crossentropy_loss,
    fuzzy_entropy_loss,
)
from dermaseg.losses.fuzzy.segmentation import FuzzySegmentation, fuzzy_segmentation_loss

__all__ = [
    "FuzzyCMeans",
    "FuzzyCrossentropy",
    "FuzzyDice",
    "FuzzyEntropy",
    "FuzzyJaccard",
    "FuzzySegmentation",
    "FuzzyTversky",
    "fuzzy_c_means_loss",
    "fuzzy_crossentropy_loss",
    "fuzzy_dice_loss",
    "fuzzy_entropy_loss",
    "fuzzy_jaccard_loss",
    "fuzzy_segmentation_loss",
    "fuzzy_tversky_loss",
]
