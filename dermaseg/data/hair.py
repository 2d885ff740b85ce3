"""Hairs over a photograph: draw them, for augmentation and synthetic data, or take them out."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["draw_hair", "find_hair", "hair_width", "remove_hair"]

_FINE = 3  # drawn this many times larger, then averaged down: Pillow draws lines without smooth edges


def draw_hair(size: tuple[int, int], *, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw thin curved hairs that mostly lie in one direction, as hair on skin does.

    Args:
        size: `(height, width)` in pixels.
        count: How many hairs.
        rng: Source of chance.

    Returns:
        How much of each pixel is hair: shape `size`, float32 from 0 to 1.

    Examples:
        >>> coverage = draw_hair((64, 64), count=5, rng=np.random.default_rng(0))
        >>> coverage.shape, float(coverage.max()) > 0.5, float(coverage.mean()) < 0.2
        ((64, 64), True, True)
    """
    fine_size = np.array([size[1], size[0]]) * _FINE
    side = max(fine_size)
    canvas = Image.new("L", tuple(fine_size.tolist()))
    pen = ImageDraw.Draw(canvas)
    along = np.linspace(-1, 1, 13)[:, None]
    direction = rng.uniform(0, np.pi)
    for _ in range(count):
        angle = direction + rng.normal(0, 0.35)
        forward = np.array([np.cos(angle), np.sin(angle)]) * side * rng.uniform(0.15, 0.6)
        sideways = np.array([-forward[1], forward[0]]) * rng.normal(0, 0.25)
        curve = rng.uniform(0, 1, 2) * fine_size + along * forward + along**2 * sideways
        width = max(1, round(side / 128 * rng.uniform(0.5, 1.5)))
        pen.line([tuple(point) for point in curve.tolist()], fill=255, width=width, joint="curve")
    return np.asarray(canvas.reduce(_FINE), dtype=np.float32) / 255


def find_hair(image: np.ndarray, *, contrast: int = 16) -> np.ndarray:
    """Find dark hairs in a photograph, as DullRazor does.

    A hair is darker than what lies beside it, narrower than a fortieth of the picture, and straight for a twentieth of
    it. The last condition leaves the pigment network and globules alone, which are as dark and as narrow.

    Args:
        image: Shape `(height, width, 3)`, uint8 RGB.
        contrast: How much darker than its surroundings a hair is at least, in grey levels.

    Returns:
        bool, `(height, width)`, with the rims of the hairs.

    Raises:
        ValueError: If the image has another shape or type.

    References:
        As for `remove_hair`.
    """
    from scipy import ndimage  # half of a command's start, which drawing hair has no use for

    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(f"image has shape {image.shape} and type {image.dtype}: (height, width, 3) of uint8 is needed.")
    short, width = min(image.shape[:2]), hair_width(image.shape)
    grey = np.asarray(Image.fromarray(image).convert("L"))
    darker = ndimage.grey_closing(grey, size=(width, width)).astype(np.int16) - grey
    hair = _straight_parts(darker >= contrast, length=max(5, round(short / 20)))
    # The rims of a hair are half skin and fall below the contrast.
    return ndimage.binary_dilation(hair, iterations=max(1, round(short / 220)))


def remove_hair(image: np.ndarray, *, contrast: int = 16) -> np.ndarray:
    """Take dark hairs out of a photograph: what `find_hair` finds is filled with the mean of the skin around it.

    Args:
        image: Shape `(height, width, 3)`, uint8 RGB.
        contrast: As for `find_hair`.

    Returns:
        A new image of the same shape and type. Pixels away from hairs keep their values.

    Raises:
        ValueError: If the image has another shape or type.

    Examples:
        >>> image = np.full((100, 100, 3), (225, 185, 165), np.uint8)
        >>> image[10] = 60  # a dark hair from edge to edge
        >>> remove_hair(image)[10, 50].tolist()
        [225, 185, 165]

    References:
        T. Lee, V. Ng, R. Gallagher, A. Coldman, D. McLean, "DullRazor: a software approach to hair removal from images",
        Computers in Biology and Medicine 27(6), 1997. Deviations: one square closing and a binary opening by lines
        stand for their three closings by lines and the check of each pixel's length; the fill is not directional.
    """
    from scipy import ndimage

    hair, width = find_hair(image, contrast=contrast), hair_width(image.shape)
    if not hair.any():
        return image.copy()
    known = np.dstack([image, np.full(hair.shape, 255, np.uint8)]) * (~hair[..., None] / np.float32(255))
    filled = image.astype(np.float32)
    for side in (width, 3 * width, 9 * width):  # the narrowest window that holds some skin wins
        mean = ndimage.uniform_filter(known, (side, side, 0))
        reached = hair & (mean[..., 3] > 0.1)
        filled[reached] = 255 * mean[reached, :3] / mean[reached, 3:]
        hair = hair & ~reached
        if not hair.any():
            break
    return np.rint(filled).astype(np.uint8)


def _straight_parts(dark: np.ndarray, *, length: int) -> np.ndarray:
    """Keep the pixels that lie on a straight run of `length` dark ones: an opening by lines in 12 directions."""
    from scipy import ndimage

    reach = length // 2
    padded = np.pad(ndimage.binary_dilation(dark), reach)  # a little width, so that slight curves count as straight
    kept = np.zeros_like(padded)
    # Few pixels are dark: following them by their place in the flat array costs a fraction of shifting the whole picture.
    wide, candidates = padded.ravel(), np.flatnonzero(padded)
    for turn in np.arange(12) * (math.pi / 12):
        steps = [round(k * math.sin(turn)) * padded.shape[1] + round(k * math.cos(turn)) for k in range(-reach, reach + 1)]
        centres = candidates
        for step in steps:
            centres = centres[wide[centres + step]]
        for step in steps:
            kept.ravel()[centres + step] = True
    return kept[reach : reach + dark.shape[0], reach : reach + dark.shape[1]] & dark


def hair_width(shape: tuple[int, ...]) -> int:
    """Return the side of the window that spans a hair or the tick of a ruler, about a fortieth of a picture of that shape."""
    return 2 * max(1, round(min(shape[:2]) / 80)) + 1
