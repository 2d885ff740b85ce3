"""The shape of a lesion: asymmetry, border and greatest diameter, of its mask alone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from dermaseg.arrays import check_plane
from dermaseg.data.geometry import fit_area
from dermaseg.data.images import resize_mask

if TYPE_CHECKING:
    from scipy.spatial import ConvexHull

__all__ = ["MIN_SHAPE_AREA_PX", "asymmetry", "compactness", "fractal_dimension", "greatest_diameter", "lesion_box", "solidity"]

MIN_SHAPE_AREA_PX = 64
"""Below this many pixels a lesion's outline is more staircase than shape: asymmetry and border measures are NaN."""

_FOLDED_PX = 1000  # side of the square whose area a lesion's box has at most when it is folded: more pixels tell nothing more


def asymmetry(mask: np.ndarray) -> tuple[float, float]:
    """Fold a lesion along its principal axes and tell what does not match.

    For the mirror image A' of a lesion A on an axis through its centroid, |A - A'| / |A|: 0 where both halves match, 1 where
    none does. The axes are those of the inertia tensor; where it has no long axis (disc, square), rows and columns serve. A
    nearly round lesion has no stable axis, so its two values may trade places from one picture to the next. A lesion whose box
    is larger than a square of 1,000 pixels is folded at that size.

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

    lesion = lesion_box(mask)
    if lesion.size > _FOLDED_PX**2:
        lesion = resize_mask(lesion, fit_area(lesion.shape, _FOLDED_PX)).astype(bool)
    inside = np.pad(lesion, 1)  # mirror images on the very edge must not fall off by their last digit
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

    inside = lesion_box(mask)
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

    Examples:
        >>> notched = np.ones((20, 20))
        >>> notched[:10, 5:15] = 0
        >>> solidity(np.ones((20, 20))), solidity(notched)
        (1.0, 0.75)
    """
    inside = lesion_box(mask)
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
        The slope of log N over log 1/s by least squares, about 1 to 2; a smooth outline can come out a little below 1, for it
        is an estimate of few sides. NaN where fewer than three box sides fit (a bounding box below 32 px).

    Examples:
        >>> y, x = np.mgrid[-130:131, -130:131]
        >>> abs(fractal_dimension(np.hypot(x, y) < 120) - 1) < 0.1
        True

    References:
        E. Claridge, P. N. Hall, M. Keefe, J. P. Allen, "Shape analysis for classification of malignant melanoma", Journal of
        Biomedical Engineering 14(3), 1992, for fractal dimension as a measure of a lesion's border.
    """
    from scipy import ndimage

    inside = lesion_box(mask)
    if not inside.any():
        return math.nan
    outline = inside & ~ndimage.binary_erosion(inside)
    sides = [2**k for k in range(1, 31) if 2**k <= max(outline.shape) / 4]
    if len(sides) < 3:
        return math.nan
    rows, columns = np.nonzero(outline)
    corners = [(y, x) for y in (rows, len(outline) - 1 - rows) for x in (columns, outline.shape[1] - 1 - columns)]
    counts = [np.mean([_boxes(y // side, x // side) for y, x in corners]) for side in sides]
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
    inside = lesion_box(mask)
    if not inside.any():
        return math.nan
    hull = _hull(inside)
    corners = hull.points[hull.vertices]
    return float(np.linalg.norm(corners[:, np.newaxis] - corners, axis=-1).max())


def lesion_box(mask: np.ndarray) -> np.ndarray:
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


def _boxes(rows: np.ndarray, columns: np.ndarray) -> int:
    """Count the boxes in which points lie, by each point's row and column of boxes."""
    return len(np.unique(rows * (int(columns.max()) + 1) + columns))
