"""The bare skin of a photograph, and its tone."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dermaseg.arrays import check_image, check_image_and_mask
from dermaseg.artefacts.corners import lit_pixels
from dermaseg.artefacts.hair import hair_pixels
from dermaseg.artefacts.lab import lab_pixels
from dermaseg.artefacts.regions import surroundings

__all__ = ["SKIN_TONES", "bare_skin", "skin_colour", "skin_pixels", "skin_tone_angle", "skin_tone_group", "tone"]

SKIN_TONES: Mapping[str, float] = {
    "very light": 55.0,
    "light": 41.0,
    "intermediate": 28.0,
    "tan": 10.0,
    "brown": -30.0,
    "dark": -90.0,
}
"""The six groups of skin tone, each with the angle in degrees above which it begins, from light to dark."""

MIN_SKIN_SHARE = 0.01  # of the picture, for a tone: fewer pixels are a rim of something else
_GLARE = 250  # grey levels, in all three channels
_LEAST_YELLOW = 3.0  # b of CIE Lab. With less, atan((L - 50) / b) tells the brightness of the picture, not the tone of the skin


def skin_tone_angle(image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Measure the individual typology angle of the skin, ITA = atan((L - 50) / b) 180 / pi.

    L and b are medians over `skin_pixels`. The angle was defined for colorimeters. From photographs it is approximate: each
    degree of exposure and white balance goes into it. A bluish lamp, or a picture without colour, brings b near 0 and below,
    which skin under white light does not have; the formula would then tell bright from dim and, below 0, turn light skin into
    dark. Where b is less than 3 there is no angle, and `skin_tone_group` calls the tone unknown.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.
        mask: The lesion, 0 and 1, or bool, `(height, width)` or `(height, width, 1)`. None takes the pixels away from the
            middle of the picture.

    Returns:
        Degrees between -90 and 90, light skin high; NaN where less than 1 % of the picture is skin, or a colour cast hides its
        tone.

    Raises:
        ValueError: If `image` or `mask` has another shape, type or range.

    Examples:
        >>> round(skin_tone_angle(np.full((64, 64, 3), (225, 185, 165), np.uint8)))
        61

    References:
        A. Chardon, I. Cretois, C. Hourseau, "Skin colour typology and suntanning pathways", International Journal of Cosmetic
        Science 13(4), 1991. N. M. Kinyanjui et al., "Fairness of classifiers across skin tones in dermatology", MICCAI 2020,
        for the angle of the skin around a lesion. M. Benčević, R. Šojo, I. Galić, "Skin color measurement from dermatoscopic
        images: an evaluation on a synthetic dataset", arXiv:2504.04494, 2025, for medians. Deviation: the limits for b below 3.
    """
    image = check_image(image)
    return tone(skin_colour(image, skin_pixels(image, mask)))


def skin_tone_group(angle: float) -> str:
    """Name the group of an individual typology angle.

    Args:
        angle: Degrees.

    Returns:
        A key of `SKIN_TONES`; `"unknown"` for NaN, and from 90 or -90 degrees on, which no skin under white light has.

    Examples:
        >>> skin_tone_group(48.0), skin_tone_group(-35.0), skin_tone_group(90.0)
        ('light', 'dark', 'unknown')

    References:
        A. Chardon et al., 1991, as for `skin_tone_angle`. S. Del Bino, F. Bernerd, "Variations in skin colour and the
        biological consequences of ultraviolet radiation exposure", British Journal of Dermatology 169(s3), 2013 (thresholds
        55, 41, 28, 10 and -30 degrees).
    """
    if not -90 < angle < 90:
        return "unknown"
    return next((name for name, above in SKIN_TONES.items() if angle > above), "dark")


def skin_pixels(image: np.ndarray, mask: np.ndarray | None = None) -> np.ndarray:
    """Find the pixels that show bare skin: away from the lesion, and no hair, dark corner or glare.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.
        mask: The lesion, `(height, width)` or `(height, width, 1)`; a margin of 5 % of the shorter side around it is left out.
            None leaves out a disc about the middle, of a radius of 35 % of the shorter side.

    Returns:
        bool, `(height, width)`.

    Raises:
        ValueError: If `image` or `mask` has another shape, type or range.

    Examples:
        >>> image = np.full((100, 100, 3), (225, 185, 165), np.uint8)
        >>> image[10] = 60  # a dark hair from edge to edge
        >>> skin = skin_pixels(image)
        >>> bool(skin[10, 50]), bool(skin[50, 50]), bool(skin[90, 50])  # on the hair, in the middle, near the edge
        (False, False, True)
    """
    image, inside = check_image_and_mask(image, mask)
    return bare_skin(image, inside, hair_pixels(image))


def bare_skin(image: np.ndarray, inside: np.ndarray | None, hair: np.ndarray) -> np.ndarray:
    """Do what `skin_pixels` does with a checked image and mask, and hairs that are found already."""
    red, green, blue = np.moveaxis(image >= _GLARE, -1, 0)
    return surroundings(image.shape, inside) & ~hair & ~(red & green & blue) & lit_pixels(image)


def skin_colour(image: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Return the medians of L, a and b over the skin of a checked image; NaN where less than 1 % of the picture is skin."""
    return np.median(lab_pixels(image, skin), axis=0) if skin.mean() >= MIN_SKIN_SHARE else np.full(3, math.nan)


def tone(colour: np.ndarray) -> float:
    """Do what `skin_tone_angle` does with the skin's colour."""
    lightness, _, yellow = colour
    # NaN too, where there is no skin, is not above the limit.
    return math.degrees(math.atan2(lightness - 50, yellow)) if yellow >= _LEAST_YELLOW else math.nan
