"""Photographs as a caller gives them, to pixels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dermaseg.data.images import convert_image, read_image
from dermaseg.errors import DataError

__all__ = ["Photo", "chunks", "try_to_read"]

Photo = str | Path | Image.Image | np.ndarray


def chunks(photos: Iterable[Photo], size: int) -> Iterator[list[Photo]]:
    """Take photographs `size` at a time."""
    iterator = iter(photos)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def try_to_read(photo: Photo) -> tuple[Path | None, np.ndarray] | DataError:
    """Return where a photograph was read from, if from a file, and its pixels, `(height, width, 3)`; or why there are none.

    Raises:
        ValueError: If an array is no RGB photograph.
    """
    try:
        return _read(photo)
    except DataError as error:
        return error


def _read(photo: Photo) -> tuple[Path | None, np.ndarray]:
    if isinstance(photo, (str, Path)):
        return Path(photo), read_image(photo)
    if isinstance(photo, Image.Image):
        return None, convert_image(photo)
    if photo.ndim != 3 or photo.shape[-1] != 3 or photo.dtype != np.uint8:
        raise ValueError(f"an array must be RGB, (height, width, 3), uint8, 0 to 255; got shape {photo.shape}, {photo.dtype}.")
    return None, photo
