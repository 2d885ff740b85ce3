"""What a photograph shows besides its lesion: the tone of the skin, hairs, a ruler, dark corners.

Networks learn such things where they go along with a class, and fail where they are rare. `image_attributes` names them, so
that an evaluation can report each group on its own. All are computed from pixels, by rules with named thresholds that were
set on dermoscopic pictures by eye. They sort pictures into groups for an audit; one picture's label may be wrong.
"""

from dermaseg.artefacts.attributes import image_attributes
from dermaseg.artefacts.corners import DARK_CORNER_THRESHOLD, dark_corner_pixels, dark_corner_score
from dermaseg.artefacts.hair import HAIR_THRESHOLD, hair_pixels, hair_score
from dermaseg.artefacts.ruler import RULER_THRESHOLD, ruler_score
from dermaseg.artefacts.skin import SKIN_TONES, skin_pixels, skin_tone_angle, skin_tone_group

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
