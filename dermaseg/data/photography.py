"""Take a synthetic photograph: lay a lesion on skin, put a dermoscope over it, and press the shutter."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dermaseg.data.hair import draw_hair

__all__ = ["noise", "photograph", "rise"]

_FULL = 160  # the byte that stands for all light passed, so that scars may pass up to 1.6 times as much
_D65 = np.array([0.9505, 1.0, 1.089])
_XYZ_TO_RGB = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])


def photograph(
    passed: np.ndarray,
    inside: np.ndarray,
    *,
    size: tuple[int, int],
    skin: np.random.Generator,
    view: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Photograph a lesion.

    Args:
        passed: Share of light that the lesion lets through, shape `(side, side, 3)`, 1 at its edges, in pixels of about
            the photograph's size.
        inside: Shape `(side, side)`, 0 to 1, 0.5 on the outline.
        size: `(height, width)` of the photograph.
        skin: Source of chance for what two photographs of one lesion share.
        view: Source of chance for what differs between them.

    Returns:
        The image, `(height, width, 3)`, and the mask, `(height, width)`, zeros and ones; both uint8.
    """
    height, width = size
    short = min(size)
    tone = _skin_tone(skin)
    passed, mask = _place(passed, inside, size, view)
    texture = 0.025 * noise(view, size, 4) + 0.02 * noise(view, size, short // 5) + 0.02 * noise(view, size, short // 2)
    blush = np.array([0.02, 0.06, 0.05], np.float32) * noise(view, size, 5)[..., None]
    light = tone * (1 + texture[..., None] - blush) * passed
    light *= _illumination(size, view)[..., None] * _lamp(view)

    if view.random() < 0.3:
        shade = np.array([0.24, 0.16, 0.13]) if view.random() < 0.85 else 1.1 * tone
        hair = draw_hair(size, count=int(view.geometric(0.2)), rng=view)[..., None] * view.uniform(0.4, 0.9)
        light += (shade.astype(np.float32) - light) * hair
    if view.random() < 0.08:
        light += 0.7 * _bubbles(size, view)[..., None]
    if view.random() < 0.05:
        light *= 1 - 0.85 * _ruler(size, view)[..., None]
    if view.random() < 0.12:
        x, y = np.linspace(-1, 1, width, dtype=np.float32), np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        distance = np.hypot(x * width, y * height) / max(size)
        light *= rise(view.uniform(0.92, 1.15) - distance, view.uniform(0.02, 0.12))[..., None]

    pixels = (255 * light).clip(0, 255).astype(np.uint8)
    focus = ImageFilter.GaussianBlur(float(view.uniform(0.1, 0.6) * max(1.0, short / 256)))
    pixels = np.asarray(Image.fromarray(pixels).filter(focus)) + 1.8 * view.standard_normal((*size, 1), np.float32)
    return pixels.clip(0, 255).astype(np.uint8), mask


def noise(rng: np.random.Generator, size: tuple[int, int], cells: int) -> np.ndarray:
    """Draw smooth noise of roughly unit amplitude.

    Args:
        rng: Source of chance.
        size: `(height, width)` in pixels.
        cells: How many bumps fit along the shorter side, about.

    Returns:
        Shape `size`, float32.
    """
    height, width = size
    rows, columns = (max(1, round(cells * side / min(size))) for side in size)
    coarse = Image.fromarray(rng.standard_normal((rows + 2, columns + 2), dtype=np.float32))
    left, top = rng.uniform(0.5, 1.5, 2).tolist()
    return np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC, box=(left, top, left + columns, top + rows)))


def rise(value: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """Rise smoothly from 0 to 1 over `width` around 0."""
    t = (value / width + 0.5).clip(0, 1)
    return t * t * (3 - 2 * t)


def _skin_tone(rng: np.random.Generator) -> np.ndarray:
    """Draw a skin colour, sRGB from 0 to 1, evenly over the individual typology angles of types I to VI.

    The angle is `atan((L - 50) / b)` in CIE Lab: above 55 degrees very light, below -30 dark. Light types are more
    frequent, as they are in every collection of dermoscopic images.

    References:
        A. Chardon, I. Cretois, C. Hourseau, "Skin colour typology and suntanning pathways", International Journal of
        Cosmetic Science 13, 1991 (individual typology angle).
    """
    angle = np.deg2rad(rng.triangular(-40, 52, 66))
    yellow = rng.uniform(9, 17)
    lightness = min(50 + yellow * np.tan(angle), 80.0) + 4  # the dermoscope's own lamp
    red = rng.uniform(10, 22)
    fy = (lightness + 16) / 116
    f = np.array([fy + red / 500, fy, fy - yellow / 200])
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * 3 * (6 / 29) ** 2) * _D65
    linear = (_XYZ_TO_RGB @ xyz).clip(0, 1)
    return np.where(linear > 0.0031308, 1.055 * linear ** (1 / 2.4) - 0.055, 12.92 * linear).astype(np.float32)


def _place(
    passed: np.ndarray, inside: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Turn, scale and shift the lesion into the picture."""
    side = len(passed)
    turn, zoom = rng.uniform(0, 2 * np.pi), np.exp(rng.normal(0, 0.1))
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / zoom
    centre = np.array([size[1], size[0]]) / 2 + rng.normal(0, 0.05, 2).clip(-0.12, 0.12) * min(size)
    packed = np.dstack([passed * _FULL, inside * 255]).clip(0, 255).round().astype(np.uint8)
    placed = Image.frombuffer("RGBX", (side, side), packed, "raw", "RGBX", 0, 1).transform(
        (size[1], size[0]),
        Image.Transform.AFFINE,
        np.column_stack([matrix, side / 2 - matrix @ centre]).ravel().tolist(),
        resample=Image.Resampling.BILINEAR,
        fillcolor=(_FULL, _FULL, _FULL, 0),
    )
    pixels = np.asarray(placed)
    return pixels[..., :3].astype(np.float32) / _FULL, (pixels[..., 3] > 127).astype(np.uint8)


def _lamp(rng: np.random.Generator) -> np.ndarray:
    """Gains of red, green and blue: lamps and cameras differ most in blue, from yellowish to violet."""
    return np.exp([rng.normal(0.03, 0.06), rng.normal(0.03, 0.04), rng.normal(0.18, 0.1)]).astype(np.float32)


def _illumination(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Light that falls off to the sides and leans to one of them."""
    x, y = np.linspace(-1, 1, size[1], dtype=np.float32), np.linspace(-1, 1, size[0], dtype=np.float32)[:, None]
    (lean_x, lean_y), fall = rng.normal(0, 0.04, 2).tolist(), rng.uniform(0, 0.12)
    return math.exp(rng.normal(0.1, 0.08)) * (1 + lean_x * x + lean_y * y - fall * (x * x + y * y))


def _bubbles(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Bright rims of air bubbles in the contact gel."""
    canvas = Image.new("L", (size[1], size[0]))
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.integers(1, 7)):
        centre = rng.uniform(0, 1, 2) * (size[1], size[0])
        radius = min(size) * rng.uniform(0.012, 0.06)
        pen.ellipse([*(centre - radius), *(centre + radius)], fill=20, outline=110, width=max(1, round(radius * 0.25)))
        shine = centre + radius * rng.uniform(-0.5, 0.5, 2)
        pen.ellipse([*(shine - 0.2 * radius), *(shine + 0.2 * radius)], fill=200)
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(min(size) / 200)), np.float32) / 255


def _ruler(size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """A scale of millimetres along one side."""
    canvas = Image.new("L", (size[1], size[0]))
    pen = ImageDraw.Draw(canvas)
    short = min(size)
    pitch, line, edge = short * rng.uniform(0.05, 0.09), max(1, round(short / 150)), short * rng.uniform(0.02, 0.08)
    for mark, position in enumerate(np.arange(0, size[1], pitch).tolist()):
        length = short * (0.06 if mark % 5 == 0 else 0.03)
        pen.line([position, size[0] - edge, position, size[0] - edge - length], fill=255, width=line)
    pen.line([0, size[0] - edge, size[1], size[0] - edge], fill=255, width=line)
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(short / 300)), np.float32) / 255
