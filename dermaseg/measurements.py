"""Measure a lesion as dermatologists describe it: asymmetry, border, colours, diameter, and the tone of the skin around it.

Each function turns pixels into one number with a formula from the literature. None of them is a diagnosis, and none
replaces one: melanomas with harmless figures and harmless moles with striking ones are common. Figures of two pictures
compare only where camera, lamp and magnification were alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.artefacts.hair import hair_pixels
from dermaseg.artefacts.lab import lab_pixels
from dermaseg.artefacts.skin import bare_skin, skin_colour, skin_tone_group, tone
from dermaseg.data.arrays import check_image, check_mask, check_plane
from dermaseg.data.geometry import fit_area
from dermaseg.data.images import resize_image, resize_mask

if TYPE_CHECKING:
    from scipy.spatial import ConvexHull

__all__ = [
    "COLOUR_SHARE",
    "COLOUR_SIDE_PX",
    "DERMOSCOPIC_COLOURS",
    "MIN_SHAPE_AREA_PX",
    "LesionMeasurements",
    "asymmetry",
    "colour_shares",
    "colour_spread",
    "compactness",
    "fractal_dimension",
    "greatest_diameter",
    "measure_lesion",
    "solidity",
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

COLOUR_SIDE_PX = 520
"""`measure_lesion` looks for hairs, colours and skin tone on a copy with at most the area of a square of this side.

It is that of 600 by 450 pixels, the size of HAM10000's photographs. Larger ones hold more noise, not more colours."""

MIN_SHAPE_AREA_PX = 64
"""Below this many pixels a lesion's outline is more staircase than shape: asymmetry and border measures are NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LesionMeasurements:
    """What `measure_lesion` found. NaN means: cannot be measured on this picture. No field is a diagnosis.

    Args:
        area_px: Pixels of the mask, 0 or more.
        area_mm2: The same in square millimetres; NaN without a scale.
        diameter_px: Greatest diameter in pixels, above 0; NaN for an empty mask.
        diameter_mm: The same in millimetres; NaN without a scale.
        asymmetry: Mean of the next two, 0 to 1.
        asymmetry_major: Share of the lesion that misses its mirror image on the long principal axis, 0 to 1; NaN below
            `MIN_SHAPE_AREA_PX`, as are the other measures of shape.
        asymmetry_minor: The same on the short principal axis, 0 to 1.
        compactness: P^2 / (4 pi A), 1 for a disc, larger for a ragged or stretched outline (0.95 and more in pixels).
        solidity: Area over the area of the convex hull, above 0 to 1.
        fractal_dimension: Of the outline, by box counting; about 1 for a smooth one, below 2.
        colours: Names of the colours of dermoscopy that cover at least `COLOUR_SHARE` of the lesion.
        colour_shares: Share of the lesion that is nearest to each colour, 0 to 1, in sum 1; NaN for an empty mask.
        colour_spread: Root mean square distance from the lesion's mean colour, in units of CIE Lab, 0 or more.
        skin_tone_deg: Individual typology angle of the skin around the lesion in degrees, -90 to 90; NaN where too
            little skin shows.
        skin_tone: Its group, a key of `dermaseg.artefacts.SKIN_TONES`, or `"unknown"`.
        touches_edge: Whether the picture's edge may cut the lesion off; area, diameter and shape are then of the part shown.
    """

    area_px: int
    area_mm2: float
    diameter_px: float
    diameter_mm: float
    asymmetry: float
    asymmetry_major: float
    asymmetry_minor: float
    compactness: float
    solidity: float
    fractal_dimension: float
    colours: tuple[str, ...]
    colour_shares: Mapping[str, float]
    colour_spread: float
    skin_tone_deg: float
    skin_tone: str
    touches_edge: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, ready for JSON: None stands for NaN."""
        fields = asdict(self) | {"colours": list(self.colours)}
        fields["colour_shares"] = {name: _number(share) for name, share in self.colour_shares.items()}
        return {name: _number(value) if isinstance(value, float) else value for name, value in fields.items()}


def measure_lesion(image: np.ndarray, mask: np.ndarray, *, mm_per_px: float | None = None) -> LesionMeasurements:
    """Measure everything about one lesion.

    An empty mask has an area of 0 and a skin tone; all else is NaN. A mask that covers the picture has no skin to tell a tone
    from. Several parts of one mask are measured together, as one lesion. Sizes and shape are measured at the mask's own size;
    hairs, colours and skin tone of a picture larger than a square of `COLOUR_SIDE_PX` on a reduced copy.

    Args:
        image: RGB, `(height, width, 3)`, 0 to 255, uint8 or float.
        mask: 0 and 1, or bool, `(height, width)` or `(height, width, 1)`.
        mm_per_px: Millimetres a pixel; None if not known. Sizes in millimetres are NaN then.

    Raises:
        ValueError: If an argument has another shape, type or range.

    Examples:
        >>> image = np.full((100, 100, 3), (225, 185, 165), np.uint8)
        >>> mask = np.zeros((100, 100), np.uint8)
        >>> image[30:70, 20:80], mask[30:70, 20:80] = (95, 60, 40), 1
        >>> found = measure_lesion(image, mask, mm_per_px=0.1)
        >>> round(found.area_mm2), found.asymmetry, found.colours, found.skin_tone
        (24, 0.0, ('dark brown',), 'very light')
    """
    image = check_image(image)
    inside = check_mask(mask, image)
    if mm_per_px is not None and not 0 < mm_per_px < math.inf:
        raise ValueError(f"mm_per_px must be a number of millimetres above 0, or None, got {mm_per_px!r}.")
    scale = math.nan if mm_per_px is None else mm_per_px
    rim = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    lesion = _lesion(inside)
    area, diameter = int(lesion.sum()), greatest_diameter(lesion)
    major, minor = asymmetry(lesion)
    if inside.size > COLOUR_SIDE_PX**2:
        canvas = fit_area(inside.shape, COLOUR_SIDE_PX)
        image, inside = resize_image(image, canvas), resize_mask(inside, canvas).astype(bool)
    hair = hair_pixels(image)
    around = skin_colour(image, bare_skin(image, inside, hair))
    pixels = lab_pixels(image, _bare(inside, hair))
    shares = _shares(pixels, _white_from(around), DERMOSCOPIC_COLOURS)
    angle = tone(around)
    return LesionMeasurements(
        area_px=area,
        area_mm2=area * scale**2,
        diameter_px=diameter,
        diameter_mm=diameter * scale,
        asymmetry=(major + minor) / 2,
        asymmetry_major=major,
        asymmetry_minor=minor,
        compactness=compactness(lesion),
        solidity=solidity(lesion),
        fractal_dimension=fractal_dimension(lesion),
        colours=tuple(name for name, share in shares.items() if share >= COLOUR_SHARE),
        colour_shares=shares,
        colour_spread=_spread(pixels),
        skin_tone_deg=angle,
        skin_tone=skin_tone_group(angle),
        touches_edge=bool(rim.any()),
    )


def asymmetry(mask: np.ndarray) -> tuple[float, float]:
    """Fold a lesion along its principal axes and tell what does not match.

    For the mirror image A' of a lesion A on an axis through its centroid, |A - A'| / |A|: 0 where both halves match, 1 where
    none does. The axes are those of the inertia tensor; where it has no long axis (disc, square), rows and columns serve. A
    nearly round lesion has no stable axis, so its two values may trade places from one picture to the next.

    Args:
        mask: 0 and 1, or bool, `(height, width)` or `(height, width, 1)`.

    Returns:
        On the long axis and on the short one, each 0 to 1; NaN below `MIN_SHAPE_AREA_PX`.

    Examples:
        >>> triangle = np.tri(41)
        >>> long, short = asymmetry(triangle)
        >>> round(long, 2), round(short, 2)
        (0.32, 0.0)

    References:
        W. Stolz et al., "ABCD rule of dermatoscopy: a new practical method for early recognition of malignant melanoma",
        European Journal of Dermatology 4, 1994. W. V. Stoecker, W. W. Li, R. H. Moss, "Automatic detection of asymmetry in
        skin tumors", Computerized Medical Imaging and Graphics 16(3), 1992, for the folded area on principal axes.
    """
    from scipy import ndimage

    inside = np.pad(_lesion(mask), 1)  # mirror images on the very edge must not fall off by their last digit
    rows, columns = np.nonzero(inside)
    if len(rows) < MIN_SHAPE_AREA_PX:
        return math.nan, math.nan
    # Sums of integers are exact: equal moments stay equal, and a turned or mirrored lesion gets the turned axes.
    count, y, x = len(rows), int(rows.sum()), int(columns.sum())
    yy, xx, xy = (count * int(sums) for sums in (rows @ rows, columns @ columns, rows @ columns))
    angle = 0.5 * math.atan2(2 * (xy - x * y), (xx - x * x) - (yy - y * y))  # of the long axis, from the row's direction
    dy, dx = rows - y / count, columns - x / count
    values = []
    for turn in (angle, angle + math.pi / 2):
        # The mirror image of (dx, dy) on the axis at angle t is (dx cos 2t + dy sin 2t, dx sin 2t - dy cos 2t).
        cosine, sine = math.cos(2 * turn), math.sin(2 * turn)
        mirrored = np.stack([dx * sine - dy * cosine + y / count, dx * cosine + dy * sine + x / count])
        hit = ndimage.map_coordinates(inside.astype(float), mirrored, order=1)
        # A mirror image that ends half-way through a pixel is half a hit, however its last digit was rounded.
        values.append(float(1 - np.heaviside((hit - 0.5).round(6), 0.5).mean()))
    return values[0], values[1]


def compactness(mask: np.ndarray) -> float:
    """Compare the outline with a circle's: P^2 / (4 pi A), 1 for a disc and larger for ragged or stretched lesions.

    The perimeter P is Crofton's, from the lines of four directions that cross the outline: counting edge pixels would make
    a disc's outline up to 27 % too long. Rims of holes count.

    Args:
        mask: 0 and 1, or bool, `(height, width)` or `(height, width, 1)`.

    Returns:
        Above 0; NaN below `MIN_SHAPE_AREA_PX`.

    Examples:
        >>> y, x = np.mgrid[-40:41, -40:41]
        >>> round(compactness(np.hypot(x, y) < 30), 1)
        1.0

    References:
        J. E. Golston, W. V. Stoecker, R. H. Moss, I. P. S. Dhillon, "Automatic detection of irregular borders in melanoma and
        other skin tumors", Computerized Medical Imaging and Graphics 16(3), 1992. The perimeter is
        `skimage.measure.perimeter_crofton`.
    """
    from skimage.measure import perimeter_crofton

    inside = _lesion(mask)
    area = int(inside.sum())
    if area < MIN_SHAPE_AREA_PX:
        return math.nan
    # It closes the outline of a lesion that runs into the picture's edge.
    return float(perimeter_crofton(inside, directions=4) ** 2 / (4 * math.pi * area))


def solidity(mask: np.ndarray) -> float:
    """Divide the area by that of the convex hull, both in pixels: 1 without notches, less with them.

    Args:
        mask: 0 and 1, or bool, `(height, width)` or `(height, width, 1)`.

    Returns:
        Above 0, to 1; NaN below `MIN_SHAPE_AREA_PX`.
    """
    inside = _lesion(mask)
    area = int(inside.sum())
    if area < MIN_SHAPE_AREA_PX:
        return math.nan
    by_row, by_column, constant = _hull(inside).equations.T  # by_row y + by_column x + constant <= 0 within
    slanted = by_column != 0
    ends = -(np.outer(np.arange(len(inside)), by_row[slanted]) + constant[slanted]) / by_column[slanted]
    right = np.floor(ends[:, by_column[slanted] > 0].min(axis=1) + 1e-9)
    left = np.ceil(ends[:, by_column[slanted] < 0].max(axis=1) - 1e-9)
    return float(area / (right - left + 1).sum())


def fractal_dimension(mask: np.ndarray) -> float:
    """Count the boxes that the outline meets, N(s) ~ s^-D, and return D: 1 for a smooth outline, more for a ragged one.

    Box sides s are the powers of 2 from 2 px to a quarter of the lesion's bounding box. Grids start at each of its four
    corners and their counts are averaged, so that turning by 90 degrees, mirroring and shifting change nothing.

    Args:
        mask: 0 and 1, or bool, `(height, width)` or `(height, width, 1)`.

    Returns:
        The slope of log N over log 1/s by least squares, about 1 to 2; NaN where fewer than three box sides fit (a bounding
        box below 32 px).

    Examples:
        >>> y, x = np.mgrid[-130:131, -130:131]
        >>> abs(fractal_dimension(np.hypot(x, y) < 120) - 1) < 0.1
        True

    References:
        E. Claridge, P. N. Hall, M. Keefe, J. P. Allen, "Shape analysis for classification of malignant melanoma", Journal of
        Biomedical Engineering 14(3), 1992, for fractal dimension as a measure of a lesion's border.
    """
    from scipy import ndimage

    inside = _lesion(mask)
    if not inside.any():
        return math.nan
    outline = inside & ~ndimage.binary_erosion(inside)
    sides = [2**k for k in range(1, 31) if 2**k <= max(outline.shape) / 4]
    if len(sides) < 3:
        return math.nan
    counts = []
    for side in sides:
        corners = (outline, outline[::-1], outline[:, ::-1], outline[::-1, ::-1])
        counts.append(sum(_boxes(corner, side) for corner in corners) / 4)
    return float(-np.polyfit(np.log(sides), np.log(counts), 1)[0])


def greatest_diameter(mask: np.ndarray) -> float:
    """Return the greatest distance between two points of the outline, Feret's maximal diameter.

    The outline runs through the middles of the pixels' sides.

    Args:
        mask: 0 and 1, or bool, `(height, width)` or `(height, width, 1)`.

    Returns:
        Pixels; NaN for an empty mask.

    Examples:
        >>> mask = np.zeros((20, 60))
        >>> mask[10, 5:55] = 1
        >>> greatest_diameter(mask)
        50.0
    """
    inside = _lesion(mask)
    if not inside.any():
        return math.nan
    hull = _hull(inside)
    corners = hull.points[hull.vertices]
    return float(np.linalg.norm(corners[:, np.newaxis] - corners, axis=-1).max())


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
    return _shares(lab_pixels(image, _bare(inside, hair)), _white_from(around), palette)


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
    """
    image = check_image(image)
    return _spread(lab_pixels(image, _bare(check_mask(mask, image), hair_pixels(image))))


def _lesion(mask: np.ndarray) -> np.ndarray:
    """Cut a mask to the lesion's bounding box; an empty one stays as it is."""
    inside = check_plane(mask)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    return inside[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else inside


def _hull(lesion: np.ndarray) -> ConvexHull:
    """Return the convex hull of the middles of the pixels' sides: no pixel but the first and last of its row counts."""
    from scipy.spatial import ConvexHull

    rows = np.flatnonzero(lesion.any(axis=1))
    first, last = lesion[rows].argmax(axis=1), lesion.shape[1] - 1 - lesion[rows, ::-1].argmax(axis=1)
    ends = np.concatenate([np.stack([rows, first], axis=1), np.stack([rows, last], axis=1)])
    return ConvexHull(np.concatenate([ends + side for side in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))]))


def _bare(inside: np.ndarray, hair: np.ndarray) -> np.ndarray:
    """Take the hairs off a lesion, unless nothing would be left."""
    return inside & ~hair if (inside & ~hair).any() else inside


def _white_from(skin: np.ndarray) -> float:
    """Return the lightness that white must exceed; without skin to compare with, any white is white."""
    return -math.inf if math.isnan(skin[0]) else float(skin[0])


def _shares(pixels: np.ndarray, lightness: float, palette: Mapping[str, tuple[float, float, float]]) -> dict[str, float]:
    if not len(pixels):
        return dict.fromkeys(palette, math.nan)
    references = np.array(list(palette.values()), np.float32)
    # |p - r|^2 without |p|^2, which is the same for every reference r; einsum, for BLAS would start threads for so little.
    distances = (references**2).sum(axis=1) - 2 * np.einsum("pc,rc->pr", pixels, references)
    if "white" in palette:
        distances[pixels[:, 0] <= lightness, list(palette).index("white")] = math.inf
    counts = np.bincount(distances.argmin(axis=1), minlength=len(palette))
    return dict(zip(palette, (counts / len(pixels)).tolist(), strict=True))


def _spread(pixels: np.ndarray) -> float:
    return float(np.sqrt(pixels.var(axis=0, dtype=np.float64).sum())) if len(pixels) else math.nan


def _boxes(outline: np.ndarray, side: int) -> int:
    """Count the boxes of a grid from the first pixel on that hold a pixel of the outline."""
    starts = [np.arange(0, length, side) for length in outline.shape]
    return int(np.logical_or.reduceat(np.logical_or.reduceat(outline, starts[0], axis=0), starts[1], axis=1).sum())


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
