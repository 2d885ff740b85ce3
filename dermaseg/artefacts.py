"""What a photograph shows besides its lesion: the tone of the skin, hairs, a ruler, dark corners.

Networks learn such things where they go along with a class, and fail where they are rare. `image_attributes` names them, so
that an evaluation can report each group on its own. All are computed from pixels, by rules with named thresholds that were
set on dermoscopic pictures by eye. They sort pictures into groups for an audit; one picture's label may be wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from dermaseg.data.hair import find_hair

__all__ = [
    "DARK_CORNER_THRESHOLD",
    "HAIR_THRESHOLD",
    "RULER_THRESHOLD",
    "SKIN_TONES",
    "dark_corner_pixels",
    "dark_corner_score",
    "hair_pixels",
    "hair_score",
    "image_attributes",
    "ruler_score",
    "skin_pixels",
    "skin_tone_angle",
    "skin_tone_group",
]

HAIR_THRESHOLD = 0.025
"""`hair_score` from which a picture counts as hairy."""

RULER_THRESHOLD = 0.5
"""`ruler_score` from which a picture counts as showing a ruler."""

DARK_CORNER_THRESHOLD = 0.004
"""`dark_corner_score` from which a picture counts as having dark corners."""

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
_GREY = np.arange(256) / 255
_LINEAR = np.where(_GREY > 0.04045, ((_GREY + 0.055) / 1.055) ** 2.4, _GREY / 12.92).astype(np.float32)  # IEC 61966-2-1
# From linear RGB to XYZ as shares of the white of D65.
_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]], np.float32
) / np.array([[0.95047], [1.0], [1.08883]], np.float32)
_MARGIN = 0.05  # of the shorter side: experts' outlines differ by about as much
_MIDDLE = 0.35  # of the shorter side: the radius about the middle that is left out where no mask says where the lesion is
_GLARE = 250  # grey levels, in all three channels
_DARKEST_CORNER = 70  # grey levels: a vignette is darker, on any skin
_TICK = 60  # grey levels: from this depth on, ticks, hairs and ink count alike
_FAINTEST_TICKS = 1.5  # grey levels, standard deviation of a strip's profile: below it is noise


def image_attributes(image: np.ndarray, mask: np.ndarray | None = None) -> dict[str, str | float]:
    """Name the groups that a photograph belongs to, with the scores behind them.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255, uint8 or float.
        mask: The lesion, 0 and 1, or bool, `(height, width)` or `(height, width, 1)`. Without it the middle of the picture
            stands for the lesion, and labels are less sure.

    Returns:
        The labels `tone` (a key of `SKIN_TONES` or `"unknown"`), `hair`, `ruler` and `dark_corners` (`"yes"` or `"no"`), and
        their numbers `tone_deg`, `hair_score`, `ruler_score` and `dark_corner_score`.

    Raises:
        ValueError: If `image` or `mask` has another shape, type or range.

    Examples:
        >>> found = image_attributes(np.full((64, 64, 3), (225, 185, 165), np.uint8))
        >>> found["tone"], found["hair"], found["ruler"], found["dark_corners"]
        ('very light', 'no', 'no', 'no')
    """
    image, inside = _checked(image, mask)
    hair = hair_pixels(image)
    angle = tone(skin_colour(image, bare_skin(image, inside, hair)))
    scores = {
        "hair": _hair_share(image, inside, hair),
        "ruler": ruler_score(image),
        "dark_corner": dark_corner_score(image, inside),
    }
    return {
        "tone": skin_tone_group(angle),
        "hair": _answer(scores["hair"] >= HAIR_THRESHOLD),
        "ruler": _answer(scores["ruler"] >= RULER_THRESHOLD),
        "dark_corners": _answer(scores["dark_corner"] >= DARK_CORNER_THRESHOLD),
        "tone_deg": angle,
        **{f"{name}_score": score for name, score in scores.items()},
    }


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
    """
    image, inside = _checked(image, mask)
    return _hair_share(image, inside, hair_pixels(image))


def ruler_score(image: np.ndarray) -> float:
    """Return how regularly dark ticks follow each other in the most regular strip of the picture.

    Strips as high as a twentieth of the shorter side run along the rows and the columns. In each, thin dark structures (a
    black top-hat) are summed across the strip, and the profile is correlated with itself: ticks at a pitch p agree at the
    lags p, 2p and 3p. The score is the least of the three correlations for the best p from 3 to 14 % of the shorter side.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.

    Returns:
        0 to 1. Rulers that are oblique by more than a few degrees, or have fewer than about five ticks, are not found; skin
        furrows and stubble at even distances may be.

    Raises:
        ValueError: If `image` has another shape, type or range.
    """
    from scipy import ndimage

    grey = check_image(image).mean(axis=-1)
    short = min(grey.shape)
    thin = (ndimage.grey_closing(grey, size=_hair_width(grey.shape)) - grey).clip(0, _TICK)
    return max(_periodicity(thin, short), _periodicity(thin.T, short))


def dark_corner_score(image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Return the share of the picture that is black rim in its corners.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.
        mask: The lesion, 0 and 1, or bool, `(height, width)` or `(height, width, 1)`: a dark lesion that reaches a corner is
            then no rim.

    Returns:
        0 to 1; a round field of view that just touches all four edges of a square leaves 0.21.

    Raises:
        ValueError: If `image` or `mask` has another shape, type or range.
    """
    image, inside = _checked(image, mask)
    corners = dark_corner_pixels(image)
    return float((corners if inside is None else corners & ~inside).mean())


def skin_tone_angle(image: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Measure the individual typology angle of the skin, ITA = atan((L - 50) / b) 180 / pi.

    L and b are medians over `skin_pixels`. The angle was defined for colorimeters. From photographs it is approximate: each
    degree of exposure and white balance goes into it. A bluish lamp can bring b to 0 and below, which skin under white light
    does not have; the formula would then turn light skin into dark. The angle stays at 90 (L > 50) or -90 degrees there,
    and `skin_tone_group` calls it unknown.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.
        mask: The lesion, 0 and 1, or bool, `(height, width)` or `(height, width, 1)`. None takes the pixels away from the
            middle of the picture.

    Returns:
        Degrees from -90 to 90, light skin high; NaN where less than 1 % of the picture is skin.

    Raises:
        ValueError: If `image` or `mask` has another shape, type or range.

    Examples:
        >>> round(skin_tone_angle(np.full((64, 64, 3), (225, 185, 165), np.uint8)))
        61

    References:
        A. Chardon, I. Cretois, C. Hourseau, "Skin colour typology and suntanning pathways", International Journal of Cosmetic
        Science 13(4), 1991. N. M. Kinyanjui et al., "Fairness of classifiers across skin tones in dermatology", MICCAI 2020,
        for the angle of the skin around a lesion. M. Benčević, R. Šojo, I. Galić, "Skin color measurement from dermatoscopic
        images: an evaluation on a synthetic dataset", arXiv:2504.04494, 2025, for medians. Deviation: the limits for b <= 0.
    """
    image = check_image(image)
    return tone(skin_colour(image, skin_pixels(image, mask)))


def skin_tone_group(angle: float) -> str:
    """Name the group of an individual typology angle.

    Args:
        angle: Degrees.

    Returns:
        A key of `SKIN_TONES`; `"unknown"` for NaN, and from 90 or -90 degrees on, where a colour cast hides the tone.

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
    """
    image = check_image(image)
    return bare_skin(image, None if mask is None else check_mask(mask, image), hair_pixels(image))


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


def dark_corner_pixels(image: np.ndarray) -> np.ndarray:
    """Find the black rim that a round field of view leaves in a picture's corners.

    A pixel belongs to it that is darker than 70 grey levels and than half of the picture's median, and connected with a
    corner by such pixels. What lies within 35 % of the shorter side about the middle never does.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255.

    Returns:
        bool, `(height, width)`.

    Raises:
        ValueError: If `image` has another shape, type or range.
    """
    from scipy import ndimage

    sums = _channel_sums(check_image(image))
    if (sums[[0, 0, -1, -1], [0, -1, 0, -1]] >= 3 * _DARKEST_CORNER).all():
        return np.zeros(sums.shape, bool)  # closing makes nothing darker
    grey = ndimage.grey_closing(sums, size=_hair_width(sums.shape))  # dark hairs in a corner are no rim
    dark = (grey < min(3 * _DARKEST_CORNER, np.median(grey) / 2)) & ~_middle(grey.shape)
    labels, _ = ndimage.label(dark)
    corners = labels[[0, 0, -1, -1], [0, -1, 0, -1]]
    return np.isin(labels, corners[corners > 0])


def surroundings(shape: tuple[int, ...], inside: np.ndarray | None) -> np.ndarray:
    """Return the pixels away from a lesion, or from the middle of the picture where nothing says where the lesion is.

    Args:
        shape: `(height, width)` and more.
        inside: The lesion, bool, `(height, width)`, or None.

    Returns:
        bool, `(height, width)`.
    """
    return ~_middle(shape) if inside is None else _away_from(inside)


def bare_skin(image: np.ndarray, inside: np.ndarray | None, hair: np.ndarray) -> np.ndarray:
    """Do what `skin_pixels` does with a checked image and mask, and hairs that are found already."""
    red, green, blue = np.moveaxis(image >= _GLARE, -1, 0)
    return surroundings(image.shape, inside) & ~hair & ~(red & green & blue) & _lit(image)


def skin_colour(image: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Return the medians of L, a and b over the skin of a checked image; NaN where less than 1 % of the picture is skin."""
    return np.median(lab_pixels(image, skin), axis=0) if skin.mean() >= MIN_SKIN_SHARE else np.full(3, math.nan)


def lab_pixels(image: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Convert the chosen pixels of a checked image to CIE Lab, `(pixels, 3)`, float32.

    It is `skimage.color.rgb2lab` to a thousandth, in a tenth of its time: 256 grey levels are linearised by a table.
    """
    red, green, blue = (_LINEAR[channel[chosen]] for channel in np.moveaxis(image, -1, 0))
    x, y, z = (_lightness(to_red * red + to_green * green + to_blue * blue) for to_red, to_green, to_blue in _XYZ)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def _lightness(shares: np.ndarray) -> np.ndarray:
    return np.where(shares > 0.008856, np.cbrt(shares), np.float32(7.787) * shares + np.float32(16 / 116))


def tone(colour: np.ndarray) -> float:
    """Do what `skin_tone_angle` does with the skin's colour."""
    lightness, _, yellow = colour
    return math.degrees(math.atan2(lightness - 50, max(yellow, 0.0))) if not math.isnan(lightness) else math.nan


def check_image(image: np.ndarray) -> np.ndarray:
    """Return an image as uint8.

    Raises:
        ValueError: If it is no RGB image of 0 to 255.
    """
    image = np.asarray(image)
    if image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise ValueError(f"image has shape {image.shape}: (height, width, 3) is needed.")
    if image.dtype == np.uint8:
        return image
    if image.dtype.kind not in "iuf" or not (image.min() >= 0 and image.max() <= 255):  # a NaN fails both comparisons
        raise ValueError(f"image must hold numbers from 0 to 255, got {image.dtype} from {image.min()} to {image.max()}.")
    return np.rint(image).astype(np.uint8)


def check_mask(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Return the mask of an image as bool, `(height, width)`.

    Raises:
        ValueError: If it has another shape, or values other than 0 and 1.
    """
    inside = check_plane(mask)
    if inside.shape != image.shape[:2]:
        raise ValueError(f"mask is {inside.shape}, its image {image.shape[:2]} (height, width): resize one to the other.")
    return inside


def check_plane(mask: np.ndarray) -> np.ndarray:
    """Return a mask as bool, `(height, width)`.

    Raises:
        ValueError: If it has another shape, or values other than 0 and 1.
    """
    mask = np.asarray(mask)
    if mask.ndim == 3 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"mask has shape {mask.shape}: (height, width) or (height, width, 1) is needed.")
    if mask.dtype != bool and not np.all((mask == 0) | (mask == 1)):
        raise ValueError(f"mask must hold 0 and 1 only, got values from {mask.min()} to {mask.max()}. Cut it at 0.5 or 127.")
    return mask.astype(bool)


def _checked(image: np.ndarray, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    image = check_image(image)
    return image, None if mask is None else check_mask(mask, image)


def _answer(yes: bool) -> str:
    return "yes" if yes else "no"


def _hair_share(image: np.ndarray, inside: np.ndarray | None, hair: np.ndarray) -> float:
    lit = _lit(image)
    around = surroundings(hair.shape, inside) & lit
    if around.mean() < 0.1:
        around = lit
    return float(hair[around].mean()) if around.any() else 0.0


def _lit(image: np.ndarray) -> np.ndarray:
    """Return the pixels away from dark corners, which fade in over some pixels and have an edge like a hair's."""
    return _away_from(dark_corner_pixels(image))


def _away_from(region: np.ndarray) -> np.ndarray:
    """Return the pixels farther from a region than the margin."""
    from scipy import ndimage

    far = np.ones(region.shape, bool)
    if region.any():
        margin = _MARGIN * min(region.shape)
        rows, columns = ndimage.find_objects(region.astype(np.uint8))[0]
        reach = math.ceil(margin)
        near = (
            slice(max(0, rows.start - reach), rows.stop + reach),
            slice(max(0, columns.start - reach), columns.stop + reach),
        )
        far[near] = ndimage.distance_transform_edt(~region[near]) > margin
    return far


def _channel_sums(image: np.ndarray) -> np.ndarray:
    red, green, blue = np.moveaxis(image.astype(np.uint16), -1, 0)
    return red + green + blue


def _periodicity(thin: np.ndarray, short: int) -> float:
    """Correlate strips along the rows with themselves; return the best agreement at a pitch, twice and three times it."""
    from scipy import ndimage

    height, length = max(4, short // 20), thin.shape[1]
    lags = np.arange(max(3, round(0.03 * short)), min(round(0.14 * short), (length - 2) // 3) + 1)
    if thin.shape[0] < height or not len(lags):
        return 0.0
    sums = np.cumsum(np.pad(thin, ((1, 0), (0, 0))), axis=0)
    tops = np.arange(0, thin.shape[0] - height + 1, height // 2)
    profiles = (sums[tops + height] - sums[tops]) / height
    profiles -= ndimage.uniform_filter1d(profiles, max(3, round(short / 8)), axis=1)
    profiles = profiles[profiles.std(axis=1) >= _FAINTEST_TICKS]
    if not len(profiles):
        return 0.0
    # The autocorrelation by Wiener and Khinchin; at a lag k only length - k products are summed.
    products = np.fft.irfft(np.abs(np.fft.rfft(profiles, 2 * length)) ** 2)[:, :length]
    agreement = products / products[:, :1] * (length / (length - np.arange(length)))
    # A pitch of 6.4 px has its third multiple at 19.2, not at 18: the neighbours count too.
    near = ndimage.maximum_filter1d(agreement, 3, axis=1)
    return float(np.minimum.reduce([agreement[:, lags], near[:, 2 * lags], near[:, 3 * lags]]).max().clip(0, 1))


def _hair_width(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the window that spans a hair or a tick, about a fortieth of the picture."""
    width = 2 * max(1, round(min(shape[:2]) / 80)) + 1
    return width, width


def _middle(shape: tuple[int, ...]) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(y - (shape[0] - 1) / 2, x - (shape[1] - 1) / 2) < _MIDDLE * min(shape[:2])
