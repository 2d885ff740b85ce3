"""Everything that is measured of one lesion, together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dermaseg.arrays import check_image, check_mask
from dermaseg.artefacts.hair import hair_pixels
from dermaseg.artefacts.lab import lab_pixels
from dermaseg.artefacts.scale import COLOUR_SIDE_PX, reduced
from dermaseg.artefacts.skin import bare_skin, skin_colour, skin_tone_group, tone
from dermaseg.measurements.colour import COLOUR_SHARE, DERMOSCOPIC_COLOURS, pixel_shares, pixel_spread, white_from, without_hair
from dermaseg.measurements.shape import asymmetry, compactness, fractal_dimension, greatest_diameter, lesion_box, solidity

__all__ = ["COLOUR_SIDE_PX", "LesionMeasurements", "measure_lesion"]


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
            `MIN_SHAPE_AREA_PX`, as are the next three.
        asymmetry_minor: The same on the short principal axis, 0 to 1.
        compactness: P^2 / (4 pi A), 1 for a disc, larger for a ragged or stretched outline (0.95 and more in pixels).
        solidity: Area over the area of the convex hull, above 0 to 1.
        fractal_dimension: Fractal dimension of the outline, by box counting; about 1 for a smooth one, below 2; NaN where its
            bounding box is below 32 px.
        colours: Names of the colours of dermoscopy that cover at least `COLOUR_SHARE` of the lesion.
        colour_shares: Share of the lesion that is nearest to each colour, 0 to 1, in sum 1; NaN for an empty mask.
        colour_spread: Root mean square distance from the lesion's mean colour, in units of CIE Lab, 0 or more.
        skin_tone_deg: Individual typology angle of the skin around the lesion in degrees, between -90 and 90; NaN where
            too little skin shows, or a colour cast hides its tone.
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

    Returns:
        The measurements; NaN, and `"unknown"` for the skin's tone, where the picture does not allow one.

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
    lesion = lesion_box(inside)
    area, diameter = int(lesion.sum()), greatest_diameter(lesion)
    major, minor = asymmetry(lesion)
    image, inside = reduced(image, inside)
    hair = hair_pixels(image)
    around = skin_colour(image, bare_skin(image, inside, hair))
    pixels = lab_pixels(image, without_hair(inside, hair))
    shares = pixel_shares(pixels, white_from(around), DERMOSCOPIC_COLOURS)
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
        colour_spread=pixel_spread(pixels),
        skin_tone_deg=angle,
        skin_tone=skin_tone_group(angle),
        touches_edge=bool(rim.any()),
    )


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
