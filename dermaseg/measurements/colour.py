"""The colours of a lesion: which of dermoscopy's it shows, and how far they spread."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dermaseg.arrays import check_image, check_mask
from dermaseg.artefacts.hair import hair_pixels
from dermaseg.artefacts.lab import lab_pixels
from dermaseg.artefacts.skin import bare_skin, skin_colour

__all__ = [
    "COLOUR_SHARE",
    "DERMOSCOPIC_COLOURS",
    "colour_shares",
    "colour_spread",
    "pixel_shares",
    "pixel_spread",
    "white_from",
    "without_hair",
]

DERMOSCOPIC_COLOURS: Mapping[str, tuple[float, float, float]] = {
    "white": (100.0, 0.0, 0.0),
    "red": (54.29, 80.81, 69.89),
    "light brown": (59.8, 28.35, 42.32),
    "dark brown": (30.95, 17.0, 26.89),
    "blue-gray": (50.28, -30.14, -11.96),
    "black": (19.99, 15.25, 11.1),
}
"""CIE Lab references of dermoscopy's six colours (Ali, Li and O'Shea, 2020); of browns and black, their ranges' centres."""

COLOUR_SHARE = 0.05
"""A colour counts as present from this share of the lesion on, as in Ali, Li and O'Shea (2020)."""


def colour_shares(
    image: np.ndarray, mask: np.ndarray, *, palette: Mapping[str, tuple[float, float, float]] = DERMOSCOPIC_COLOURS
) -> dict[str, float]:
    """Tell which share of a lesion is nearest to each colour of dermoscopy.

    Each pixel takes the nearest reference in CIE Lab. White counts only where the pixel is lighter than the skin around the
    lesion, as in the ABCD rule. Pixels under hairs are left out. Nothing corrects the camera's white balance: under a bluish
    lamp brown reads as gray, and the reference of red is so pure that few real lesions reach it.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.
        mask: 0 and 1, or bool, `(height, width)` or `(height, width, 1)`.
        palette: Names and CIE Lab references (D65); `"white"` is the name that the rule on white goes by.

    Returns:
        For each name a share from 0 to 1, in sum 1; NaN for an empty mask.

    Raises:
        ValueError: If `image` or `mask` has another shape, type or range.

    Examples:
        >>> image, mask = np.full((100, 100, 3), (225, 185, 165), np.uint8), np.zeros((100, 100), np.uint8)
        >>> image[30:70, 20:80], mask[30:70, 20:80] = (95, 60, 40), 1
        >>> image[30:70, 50:80] = (20, 10, 8)
        >>> {name: share for name, share in colour_shares(image, mask).items() if share}
        {'dark brown': 0.5, 'black': 0.5}

    References:
        A.-R. Ali, J. Li, S. J. O'Shea, "Towards the automatic detection of skin lesion shape asymmetry, color variegation and
        diameter in dermoscopic images", PLOS ONE 15(6), 2020 (references; share of 5 %). Deviations: pixels are not clustered
        first, and the nearest reference decides where they test ranges (browns, black) and a Minkowski distance (white, red,
        blue-gray), which overlap. W. Stolz et al., 1994, as for `asymmetry`, for the six colours and the rule on white.
    """
    image = check_image(image)
    inside = check_mask(mask, image)
    hair = hair_pixels(image)
    around = skin_colour(image, bare_skin(image, inside, hair))
    return pixel_shares(lab_pixels(image, without_hair(inside, hair)), white_from(around), palette)


def colour_spread(image: np.ndarray, mask: np.ndarray) -> float:
    """Return how far a lesion's pixels are from its mean colour: the root mean square of the CIE76 colour difference.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.
        mask: 0 and 1, or bool, `(height, width)` or `(height, width, 1)`.

    Returns:
        0 or more, in units of CIE Lab (2.3 is about the least difference that an eye sees); NaN for an empty mask. Hairs are
        left out.

    Raises:
        ValueError: If `image` or `mask` has another shape, type or range.

    Examples:
        >>> image, mask = np.full((100, 100, 3), (225, 185, 165), np.uint8), np.zeros((100, 100), np.uint8)
        >>> image[30:70, 20:80], mask[30:70, 20:80] = (95, 60, 40), 1
        >>> plain = colour_spread(image, mask)
        >>> image[30:70, 50:80] = (20, 10, 8)
        >>> plain, round(colour_spread(image, mask))
        (0.0, 16)
    """
    image = check_image(image)
    return pixel_spread(lab_pixels(image, without_hair(check_mask(mask, image), hair_pixels(image))))


def without_hair(inside: np.ndarray, hair: np.ndarray) -> np.ndarray:
    """Take the hairs off a lesion, unless nothing would be left."""
    return inside & ~hair if (inside & ~hair).any() else inside


def white_from(skin: np.ndarray) -> float:
    """Return the lightness that white must exceed; without skin to compare with, any white is white."""
    return -math.inf if math.isnan(skin[0]) else float(skin[0])


def pixel_shares(pixels: np.ndarray, lightness: float, palette: Mapping[str, tuple[float, float, float]]) -> dict[str, float]:
    """Do what `colour_shares` does with the pixels of a lesion in CIE Lab and the lightness that white must exceed."""
    if not len(pixels):
        return dict.fromkeys(palette, math.nan)
    references = np.array(list(palette.values()), np.float32)
    # |p - r|^2 without |p|^2, which is the same for every reference r; einsum, for BLAS would start threads for so little.
    distances = (references**2).sum(axis=1) - 2 * np.einsum("pc,rc->pr", pixels, references)
    if "white" in palette:
        distances[pixels[:, 0] <= lightness, list(palette).index("white")] = math.inf
    counts = np.bincount(distances.argmin(axis=1), minlength=len(palette))
    return dict(zip(palette, (counts / len(pixels)).tolist(), strict=True))


def pixel_spread(pixels: np.ndarray) -> float:
    """Do what `colour_spread` does with the pixels of a lesion in CIE Lab."""
    return float(np.sqrt(pixels.var(axis=0, dtype=np.float64).sum())) if len(pixels) else math.nan
