"""Vary and mix photographs where the network is trained: what `Augment` and `Mix` do, as one compiled function on JAX.

A processor varies a few hundred photographs a second, and an accelerator learns from thousands. Here the processor only
draws what shall change, a few numbers a photograph and its hairs; the accelerator computes the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np

from dermaseg.data.augment import FARTHEST, HAIR_COLOUR, SOME, Augment
from dermaseg.data.factors import draw_factors
from dermaseg.data.hair import draw_hair
from dermaseg.data.light import LUMA, draw_aperture, draw_colour_matrices, draw_frame
from dermaseg.data.mix import Mix, blend
from dermaseg.data.movement import draw_displacements, draw_matrices, grid

__all__ = ["DEVICES", "OnDevice", "choose_device"]

DEVICES = ("auto", "processor", "accelerator")
"""Where photographs are varied: see `choose_device`."""

Drawn = dict[str, np.ndarray]

_HAIRS = 128  # drawings of hairs, each of which is used in four orientations


def choose_device(name: str = "auto") -> str:
    """Return where photographs are varied, `"processor"` or `"accelerator"`.

    `"auto"` takes the accelerator where Keras runs on JAX and has one. The two see the same kinds of change, but not the same
    pixels for one seed.

    Raises:
        ValueError: If `name` is none of `DEVICES`, or the accelerator is asked for and Keras does not run on JAX.
    """
    import keras

    if name not in DEVICES:
        raise ValueError(f"augment_on must be one of {', '.join(DEVICES)}, got {name!r}.")
    on_jax = keras.backend.backend() == "jax"
    if name == "accelerator" and not on_jax:
        raise ValueError("augment_on='accelerator' needs Keras on JAX: set KERAS_BACKEND=jax, or leave it at 'auto'.")
    if name != "auto":
        return name
    accelerated = on_jax and any(not device.startswith("cpu") for device in keras.distribution.list_devices())
    return "accelerator" if accelerated else "processor"


class OnDevice:
    """Vary a batch by `Augment`, then mix it by `Mix`, on JAX's default device.

    Args:
        augment: What changes; None for nothing.
        mix: How photographs are mixed; None for not at all.
    """

    def __init__(self, augment: Augment | None, mix: Mix | None = None) -> None:
        self.augment = augment or Augment()
        self.mix = mix
        self._drawings: Any = None

    def __call__(
        self,
        images: np.ndarray,
        masks: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        *,
        kinds: np.ndarray | None = None,
        rng: np.random.Generator,
    ) -> tuple[Any, Any, np.ndarray | None]:
        """Vary and mix one batch.

        Args:
            images: `(batch, height, width, 3)`, uint8.
            masks: `(batch, height, width, 1)`, zeros and ones, or None.
            labels: The share of each class, `(batch, classes)`, or None; without mixing they are given back.
            kinds: As for `Mix`.
            rng: The only source of chance: the same generator state gives the same batch.

        Returns:
            Images and masks as arrays of JAX on its device, labels as NumPy arrays, of the types that `Mix` gives.
        """
        count, height, width, _ = images.shape
        drawn = self.draw(count, (height, width), rng)
        if self.mix is not None:
            partners, shares, boxes = self.mix.draw(count, (height, width), kinds=kinds, rng=rng)
            drawn.update(partners=partners, shares=shares)
            if boxes is not None:
                drawn["boxes"] = boxes
            if labels is not None:
                labels = blend(labels, partners, shares)
        hairs = self._hairs(height, width) if self.augment.hair else None
        images, masks = self._compiled(images, masks, drawn, hairs)
        return images, masks, labels

    @cached_property
    def _compiled(self) -> Any:
        import jax

        return jax.jit(_vary)

    def _hairs(self, height: int, width: int) -> Any:
        """Return drawings of hairs, on the device: a hundred drawings a second would be the slowest part by far."""
        import jax

        if self._drawings is None or self._drawings.shape[1:] != (height, width):
            rng = np.random.default_rng(0)  # what a batch has of them is drawn by its own generator
            drawings = [draw_hair((height, width), count=int(rng.integers(2, 13)), rng=rng) for _ in range(_HAIRS)]
            self._drawings = jax.device_put(np.rint(255 * np.stack(drawings)).astype(np.uint8))
        return self._drawings

    def draw(self, count: int, size: tuple[int, int], rng: np.random.Generator) -> Drawn:
        """Draw all that changes in a batch; what never does is left out, so that nothing is computed for it.

        Args:
            count: Photographs in the batch.
            size: Their height and width.
            rng: The only source of chance.
        """
        one, drawn = self.augment, Drawn()
        height, width = size
        zooms = np.ones(count)
        if one.frame:
            drawn.update(_draw_frames(np.less(rng.random(count), one.frame), size, zooms, rng))
        if one.dihedral or one.rotate_deg or one.scale or one.shift or one.shear_deg or one.elastic_px or one.frame:
            matrices = draw_matrices(
                count,
                dihedral=one.dihedral,
                rotate_deg=one.rotate_deg,
                scale=one.scale,
                shear_deg=one.shear_deg,
                square=height == width,
                rng=rng,
            )
            drawn["matrices"] = matrices * zooms[:, None, None]
            drawn["shifts"] = rng.uniform(-one.shift, one.shift, (count, 2)) * [width, height]
            if one.elastic_px:
                drawn["elastic"] = draw_displacements(count, (width, height), one.elastic_px, rng)
        if one.hair:
            drawn["hair_density"] = rng.uniform(0.6, 1.0, count) * (rng.random(count) < one.hair)
            drawn["hair_colours"] = rng.uniform(15, 70, (count, 1)) * HAIR_COLOUR
            drawn["hair_numbers"] = rng.integers(0, _HAIRS, count, dtype=np.int32)
            drawn["hair_mirrored"] = rng.random((count, 2)) < 0.5
        if one.blur_px:
            drawn["kernels"] = _gaussians(rng.uniform(0, one.blur_px, count) * (rng.random(count) < SOME), one.blur_px)
        if one.gamma:
            drawn["exponents"] = draw_factors(rng, one.gamma, count)
        drawn["colours"], drawn["greys"] = draw_colour_matrices(
            count,
            saturation=one.saturation,
            hue_deg=one.hue_deg,
            brightness=one.brightness,
            channel_gain=one.channel_gain,
            rng=rng,
        )
        drawn["contrasts"] = draw_factors(rng, one.contrast, count)
        if one.vignette:
            dark = np.less(rng.random(count), one.vignette)
            drawn["apertures"] = np.array([draw_aperture(rng) if corners else (9.0, 1.0) for corners in dark])
        if one.noise:
            drawn["grain"] = rng.uniform(0, one.noise, count) * (rng.random(count) < SOME)
            drawn["grain_seed"] = rng.integers(0, 2**32, dtype=np.uint32)
        # Single precision is what an accelerator computes in, and integers of 32 bits.
        return {name: values.astype(np.float32) if values.dtype == np.float64 else values for name, values in drawn.items()}


def _draw_frames(framed: np.ndarray, size: tuple[int, int], zooms: np.ndarray, rng: np.random.Generator) -> Drawn:
    """Draw the frames of those that have one, and set how far these recede; the others' openings reach beyond the picture."""
    count = len(framed)
    drawn = {
        "frame_centres": np.zeros((count, 2)),
        "frame_halves": np.full((count, 2), 9.0),
        "frame_corners": np.zeros(count),
        "frame_softness": np.ones(count),
        "frame_colours": np.zeros((count, 3)),
    }
    for row in np.flatnonzero(framed):
        zooms[row] = rng.uniform(1, FARTHEST)
        frame = draw_frame(*size, zooms[row], rng)
        for values, value in zip(drawn.values(), frame, strict=True):
            values[row] = np.minimum(value, 255.0)  # bars have an opening without end along one side
    return drawn


def _gaussians(deviations: np.ndarray, largest: float) -> np.ndarray:
    """Return Gaussian weights, `(batch, taps)`, that add up to 1."""
    reach = int(np.ceil(3 * largest))
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / np.maximum(deviations, 1e-3)[:, None]) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def _vary(images: Any, masks: Any, drawn: Mapping[str, Any], hairs: Any = None) -> tuple[Any, Any]:
    """Compute a batch from what was drawn for it; all of it is `jax.numpy`."""
    import jax.numpy as jnp

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
    light = _frame_light(drawn, height, width) if "frame_halves" in drawn else None
    if covered is not None and light is not None:
        covered *= light >= 0.5
    planes = _recolour(planes, drawn)
    if "apertures" in drawn:
        radius, softness = (column[:, None, None] for column in drawn["apertures"].T)
        planes *= (((radius - _distance_to_centre(height, width)) / softness + 0.5).clip(0, 1))[..., None]
    if light is not None:
        around = drawn["frame_colours"][:, None, None]
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
    import jax.numpy as jnp

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
    import jax.numpy as jnp

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
    import jax.numpy as jnp

    turned = place % (2 * side)
    return jnp.minimum(turned, 2 * side - 1 - turned)


def _hair(hairs: Any, drawn: Mapping[str, Any]) -> Any:
    """Return how much of each pixel is hair, `(batch, height, width, 1)`, from drawings of hairs."""
    import jax.numpy as jnp

    found = hairs[drawn["hair_numbers"]]
    for axis, mirrored in zip((1, 2), drawn["hair_mirrored"].T, strict=True):
        found = jnp.where(mirrored[:, None, None], jnp.flip(found, axis), found)
    return (found.astype(jnp.float32) / 255 * drawn["hair_density"][:, None, None])[..., None]


def _blur(planes: Any, kernels: Any) -> Any:
    import jax
    import jax.numpy as jnp

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


def _frame_light(drawn: Mapping[str, Any], height: int, width: int) -> Any:
    """Return the light let through by each frame, `(batch, height, width, 1)`: `Frame.light` of a batch."""
    import jax.numpy as jnp

    longer = max(height, width)
    half, corner = drawn["frame_halves"], drawn["frame_corners"][:, None, None]
    centre = drawn["frame_centres"]
    x = jnp.abs((2 * jnp.arange(width) + 1 - width) / longer - centre[:, :1])[:, None, :]
    y = jnp.abs((2 * jnp.arange(height) + 1 - height) / longer - centre[:, 1:])[:, :, None]
    beyond_x, beyond_y = x - (half[:, 0, None, None] - corner), y - (half[:, 1, None, None] - corner)
    outside = jnp.hypot(beyond_x.clip(0), beyond_y.clip(0))
    distance = outside + jnp.maximum(beyond_x, beyond_y).clip(max=0) - corner
    return (0.5 - distance / drawn["frame_softness"][:, None, None]).clip(0, 1)[..., None]


def _recolour(planes: Any, drawn: Mapping[str, Any]) -> Any:
    import jax.numpy as jnp

    contrasts = drawn["contrasts"]
    means = planes[:, ::4, ::4].mean(axis=(1, 2)) @ jnp.asarray(LUMA, jnp.float32)
    if "exponents" in drawn:
        planes = 255 * (planes.clip(0, 255) / 255) ** drawn["exponents"][:, None, None, None]
    matrices = contrasts[:, None, None] * drawn["colours"]
    offsets = ((1 - contrasts) * means)[:, None] * drawn["greys"]
    # Three channels are too few for a matrix unit: sums of products keep float32's digits.
    mixed = sum(planes[..., channel, None] * matrices[:, None, None, :, channel] for channel in range(3))
    return mixed + offsets[:, None, None]


def _distance_to_centre(height: int, width: int) -> np.ndarray:
    x = np.linspace(-1, 1, width, dtype=np.float32) * width / max(height, width)
    y = np.linspace(-1, 1, height, dtype=np.float32) * height / max(height, width)
    return np.hypot(x, y[:, None])


def _grain(shape: tuple[int, ...], seed: Any) -> Any:
    """Draw noise of a triangular distribution and deviation 1, as `draw_grain` does."""
    import jax

    bits = jax.random.bits(jax.random.key(seed), (2, *shape), jax.numpy.uint8).astype(jax.numpy.float32)
    return (bits[0] - bits[1]) / np.float32(np.sqrt(2 * (256**2 - 1) / 12))


def _mix(planes: Any, covered: Any, drawn: Mapping[str, Any]) -> tuple[Any, Any]:
    import jax.numpy as jnp

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
