"""The groups that a photograph belongs to."""

from __future__ import annotations

import numpy as np

from dermaseg.arrays import check_image_and_mask
from dermaseg.artefacts.corners import DARK_CORNER_THRESHOLD, dark_corner_score
from dermaseg.artefacts.hair import HAIR_THRESHOLD, hair_pixels, hair_share
from dermaseg.artefacts.ruler import RULER_THRESHOLD, ruler_score
from dermaseg.artefacts.scale import reduced
from dermaseg.artefacts.skin import bare_skin, skin_colour, skin_tone_group, tone

__all__ = ["image_attributes"]


def image_attributes(image: np.ndarray, mask: np.ndarray | None = None) -> dict[str, str | float]:
    """Name the groups that a photograph belongs to, with the scores behind them.

    A photograph larger than a square of `dermaseg.measurements.COLOUR_SIDE_PX` is looked at on a reduced copy: at full size
    its grain would be as coarse as the hairs that are looked for.

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
    image, inside = reduced(*check_image_and_mask(image, mask))
    hair = hair_pixels(image)
    angle = tone(skin_colour(image, bare_skin(image, inside, hair)))
    scores = {
        "hair": hair_share(image, inside, hair),
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


def _answer(yes: bool) -> str:
    return "yes" if yes else "no"
