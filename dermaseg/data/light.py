"""Light, sensor and opening: the colour of a lamp, the grain of a sensor, dark corners and frames."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from dermaseg.data.factors import draw_factors

__all__ = ["LUMA", "Frame", "aperture_light", "draw_aperture", "draw_colour_matrices", "draw_frame", "draw_grain"]

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def draw_colour_matrices(
    count: int,
    *,
    saturation: float,
    hue_deg: float,
    brightness: float,
    channel_gain: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw changes of colour as maps of red, green and blue: `gain * hue * saturation`.

    Args:
        count: How many.
        saturation: As for `Augment`.
        hue_deg: As for `Augment`.
        brightness: As for `Augment`.
        channel_gain: As for `Augment`.
        rng: Source of chance.

    Returns:
        The maps, `(count, 3, 3)`, and what each makes of a grey of 1, `(count, 3)`.
    """
    factors = draw_factors(rng, saturation, (count, 1, 1))
    saturate = factors * np.eye(3) + (1 - factors) * LUMA
    angle = np.deg2rad(rng.uniform(-hue_deg, hue_deg, (count, 1, 1)))
    # Rodrigues' rotation about (1, 1, 1): greys stay where they are.
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3
    gain = draw_factors(rng, brightness, (count, 1)) * draw_factors(rng, channel_gain, (count, 3))
    return gain[..., None] * (turn @ saturate), gain


def draw_aperture(rng: np.random.Generator) -> tuple[float, float]:
    """Draw a round opening around the centre: its radius, in halves of the longer side, and the softness of its edge."""
    return rng.uniform(0.95, 1.3), rng.uniform(0.03, 0.4)


def aperture_light(height: int, width: int, radius: Any, softness: Any) -> Any:
    """Return the light that an opening lets through, shape `(height, width, 1)`, 0 to 1, float32.

    Of a batch, radius and softness have the shape `(batch, 1, 1)`, in NumPy or JAX, and the light the batch's axis first.
    """
    x = np.linspace(-1, 1, width, dtype=np.float32) * width / max(height, width)
    y = np.linspace(-1, 1, height, dtype=np.float32) * height / max(height, width)
    return ((radius - np.hypot(x, y[:, None])) / softness + 0.5).clip(0, 1)[..., None].astype(np.float32)


class Frame(NamedTuple):
    """A dark frame around the field of view: a rectangle with rounded corners; a disc is one of them.

    Lengths are in halves of the picture's longer side. Of a batch, all have its axis first.
    """

    centre: Any
    """x and y of the opening's middle."""
    half: Any
    """Half of the opening's width and height; bars along two sides have an infinite one."""
    corner: Any
    """Radius of the corners."""
    softness: Any
    """Width of the edge."""
    around: Any
    """Red, green and blue outside, 0 to 255."""

    def light(self, height: int, width: int, xp: Any = np) -> Any:
        """Return the light let through, `(height, width, 1)`, 0 to 1, float32, computed by NumPy or by `jax.numpy`."""

        def plane(values: Any) -> Any:
            return xp.asarray(values)[..., None, None]

        longer = max(height, width)
        x, y = ((2 * np.arange(side) + 1 - side) / longer for side in (width, height))
        beyond_x = xp.abs(x - plane(self.centre[..., 0])) - plane(self.half[..., 0] - self.corner)
        beyond_y = xp.abs(y[:, None] - plane(self.centre[..., 1])) - plane(self.half[..., 1] - self.corner)
        # The signed distance to the opening.
        outside = xp.hypot(beyond_x.clip(0), beyond_y.clip(0))
        distance = outside + xp.maximum(beyond_x, beyond_y).clip(max=0) - plane(self.corner)
        return (0.5 - distance / plane(self.softness)).clip(0, 1)[..., None].astype(np.float32)


def draw_frame(height: int, width: int, zoom: float, rng: np.random.Generator) -> Frame:
    """Draw a frame about a photograph that takes `1 / zoom` of each side."""
    longer = max(height, width)
    centre = rng.uniform(-0.06, 0.06, 2)
    half = np.array([width, height]) / longer / zoom * rng.uniform(0.95, 1.3, 2)
    kind = rng.choice(["round", "rounded", "bars"], p=[0.5, 0.25, 0.25])
    corner, softness = 0.0, 2 / longer
    around = rng.uniform(0, 25) * rng.uniform(0.8, 1.2, 3)
    if kind == "bars":
        half[int(rng.integers(2))] = np.inf
        around = np.full(3, rng.choice([0.0, rng.uniform(0, 60)]))
    else:
        if kind == "round":
            half[:] = half.min()
        corner = half.min() * (1.0 if kind == "round" else rng.uniform(0.1, 0.6))
        softness = rng.uniform(softness, 0.15)
    return Frame(centre, half, corner, softness, around.astype(np.float32))


def draw_grain(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Draw noise of a triangular distribution: the difference of two bytes costs a tenth of a normal number."""
    first, second = rng.integers(0, 256, (2, *shape), dtype=np.uint8).astype(np.float32)
    spread = np.float32(np.sqrt(2 * (256**2 - 1) / 12))
    return (first - second) * np.float32(deviation) / spread
