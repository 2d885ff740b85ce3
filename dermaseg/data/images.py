"""The one door for pixels: a file or an open PIL image in, an RGB photograph or a 0/1 mask out, or a `DataError` that names it.

Pillow decodes PNG, JPEG, BMP, TIFF and WebP (of several frames, the first). Cameras and annotation tools write many
dialects of these, so the rules stand here once:

- **Orientation.** EXIF orientation is applied, to masks too: a phone stores a portrait as a landscape with a note.
- **Depth.** 16-bit samples are scaled by their full range, `round(v / 257)`; 32-bit integers count as 16-bit ones that
  sit in a wider type; floats are read as 0..1 when none exceeds 1, else as 0..255. Values outside are an error.
- **TIFF.** Where 0 is white, 16 bits are turned over too. What Pillow would decode to other pixels than it holds is an error.
- **Transparency.** Photographs are composited on white. In masks a transparent pixel is background.
- **Palettes.** The colour counts, never the index: 402 masks of HAM10000 have an inverted palette, and their raw
  indices would give inverted masks.
- **Masks.** A file whose grey values are all 0 or 1 is taken literally, so a uniform 1 is a full mask. Any other file
  spans 0..255 and is cut at half of that range, which also places the grey seam that a resized or JPEG mask has. Two values,
  0 and a darker one, are background and the number of a class; several values that are all dark are an error, and so is one of
  2 to 127 everywhere: the cut would leave an empty mask of the labels 0, 1 and 2.

Nothing in Pillow's global state is touched; a reader may run in many threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import PREFIXES as TIFF_PREFIXES
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dermaseg.errors import DataError

__all__ = [
    "convert_image",
    "cut_mask",
    "image_size",
    "read_image",
    "read_mask",
    "read_mask_at",
    "read_mask_grey",
    "resize_image",
    "resize_mask",
    "same_proportions",
]

_FORMATS = "PNG, JPEG, BMP, TIFF or WebP"
# Imported, for asked for a format that is not there Pillow imports all. That of JPEG takes MPO too, a phone's several JPEGs.
_READERS = (PngImageFile, JpegImageFile, BmpImageFile, TiffImageFile, WebPImageFile)
_PILLOW_FORMATS = tuple(str(reader.format) for reader in _READERS)
_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that swap width and height
_ASPECT_TOLERANCE = 0.02


def read_image(path: str | Path, *, min_size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a photograph as 8-bit RGB.

    Args:
        path: A PNG, JPEG, BMP, TIFF or WebP file of any colour mode.
        min_size: `(height, width)` that the caller will shrink the picture to, in pixels. A JPEG is then decoded at
            1/2, 1/4 or 1/8 of its size by shortening its inverse cosine transform, never below `min_size`; the pixels
            that would have been averaged away are not computed at all. None decodes every pixel.

    Returns:
        Array of shape `(height, width, 3)`, uint8.

    Raises:
        DataError: If the file is missing, no image of these formats, damaged, empty, larger than Pillow's pixel limit, or a
            TIFF that Pillow would misread.

    Examples:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "grey.png"
        >>> Image.new("L", (6, 4), 90).save(path)
        >>> read_image(path).shape, read_image(path)[0, 0].tolist()
        ((4, 6, 3), [90, 90, 90])
    """
    with _opened(path) as image:
        if min_size is not None:
            height, width = min_size
            image.draft("RGB", (height, width) if _is_turned(image) else (width, height))
        return _photograph(image, path)


def convert_image(image: Image.Image) -> np.ndarray:
    """Turn an open PIL image into 8-bit RGB as `read_image` does with a file: upright, by its full range, on white.

    Args:
        image: Of any colour mode; of several frames, the one that it stands at. It stays as it is.

    Returns:
        Array of shape `(height, width, 3)`, uint8.

    Raises:
        DataError: If its pixels cannot be decoded, it is empty, larger than Pillow's pixel limit, or a TIFF that Pillow would
            misread.

    Examples:
        >>> convert_image(Image.new("RGBA", (6, 4), (90, 0, 0, 0)))[0, 0].tolist()
        [255, 255, 255]
    """
    name = getattr(image, "filename", "") or "the PIL image"
    with _decoding(name):
        _check_header(image, name)
        return _photograph(image, name)


def read_mask(path: str | Path) -> np.ndarray:
    """Read a lesion mask as zeros and ones, whether the file says 0/1, 0/255, 0 and a label, or a palette.

    Args:
        path: An image file; the lesion is the bright part of what a viewer shows.

    Returns:
        Array of shape `(height, width)`, uint8, 1 on the lesion.

    Raises:
        DataError: As `read_image` does, or if no pixel is bright though not all are black: labels of several classes, say, or
            one label everywhere.
    """
    return cut_mask(read_mask_grey(path), path)


def read_mask_at(path: str | Path, size: tuple[int, int], *, photograph_size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a lesion mask at the size of its photograph, whatever size it was saved at.

    Args:
        path: As for `read_mask`.
        size: `(height, width)` wanted, in pixels.
        photograph_size: `(height, width)` of the photograph, where `size` is not that.

    Returns:
        Array of shape `size`, uint8, 1 on the lesion.

    Raises:
        DataError: As `read_mask` does, or if the mask does not have the proportions of its photograph.
    """
    mask, (height, width) = read_mask(path), photograph_size or size
    if not same_proportions(mask.shape, (height, width)):
        raise DataError(
            f"{path} is {mask.shape[1]} by {mask.shape[0]} pixels and does not have the proportions of its photograph, "
            f"{width} by {height}. It may be the mask of another photograph."
        )
    return mask if mask.shape == size else resize_mask(mask, size)


def cut_mask(grey: np.ndarray, name: str | Path) -> np.ndarray:
    """Cut the grey values of a mask into zeros and ones, by the rule at the top of this module.

    Args:
        grey: Shape `(height, width)`, uint8, as `read_mask_grey` returns it.
        name: The file that they are from, for the message.

    Returns:
        Array of the same shape, uint8, 1 on the lesion.

    Raises:
        DataError: If no pixel is bright though not all are black.
    """
    if 1 < grey.max() <= 127 and len(np.unique(grey)) == 2 and not grey.min():
        return (grey > 0).astype(np.uint8)  # 0 and the number of a class, as label editors write it
    mask = grey if grey.max() <= 1 else (grey > 127).astype(np.uint8)
    if grey.any() and not mask.any():
        values = np.unique(grey).tolist()
        shown = ", ".join(map(str, values[:3])) + " ..." * (len(values) > 3)
        raise DataError(f"{name}: its grey values are {shown}, none above 127. Save the lesion as 255 and all else as 0.")
    return mask


def same_proportions(first: tuple[int, ...], second: tuple[int, ...]) -> bool:
    """Tell whether two pictures, by their height and width, have one aspect, give or take 2 % for rounding.

    Examples:
        >>> same_proportions((450, 600), (225, 300)), same_proportions((450, 600), (600, 450))
        (True, False)
    """
    return abs(first[1] * second[0] / (first[0] * second[1]) - 1) <= _ASPECT_TOLERANCE


def read_mask_grey(path: str | Path) -> np.ndarray:
    """Read the grey values of a mask before they are cut into zeros and ones.

    Args:
        path: An image file.

    Returns:
        Array of shape `(height, width)`, uint8. Integers wider than 8 bits that stay within 0..255, as label editors
        write them, keep their values.

    Raises:
        DataError: As `read_image` does.
    """
    with _opened(path) as image:
        if not _is_deep(image):
            return np.array(_flatten(ImageOps.exif_transpose(image), background="black").convert("L"))
        values = _deep_values(image)
        if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 255:
            return values.astype(np.uint8)
        return _eight_bits(values, path)


def image_size(path: str | Path) -> tuple[int, int]:
    """Read `(height, width)` in pixels from the header, as `read_image` would return them.

    Raises:
        DataError: If the file is missing or its header is not that of an image that `read_image` takes.
    """
    with _opened(path) as image:
        width, height = image.size
        turned = _is_turned(image) and image.format != "TIFF"  # of which Pillow has turned the size already
        return (width, height) if turned else (height, width)


def resize_image(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a photograph, averaging over the pixels that a smaller one covers.

    Args:
        image: Shape `(height, width, 3)`, uint8.
        size: `(height, width)` wanted, in pixels.

    Returns:
        Array of shape `(*size, 3)`, uint8.
    """
    return np.array(_resize(Image.fromarray(image), size))


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask: a new pixel is lesion where at least half of what it covers was.

    The same triangle filter as for photographs keeps outlines in register with them; taking the nearest pixel
    would move an outline by up to half a source pixel and leave stairs.

    Args:
        mask: Shape `(height, width)`, zeros and ones.
        size: `(height, width)` wanted, in pixels.

    Returns:
        Array of shape `size`, uint8, zeros and ones.
    """
    shares = np.asarray(_resize(Image.fromarray(mask.astype(np.uint8) * 255), size))
    return (shares > 127).astype(np.uint8)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """Open an image for a block that decodes it; whatever Pillow raises in there becomes one line on this file."""
    path = Path(path)
    if not path.is_file():
        problem = "is a folder, not an image file" if path.is_dir() else "does not exist"
        raise DataError(f"{path} {problem}. Give the path of a {_FORMATS} file.")
    with _decoding(path), Image.open(path, formats=_PILLOW_FORMATS) as image:
        _check_header(image, path)
        yield image


@contextmanager
def _decoding(name: str | Path) -> Iterator[None]:
    """Make one line on this picture of whatever Pillow raises in a block."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name) from error
    except UnidentifiedImageError as error:
        raise _unidentified(name) from error
    except Exception as error:  # of damaged metadata Pillow raises almost anything, TypeError too
        raise DataError(f"{name} cannot be decoded: {error}. Fetch the file again or remove it.") from error


def _check_header(image: Image.Image, name: str | Path) -> None:
    """Refuse what its header shows to be empty, too large or misread by Pillow."""
    width, height = image.size
    if width * height == 0:
        raise DataError(f"{name} is an empty picture of {width} by {height} pixels. Replace or remove it.")
    # Pillow itself only warns up to twice its limit.
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise _too_large(name)
    if isinstance(image, TiffImageFile) and _is_misread(image):
        raise _odd_tiff(name)


def _is_misread(image: TiffImageFile) -> bool:
    """Tell whether Pillow would decode other values than the file holds, without a word."""
    bits = image.tag_v2.get(ExifTags.Base.BitsPerSample, (1,))
    in_planes = image.tag_v2.get(ExifTags.Base.PlanarConfiguration) == 2
    return (
        (in_planes and bits[0] == 16 and image.info["compression"] == "raw")  # read as 8 bits; packed planes are read well
        or bits == (12,)  # not scaled: all but black
        or (image.mode == "F" and _zero_is_white(image))  # not turned over
    )


def _too_large(name: str | Path) -> DataError:
    return DataError(f"{name} has more pixels than Pillow's limit of {Image.MAX_IMAGE_PIXELS}. Shrink it.")


def _odd_tiff(name: str | Path) -> DataError:
    return DataError(f"{name} is a TIFF of a kind that cannot be read here: save it as PNG.")


def _unidentified(path: str | Path) -> DataError:
    with open(path, "rb") as file:
        if file.read(4) in TIFF_PREFIXES:
            return _odd_tiff(path)
    return DataError(f"{path} is not an image of a format that can be read here. A {_FORMATS} file is needed.")


def _photograph(image: Image.Image, name: str | Path) -> np.ndarray:
    if _is_deep(image):
        grey = _eight_bits(_deep_values(image), name)
        return np.repeat(grey[..., None], 3, axis=-1)
    return np.array(_flatten(ImageOps.exif_transpose(image), background="white").convert("RGB"))


def _is_turned(image: Image.Image) -> bool:
    return image.getexif().get(ExifTags.Base.Orientation) in _QUARTER_TURNS


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _deep_values(image: Image.Image) -> np.ndarray:
    """Return the values of a deep picture, upright, the darkest the smallest."""
    values = np.asarray(ImageOps.exif_transpose(image))
    return 65535 - values if _zero_is_white(image) else values  # Pillow turns 8 bits over itself


def _zero_is_white(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) and image.tag_v2.get(ExifTags.Base.PhotometricInterpretation) == 0


def _eight_bits(values: np.ndarray, path: str | Path) -> np.ndarray:
    """Scale deep grey values to 0..255 by the rule at the top of this module."""
    full = 65535.0 if values.dtype.kind in "iu" else 1.0 if values.max() <= 1 else 255.0
    if not (values.min() >= 0 and values.max() <= full):  # a NaN fails both comparisons
        raise DataError(
            f"{path} holds {values.dtype} values from {values.min()} to {values.max()}. "
            "Integers must lie in 0..65535 and floats in 0..1 or 0..255."
        )
    return np.rint(values * (255.0 / full)).astype(np.uint8)


def _flatten(image: Image.Image, *, background: str) -> Image.Image:
    """Put a transparent picture on a plain background."""
    if not image.has_transparency_data:
        return image
    picture = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, background), picture)


def _resize(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    return picture.resize((width, height), Image.Resampling.BILINEAR)
