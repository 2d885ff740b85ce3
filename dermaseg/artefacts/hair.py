"""Dark hairs, and how much of the skin around a lesion they cover."""

from __future__ import annotations

import numpy as np

from dermaseg.arrays import check_image, check_image_and_mask
from dermaseg.artefacts.corners import lit_pixels
from dermaseg.artefacts.regions import surroundings
from dermaseg.data.hair import find_hair

__all__ = ["HAIR_THRESHOLD", "hair_pixels", "hair_score", "hair_share"]

HAIR_THRESHOLD = 0.025
"""`hair_score` from which a picture counts as hairy."""


def hair_score(image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the share of the pixels around the lesion that are dark hair.

    Within a lesion the pigment network and globules are as dark and as narrow as hairs, so only its surroundings count. Ink
    and rulers count too, and light hairs do not.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.
        mask: The lesion, 0 and 1, or bool, `(height, width)` or `(height, width, 1)`. None leaves out the middle of the
            picture; where a mask leaves less than a tenth of the picture, all of it counts. Dark corners never do.

    Returns:
        0 to 1.

    Raises:
        ValueError: If `image` or `mask` has another shape, type or range.

    Examples:
        >>> image = np.full((100, 100, 3), (225, 185, 165), np.uint8)
        >>> image[[10, 30, 70, 90]] = 60  # four dark hairs from edge to edge
        >>> round(hair_score(image), 2), HAIR_THRESHOLD
        (0.14, 0.025)
    """
    image, inside = check_image_and_mask(image, mask)
    return hair_share(image, inside, hair_pixels(image))


def hair_pixels(image: np.ndarray) -> np.ndarray:
    """Find dark hairs: `dermaseg.data.hair.find_hair` for any image of 0 to 255.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.

    Returns:
        bool, `(height, width)`. Ink, ticks of a ruler and a coarse pigment network may be among them.

    Raises:
        ValueError: If `image` has another shape, type or range.
    """
    return find_hair(check_image(image))


def hair_share(image: np.ndarray, inside: np.ndarray | None, hair: np.ndarray) -> float:
    """Do what `hair_score` does with a checked image and mask, and hairs that are found already."""
    lit = lit_pixels(image)
    around = surroundings(hair.shape, inside) & lit
    if around.mean() < 0.1:
        around = lit
    return float(hair[around].mean()) if around.any() else 0.0
