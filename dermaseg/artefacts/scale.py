"""The size at which hairs, colours and skin tone are looked for."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from dermaseg.data.geometry import fit_area
from dermaseg.data.images import resize_image, resize_mask

__all__ = ["COLOUR_SIDE_PX", "reduced"]

MaybeMask = TypeVar("MaybeMask", np.ndarray, "np.ndarray | None")

COLOUR_SIDE_PX = 520
"""`image_attributes` looks at photographs, and `measure_lesion` looks for hairs, colours and skin tone, on a copy with at most
the area of a square of this side.

It is that of 600 by 450 pixels, the size of HAM10000's photographs. Larger ones hold more noise, not more colours."""


def reduced(image: np.ndarray, inside: MaybeMask) -> tuple[np.ndarray, MaybeMask]:
    """Return a checked image and its mask, as they are or reduced to the area of a square of `COLOUR_SIDE_PX`."""
    if image.shape[0] * image.shape[1] <= COLOUR_SIDE_PX**2:
        return image, inside
    size = fit_area(image.shape[:2], COLOUR_SIDE_PX)
    return resize_image(image, size), None if inside is None else resize_mask(inside, size).astype(bool)
