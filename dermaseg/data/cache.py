"""Decode photographs and masks once, to 8 bits at the training size, into one flat file that batches are read from.

Decoding a 600x450 JPEG and its mask takes milliseconds, every epoch again; reading the same pixels back takes a tenth
of one. The file is read with plain seeks and never memory-mapped, so the process holds no more of it than a batch,
however many photographs there are; the operating system keeps what fits in its own cache.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from errno import ENOSPC
from pathlib import Path
from typing import Literal
from uuid import uuid4

import numpy as np

from dermaseg.data.images import image_size, read_image, read_mask_at, resize_image
from dermaseg.data.samples import Sample
from dermaseg.errors import DataError

__all__ = ["PixelCache", "decode", "decode_all"]

_LAYOUT = 1  # part of the key: a new way to decode or store must not find the old files

Masks = bool | Literal["where known"]


class PixelCache:
    """Pixels of a table of samples, decoded once and read back by position.

    The file's name is a hash of every path, its time of change and its length, and of the size and kind of pixels: a
    changed photograph is decoded again, and a finished cache serves every later run. It gets its name only when it is
    whole, so an interrupted run leaves nothing behind that could be taken for one.

    Args:
        samples: The samples, in the order that positions count in.
        size: `(height, width)` of the stored pixels.
        masks: Store masks too; every sample needs one. `"where known"` stores an empty mask for a sample without.
        folder: Where the file goes and stays. None uses a temporary folder that goes with this object.
        progress: Called as `progress(done, total)` after each decoded sample.

    Raises:
        DataError: If there are no samples, or a file is missing, cannot be decoded, or a mask does not fit.
        OSError: If the disk has not enough room.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        *,
        size: tuple[int, int],
        masks: Masks = False,
        folder: str | Path | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        samples = tuple(samples)
        if not samples:
            raise DataError("There are no samples to read pixels of. Check the filters and the split.")
        if masks is True:
            for sample in samples:  # a file of the same pixels may be there, with empty masks where none were known
                _mask_of(sample)
        if folder is None:
            folder = tempfile.mkdtemp(prefix="dermaseg-")
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.size = size
        self.masks = masks
        self._area = size[0] * size[1]
        self._record_bytes = self._area * (4 if masks else 3)  # RGB, then the mask
        self.path = Path(folder) / f"{_key(samples, size, masks)}.pixels"
        total_bytes = len(samples) * self._record_bytes
        if not self.path.is_file() or self.path.stat().st_size != total_bytes:
            self._write(samples, total_bytes, progress)

    def read(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Read some samples.

        Args:
            positions: Shape `(batch,)`, integers.

        Returns:
            Images of shape `(batch, height, width, 3)` and masks of shape `(batch, height, width, 1)`, or None where
            none are stored; both uint8.

        Raises:
            DataError: If the file has been shortened since.
        """
        records = np.empty((len(positions), self._record_bytes), np.uint8)
        with open(self.path, "rb", buffering=0) as file:
            for record, position in zip(records, positions, strict=True):
                file.seek(int(position) * self._record_bytes)
                if file.readinto(record.data) != self._record_bytes:
                    raise DataError(f"{self.path} is damaged. Delete it; the next run writes it again.")
        images = records[:, : 3 * self._area].reshape(-1, *self.size, 3)
        return images, records[:, 3 * self._area :].reshape(-1, *self.size, 1) if self.masks else None

    def map_images(self) -> np.ndarray:
        """Map all images, `(samples, height, width, 3)` uint8, read-only: what is looked at is read, and no more."""
        records = np.memmap(self.path, np.uint8, mode="r").reshape(-1, self._record_bytes)
        return records[:, : 3 * self._area].reshape(-1, *self.size, 3)

    def _write(self, samples: tuple[Sample, ...], total_bytes: int, progress: Callable[[int, int], None] | None) -> None:
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        free_bytes = shutil.disk_usage(folder).free
        if free_bytes < total_bytes:
            raise OSError(
                ENOSPC,
                f"The decoded pixels need {total_bytes / 1e6:.0f} MB and {free_bytes / 1e6:.0f} MB are free. "
                "Name another cache folder or a smaller size",
                str(folder),
            )
        # Not tempfile.mkstemp, whose file no other user of the folder could read.
        unfinished = folder / f"{self.path.name}.{uuid4().hex}.unfinished"
        try:
            with unfinished.open("xb") as file:
                for done, (image, mask) in enumerate(decode_all(samples, size=self.size, masks=self.masks), start=1):
                    file.write(image.tobytes())
                    if mask is not None:
                        file.write(mask.tobytes())
                    if progress is not None:
                        progress(done, len(samples))
            os.replace(unfinished, self.path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def decode(sample: Sample, *, size: tuple[int, int], masks: Masks) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode one sample at a size.

    Args:
        sample: The sample.
        size: `(height, width)` wanted; the proportions of the photograph are not kept.
        masks: Decode the mask too; `"where known"` gives an empty one where the sample has none.

    Returns:
        The image, shape `(*size, 3)`, and its mask, shape `size`, or None; both uint8.

    Raises:
        DataError: If a file cannot be read, the sample has no mask, or the mask has other proportions than the image.
    """
    image = read_image(sample.image, min_size=size)
    if not masks:
        return resize_image(image, size), None
    if sample.mask is None and masks == "where known":
        return resize_image(image, size), np.zeros(size, np.uint8)
    # Not the shape of `image`, which may be an eighth of the photograph's, rounded: of a small one that is another proportion.
    mask = read_mask_at(_mask_of(sample), size, photograph_size=image_size(sample.image))
    return resize_image(image, size), mask


def _mask_of(sample: Sample) -> Path:
    if sample.mask is None:
        raise DataError(f"Sample {sample.id!r} has no mask. Keep samples.with_masks(), or ask for another target.")
    return sample.mask


def decode_all(
    samples: Iterable[Sample], *, size: tuple[int, int], masks: Masks
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """Decode samples in a few threads, in order, holding a few dozen pictures at a time.

    Raises:
        DataError: As `decode` does, for the first sample in order that fails.
    """
    workers = min(8, os.cpu_count() or 1)
    waiting: deque[Future[tuple[np.ndarray, np.ndarray | None]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for sample in samples:
                waiting.append(pool.submit(decode, sample, size=size, masks=masks))
                if len(waiting) == 4 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _key(samples: tuple[Sample, ...], size: tuple[int, int], masks: Masks) -> str:
    """Hash all that the decoded pixels depend on."""
    digest = hashlib.blake2b(f"{_LAYOUT} {size} {bool(masks)}".encode(), digest_size=16)
    for sample in samples:
        for path in (sample.image, sample.mask if masks else None):
            if path is None:
                digest.update(b"none\n")
                continue
            try:
                stat = path.stat()
            except OSError as error:
                raise DataError(f"{path}, a file of sample {sample.id!r}, cannot be read: {error.strerror}.") from error
            # fsencode: a name from an archive of another language may be no UTF-8.
            digest.update(os.fsencode(path.absolute()) + f"\0{stat.st_mtime_ns}\0{stat.st_size}\n".encode())
    return digest.hexdigest()
