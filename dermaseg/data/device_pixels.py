"""The pixels of photographs that are varied on JAX's device, from what `OnDevice` has drawn for them.

Only this module computes with JAX, and it is loaded only where JAX varies photographs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dermaseg.data.light import LUMA, aperture_light
from dermaseg.data.movement import grid

__all__ = ["vary"]


def vary(images: Any, masks: Any, drawn: Mapping[str, Any], hairs: Any = None) -> tuple[Any, Any]:
    """Compute a batch from what was drawn for it; all of it is `jax.numpy`."""
    _, height, width, _ = images.shape
    planes = images.astype(jnp.float32)
    covered = None if masks is None else masks.astype(jnp.float32)
    if "matrices" in drawn:
        stack = images if masks is None else jnp.concatenate([images, masks * jnp.uint8(255)], axis=-1)
        moved = _sample(stack, *_origins(drawn, height, width))
        planes = moved[..., :3]
        covered = None if masks is None else (moved[..., 3:] > 127.5).astype(jnp.float32)
    if "hair_density" in drawn:
        hair = _hair(hairs, drawn)
        planes += (drawn["hair_colours"][:, None, None] - planes) * hair
    if "kernels" in drawn:
        planes = _blur(planes, drawn["kernels"])
    light = drawn["frames"].light(height, width, jnp) if "frames" in drawn else None
    if covered is not None and light is not None:
        covered *= light >= 0.5
    planes = _recolour(planes, drawn)
    if "apertures" in drawn:
        planes *= aperture_light(height, width, *(column[:, None, None] for column in drawn["apertures"].T))
    if light is not None:
        around = drawn["frames"].around[:, None, None]
        planes = around + (planes - around) * light
    if "grain" in drawn:
        planes += _grain(planes.shape, drawn["grain_seed"]) * drawn["grain"][:, None, None, None]
    planes = jnp.floor((planes + 0.5).clip(0, 255))
    if "partners" in drawn:
        planes, covered = _mix(planes, covered, drawn)
    blended = "partners" in drawn and "boxes" not in drawn
    if covered is not None and not blended:
        covered = covered.astype(masks.dtype)
    return planes.astype(jnp.uint8), covered


def _origins(drawn: Mapping[str, Any], height: int, width: int) -> tuple[Any, Any]:
    """Return where each pixel of the result comes from: x and y in pixels, `(batch, height, width)`, from their centres."""
    x = jnp.arange(width) + 0.5 - width / 2
    y = (jnp.arange(height) + 0.5 - height / 2)[:, None]
    matrices, shifts = drawn["matrices"][..., None, None], drawn["shifts"][..., None, None]
    origin_x, origin_y = (
        matrices[:, axis, 0] * x + matrices[:, axis, 1] * y + shifts[:, axis] + side / 2 - 0.5
        for axis, side in enumerate((width, height))
    )
    if "elastic" in drawn:
        across, down = _hats(width), _hats(height)
        elastic = jnp.einsum("yr,bark,xk->bayx", down, drawn["elastic"], across)
        origin_x, origin_y = origin_x + elastic[:, 0], origin_y + elastic[:, 1]
    return origin_x, origin_y


def _hats(side: int) -> np.ndarray:
    """Return the weights by which pixels take the values of the elastic grid's lines, `(side, lines)`."""
    lines = grid(side)
    return np.stack([np.interp(np.arange(side) + 0.5, lines, row) for row in np.eye(len(lines))], axis=1).astype(np.float32)


def _sample(pictures: Any, x: Any, y: Any) -> Any:
    """Read uint8 pictures between their pixels, bilinearly; beyond the edge comes the reflection."""
    count, height, width, bands = pictures.shape
    left, top = jnp.floor(x), jnp.floor(y)
    right_share, bottom_share = (x - left)[..., None], (y - top)[..., None]
    rows, columns = top.astype(jnp.int32), left.astype(jnp.int32)
    flat = pictures.reshape(count * height * width, bands)
    start = (jnp.arange(count, dtype=jnp.int32) * (height * width))[:, None, None]

    def at(down: int, across: int) -> Any:
        place = start + _reflect(rows + down, height) * width + _reflect(columns + across, width)
        return flat[place].astype(jnp.float32)

    upper = at(0, 0) * (1 - right_share) + at(0, 1) * right_share
    lower = at(1, 0) * (1 - right_share) + at(1, 1) * right_share
    return upper * (1 - bottom_share) + lower * bottom_share


def _reflect(place: Any, side: int) -> Any:
    turned = place % (2 * side)
    return jnp.minimum(turned, 2 * side - 1 - turned)


def _hair(hairs: Any, drawn: Mapping[str, Any]) -> Any:
    """Return how much of each pixel is hair, `(batch, height, width, 1)`, from drawings of hairs."""
    found = hairs[drawn["hair_numbers"]]
    for axis, mirrored in zip((1, 2), drawn["hair_mirrored"].T, strict=True):
        found = jnp.where(mirrored[:, None, None], jnp.flip(found, axis), found)
    return (found.astype(jnp.float32) / 255 * drawn["hair_density"][:, None, None])[..., None]


def _blur(planes: Any, kernels: Any) -> Any:
    taps = kernels.shape[1]
    reach = taps // 2
    for axis in (1, 2):
        side = planes.shape[axis]
        ends = [(0, 0)] * 4
        ends[axis] = (reach, reach)
        padded = jnp.pad(planes, ends, mode="edge")
        planes = sum(
            jax.lax.slice_in_dim(padded, tap, tap + side, axis=axis) * kernels[:, tap, None, None, None] for tap in range(taps)
        )
    return planes


def _recolour(planes: Any, drawn: Mapping[str, Any]) -> Any:
    contrasts = drawn["contrasts"]
    if "exponents" in drawn:
        planes = 255 * (planes.clip(0, 255) / 255) ** drawn["exponents"][:, None, None, None]
    means = planes[:, ::4, ::4].mean(axis=(1, 2)) @ jnp.asarray(LUMA, jnp.float32)
    matrices = contrasts[:, None, None] * drawn["colours"]
    offsets = ((1 - contrasts) * means)[:, None] * drawn["greys"]
    # Three channels are too few for a matrix unit: sums of products keep float32's digits.
    mixed = sum(planes[..., channel, None] * matrices[:, None, None, :, channel] for channel in range(3))
    return mixed + offsets[:, None, None]


def _grain(shape: tuple[int, ...], seed: Any) -> Any:
    """Draw noise of a triangular distribution and deviation 1, as `draw_grain` does."""
    bits = jax.random.bits(jax.random.key(seed), (2, *shape), jnp.uint8).astype(jnp.float32)
    return (bits[0] - bits[1]) / np.float32(np.sqrt(2 * (256**2 - 1) / 12))


def _mix(planes: Any, covered: Any, drawn: Mapping[str, Any]) -> tuple[Any, Any]:
    partners = drawn["partners"]
    if "boxes" in drawn:
        top, bottom, left, right = (side[:, None, None] for side in drawn["boxes"].T)
        y, x = jnp.arange(planes.shape[1])[:, None], jnp.arange(planes.shape[2])
        kept = 1 - ((y >= top) & (y < bottom) & (x >= left) & (x < right)).astype(jnp.float32)[..., None]
    else:
        kept = drawn["shares"][:, None, None, None]

    def mixed(values: Any) -> Any:
        return kept * values + (1 - kept) * values[partners]

    return jnp.round(mixed(planes)), None if covered is None else mixed(covered)
