"""How large a picture is when a network sees it: one number sets the area, the picture keeps its shape."""

from __future__ import annotations

import math

import numpy as np

from dermaseg.data.images import image_size
from dermaseg.data.samples import Samples
from dermaseg.errors import DataError

__all__ = ["canvas", "fit_area"]

_LOOK_AT = 256


def fit_area(shape: tuple[int, int], size: int) -> tuple[int, int]:
    """Return the height and width, in pixels, that keep the aspect of `shape` at an area of about `size` squared.

    Networks see lesions at one scale, so that the area counts; a squashed picture would also bend every outline.

    Args:
        shape: Height and width, in pixels.
        size: Side of the square of the same area, in pixels.

    Examples:
        >>> fit_area((450, 600), 128)
        (111, 148)
        >>> fit_area((256, 256), 128)
        (128, 128)
    """
    height, width = shape
    aspect = math.sqrt(height / width)
    return _rounded(size * aspect), _rounded(size / aspect)


def canvas(samples: Samples, size: int) -> tuple[int, int]:
    """Return one height and width for a whole training set: the shape of its median photograph.

    Photographs of another shape are stretched to it. At most 256 headers are read, evenly spread.

    Args:
        samples: The photographs.
        size: Side of the square of the same area, in pixels.

    Raises:
        DataError: If there are no samples, or a header cannot be read.

    Examples:
        >>> import tempfile
        >>> from dermaseg.data import make_synthetic
        >>> samples = make_synthetic(tempfile.mkdtemp(), count=2, size=(45, 60))
        >>> canvas(samples, 128)
        (111, 148)
    """
    if not len(samples):
        raise DataError(f"{samples.source or 'samples'}: there are no photographs.")
    chosen = np.unique(np.linspace(0, len(samples) - 1, _LOOK_AT).astype(int))
    aspects = [height / width for height, width in (image_size(samples[int(index)].image) for index in chosen)]
    return fit_area((round(1000 * float(np.median(aspects))), 1000), size)


def _rounded(side: float) -> int:
    return max(1, round(side))
