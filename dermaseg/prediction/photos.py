"""Photographs as a caller gives them, to pixels."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path

import numpy as np
from PIL import Image

from dermaseg.data.images import convert_image, read_image

__all__ = ["Photo", "ReadPhoto", "check_photos", "is_full", "read_ahead"]

Photo = str | Path | Image.Image | np.ndarray
ReadPhoto = tuple[Path | None, np.ndarray]
"""Where a photograph was read from, if from a file, and its pixels, `(height, width, 3)`."""

_MOST_PIXELS = 50_000_000  # in a batch: 150 MB, and several times that while outlines are drawn and saved
_AHEAD = 2


def check_photos(photos: object) -> None:
    """Refuse one photograph where several are to be given.

    Raises:
        TypeError: If it is one, or nothing that photographs can be taken from.
    """
    one = isinstance(photos, (str, bytes, Path, Image.Image)) or (isinstance(photos, np.ndarray) and photos.ndim == 3)
    if one or not isinstance(photos, Iterable):
        raise TypeError(
            f"photos must be a list of photographs, or what else gives one after the other; got {type(photos).__name__}. "
            "For one photograph call the predictor: predictor(photo)."
        )


def read_ahead(photos: Iterable[Photo], readers: Executor) -> Iterator[tuple[Photo, ReadPhoto | BaseException]]:
    """Read photographs in order, a few ahead of the caller; one that cannot be read comes with the reason instead."""
    pending: deque[tuple[Photo, Future[ReadPhoto]]] = deque()
    for photo in photos:
        pending.append((photo, readers.submit(_read, photo)))
        if len(pending) > _AHEAD:
            yield _outcome(*pending.popleft())
    while pending:
        yield _outcome(*pending.popleft())


def is_full(batch: Sequence[ReadPhoto], size: int) -> bool:
    """Tell whether a batch holds `size` photographs, or fewer that have too many pixels to be held with more."""
    return len(batch) >= size or sum(image.shape[0] * image.shape[1] for _, image in batch) >= _MOST_PIXELS


def _outcome(photo: Photo, reading: Future[ReadPhoto]) -> tuple[Photo, ReadPhoto | BaseException]:
    return photo, reading.exception() or reading.result()


def _read(photo: Photo) -> ReadPhoto:
    if isinstance(photo, (str, Path)):
        return Path(photo), read_image(photo)
    if isinstance(photo, Image.Image):
        return None, convert_image(photo)
    if not isinstance(photo, np.ndarray):
        raise TypeError(
            f"a photograph must be a path, a PIL image or an RGB array, got {type(photo).__name__}. "
            "For bytes: PIL.Image.open(io.BytesIO(data)); for an open file: PIL.Image.open(file)."
        )
    if photo.ndim != 3 or photo.shape[-1] != 3 or photo.dtype != np.uint8 or not photo.size:
        raise ValueError(
            "an array must be RGB, (height, width, 3), uint8, 0 to 255, and hold a pixel at least; "
            f"got shape {photo.shape}, {photo.dtype}."
        )
    return None, photo
