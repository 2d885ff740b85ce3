"""Feed samples to `keras.Model.fit`: the same batches as a `tf.data.Dataset` or as a `keras.utils.PyDataset`.

What a batch holds is a pure function of `(seed, epoch, batch)`, and of the process where several share batches. Both kinds of
data set only say which batch is next, so a resumed run sees the pixels that the interrupted one would have seen, and, where the
processor varies photographs, a run on JAX without TensorFlow those of a run on TensorFlow.
"""

from __future__ import annotations

import importlib.util
import operator
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dermaseg.data.augment import Augment
from dermaseg.data.batches import Ahead, Augmentation, Batches, Target, arrange
from dermaseg.data.cache import Masks, PixelCache, decode_all
from dermaseg.data.mix import Mix
from dermaseg.data.on_device import OnDevice, choose_device
from dermaseg.data.samples import Samples
from dermaseg.distribution import host_share
from dermaseg.errors import DataError

__all__ = ["load_arrays", "make_dataset"]

Framework = Literal["auto", "tensorflow", "pydataset"]


def make_dataset(
    samples: Samples,
    *,
    size: int | tuple[int, int],
    batch_size: int,
    target: Target = "mask",
    augment: Augmentation | None = None,
    augment_on: str = "processor",
    mix: Mix | None = None,
    one_hot: bool = False,
    shuffle: bool = False,
    weights: np.ndarray | None = None,
    drop_remainder: bool = False,
    multiple: int = 1,
    seed: int = 0,
    initial_epoch: int = 0,
    cache_dir: str | Path | None = None,
    framework: Framework = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Any:
    """Make a data set that `fit`, `evaluate` and `predict` take.

    Every file is decoded here, once, into a `PixelCache`; what cannot be read stops the call and is named. Each pass
    over the data set is a new epoch with an order and an augmentation of its own. Call `fit(..., shuffle=False)`: the
    order is settled here, and Keras would shuffle the batches of a `PyDataset` once more, by another seed.

    Args:
        samples: The samples of one part of a split.
        size: Height and width of the batches in pixels, one number for squares.
        batch_size: Samples per batch. Of several processes that share it under `keras.distribution`, each reads its own share.
        target: `"mask"` for masks `(batch, height, width, 1)` of 0 and 1, `"label"` for integers `(batch,)`,
            `"both"` for a dictionary of the two under the names of a two-headed model's outputs, None for images alone.
            With `"both"` a sample may lack one of the two: batches then carry sample weights as well, 1 for a known
            target and 0 for a missing one, whose place holds an empty mask or class 0.
        augment: Called as `augment(images, masks, rng=rng)`, such as an `Augment`. None, as validation and test parts
            need it, changes no pixel.
        augment_on: One of `dermaseg.data.on_device.DEVICES`. `"accelerator"` lets JAX vary and mix the photographs on its
            device, and batches are arrays of JAX there: it needs Keras on JAX, an `Augment` and a target. The changes are of
            the same kinds as on the processor, their pixels are others. `"auto"` keeps to the processor where it cannot.
        mix: Mixes photographs of a batch, with their masks and classes, after `augment`; labels are then the shares of the
            classes, `(batch, classes)`. With missing targets only photographs that have the same ones are mixed.
        one_hot: Labels are float32 `(batch, classes)` without mixing too: what the validation beside a mixed training needs.
        shuffle: Draw a new order each epoch.
        weights: Shape `(samples,)`, not negative: how likely each sample is to be drawn, with replacement, to balance
            classes. Needs `shuffle`. One epoch still draws as many samples as there are.
        drop_remainder: Leave out a smaller last batch. XLA compiles a model for every batch size it meets, so training
            wants True; an evaluation wants every sample.
        multiple: Every batch holds a multiple of so many samples, as devices need that share it on JAX: the last one is filled
            up by its last sample once more, of weight 0. Where that is needed, all batches carry sample weights, and those of
            the others are so much above 1 that a loss averaged over all places is the mean over the true samples. Images alone
            are filled up as well.
        seed: Seed of the order and the augmentation.
        initial_epoch: Number of the first pass: what a resumed run gives to `fit` too. Under `tf.distribute` Keras begins a
            pass only to look at a batch: numbers then run one ahead of `fit`'s, in a resumed run as in the first.
        cache_dir: Where decoded pixels are kept between runs. None keeps them in a temporary folder.
        framework: `"auto"` takes `"tensorflow"` where Keras runs on it, else `"pydataset"`.
        progress: Called as `progress(done, total)` while files are decoded.

    Returns:
        A `tf.data.Dataset` or a `keras.utils.PyDataset` of `(images, targets)`, of `(images, targets, sample_weights)` where
        some targets are missing or `multiple` fills up a batch, or of `images` alone; images are uint8 RGB of shape
        `(batch, height, width, 3)`.

    Raises:
        DataError: If a file cannot be read, or a sample lacks the mask or the label that `target` needs.
        ValueError: If an argument is out of its range.

    Examples:
        >>> import tempfile
        >>> from dermaseg.data import make_synthetic
        >>> samples = make_synthetic(tempfile.mkdtemp(), count=5, size=(24, 32))
        >>> dataset = make_dataset(samples, size=(12, 16), batch_size=2, shuffle=True)
        >>> [tuple(images.shape) for images, masks in dataset]
        [(2, 12, 16, 3), (2, 12, 16, 3), (1, 12, 16, 3)]
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: a batch holds at least one sample.")
    if drop_remainder and 0 < len(samples) < batch_size:
        raise ValueError(
            f"drop_remainder=True leaves none of {len(samples)} samples with batch_size={batch_size}. Make batches smaller."
        )
    if multiple < 1 or batch_size % multiple:
        raise ValueError(f"batch_size={batch_size} is no multiple of multiple={multiple}.")
    if framework not in ("auto", "tensorflow", "pydataset"):
        raise ValueError(f"framework={framework!r}: 'auto', 'tensorflow' and 'pydataset' are known.")
    on_device = _on_device(augment, mix, augment_on, framework, target)
    if mix is not None and target is None:
        raise ValueError("mix mixes photographs with what is known of them: target must not be None.")
    share = host_share()
    _check_share(share[1], batch_size, multiple, drop_remainder=drop_remainder, framework=framework)
    labels, known = _labels(samples, target), _known(samples, target)
    if labels is not None and (one_hot or mix is not None):
        labels = np.eye(samples.num_classes, dtype=np.float32)[labels]
    size = _pair(size)
    batches = Batches(
        cache=PixelCache(samples, size=size, masks=_masks(target), folder=cache_dir, progress=progress),
        labels=labels,
        known=known,
        target=target,
        count=len(samples),
        batch_size=batch_size,
        augment=augment,
        mix=mix,
        on_device=on_device,
        shuffle=shuffle,
        probabilities=_probabilities(weights, len(samples), shuffle=shuffle),
        drop_remainder=drop_remainder,
        filling=0 if drop_remainder else -len(samples) % multiple,
        share=share,
        seed=seed,
    )
    if framework == "tensorflow" or (framework == "auto" and _keras_runs_on_tensorflow()):
        return _tf_dataset(batches, initial_epoch)
    return _py_dataset(batches, initial_epoch)


def load_arrays(samples: Samples, *, size: int | tuple[int, int], target: Target = "mask") -> Any:
    """Load all samples into memory, as one batch of `make_dataset`.

    Args:
        samples: The samples.
        size: Height and width in pixels, one number for squares.
        target: As for `make_dataset`.

    Returns:
        `(images, targets)` as NumPy arrays, with sample weights as a third where targets are missing, or `images` where
        `target` is None.

    Raises:
        DataError: As `make_dataset` does.

    Examples:
        >>> import tempfile
        >>> from dermaseg.data import make_synthetic
        >>> samples = make_synthetic(tempfile.mkdtemp(), count=4, size=(24, 32))
        >>> images, masks = load_arrays(samples, size=(12, 16))
        >>> images.shape, masks.shape
        ((4, 12, 16, 3), (4, 12, 16, 1))
    """
    labels, known, size = _labels(samples, target), _known(samples, target), _pair(size)
    images = np.empty((len(samples), *size, 3), np.uint8)
    masks = np.empty((len(samples), *size, 1), np.uint8) if _masks(target) else None
    for row, (image, mask) in enumerate(decode_all(samples, size=size, masks=_masks(target))):
        images[row] = image
        if masks is not None and mask is not None:
            masks[row, ..., 0] = mask
    return arrange(images, masks, labels, known, target)


def _check_share(hosts: int, batch_size: int, multiple: int, *, drop_remainder: bool, framework: Framework) -> None:
    """Refuse batches that several processes can't share equally."""
    if hosts == 1:
        return
    uneven = batch_size % hosts or not (drop_remainder or multiple % hosts == 0)
    if uneven or framework == "tensorflow":
        raise ValueError(
            f"{hosts} processes share each batch: batch_size={batch_size} and multiple={multiple} must be multiples of it, "
            f"and framework={framework!r} not 'tensorflow'. Where each shall read all of them, "
            "call keras.distribution.set_distribution(None)."
        )


def _on_device(
    augment: Augmentation | None, mix: Mix | None, augment_on: str, framework: Framework, target: Target
) -> OnDevice | None:
    """Return what varies photographs on the accelerator, or None where the processor does, or nobody."""
    if choose_device(augment_on) == "processor" or (augment is None and mix is None):
        return None
    if (augment is None or isinstance(augment, Augment)) and framework != "tensorflow" and target is not None:
        return OnDevice(augment, mix)
    if augment_on == "auto":
        return None
    raise ValueError(
        "augment_on='accelerator' needs an Augment, a target, and a framework other than 'tensorflow'; "
        f"got augment={augment!r}, target={target!r}, framework={framework!r}."
    )


def _tf_dataset(batches: Batches, initial_epoch: int) -> Any:
    import tensorflow as tf

    epoch = initial_epoch - 1

    def content() -> Iterator[Any]:
        nonlocal epoch
        epoch += 1
        this_epoch, ahead = epoch, Ahead(batches)
        for batch in range(len(batches)):
            yield ahead.take(this_epoch, batch)

    rows = batches.batch_size if batches.drop_remainder or batches.count % batches.batch_size == 0 else None
    first = batches.read(initial_epoch, 0)
    specs = tf.nest.map_structure(lambda array: tf.TensorSpec((rows, *array.shape[1:]), array.dtype), first)
    dataset = tf.data.Dataset.from_generator(content, output_signature=specs)
    options = tf.data.Options()
    # Its thread looks at the pipeline ever less often, and the end of an epoch may wait, for seconds, until it looks again.
    options.autotune.enabled = False
    return dataset.apply(tf.data.experimental.assert_cardinality(len(batches))).prefetch(2).with_options(options)


def _py_dataset(batches: Batches, initial_epoch: int) -> Any:
    import keras

    ahead = Ahead(batches)

    class Dataset(keras.utils.PyDataset):
        """Begin another epoch where a batch is asked for again after all have been taken.

        Keras calls `on_epoch_begin` and `on_epoch_end` also around a batch that it only looks at to build a model, and, told
        how many steps an epoch has, in the midst of a pass.
        """

        def __init__(self) -> None:
            super().__init__()
            self._epoch = initial_epoch
            self._within = False
            self._taken: set[int] = set()

        @property
        def num_batches(self) -> int:
            return len(batches)

        def __getitem__(self, batch: int) -> Any:
            if self._within:
                if batch in self._taken:
                    self._epoch += len(self._taken) == len(batches)
                    self._taken.clear()
                self._taken.add(batch)
            return ahead.take(self._epoch, batch)

        def __iter__(self) -> Iterator[Any]:
            self.on_epoch_begin()
            yield from super().__iter__()
            self.on_epoch_end()

        def on_epoch_begin(self) -> None:
            self._within = True

        def on_epoch_end(self) -> None:
            self._within = False

    return Dataset()


def _masks(target: Target) -> Masks:
    return "where known" if target == "both" else target == "mask"


def _labels(samples: Samples, target: Target) -> np.ndarray | None:
    if target not in ("mask", "label", "both", None):
        raise ValueError(f"target={target!r}: 'mask', 'label', 'both' and None are known.")
    if target not in ("label", "both"):
        return None
    for sample in samples:
        if sample.label is None and (target == "label" or sample.mask is None):
            lacks = "label. Keep samples.with_labels()" if target == "label" else "mask and no label. Leave it out"
            raise DataError(f"Sample {sample.id!r} has no {lacks}, or ask for another target.")
    return np.maximum(samples.labels, 0)


def _known(samples: Samples, target: Target) -> dict[str, np.ndarray] | None:
    """Return, for two targets of which some are missing, which are there: float32 `(samples,)`, 0 or 1."""
    if target != "both":
        return None
    flags = {
        "mask": np.array([sample.mask is not None for sample in samples], np.float32),
        "label": np.array([sample.label is not None for sample in samples], np.float32),
    }
    return None if all(column.all() for column in flags.values()) else flags


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    sides: Any = (size, size) if np.ndim(size) == 0 else size
    try:  # as Python's integers: the cache's file is named by them
        height, width = (operator.index(side) for side in sides)
    except TypeError:
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"size={size!r}: one positive number of pixels, or a height and a width.")
    return height, width


def _probabilities(weights: np.ndarray | None, count: int, *, shuffle: bool) -> np.ndarray | None:
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=np.float64)
    if not shuffle:
        raise ValueError("weights say how likely a sample is to be drawn and need shuffle=True.")
    if weights.shape != (count,) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
        raise ValueError(f"weights need {count} finite numbers, none negative and not all 0; got shape {weights.shape}.")
    return weights / weights.sum()


def _keras_runs_on_tensorflow() -> bool:
    import keras

    return keras.backend.backend() == "tensorflow" and importlib.util.find_spec("tensorflow") is not None
