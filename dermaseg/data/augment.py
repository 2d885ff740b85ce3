"""Vary photographs and their masks together, on the CPU, the same way for every backend.

What varies is what varies between two photographs of one lesion: how the dermoscope is held (turn, distance, offset,
tilt, stretched skin), light and sensor (brightness, contrast, white balance, gamma, grain, focus), and what lies over the
skin or around it (hair, dark corners, black frames). Colour is itself diagnostic, so hue moves little.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from PIL import Image, ImageFilter

from dermaseg.data.factors import draw_factors
from dermaseg.data.hair import draw_hair
from dermaseg.data.light import LUMA, aperture_light, draw_aperture, draw_colour_matrices, draw_frame, draw_grain
from dermaseg.data.movement import draw_matrices, move

__all__ = ["AUGMENTATIONS", "FARTHEST", "HAIR_COLOUR", "SOME", "Augment", "check_batch"]

AUGMENTATIONS = ("none", "light", "medium", "strong", "frames")

Frames = dict[int, tuple[np.ndarray, np.ndarray]]  # light let through and the colour around, by position in the batch

SOME = 0.25  # share of the images that blur and noise meet: most photographs are sharp and clean
HAIR_COLOUR = np.array([1.0, 0.85, 0.75])  # of black to brown hair, red first, in proportion
FARTHEST = 1.8  # how far an image recedes into its frame: a 4:3 frame is 1.33 times as wide as its centre square


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Vary a batch of photographs and masks; every image draws parameters of its own.

    Each field is the largest change; 0, the default, leaves that property alone, so `Augment()` changes nothing. A
    field that says *factor* draws from `1 / (1 + field)` to `1 + field`, evenly on a logarithmic scale, which makes
    the two directions equally likely.

    All movements of an image are one map and one bilinear resampling. Pixels from outside the photograph are
    its reflection: black wedges would teach a network where the frame was, and make skin that no dermoscope shows.
    Black that a dermoscope does show, the frame around its field of view, is drawn at the end, upright; the mask is 0 where
    the frame covers it.

    Args:
        dihedral: Flip and turn by quarters, all 8 ways alike (of a rectangle the 4 that keep its shape).
        rotate_deg: Rotation to either side, in degrees.
        scale: Factor of the size.
        shift: Offset along each axis, as a share of that side.
        shear_deg: Shear along the rows, in degrees.
        elastic_px: Smooth displacement along each axis, in pixels: skin that is stretched here and pressed there.
        brightness: Factor of all channels.
        contrast: Factor of the distance to the image's mean grey, after gamma.
        saturation: Factor of the distance of each pixel to its own grey.
        hue_deg: Turn about the grey axis, in degrees.
        channel_gain: Factor of each channel apart: the colour of the light.
        gamma: Factor of the exponent.
        blur_px: Standard deviation of a Gaussian blur in pixels, on a quarter of the images.
        noise: Standard deviation of grain in grey levels, on a quarter of the images.
        hair: Probability of hairs over the photograph. They are not lesion: the mask keeps what they hide.
        vignette: Probability of dark corners.
        frame: Probability that the photograph recedes, by a factor of 1 to 1.8, into a dark frame as uncropped photographs
            have one: a round or a rounded opening with a soft edge and near-black around it, or plain bars, black or dark
            grey, along two sides.

    Raises:
        ValueError: If a field is negative, or a probability exceeds 1.

    Examples:
        >>> images = np.zeros((2, 8, 8, 3), np.uint8)
        >>> images[:, :4] = 200
        >>> varied, masks = Augment.light()(images, images[..., :1] // 200, rng=np.random.default_rng(0))
        >>> varied.shape, masks.shape, sorted(np.unique(masks).tolist())
        ((2, 8, 8, 3), (2, 8, 8, 1), [0, 1])

    References:
        Simard, Steinkraus and Platt, 2003, "Best practices for convolutional neural networks applied to visual document
        analysis" (elastic distortion). Deviations: the random displacements are drawn and smoothed on a grid of 8 by 8 cells
        and interpolated within each, by a binomial kernel instead of a Gaussian, so that the field's bound holds.
    """

    dihedral: bool = False
    rotate_deg: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    shear_deg: float = 0.0
    elastic_px: float = 0.0
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
    frame: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value < 0:
                raise ValueError(f"{field.name}={value}: a largest change is not negative.")
            if field.name in ("hair", "vignette", "frame") and value > 1:
                raise ValueError(f"{field.name}={value}: a probability is at most 1.")

    @classmethod
    def light(cls) -> Augment:
        """Flips, turns within 20 degrees of a quarter, small changes of place and light: for large sets and short trainings."""
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
    def frames(cls) -> Augment:
        """As `strong`, with frames, elastic skin and a wider range of sizes: for photographs that are not cropped."""
        return replace(cls.strong(), scale=0.5, elastic_px=3, frame=0.3)

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
        check_batch(images, masks)
        zooms, frames = self._frames(len(images), images.shape[1:3], rng)
        moves = self.dihedral or self.rotate_deg or self.scale or self.shift or self.shear_deg or self.elastic_px
        if moves or frames:
            matrices = draw_matrices(
                len(images),
                dihedral=self.dihedral,
                rotate_deg=self.rotate_deg,
                scale=self.scale,
                shear_deg=self.shear_deg,
                square=images.shape[1] == images.shape[2],
                rng=rng,
            )
            matrices *= zooms[:, None, None]
            shifts = rng.uniform(-self.shift, self.shift, (len(images), 2)) * images.shape[2:0:-1]  # x before y
            images, masks = move(images, masks, matrices, shifts, elastic_px=self.elastic_px, rng=rng)
        else:
            images, masks = images.copy(), None if masks is None else masks.copy()
        if self.hair:
            for index in np.flatnonzero(rng.random(len(images)) < self.hair):
                images[index] = _with_hair(images[index], rng)
        if self.blur_px:
            for index in np.flatnonzero(rng.random(len(images)) < SOME):
                blur = ImageFilter.GaussianBlur(float(rng.uniform(0, self.blur_px)))
                images[index] = np.asarray(Image.fromarray(images[index]).filter(blur))
        if masks is not None:
            for framed, (light, _) in frames.items():
                masks[framed] *= light >= 0.5
        return self._recolour(images, frames, rng), masks

    def _frames(self, count: int, size: tuple[int, ...], rng: np.random.Generator) -> tuple[np.ndarray, Frames]:
        """Draw how far each image recedes, `(count,)`, and the frames by position; draws nothing where there are none."""
        zooms = np.ones(count)
        frames: Frames = {}
        if self.frame:
            for framed in np.flatnonzero(rng.random(count) < self.frame).tolist():
                zooms[framed] = rng.uniform(1, FARTHEST)
                frame = draw_frame(size[0], size[1], zooms[framed], rng)
                frames[framed] = frame.light(size[0], size[1]), frame.around
        return zooms, frames

    def _recolour(self, images: np.ndarray, frames: Frames, rng: np.random.Generator) -> np.ndarray:
        """Apply gamma by table, all linear changes of colour as one matrix, then dark corners, frames and grain."""
        count, height, width, _ = images.shape
        matrices, greys = draw_colour_matrices(
            count,
            saturation=self.saturation,
            hue_deg=self.hue_deg,
            brightness=self.brightness,
            channel_gain=self.channel_gain,
            rng=rng,
        )
        contrast = draw_factors(rng, self.contrast, count)
        exponents = draw_factors(rng, self.gamma, (count, 1))
        tables = (255 * (np.arange(256) / 255) ** exponents).astype(np.float32)
        sparse = zip(tables, images[:, ::4, ::4], strict=True)
        means = np.stack([table.take(image).mean(axis=(0, 1), dtype=float) for table, image in sparse]) @ LUMA
        offsets = ((1 - contrast) * means)[:, None] * greys
        matrices = (contrast[:, None, None] * matrices).astype(np.float32)
        vignetted = np.less(rng.random(count), self.vignette)
        noisy = np.less(rng.random(count), SOME if self.noise else 0)
        varied = np.empty_like(images)
        for index in range(count):
            pixels = tables[index].take(images[index]) @ matrices[index].T
            # Whole rows at once: three numbers pixel by pixel cost as much as the product.
            pixels.reshape(height, 3 * width)[:] += np.tile(offsets[index].astype(np.float32) + np.float32(0.5), width)
            if vignetted[index]:
                pixels *= aperture_light(height, width, *draw_aperture(rng))
            if index in frames:
                light, around = frames[index]
                pixels = around + (pixels - around) * light
            if noisy[index]:
                pixels += draw_grain(pixels.shape, rng.uniform(0, self.noise), rng)
            varied[index] = pixels.clip(0, 255, out=pixels)
        return varied


def check_batch(images: np.ndarray, masks: np.ndarray | None) -> None:
    """Raise `TypeError` or `ValueError` for what cannot be varied."""
    if images.dtype != np.uint8:
        raise TypeError(f"images are {images.dtype}: augmentation works on uint8 pixels, before any scaling.")
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images have shape {images.shape}: (batch, height, width, 3) is needed.")
    if masks is not None and masks.shape != (*images.shape[:3], 1):
        raise ValueError(f"masks have shape {masks.shape}: {(*images.shape[:3], 1)} is needed.")


def _with_hair(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    colour = rng.uniform(15, 70) * HAIR_COLOUR
    coverage = draw_hair(image.shape[:2], count=int(rng.integers(2, 13)), rng=rng)[..., None] * rng.uniform(0.6, 1.0)
    return image + (colour - image) * coverage
