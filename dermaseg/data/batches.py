"""What each batch of a data set holds, and reading batches before they are asked for."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np

from dermaseg.data.cache import PixelCache
from dermaseg.data.mix import Mix
from dermaseg.data.on_device import OnDevice

__all__ = ["AHEAD", "Ahead", "Augmentation", "Batches", "Target", "arrange"]

Target = Literal["mask", "label", "both"] | None
Augmentation = Callable[..., tuple[np.ndarray, np.ndarray | None]]

_READERS = min(8, os.cpu_count() or 1)
AHEAD = _READERS + 1  # batches


@dataclass(frozen=True)
class Batches:
    """The content of every batch of every epoch."""

    cache: PixelCache
    labels: np.ndarray | None
    known: dict[str, np.ndarray] | None
    target: Target
    count: int
    batch_size: int
    augment: Augmentation | None
    mix: Mix | None
    on_device: OnDevice | None
    shuffle: bool
    probabilities: np.ndarray | None
    drop_remainder: bool
    filling: int
    share: tuple[int, int]
    seed: int

    def __len__(self) -> int:
        return self.count // self.batch_size if self.drop_remainder else math.ceil(self.count / self.batch_size)

    @cached_property
    def order(self) -> Callable[[int], np.ndarray]:
        """The positions of all samples in the order of an epoch; orders of the two most recent epochs are cached."""

        def draw(epoch: int) -> np.ndarray:
            if not self.shuffle:
                return np.arange(self.count)
            rng = np.random.default_rng((self.seed, epoch, 0))
            if self.probabilities is None:
                return rng.permutation(self.count)
            return rng.choice(self.count, self.count, p=self.probabilities)

        return lru_cache(maxsize=2)(draw)

    def read(self, epoch: int, batch: int) -> Any:
        """Return one batch of one epoch, varied and mixed."""
        positions = self.order(epoch)[batch * self.batch_size : (batch + 1) * self.batch_size]
        true = len(positions)
        if self.filling and batch == len(self) - 1:
            positions = np.append(positions, np.repeat(positions[-1:], self.filling))
        weights = None
        if self.filling:
            weights = np.full(len(positions), 1 + self.filling / self.count, np.float32)
            weights[true:] = 0
        number, hosts = self.share
        own = slice(number * len(positions) // hosts, (number + 1) * len(positions) // hosts)
        positions, weights = positions[own], None if weights is None else weights[own]
        images, masks = self.cache.read(positions)
        labels = None if self.labels is None else self.labels[positions]
        known = None if self.known is None else {name: flags[positions] for name, flags in self.known.items()}
        # Index 0 of the third word seeds the order, so batches count from 1; with several processes, each seeds its own share.
        rng = np.random.default_rng((self.seed, epoch, batch + 1, number) if hosts > 1 else (self.seed, epoch, batch + 1))
        kinds = None if known is None else known["mask"] + 2 * known["label"]
        if self.on_device is not None:
            images, masks, labels = self.on_device(images, masks, labels, kinds=kinds, rng=rng)
        else:
            if self.augment is not None:
                images, masks = self.augment(images, masks, rng=rng)
            if self.mix is not None:
                images, masks, labels = self.mix(images, masks, labels, kinds=kinds, rng=rng)
        return arrange(images, masks, labels, known, self.target, weights)


class Ahead:
    """Read batches in threads before they are asked for, so that the network does not wait for them.

    It reads ahead while batches are taken in order; one that is asked for out of order is read alone.
    """

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.pool = ThreadPoolExecutor(_READERS)
        self.lock = threading.Lock()
        self.waiting: dict[tuple[int, int], Future[Any]] = {}
        self.next = (-1, -1)

    def take(self, epoch: int, batch: int) -> Any:
        """Return a batch, and begin to read those of its epoch that come after it."""
        with self.lock:
            in_order = batch == 0 or (epoch, batch) == self.next
            last = min(batch + 1 + AHEAD, len(self.batches)) if in_order else batch + 1
            wanted = [(epoch, number) for number in range(batch, last)]
            for key in self.waiting.keys() - set(wanted):
                self.waiting.pop(key).cancel()
            for key in wanted:
                if key not in self.waiting:
                    self.waiting[key] = self.pool.submit(self.batches.read, *key)
            asked = self.waiting.pop(wanted[0])
            self.next = (epoch, batch + 1)
        return asked.result()


def arrange(
    images: np.ndarray,
    masks: np.ndarray | None,
    labels: np.ndarray | None,
    known: dict[str, np.ndarray] | None,
    target: Target,
    weights: np.ndarray | None = None,
) -> Any:
    """Return a batch as Keras takes it: images, with targets, with sample weights, as far as there are any."""
    if target is None:
        return images
    if target != "both":
        only = masks if target == "mask" else labels
        return (images, only) if weights is None else (images, only, weights)
    targets = {"mask": masks, "label": labels}
    if weights is not None:
        known = {name: weights if known is None else weights * known[name] for name in targets}
    return (images, targets) if known is None else (images, targets, known)
