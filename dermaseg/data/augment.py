"""Vary photographs and their masks together, on the CPU, the same way for every backend.

What varies is what varies between two photographs of one lesion: how the dermoscope is held (turn, distance, offset,
tilt, stretched skin), light and sensor (brightness, contrast, white balance, gamma, grain, focus), and what lies over the
skin or around it (hair, dark corners, black frames). Colour is itself diagnostic, so hue moves little.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
from PIL import Image, ImageFilter

from dermaseg.data.hair import draw_hair

__all__ = ["AUGMENTATIONS", "Augment"]

AUGMENTATIONS = ("none", "light", "medium", "strong", "frames")

Frames = dict[int, tuple[np.ndarray, np.ndarray]]

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_SOME = 0.25  # share of the images that blur and noise meet: most photographs are sharp and clean
_FARTHEST = 1.8  # how far an image recedes into its frame: a 4:3 frame is 1.33 times as wide as its centre square
_CELLS = 8  # of the elastic grid along each side; more would bend outlines as no skin bends


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Vary a batch of photographs and masks; every image draws parameters of its own.

    Each field is the largest change; 0, the default, leaves that property alone, so `Augment()` changes nothing. A
    field that says *factor* draws from `1 / (1 + field)` to `1 + field`, evenly on a logarithmic scale, which makes
    the two directions equally likely.

    All movements of an image are one map and one bilinear resampling. Pixels from outside the photograph are
    its reflection: black wedges would teach a network where the frame was, and make skin that no dermoscope shows.
    Black that a dermoscope does show, the frame around its field of view, is drawn at the end, upright; what it covers is
    lesion no more.

    Args:
        dihedral: Flip and turn by quarters, all 8 ways alike (of a rectangle the 4 that keep its shape).
        rotate_deg: Rotation to either side, in degrees.
        scale: Factor of the size.
        shift: Offset along each axis, as a share of that side.
        shear_deg: Shear along the rows, in degrees.
        elastic_px: Smooth displacement along each axis, in pixels: skin that is stretched here and pressed there.
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
        if images.dtype != np.uint8:
            raise TypeError(f"images are {images.dtype}: augmentation works on uint8 pixels, before any scaling.")
        if images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(f"images have shape {images.shape}: (batch, height, width, 3) is needed.")
        if masks is not None and masks.shape != (*images.shape[:3], 1):
            raise ValueError(f"masks have shape {masks.shape}: {(*images.shape[:3], 1)} is needed.")
        zooms, frames = self._frames(len(images), images.shape[1:3], rng)
        moves = self.dihedral or self.rotate_deg or self.scale or self.shift or self.shear_deg or self.elastic_px
        if moves or frames:
            images, masks = self._move(images, masks, zooms, rng)
        else:
            images = images.copy()
        if self.hair:
            for index in np.flatnonzero(rng.random(len(images)) < self.hair):
                images[index] = _with_hair(images[index], rng)
        if self.blur_px:
            for index in np.flatnonzero(rng.random(len(images)) < _SOME):
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
                zooms[framed] = rng.uniform(1, _FARTHEST)
                frames[framed] = _frame(size[0], size[1], zooms[framed], rng)
        return zooms, frames

    def _move(
        self, images: np.ndarray, masks: np.ndarray | None, zooms: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray | None]:
        count, height, width, _ = images.shape
        matrices = self._matrices(count, square=height == width, rng=rng) * zooms[:, None, None]
        shifts = rng.uniform(-self.shift, self.shift, (count, 2)) * (width, height)
        # Pad by what the farthest corner of each image needs, so that every pixel read is a reflected one at worst.
        half = np.array([width, height]) / 2
        reach = np.abs(matrices) @ half + np.abs(shifts) + self.elastic_px
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
            if self.elastic_px:
                method, data = Image.Transform.MESH, self._mesh(matrices[index], centres[index], (width, height), rng)
            moved = picture.transform((width, height), method, data, resample=Image.Resampling.BILINEAR)
            packed[index] = np.asarray(moved)
        if masks is not None:
            masks = (packed[..., 3:] > 127).astype(masks.dtype)
        return packed[..., :3].copy(), masks

    def _mesh(
        self, matrix: np.ndarray, centre: np.ndarray, size: tuple[int, int], rng: np.random.Generator
    ) -> list[tuple[tuple[int, ...], list[float]]]:
        """Return Pillow's mesh of the affine map with smooth displacements: boxes, and where their corners come from."""
        x, y = (np.linspace(0, side, min(_CELLS, side) + 1).round().astype(int) for side in size)
        moved = rng.uniform(-self.elastic_px, self.elastic_px, (2, len(y) + 2, len(x) + 2))
        for axis in (1, 2):  # the kernel (1, 2, 1) / 4 twice; a mean of bounded numbers keeps their bound
            first, middle, last = (moved.take(np.arange(moved.shape[axis] - 2) + step, axis) for step in range(3))
            moved = (first + 2 * middle + last) / 4
        corners = np.stack(np.meshgrid(x, y), axis=-1) @ matrix.T + centre + moved.transpose(1, 2, 0)
        # Pillow goes round each box from the upper left against the clock.
        quads = np.concatenate([corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:]], axis=-1)
        return [
            ((left, top, right, bottom), quads[row, column].tolist())
            for row, (top, bottom) in enumerate(pairwise(y.tolist()))
            for column, (left, right) in enumerate(pairwise(x.tolist()))
        ]

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

    def _recolour(self, images: np.ndarray, frames: Frames, rng: np.random.Generator) -> np.ndarray:
        """Apply gamma by table, all linear changes of colour as one matrix, then dark corners, frames and grain."""
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
            if index in frames:
                light, around = frames[index]
                pixels = around + (pixels - around) * light
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


def _frame(height: int, width: int, zoom: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a frame about a photograph that takes `1 / zoom` of each side.

    Returns:
        Light let through, `(height, width, 1)`, 0 to 1, and the colour around it, `(3,)`, 0 to 255; both float32.
    """
    longer = max(height, width)
    x, y = (np.abs((2 * np.arange(side) + 1 - side) / longer - rng.uniform(-0.06, 0.06)) for side in (width, height))
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
    # The signed distance to a rectangle with rounded corners; a disc is one of them.
    beyond_x, beyond_y = x - (half[0] - corner), y[:, None] - (half[1] - corner)
    distance = np.hypot(beyond_x.clip(0), beyond_y.clip(0)) + np.maximum(beyond_x, beyond_y).clip(max=0) - corner
    light = (0.5 - distance / softness).clip(0, 1)
    return light[..., None].astype(np.float32), around.astype(np.float32)


def _grain(shape: tuple[int, ...], deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of a triangular distribution: the difference of two bytes costs a tenth of a normal number."""
    first, second = rng.integers(0, 256, (2, *shape), dtype=np.uint8).astype(np.float32)
    spread = np.float32(np.sqrt(2 * (256**2 - 1) / 12))
    return (first - second) * np.float32(deviation) / spread
