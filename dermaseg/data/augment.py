"""Vary photographs and their masks together, on the CPU, the same way for every backend.

What varies is what varies between two photographs of one lesion: how the dermoscope is held (turn, distance, offset,
tilt), light and sensor (brightness, contrast, white balance, gamma, grain, focus), and what lies over the skin (hair,
dark corners). Colour is itself diagnostic, so hue moves little.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from PIL import Image, ImageFilter

from dermaseg.data.hair import draw_hair

__all__ = ["AUGMENTATIONS", "Augment"]

AUGMENTATIONS = ("none", "light", "medium", "strong")

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_SOME = 0.25  # share of the images that blur and noise meet: most photographs are sharp and clean


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Vary a batch of photographs and masks; every image draws parameters of its own.

    Each field is the largest change; 0, the default, leaves that property alone, so `Augment()` changes nothing. A
    field that says *factor* draws from `1 / (1 + field)` to `1 + field`, evenly on a logarithmic scale, which makes
    the two directions equally likely.

    All movements of an image are one affine map and one bilinear resampling. Pixels from outside the photograph are
    its reflection: black wedges would teach a network where the frame was, and make skin that no dermoscope shows.

    Args:
        dihedral: Flip and turn by quarters, all 8 ways alike (of a rectangle the 4 that keep its shape).
        rotate_deg: Rotation to either side, in degrees.
        scale: Factor of the size.
        shift: Offset along each axis, as a share of that side.
        shear_deg: Shear along the rows, in degrees.
        brightness: Factor of all channels.
        contrast: Factor of the distance to the image's mean grey.
        saturation: Factor of the distance of each pixel to its own grey.
        hue_deg: Turn about the grey axis, in degrees.
        channel_gain: Factor of each channel apart: the colour of the light.
        gamma: Factor of the exponent.
        blur_px: Standard deviation of a Gaussian blur in pixels, on a quarter of the images.
        noise: Standard deviation of grain in grey levels, on a quarter of the images.
        hair: Probability of hairs over the photograph. They are not lesion: the mask keeps what they hide.
        vignette: Probability of dark corners.

    Raises:
        ValueError: If a field is negative, or a probability exceeds 1.

    Examples:
        >>> images = np.zeros((2, 8, 8, 3), np.uint8)
        >>> images[:, :4] = 200
        >>> varied, masks = Augment.light()(images, images[..., :1] // 200, rng=np.random.default_rng(0))
        >>> varied.shape, masks.shape, sorted(np.unique(masks).tolist())
        ((2, 8, 8, 3), (2, 8, 8, 1), [0, 1])
    """

    dihedral: bool = False
    rotate_deg: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    shear_deg: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue_deg: float = 0.0
    channel_gain: float = 0.0
    gamma: float = 0.0
    blur_px: float = 0.0
    noise: float = 0.0
    hair: float = 0.0
    vignette: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0:
                raise ValueError(f"{field.name}={value}: a largest change is not negative.")
            if field.name in ("hair", "vignette") and value > 1:
                raise ValueError(f"{field.name}={value}: a probability is at most 1.")

    @classmethod
    def light(cls) -> Augment:
        """Any orientation, and small changes of place and light: for large sets and short trainings."""
        return cls(dihedral=True, rotate_deg=20, scale=0.1, shift=0.05, brightness=0.1, contrast=0.1, channel_gain=0.03)

    @classmethod
    def medium(cls) -> Augment:
        """Any orientation, moderate changes of place, light and colour: for thousands of photographs."""
        return cls(
            dihedral=True,
            rotate_deg=180,
            scale=0.2,
            shift=0.05,
            shear_deg=4,
            brightness=0.15,
            contrast=0.2,
            saturation=0.2,
            hue_deg=4,
            channel_gain=0.06,
            gamma=0.15,
        )

    @classmethod
    def strong(cls) -> Augment:
        """Everything that a different clinic and camera would change: for small sets and long trainings."""
        return cls(
            dihedral=True,
            rotate_deg=180,
            scale=0.3,
            shift=0.1,
            shear_deg=8,
            brightness=0.25,
            contrast=0.25,
            saturation=0.25,
            hue_deg=6,
            channel_gain=0.08,
            gamma=0.2,
            blur_px=1.2,
            noise=6,
            hair=0.2,
            vignette=0.15,
        )

    @classmethod
    def preset(cls, name: str) -> Augment | None:
        """Return the setting of that name; None for `"none"`.

        Raises:
            ValueError: If the name is not in `AUGMENTATIONS`.
        """
        if name not in AUGMENTATIONS:
            raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {name!r}.")
        return None if name == "none" else getattr(cls, name)()

    def __call__(
        self, images: np.ndarray, masks: np.ndarray | None = None, *, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Vary one batch.

        Args:
            images: Shape `(batch, height, width, 3)`, uint8.
            masks: Shape `(batch, height, width, 1)`, zeros and ones, or None.
            rng: The only source of chance: the same generator state gives the same batch.

        Returns:
            New images and masks of the same shapes and types; masks stay zeros and ones.

        Raises:
            TypeError: If the images are not uint8.
            ValueError: If a shape does not fit.
        """
        if images.dtype != np.uint8:
            raise TypeError(f"images are {images.dtype}: augmentation works on uint8 pixels, before any scaling.")
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images have shape {images.shape}: (batch, height, width, 3) is needed.")
        if masks is not None and masks.shape != (*images.shape[:3], 1):
            raise ValueError(f"masks have shape {masks.shape}: {(*images.shape[:3], 1)} is needed.")
        if self.dihedral or self.rotate_deg or self.scale or self.shift or self.shear_deg:
            images, masks = self._move(images, masks, rng)
        else:
            images = images.copy()
        if self.hair:
            for index in np.flatnonzero(rng.random(len(images)) < self.hair):
                images[index] = _with_hair(images[index], rng)
        if self.blur_px:
            for index in np.flatnonzero(rng.random(len(images)) < _SOME):
                blur = ImageFilter.GaussianBlur(float(rng.uniform(0, self.blur_px)))
                images[index] = np.asarray(Image.fromarray(images[index]).filter(blur))
        return self._recolour(images, rng), masks

    def _move(
        self, images: np.ndarray, masks: np.ndarray | None, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        count, height, width, _ = images.shape
        matrices = self._matrices(count, square=height == width, rng=rng)
        shifts = rng.uniform(-self.shift, self.shift, (count, 2)) * (width, height)
        # Pad by what the farthest corner of this batch needs, so that every pixel read is a reflected one at worst.
        half = np.array([width, height]) / 2
        reach = np.abs(matrices) @ half + np.abs(shifts)
        pad = np.ceil((reach - half).max(axis=0).clip(0)).astype(int) + 1
        columns, rows = (np.pad(np.arange(side), by, mode="symmetric") for side, by in zip((width, height), pad, strict=True))
        # Image and mask are one picture of four bands, so that one resampling moves both by the same amount.
        packed = np.zeros((count, height, width, 4), np.uint8)
        packed[..., :3] = images
        if masks is not None:
            packed[..., 3:] = masks * np.uint8(255)
        padded = packed.view(np.uint32)[..., 0].take(rows, axis=1).take(columns, axis=2)
        centres = half + pad + shifts - matrices @ half
        padded_size = (len(columns), len(rows))
        for index in range(count):
            picture = Image.frombuffer("RGBX", padded_size, padded[index], "raw", "RGBX", 0, 1)
            coefficients = np.column_stack([matrices[index], centres[index]]).ravel().tolist()
            moved = picture.transform((width, height), Image.Transform.AFFINE, coefficients, resample=Image.Resampling.BILINEAR)
            packed[index] = np.asarray(moved)
        if masks is not None:
            masks = (packed[..., 3:] > 127).astype(masks.dtype)
        return packed[..., :3].copy(), masks

    def _matrices(self, count: int, *, square: bool, rng: np.random.Generator) -> np.ndarray:
        """Draw maps from output to input offsets from the centre, shape `(count, 2, 2)`, x before y."""
        turn = np.deg2rad(rng.uniform(-self.rotate_deg, self.rotate_deg, count))
        cosine, sine = np.cos(turn), np.sin(turn)
        rotation = np.stack([np.stack([cosine, -sine], -1), np.stack([sine, cosine], -1)], axis=-2)
        shear = np.broadcast_to(np.eye(2), (count, 2, 2)).copy()
        shear[:, 0, 1] = np.tan(np.deg2rad(rng.uniform(-self.shear_deg, self.shear_deg, count)))
        matrices = rotation @ shear / _factors(rng, self.scale, (count, 1, 1))
        if self.dihedral:
            mirror = rng.choice([-1.0, 1.0], (count, 1, 2))
            transpose = rng.random(count) < (0.5 if square else 0.0)
            matrices = matrices * mirror
            matrices[transpose] = matrices[transpose][..., ::-1]
        return matrices

    def _recolour(self, images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply gamma by table, all linear changes of colour as one matrix, then dark corners and grain."""
        count, height, width, _ = images.shape
        matrices, greys = self._colour_matrices(count, rng)
        contrast = _factors(rng, self.contrast, count)
        means = images[:, ::4, ::4].mean(axis=(1, 2)) @ _LUMA
        offsets = ((1 - contrast) * means)[:, None] * greys
        matrices = (contrast[:, None, None] * matrices).astype(np.float32)
        exponents = _factors(rng, self.gamma, (count, 1))
        tables = (255 * (np.arange(256) / 255) ** exponents).astype(np.float32)
        vignetted = np.less(rng.random(count), self.vignette)
        noisy = np.less(rng.random(count), _SOME if self.noise else 0)
        varied = np.empty_like(images)
        for index in range(count):
            pixels = tables[index].take(images[index]) @ matrices[index].T
            pixels += offsets[index].astype(np.float32) + np.float32(0.5)
            if vignetted[index]:
                pixels *= _aperture(height, width, rng)
            if noisy[index]:
                pixels += _grain(pixels.shape, rng.uniform(0, self.noise), rng)
            varied[index] = pixels.clip(0, 255, out=pixels)
        return varied

    def _colour_matrices(self, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw `gain * hue * saturation`, shape `(count, 3, 3)`, and what each makes of a grey of 1, `(count, 3)`."""
        saturation = _factors(rng, self.saturation, (count, 1, 1))
        saturate = saturation * np.eye(3) + (1 - saturation) * _LUMA
        angle = np.deg2rad(rng.uniform(-self.hue_deg, self.hue_deg, (count, 1, 1)))
        # Rodrigues' rotation about (1, 1, 1): greys stay where they are.
        cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
        turn = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3
        gain = _factors(rng, self.brightness, (count, 1)) * _factors(rng, self.channel_gain, (count, 3))
        return gain[..., None] * (turn @ saturate), gain


def _factors(rng: np.random.Generator, limit: float, shape: int | tuple[int, ...]) -> np.ndarray:
    return np.exp(rng.uniform(-1, 1, shape) * np.log1p(limit))


def _with_hair(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    colour = rng.uniform(15, 70) * np.array([1.0, 0.85, 0.75])
    coverage = draw_hair(image.shape[:2], count=int(rng.integers(2, 13)), rng=rng)[..., None] * rng.uniform(0.6, 1.0)
    return image + (colour - image) * coverage


def _aperture(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Light let through by a round opening around the centre, shape `(height, width, 1)`, 0 to 1."""
    x = np.linspace(-1, 1, width, dtype=np.float32) * width / max(height, width)
    y = np.linspace(-1, 1, height, dtype=np.float32) * height / max(height, width)
    radius, softness = rng.uniform(0.95, 1.3), rng.uniform(0.03, 0.4)
    return ((radius - np.hypot(x, y[:, None])) / softness + 0.5).clip(0, 1)[..., None].astype(np.float32)


def _grain(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of a triangular distribution: the difference of two bytes costs a tenth of a normal number."""
    first, second = rng.integers(0, 256, (2, *shape), dtype=np.uint8).astype(np.float32)
    spread = np.float32(np.sqrt(2 * (256**2 - 1) / 12))
    return (first - second) * np.float32(deviation) / spread
