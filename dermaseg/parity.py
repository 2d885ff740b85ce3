"""Compare an exported model with the Keras model that it came from, on photographs, before it is kept."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dermaseg.converters import Predict, Size, Source
from dermaseg.data import Sample, Samples, load_arrays, read_samples
from dermaseg.data.geometry import canvas
from dermaseg.data.layout import find_images, scan
from dermaseg.data.synthetic import synthetic_batch
from dermaseg.errors import DataError, DermasegError
from dermaseg.metrics import jaccard_index

__all__ = ["TOLERANCES", "Limits", "Probe", "calibration_photographs", "compare", "make_probes"]

TOLERANCES: Mapping[str, float] = {"float32": 1e-3, "float16": 1e-2, "int8": 0.1}
"""Largest difference of a probability that is accepted unless told otherwise, by precision."""

_MASK = "mask"
_INSIDE = 0.5  # probability above which a pixel is lesion
_BATCH = 16
_FEWEST = 2  # one to calibrate on, one to compare on


@dataclass(frozen=True)
class Probe:
    """Photographs of one size to compare on, `(batch, height, width, 3)`, float32, and the true masks where they are known."""

    images: np.ndarray
    masks: np.ndarray | None = None

    def halves(self) -> tuple[np.ndarray, Probe]:
        """Return the first half's photographs, and the other half."""
        half = len(self.images) // 2
        return self.images[:half], Probe(self.images[half:], None if self.masks is None else self.masks[half:])


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is accepted.

    Args:
        tolerance: Largest difference of a probability.
        jaccard_tolerance: Of a lesion's mask, how much of the mean Jaccard index over photographs may go; None holds masks to
            `tolerance` as well.
    """

    tolerance: float
    jaccard_tolerance: float | None = None


def calibration_photographs(
    data: str | Path | Samples, *, size: int | tuple[int, int], count: int = 200
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read photographs for `export_model` to quantise and to compare on, with their masks where there are any.

    Args:
        data: A folder in one of the layouts of `read_samples`, one in which photographs lie by themselves, or a table of
            samples. Of several, take the training part.
        size: Side in pixels of the square of the same area, as the model was trained at (`size` in its card), or height and
            width.
        count: At most so many, evenly taken; every other one of them first, for `export_model` calibrates on the first half.

    Returns:
        Photographs `(count, height, width, 3)`, uint8, and masks `(count, height, width, 1)`, uint8, or None.

    Raises:
        DataError: If there are fewer than two photographs, or a file cannot be read.
        ValueError: If `count` is below two.
    """
    if count < _FEWEST:
        raise ValueError(f"count={count}: two photographs at least, to calibrate on and to compare on.")
    samples = data if isinstance(data, Samples) else _read_folder(Path(data))
    masked = samples.with_masks()
    samples = masked if len(masked) >= _FEWEST else samples
    if len(samples) < _FEWEST:
        raise DataError(f"{samples.source or 'samples'}: two photographs at least, to calibrate on and to compare on.")
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)).tolist()
    samples = samples.select(chosen[::2] + chosen[1::2])
    shape = canvas(samples, size) if isinstance(size, int) else size
    if all(sample.mask is not None for sample in samples):
        images, masks = load_arrays(samples, size=shape, target="mask")
        return images, masks
    return load_arrays(samples, size=shape, target=None), None


def make_probes(images: np.ndarray | None, masks: np.ndarray | None, size: Size, card: Mapping[str, Any]) -> list[Probe]:
    """Return what to compare on: the caller's photographs, or synthetic ones of a usual and an odd size.

    Raises:
        ValueError: If the shapes of photographs, masks and model do not fit.
    """
    if images is not None:
        images = np.asarray(images, np.float32)
        if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
            raise ValueError(f"check_images must be (batch, height, width, 3), got {images.shape}.")
        if any(own not in (None, given) for own, given in zip(size, images.shape[1:3], strict=True)):
            raise ValueError(f"check_images are {images.shape[1:3]}, the model takes {size} (height, width).")
        if masks is not None and np.shape(masks) != (*images.shape[:3], 1):
            raise ValueError(f"check_masks must be {(*images.shape[:3], 1)}, as check_images are, got {np.shape(masks)}.")
        return [Probe(images, None if masks is None else np.asarray(masks) > 0)]
    if masks is not None:
        raise ValueError("check_masks needs the check_images that they belong to.")
    height, width = (side or card.get("size") or 96 for side in size)
    shapes = [(2, height, width)]
    if None in size:  # an odd size too, which has to be padded, and another batch size
        shapes.append((3, size[0] or 45, size[1] or 61))
    return [Probe(synthetic_batch(count, size=(high, wide))[0].astype(np.float32)) for count, high, wide in shapes]


def compare(source: Source, predict: Predict, probes: Sequence[Probe], limits: Limits, path: Path) -> dict[str, float]:
    """Compare two models' outputs.

    A mask is judged by what it is for, where `limits` say so: by how much of its Jaccard index against the true masks is lost.
    Without true masks, by its overlap with the Keras model's own mask: one minus the Jaccard index is a distance, so that
    against any truth the index changes by no more than that (Kosub, 2019).

    Returns:
        The largest and the mean absolute difference of all outputs; of masks that are judged by overlap `jaccard_agreement`,
        and `jaccard_keras` and `jaccard_exported` where the truth is known: means over photographs.

    Raises:
        DermasegError: If a limit is exceeded, or the outputs differ in name or shape.

    References:
        Kosub, 2019, "A note on the triangle inequality for the Jaccard distance".
    """
    differences: dict[str, list[np.ndarray]] = {}
    scores: dict[str, list[np.ndarray]] = {}
    for probe in probes:
        for start in range(0, len(probe.images), _BATCH):
            images = probe.images[start : start + _BATCH]
            expected, found = source.predict(images), predict(images)
            shapes = [{name: values.shape for name, values in outputs.items()} for outputs in (expected, found)]
            if shapes[0] != shapes[1]:
                raise DermasegError(f"{path}: not written. The exported model gives {shapes[1]} where Keras gives {shapes[0]}.")
            for name, values in expected.items():
                differences.setdefault(name, []).append(np.abs(values - found[name]).ravel())
            if limits.jaccard_tolerance is not None and _is_mask(expected):
                ours, theirs = expected[_MASK] > _INSIDE, found[_MASK] > _INSIDE
                scores.setdefault("jaccard_agreement", []).append(_jaccard(ours, theirs))
                if probe.masks is not None:
                    true = probe.masks[start : start + _BATCH]
                    scores.setdefault("jaccard_keras", []).append(_jaccard(true, ours))
                    scores.setdefault("jaccard_exported", []).append(_jaccard(true, theirs))
    each = {name: np.concatenate(parts) for name, parts in differences.items()}
    means = {name: float(np.concatenate(parts).mean()) for name, parts in scores.items()}
    every = np.concatenate(list(each.values()))
    if not np.isfinite(every).all():
        means = {}  # a mask of NaN is empty: no overlap says anything
    _hold({name: values for name, values in each.items() if not (means and name == _MASK)}, limits.tolerance, path)
    if means and limits.jaccard_tolerance is not None:
        _hold_masks(means, limits.jaccard_tolerance, path)
    return {"largest_difference": float(every.max()), "mean_difference": float(every.mean()), **means}


def _read_folder(folder: Path) -> Samples:
    """Read a data set or, where photographs lie in the folder itself and it has no layout, these."""
    listing = scan(folder)
    if not listing.has_images():
        return read_samples(folder)
    if listing.folders:  # as each layout has some
        try:
            return read_samples(folder)
        except DataError as error:
            warnings.warn(f"{folder}: is read as photographs alone, since it is no data set: {error}", stacklevel=2)
    return Samples([Sample(stem, path) for stem, path in find_images(folder).items()], source=folder.name)


def _hold(each: Mapping[str, np.ndarray], tolerance: float, path: Path) -> None:
    if not each:
        return
    every = np.concatenate(list(each.values()))
    if not every.max() <= tolerance:  # NaN fails too
        raise DermasegError(
            f"{path}: not written. Its outputs ({', '.join(each)}) differ from the Keras model's by up to {every.max():.3g}, "
            f"{every.mean():.3g} on average, which is more than tolerance={tolerance:g}."
        )


def _hold_masks(means: Mapping[str, float], allowed: float, path: Path) -> None:
    if "jaccard_keras" in means:
        lost = means["jaccard_keras"] - means["jaccard_exported"]
        words = f"have a Jaccard index of {means['jaccard_exported']:.4f}, the Keras model's have {means['jaccard_keras']:.4f}"
        remedy = ""
    else:
        lost = 1.0 - means["jaccard_agreement"]
        words = f"overlap the Keras model's by a Jaccard index of {means['jaccard_agreement']:.4f}"
        remedy = " Give check_masks to learn whether the masks are worse or merely different."
    if not lost <= allowed:
        raise DermasegError(
            f"{path}: not written. Its masks {words}: {lost:.4f} less, and jaccard_tolerance={allowed:g}.{remedy}"
        )


def _is_mask(outputs: Mapping[str, np.ndarray]) -> bool:
    return _MASK in outputs and outputs[_MASK].ndim == 4 and outputs[_MASK].shape[-1] == 1


def _jaccard(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the Jaccard index of each pair of masks, `(batch,)`."""
    pairs = zip(one[..., 0], other[..., 0], strict=True)
    return np.array([jaccard_index(true, found) for true, found in pairs])
