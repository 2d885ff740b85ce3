"""Draw dermoscopic photographs of lesions that do not exist, with exact masks.

They stand in for patients where none may or can be used: in tests, in examples, and to try a whole chain of tools
before the real data has arrived. They are no evidence for how a model does on skin.

A lesion is a stack of pigments on skin. Where a pigment has optical density `d`, a colour channel passes the share
`exp(-absorption * d)` of its light (Beer-Lambert), so brown, black, blue-grey and red come out of amounts and depth,
not out of a palette. The classes differ as in the ABCD rule, in asymmetry, border, colours and diameter, and by
structures: network, globules, blue nests, milia, red lacunae, vessels, a central scar. Their distributions overlap.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from dermaseg.data.ham10000 import HAM10000_CLASSES, read_ham10000
from dermaseg.data.photography import noise, photograph, rise
from dermaseg.data.samples import Samples

__all__ = ["make_synthetic", "synthetic_batch"]

_PLACES = ("back", "lower extremity", "trunk", "upper extremity", "abdomen", "face")
_EXTENT = 1.7  # a lesion's canvas reaches this many radii from its centre

# Absorption of red, green and blue light at a density of 1.
_MELANIN = np.array([0.45, 0.80, 1.05], np.float32)
_BLUE = np.array([0.95, 0.75, 0.52], np.float32)  # melanin deep in the skin: the short waves are scattered back
_BLOOD = np.array([0.12, 0.62, 0.48], np.float32)
_WHITE = np.array([-0.22, -0.34, -0.30], np.float32)  # scars and keratin scatter back more than skin does


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What the lesions of one class have in common: medians, from which each lesion departs by a factor."""

    age: int
    radius: float  # share of the picture's shorter side
    irregularity: float
    softness: float  # width of the border, in radii
    patchiness: float  # unevenness of all pigments
    melanin: float
    blue: float = 0.0
    blood: float = 0.0
    white: float = 0.0
    scar: float = 0.0
    network: float = 0.0
    globules: int = 0
    nests: int = 0
    milia: int = 0
    lacunae: int = 0
    vessels: int = 0


_KINDS = {
    "mel": _Kind(
        age=62, radius=0.30, irregularity=0.16, softness=0.22, patchiness=0.9, melanin=1.25, blue=0.7, blood=0.3,
        white=0.5, network=0.4, globules=9,
    ),
    "nv": _Kind(age=46, radius=0.23, irregularity=0.07, softness=0.28, patchiness=0.35, melanin=0.9, network=0.3, globules=7),
    "bcc": _Kind(
        age=67, radius=0.24, irregularity=0.10, softness=0.16, patchiness=0.5, melanin=0.3, blood=0.5, white=0.35, nests=6,
        vessels=5,
    ),
    "akiec": _Kind(
        age=68, radius=0.27, irregularity=0.13, softness=0.40, patchiness=0.7, melanin=0.25, blood=0.65, white=0.5, milia=12,
    ),
    "bkl": _Kind(
        age=64, radius=0.28, irregularity=0.10, softness=0.10, patchiness=0.6, melanin=0.7, white=0.3, globules=6, milia=10,
    ),
    "df": _Kind(age=52, radius=0.20, irregularity=0.06, softness=0.45, patchiness=0.3, melanin=0.5, scar=0.7, network=0.2),
    "vasc": _Kind(
        age=51, radius=0.18, irregularity=0.07, softness=0.10, patchiness=0.4, melanin=0.05, blood=1.3, blue=0.25, lacunae=12,
    ),
}  # fmt: skip


def synthetic_batch(
    count: int,
    *,
    size: int | tuple[int, int] = 128,
    seed: int = 0,
    num_classes: int = 7,
    images_per_lesion: int = 2,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draw photographs in memory.

    Photographs of one lesion follow each other; they differ in position, distance, light, hairs and focus. Lesions take
    the classes in turn, so all are there alike.

    Args:
        count: How many photographs.
        size: Height and width in pixels, one number for squares.
        seed: The same seed draws the same photographs; a larger count only adds more.
        num_classes: How many of the seven classes of HAM10000, from the first: `mel, nv, bcc, akiec, bkl, df, vasc`.
        images_per_lesion: Photographs of each lesion.

    Returns:
        Images `(count, height, width, 3)`, uint8; masks `(count, height, width, 1)`, uint8 zeros and ones; labels
        `(count,)`, int64; lesion ids `(count,)`, strings.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> images, masks, labels, lesion_ids = synthetic_batch(4, size=64)
        >>> images.shape, masks.shape, labels.tolist(), lesion_ids.tolist()
        ((4, 64, 64, 3), (4, 64, 64, 1), [0, 0, 1, 1], ['SYN_L000000', 'SYN_L000000', 'SYN_L000001', 'SYN_L000001'])
    """
    _check(count, num_classes, images_per_lesion)
    size = (size, size) if isinstance(size, int) else size
    images, masks = np.empty((count, *size, 3), np.uint8), np.empty((count, *size, 1), np.uint8)
    lesions = np.arange(count) // images_per_lesion
    for index, lesion in enumerate(lesions.tolist()):
        images[index], masks[index, ..., 0] = _draw(lesion, index, lesion % num_classes, size, seed)
    return images, masks, lesions % num_classes, np.array([_lesion_id(lesion) for lesion in lesions.tolist()])


def make_synthetic(
    folder: str | Path,
    *,
    count: int,
    size: tuple[int, int] = (450, 600),
    seed: int = 0,
    num_classes: int = 7,
    images_per_lesion: int = 2,
) -> Samples:
    """Write photographs, masks and a table in the layout of HAM10000, ready for every tool that reads it.

    Args:
        folder: Where `HAM10000_metadata.csv`, `images/*.jpg` and `masks/*_segmentation.png` go; made if need be.
        count: How many photographs.
        size: `(height, width)` in pixels; the default is HAM10000's own.
        seed: As for `synthetic_batch`, which draws the same photographs before their JPEG compression.
        num_classes: As for `synthetic_batch`.
        images_per_lesion: As for `synthetic_batch`.

    Returns:
        What `read_ham10000` reads from the folder.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> import tempfile
        >>> samples = make_synthetic(tempfile.mkdtemp(), count=4, size=(24, 32))
        >>> samples.summary()
        'synthetic photographs: 4 images; 4 masks; 2 lesions; mel 2, nv 2, bcc 0, akiec 0, bkl 0, df 0, vasc 0'
    """
    _check(count, num_classes, images_per_lesion)
    folder = Path(folder)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    with open(folder / "HAM10000_metadata.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"])
        for index in range(count):
            lesion = index // images_per_lesion
            label = lesion % num_classes
            image, mask = _draw(lesion, index, label, size, seed)
            name = f"SYN_{index:07d}"
            Image.fromarray(image).save(folder / "images" / f"{name}.jpg", quality=92)
            Image.fromarray(mask * np.uint8(255)).save(folder / "masks" / f"{name}_segmentation.png")
            table.writerow([_lesion_id(lesion), name, *_patient(lesion, label, seed)])
    return read_ham10000(folder)


def _check(count: int, num_classes: int, images_per_lesion: int) -> None:
    if count < 1 or images_per_lesion < 1:
        raise ValueError(f"count={count} and images_per_lesion={images_per_lesion} must be at least 1.")
    if not 1 <= num_classes <= len(HAM10000_CLASSES):
        raise ValueError(f"num_classes={num_classes}: 1 to {len(HAM10000_CLASSES)} classes can be drawn.")


def _lesion_id(lesion: int) -> str:
    return f"SYN_L{lesion:06d}"


def _patient(lesion: int, label: int, seed: int) -> list[str]:
    rng = np.random.default_rng((seed, lesion, 2))
    name = HAM10000_CLASSES[label]
    age = int(np.clip(round(rng.normal(_KINDS[name].age, 14) / 5) * 5, 5, 85))  # HAM10000 rounds ages to 5 years
    known = rng.random() > 0.02
    return [
        name,
        "histo" if name in ("mel", "bcc", "akiec") else str(rng.choice(["histo", "follow_up", "consensus"])),
        str(age) if known else "",
        str(rng.choice(["male", "female"])),
        str(rng.choice(_PLACES)),
    ]


def _draw(lesion: int, index: int, label: int, size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    # The last word keeps the streams of lesion, photograph and patient apart.
    lesion_rng, view_rng = np.random.default_rng((seed, lesion, 0)), np.random.default_rng((seed, index, 1))
    kind = _KINDS[HAM10000_CLASSES[label]]
    radius_px = min(size) * min(kind.radius * _vary(lesion_rng, 0.3), 0.44)
    skin_seed = int(lesion_rng.integers(2**31))
    passed, inside = _lesion(kind, max(round(2 * _EXTENT * radius_px), 8), lesion_rng)
    return photograph(passed, inside, size=size, skin=np.random.default_rng(skin_seed), view=view_rng)


def _lesion(kind: _Kind, side: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a lesion head-on.

    Returns:
        The share of light that it passes, shape `(side, side, 3)`, 1 around it; and how far inside the lesion each
        pixel is, shape `(side, side)`, 0 to 1 with 0.5 on the outline.
    """
    axis = np.linspace(-_EXTENT, _EXTENT, side, dtype=np.float32)
    x, y = axis[None, :], axis[:, None]
    inside, depth = _outline(kind, x, y, rng)

    patchiness = kind.patchiness * _vary(rng, 0.3)
    tilt_x, tilt_y = rng.normal(0, 0.35 * patchiness, 2).tolist()
    uneven = np.exp(
        patchiness * (0.45 * noise(rng, (side, side), 4) + 0.35 * noise(rng, (side, side), 13)) + tilt_x * x + tilt_y * y
    )
    fine = 1 + 0.25 * noise(rng, (side, side), 30)

    density = (kind.melanin * _vary(rng, 0.4) * uneven * fine * (0.55 + 0.45 * depth))[..., None] * _MELANIN
    for amount, absorption in ((kind.blue, _BLUE), (kind.blood, _BLOOD), (kind.white, _WHITE)):
        patches = rise(noise(rng, (side, side), 4) + rng.normal(0, 0.4) + (0.6 - 0.5 * kind.patchiness), 0.5)
        density += (amount * _vary(rng, 0.5) * patches * (0.3 + 0.7 * depth))[..., None] * absorption
    density += (kind.scar * _vary(rng, 0.3) * rise(0.42 - np.hypot(x, y), 0.4))[..., None] * (_WHITE - 0.4 * _MELANIN)
    density += (kind.network * _vary(rng, 0.5) * _network(x, y, side, rng))[..., None] * _MELANIN
    for most, size, amount, absorption in (
        (kind.globules, 0.06, 0.8, _MELANIN),
        (kind.nests, 0.14, 1.1, _BLUE),
        (kind.milia, 0.05, 1.2, _WHITE),
        (kind.lacunae, 0.20, 0.9, _BLOOD),
    ):
        number = int(rng.poisson(most * _vary(rng, 0.4)))
        if number:
            density += (amount * _spots(side, number, size, rng))[..., None] * absorption
    if kind.vessels:
        density += (1.1 * _vessels(side, int(rng.poisson(kind.vessels)), rng))[..., None] * _BLOOD
    return np.exp(-inside[..., None] * density), inside


def _outline(kind: _Kind, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    side = x.size
    irregularity = kind.irregularity * _vary(rng, 0.35)
    stretch, tilt = _vary(rng, 0.13), rng.uniform(0, math.pi)
    along, across = x * math.cos(tilt) + y * math.sin(tilt), y * math.cos(tilt) - x * math.sin(tilt)
    along, across = along * stretch, across / stretch
    distance, angle = np.hypot(along, across), np.arctan2(across, along)
    border = np.ones_like(angle)
    for wave in range(2, 6):  # slow waves make lobes
        border += rng.normal(0, irregularity / wave) * np.cos(wave * angle + rng.uniform(0, 2 * math.pi))
    # Noise makes notches. Its slope stays below that of the distance, so that no island breaks off.
    depth = border - distance + irregularity * (0.45 * noise(rng, (side, side), 9) + 0.25 * noise(rng, (side, side), 22))
    width = kind.softness * _vary(rng, 0.3) * np.exp(0.5 * noise(rng, (side, side), 4))
    return rise(depth, width), depth.clip(0, 1)


def _network(x: np.ndarray, y: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """Honeycomb of brown lines, fading in places: three plane waves at 60 degrees, bent by noise."""
    bent_x, bent_y = x + 0.09 * noise(rng, (side, side), 9), y + 0.09 * noise(rng, (side, side), 9)
    frequency, start = rng.uniform(24, 34), rng.uniform(0, math.pi)
    waves = np.zeros_like(bent_x)
    for turn in (start, start + math.pi / 3, start + 2 * math.pi / 3):
        waves += np.cos(frequency * (math.cos(turn) * bent_x + math.sin(turn) * bent_y))
    return rise(-waves + 0.2, 1.6) * rise(noise(rng, (side, side), 5) + 0.4, 0.8)


def _spots(side: int, number: int, size: float, rng: np.random.Generator) -> np.ndarray:
    """Soft round spots within the lesion, `size` radii wide."""
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    px = side / (2 * _EXTENT)
    for _ in range(number):
        centre = side / 2 + px * rng.normal(0, 0.42, 2)
        radii = px * size * rng.uniform(0.5, 1.2) * rng.uniform(0.8, 1.2, 2)
        pen.ellipse([*(centre - radii), *(centre + radii)], fill=int(rng.integers(120, 256)))
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.25 * size * px + 0.4)), np.float32) / 255


def _vessels(side: int, number: int, rng: np.random.Generator) -> np.ndarray:
    """Thin red vessels that wander inward and branch."""
    canvas = Image.new("L", (side, side))
    pen = ImageDraw.Draw(canvas)
    px = side / (2 * _EXTENT)
    for _ in range(number):
        turn = rng.uniform(0, 2 * math.pi)
        start = side / 2 + px * np.array([math.cos(turn), math.sin(turn)]) * rng.uniform(0.5, 1.0)
        for branch in range(3):
            headings = turn + math.pi + rng.normal(0, 0.4) + rng.normal(0, 0.35, 9).cumsum()
            steps = 0.09 * px * np.stack([np.cos(headings), np.sin(headings)], axis=1)
            points = np.vstack([start, start + steps.cumsum(axis=0)])
            pen.line([tuple(point) for point in points.tolist()], fill=220 - 50 * branch, width=max(1, round(px * 0.035)))
            start = points[rng.integers(2, 7)]
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.5)), np.float32) / 255


def _vary(rng: np.random.Generator, spread: float) -> float:
    return math.exp(rng.normal(0, spread))
