"""What one training by the clock is given: the decoded pixels, the settings, the order of the batches."""

from __future__ import annotations

import dataclasses
import math
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermaseg.data import Samples, Split, canvas, group_samples, read_samples
from dermaseg.data.augment import Augment
from dermaseg.data.cache import PixelCache
from dermaseg.run_data import draw_split
from dermaseg.runs import read_json, write_atomically, write_json

__all__ = ["Lesson", "Material", "hold_to", "learning_rate", "lesson_json", "open_material", "prepare"]

SCORE_SIZE = 256
_WARM_UP = 0.05
_LAST_SHARE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """How one contestant is trained; nothing of it depends on who it is.

    Args:
        seconds: Of training, for which the learning rate is planned unless `steps` is given; the training ends there.
        steps: Plan the learning rate over so many steps instead, and end there if the seconds last so long.
        every_s: Seconds of training between two looks at the validation part.
        size: Side in pixels of the square with the area that the network sees.
        batch_size: Photographs a step.
        learning_rate: Peak of the rate.
        weight_decay: Of AdamW.
        augment: One of `dermaseg.data.augment.AUGMENTATIONS`.
        seed: Of the first weights, the order and the augmentation.
    """

    seconds: float
    steps: int | None
    every_s: float
    size: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    augment: str
    seed: int


@dataclass(frozen=True, slots=True)
class Material:
    """Pixels of one size: batches to train on without end, and the validation part as arrays.

    Args:
        training: Decoded photographs and masks of the training part.
        count: How many they are.
        images: `(photographs, height, width, 3)`, uint8, at the size that networks see.
        masks: `(photographs, height, width)`, uint8, at the size of scoring, 256 pixels.
        groups: `(photographs,)`, the lesion of each.
    """

    training: PixelCache
    count: int
    images: np.ndarray
    masks: np.ndarray
    groups: np.ndarray

    @contextmanager
    def batches(self, lesson: Lesson) -> Iterator[Callable[[], tuple[np.ndarray, np.ndarray]]]:
        """Lend a function that returns the next batch, made two ahead by one thread for every framework alike.

        The batches are those of `dermaseg.data.make_dataset` with the same seed.
        """
        waiting: queue.Queue[Any] = queue.Queue(2)
        ended = threading.Event()

        def produce() -> None:
            try:
                for batch in self._stream(lesson):
                    while not ended.is_set():
                        try:
                            waiting.put(batch, timeout=0.2)
                            break
                        except queue.Full:
                            continue
                    if ended.is_set():
                        return
            except BaseException as error:  # noqa: BLE001 - raised again where the batch is taken
                waiting.put(error)

        def take() -> tuple[np.ndarray, np.ndarray]:
            batch = waiting.get()
            if isinstance(batch, BaseException):
                raise batch
            return batch

        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        try:
            yield take
        finally:
            ended.set()
            thread.join()

    def _stream(self, lesson: Lesson) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        augment = Augment.preset(lesson.augment)
        size = min(lesson.batch_size, self.count)
        epoch = 0
        while True:
            order = np.random.default_rng((lesson.seed, epoch, 0)).permutation(self.count)
            for batch in range(self.count // size):
                images, masks = self.training.read(order[batch * size : (batch + 1) * size])
                if augment is not None:
                    images, masks = augment(images, masks, rng=np.random.default_rng((lesson.seed, epoch, batch + 1)))
                yield np.ascontiguousarray(images), np.ascontiguousarray(masks)
            epoch += 1


def learning_rate(lesson: Lesson, spent_s: float, steps: int) -> float:
    """Return the rate of the next step: linear warm-up over a twentieth, then a cosine down to a hundredth of the peak.

    By the clock, unless the lesson counts steps: a slow network then also sees the whole schedule in its time.
    """
    progress = spent_s / lesson.seconds if lesson.steps is None else steps / lesson.steps
    if progress < _WARM_UP:
        share = _LAST_SHARE + (1 - _LAST_SHARE) * progress / _WARM_UP
    else:
        fall = (min(progress, 1.0) - _WARM_UP) / (1 - _WARM_UP)
        share = _LAST_SHARE + (1 - _LAST_SHARE) * (1 + math.cos(math.pi * fall)) / 2
    return lesson.learning_rate * share


def prepare(
    data: Path,
    output: Path,
    sizes: list[int],
    *,
    protocol: Mapping[str, Any],
    limit: int | None,
    validation_limit: int | None,
) -> Split:
    """Split by lesion, write the parts' tables into the output folder, and decode them once at each size.

    Results that are there must be of the same protocol and the same split: they are compared photograph by photograph.

    The test part is neither decoded nor scored: choosing a network by it would spend it.

    Args:
        data: A folder in a layout of `read_samples`.
        output: Where tables and pixels go.
        sizes: Sides in pixels of the squares with the areas to decode at.
        protocol: What all contestants have in common.
        limit: About so many photographs of the training part, whole lesions only; None takes all.
        validation_limit: The same for the validation part.

    Raises:
        DataError: If the data cannot be read.
        SystemExit: If the folder holds results of another protocol or other photographs.
    """
    samples = read_samples(data).with_masks()
    _, split = draw_split(samples, "random", seed=0, by_class=False)
    limits = {"limit": limit, "validation_limit": validation_limit}
    hold_to(output / "protocol.json", {**protocol, **limits})
    if (output / "split.json").is_file() and Split.load(output / "split.json").fingerprint != split.fingerprint:
        raise SystemExit(f"{output} holds results of other photographs. Give another --output.")
    parts = split.apply(samples)
    write_atomically(output / "split.json", split.save)
    write_atomically(output / "train.json", _some(parts["train"], limit).save)
    write_atomically(output / "validation.json", _some(parts["validation"], validation_limit).save)
    for size in sizes:
        print(f"decoding for {size} px", flush=True)
        open_material(output, size)
    return split


def open_material(output: Path, size: int) -> Material:
    """Open what `prepare` decoded."""
    training, validation = (Samples.load(output / f"{part}.json") for part in ("train", "validation"))
    shape, score_shape = canvas(training, size), canvas(training, SCORE_SIZE)
    cache = output / "cache"
    everything = np.arange(len(validation))
    images, _ = PixelCache(validation, size=shape, folder=cache).read(everything)
    _, masks = PixelCache(validation, size=score_shape, masks=True, folder=cache).read(everything)
    if masks is None:
        raise ValueError("the validation part has no masks.")
    return Material(
        PixelCache(training, size=shape, masks=True, folder=cache),
        len(training),
        images,
        masks[..., 0],
        np.asarray(group_samples(validation)),
    )


def hold_to(path: Path, protocol: Mapping[str, Any]) -> None:
    """Write the protocol, or see that it is that of the results that are there.

    Raises:
        SystemExit: If it is another.
    """
    if not path.is_file():
        write_json(path, protocol)
        return
    saved = read_json(path)
    changed = [f"{key} was {saved.get(key)!r}, is {value!r}" for key, value in protocol.items() if saved.get(key) != value]
    if changed:
        raise SystemExit(f"{path.parent} holds results of another protocol: {'; '.join(changed)}. Give another --output.")


def lesson_json(lesson: Lesson) -> dict[str, Any]:
    """Return the lesson as what a JSON file holds."""
    return dataclasses.asdict(lesson)


def _some(samples: Samples, limit: int | None) -> Samples:
    """Keep about so many photographs of lesions drawn at random, whole lesions only."""
    if limit is None or limit >= len(samples):
        return samples
    groups = np.asarray(group_samples(samples))
    order = np.random.default_rng(0).permutation(groups.max() + 1)
    kept = order[np.cumsum(np.bincount(groups)[order]) <= limit]
    return samples.select(np.flatnonzero(np.isin(groups, kept)).tolist())
