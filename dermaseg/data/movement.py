"""Move photographs and their masks together, as a dermoscope does that is held otherwise, on skin that is stretched."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from PIL import Image

from dermaseg.data.factors import draw_factors

__all__ = ["draw_displacements", "draw_matrices", "grid", "move"]

_CELLS = 8  # of the elastic grid along each side; more would bend outlines as no skin bends


def draw_matrices(
    count: int,
    *,
    dihedral: bool,
    rotate_deg: float,
    scale: float,
    shear_deg: float,
    square: bool,
    rng: np.random.Generator,
) -> np.ndarray:
    """Draw linear maps from output to input offsets from the centre.

    Args:
        count: How many.
        dihedral: As for `Augment`.
        rotate_deg: As for `Augment`.
        scale: As for `Augment`.
        shear_deg: As for `Augment`.
        square: Whether height and width are equal: quarter turns keep the shape of squares alone.
        rng: Source of chance.

    Returns:
        Shape `(count, 2, 2)`, x before y.
    """
    turn = np.deg2rad(rng.uniform(-rotate_deg, rotate_deg, count))
    cosine, sine = np.cos(turn), np.sin(turn)
    rotation = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], axis=-2)
    shear = np.broadcast_to(np.eye(2), (count, 2, 2)).copy()
    shear[:, 0, 1] = np.tan(np.deg2rad(rng.uniform(-shear_deg, shear_deg, count)))
    matrices = rotation @ shear / draw_factors(rng, scale, (count, 1, 1))
    if dihedral:
        mirror = rng.choice([-1.0, 1.0], (count, 1, 2))
        transpose = rng.random(count) < (0.5 if square else 0.0)
        matrices = matrices * mirror
        matrices[transpose] = matrices[transpose][..., ::-1]
    return matrices


def move(
    images: np.ndarray,
    masks: np.ndarray | None,
    matrices: np.ndarray,
    shifts: np.ndarray,
    *,
    elastic_px: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Move each image and its mask by one map and one bilinear resampling; from outside comes the reflection.

    Args:
        images: Shape `(batch, height, width, 3)`, uint8.
        masks: Shape `(batch, height, width, 1)`, zeros and ones, or None.
        matrices: Shape `(batch, 2, 2)`, from output to input offsets from the centre, x before y.
        shifts: Shape `(batch, 2)`, in pixels of the input, x before y.
        elastic_px: As for `Augment`.
        rng: Source of the elastic displacements.

    Returns:
        New images and masks of the same shapes and types.
    """
    count, height, width, _ = images.shape
    # Pad by what the farthest corner of each image needs, so that every pixel read is a reflected one at worst.
    half = np.array([width, height]) / 2
    reach = np.abs(matrices) @ half + np.abs(shifts) + elastic_px
    pads = np.ceil((reach - half).clip(0)).astype(int) + 1
    # Image and mask are one picture of four bands, so that one resampling moves both by the same amount.
    packed = np.zeros((count, height, width, 4), np.uint8)
    packed[..., :3] = images
    if masks is not None:
        packed[..., 3:] = masks * np.uint8(255)
    pixels = packed.view(np.uint32)[..., 0]
    centres = half + pads + shifts - matrices @ half
    for index in range(count):
        columns, rows = (
            np.pad(np.arange(side), by, mode="symmetric") for side, by in zip((width, height), pads[index], strict=True)
        )
        padded = pixels[index].take(rows, axis=0).take(columns, axis=1)
        picture = Image.frombuffer("RGBX", (len(columns), len(rows)), padded, "raw", "RGBX", 0, 1)
        method, data = Image.Transform.AFFINE, np.column_stack([matrices[index], centres[index]]).ravel().tolist()
        if elastic_px:
            (displacements,) = draw_displacements(1, (width, height), elastic_px, rng)
            method, data = Image.Transform.MESH, _mesh(matrices[index], centres[index], (width, height), displacements)
        moved = picture.transform((width, height), method, data, resample=Image.Resampling.BILINEAR)
        packed[index] = np.asarray(moved)
    if masks is not None:
        masks = (packed[..., 3:] > 127).astype(masks.dtype)
    return packed[..., :3].copy(), masks


def grid(side: int) -> np.ndarray:
    """Return where the lines of the elastic grid cross a side of so many pixels, both ends among them."""
    return np.linspace(0, side, min(_CELLS, side) + 1).round().astype(int)


def draw_displacements(count: int, size: tuple[int, int], elastic_px: float, rng: np.random.Generator) -> np.ndarray:
    """Draw smooth displacements of the elastic grid's crossings.

    Args:
        count: How many grids.
        size: `(width, height)` in pixels.
        elastic_px: As for `Augment`.
        rng: Source of chance.

    Returns:
        Shape `(count, 2, rows, columns)` of crossings, in pixels, x before y.
    """
    columns, rows = (len(grid(side)) for side in size)
    moved = rng.uniform(-elastic_px, elastic_px, (count, 2, rows + 2, columns + 2))
    for axis in (2, 3):  # the kernel (1, 2, 1) / 4 twice; a mean of bounded numbers keeps their bound
        first, middle, last = (moved.take(np.arange(moved.shape[axis] - 2) + step, axis) for step in range(3))
        moved = (first + 2 * middle + last) / 4
    return moved


def _mesh(
    matrix: np.ndarray, centre: np.ndarray, size: tuple[int, int], displacements: np.ndarray
) -> list[tuple[tuple[int, ...], list[float]]]:
    """Return Pillow's mesh of the affine map with smooth displacements: boxes, and where their corners come from."""
    x, y = (grid(side) for side in size)
    corners = np.stack(np.meshgrid(x, y), axis=-1) @ matrix.T + centre + displacements.transpose(1, 2, 0)
    # Pillow goes round each box from the upper left against the clock.
    quads = np.concatenate([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], axis=-1)
    return [
        ((left, top, right, bottom), quads[row, column].tolist())
        for row, (top, bottom) in enumerate(pairwise(y.tolist()))
        for column, (left, right) in enumerate(pairwise(x.tolist()))
    ]
