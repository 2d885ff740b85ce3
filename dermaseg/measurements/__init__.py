"""Measure a lesion as dermatologists describe it: asymmetry, border, colours, diameter, and the tone of the skin around it.

Each function turns pixels into one number with a formula from the literature. None of them is a diagnosis, and none
replaces one: melanomas with harmless figures and harmless moles with striking ones are common. Figures of two pictures
compare only where camera, lamp and magnification were alike.
"""

from dermaseg.measurements.colour import COLOUR_SHARE, DERMOSCOPIC_COLOURS, colour_shares, colour_spread
from dermaseg.measurements.lesion import COLOUR_SIDE_PX, LesionMeasurements, measure_lesion
from dermaseg.measurements.shape import (
    MIN_SHAPE_AREA_PX,
    asymmetry,
    compactness,
    fractal_dimension,
    greatest_diameter,
    solidity,
)

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
