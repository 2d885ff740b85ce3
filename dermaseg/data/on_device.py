"""Vary and mix photographs where the network is trained: what `Augment` and `Mix` do, as one compiled function on JAX.

A core varies a few hundred photographs per second, and an accelerator may learn from more. Here the processor only draws what
shall change, a few numbers per photograph; the accelerator computes the pixels.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import Any

import numpy as np

from dermaseg.data.augment import FARTHEST, HAIR_COLOUR, SOME, Augment, check_batch
from dermaseg.data.factors import draw_factors
from dermaseg.data.hair import draw_hair
from dermaseg.data.light import Frame, draw_aperture, draw_colour_matrices, draw_frame
from dermaseg.data.mix import Mix, blend
from dermaseg.data.movement import draw_displacements, draw_matrices

__all__ = ["DEVICES", "OnDevice", "choose_device"]

DEVICES = ("auto", "processor", "accelerator")
"""Where photographs are varied: see `choose_device`."""

Drawn = dict[str, Any]  # arrays, and the frames

_HAIRS = 128  # drawings of hairs, each of which is used in four orientations


def choose_device(name: str = "auto") -> str:
    """Return where photographs are varied, `"processor"` or `"accelerator"`.

    `"auto"` takes the accelerator where Keras runs on JAX and has a GPU, unless several devices share each batch: one of them
    would vary it for all. The two make the same kinds of change, but not the same pixels for one seed.

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
    card = on_jax and any(device.startswith("gpu") for device in keras.distribution.list_devices())
    return "accelerator" if card and keras.distribution.distribution() is None else "processor"


class OnDevice:
    """Vary a batch by `Augment`, then mix it by `Mix`, on JAX's default device.

    Changes, their order and their chances are those on the processor. Hairs come from 128 drawings, the same in every training,
    each in four orientations and any colour and density; grain is of JAX's own random numbers; a blur is a true Gaussian.

    Args:
        augment: What changes; None for nothing.
        mix: How photographs are mixed; None for not at all.
    """

    def __init__(self, augment: Augment | None, mix: Mix | None = None) -> None:
        self.augment = augment or Augment()
        self.mix = mix
        self._drawings: Any = None
        self._drawing = threading.Lock()

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

        Raises:
            TypeError: If the images are not uint8.
            ValueError: If a shape does not fit.
        """
        check_batch(images, masks)
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

        from dermaseg.data.device_pixels import vary

        return jax.jit(vary)

    def _hairs(self, height: int, width: int) -> Any:
        """Return drawings of hairs, on the device: to draw them for each photograph would be most of the processor's work."""
        import jax

        with self._drawing:  # by one of the threads that read batches
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
            drawn["frames"] = _draw_frames(np.less(rng.random(count), one.frame), size, zooms, rng)
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
        return {name: _single(values) for name, values in drawn.items()}


def _draw_frames(framed: np.ndarray, size: tuple[int, int], zooms: np.ndarray, rng: np.random.Generator) -> Frame:
    """Draw the frames of those that have one, and set how far these recede; the others' openings reach beyond the picture."""
    count = len(framed)
    drawn = Frame(
        centre=np.zeros((count, 2), np.float32),
        half=np.full((count, 2), np.inf, np.float32),
        corner=np.zeros(count, np.float32),
        softness=np.ones(count, np.float32),
        around=np.zeros((count, 3), np.float32),
    )
    for row in np.flatnonzero(framed):
        zooms[row] = rng.uniform(1, FARTHEST)
        for values, value in zip(drawn, draw_frame(*size, zooms[row], rng), strict=True):
            values[row] = value
    return drawn


def _gaussians(deviations: np.ndarray, largest: float) -> np.ndarray:
    """Return Gaussian weights, `(batch, taps)`, that add up to 1."""
    reach = int(np.ceil(3 * largest))
    steps = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (steps / np.maximum(deviations, 1e-3)[:, None]) ** 2)
    return weights / weights.sum(axis=1, keepdims=True)


def _single(values: Any) -> Any:
    return values.astype(np.float32) if isinstance(values, np.ndarray) and values.dtype == np.float64 else values
