"""Which photographs a run works on, and which of them train, validate and test."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from dermaseg.data import Split, official_split, read_samples, split_samples
from dermaseg.data.duplicates import near_identical_pairs, thumbnail
from dermaseg.data.grouping import copies
from dermaseg.data.images import read_image
from dermaseg.data.layout import IMAGE_SUFFIXES, few, scan
from dermaseg.data.samples import Sample, Samples
from dermaseg.errors import DataError
from dermaseg.runs import RunFolder, read_json
from dermaseg.tasks import TASKS, Settings, Task, get_task

__all__ = [
    "check_output",
    "draw_split",
    "is_own",
    "learning_parts",
    "load_samples",
    "settings_of",
    "settings_taken",
    "task_of",
    "warn_of_absent_classes",
    "with_absolute_paths",
]

Progress = Callable[[int, int], None]

_LOOK_PX = (128, 128)  # four times a thumbnail's side: JPEGs decode in a fraction of the time, and the thumbnails are alike


def check_output(output: str | Path) -> None:
    """Refuse a folder in which no run can begin: one with a run, or a part of one, and one with pictures or other folders.

    A run among photographs would make a model of their folder, where `predict` is given it, and its own pictures photographs.
    Hidden files and others, as a log, may be there.

    Raises:
        DataError: If it is such a folder.
    """
    run = RunFolder(Path(output))
    run.check_unused()
    if not run.path.is_dir():
        return
    listing = scan(run.path)
    folders = [name for name in listing.folders if name != run.cache.name]  # which an interrupt may have left
    found = folders or [name for name in listing.files if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if found:
        raise DataError(
            f"{run.path}: holds {'the folder ' if folders else ''}{found[0]}, which is none of a run's. Give the run a folder "
            "of its own."
        )


def is_own(task: Task) -> bool:
    """Tell whether a task is the caller's: none of `TASKS`, of whose defaults others may have been taken."""
    known = TASKS.get(task.name)
    return known is None or dataclasses.replace(task, settings=known.settings) != known


def task_of(run: RunFolder, given: str | Task | None = None) -> Task:
    """Return the task of a run, which a run of a caller's own task needs to be given.

    Raises:
        DataError: If the run is of a task that this dermaseg does not have.
        ValueError: If it is not given, or another is.
    """
    saved = run.read_settings()
    name = saved["task"]
    own = saved.get("own_task", name not in TASKS)  # runs of before this was written
    if isinstance(given, str):
        given = get_task(given)
    if given is None:
        if own:
            raise ValueError(f"{run.path}: was begun with your own task {name!r}; pass that one as task=.")
        if name not in TASKS:
            raise DataError(f"{run.settings}: names the task {name!r}; it was written by another dermaseg.")
        return get_task(name)
    if given.name != name or is_own(given) != own:
        raise ValueError(
            f"{run.path}: was begun with your own task {name!r}; pass that one as task=."
            if own
            else f"{run.path}: was begun with the task {name!r}; give that one, or none."
        )
    return given


def settings_of(run: RunFolder) -> Settings:
    """Return how a run is trained.

    Raises:
        DataError: If `settings.json` holds a setting, or a value of one, that this dermaseg does not know.
    """
    given = {"augment_on": "processor", **run.read_settings()["settings"]}  # as it was before there was a choice
    unknown = given.keys() - {field.name for field in dataclasses.fields(Settings)}
    if unknown:
        raise DataError(f"{run.settings}: holds the setting {min(unknown)!r}; it was written by another dermaseg.")
    try:
        return Settings(**given)
    except (TypeError, ValueError) as error:
        raise DataError(f"{run.settings}: {error}") from error


def settings_taken(run: RunFolder) -> dict[str, Any]:
    """Return the settings of a run for people, with the steps and the batch size that came of them where they are others."""
    settings: dict[str, Any] = dict(read_json(run.settings)["settings"])
    card = read_json(run.model_card) if run.model_card.is_file() else {}
    for name in ("steps", "batch_size"):
        if card.get(name, settings[name]) != settings[name]:
            settings[name] = f"{card[name]} (setting: {settings[name]})"
    return settings


def load_samples(run: RunFolder, data: str | Path | Samples | None = None, task: str | Task | None = None) -> Samples:
    """Return the samples that a run's task works on: the run's own, or those of another folder or table.

    Other data need not be enough to train the task: masks without classes do for a hybrid, and so do some of its classes.

    Args:
        run: The run.
        data: None for the run's own; else a folder or a table.
        task: As for `task_of`; the run's own data do without.

    Raises:
        DataError: If no sample has what the task predicts, one is of a class that the run does not know, or the run's own
            photographs have moved.
        ValueError: If the run is of a task of the caller's own, which is not given.
    """
    if data is None:
        samples = Samples.load(run.samples)
        # One of each folder: to ask for each of ten thousand would take seconds on a network disk.
        of_each_folder = {sample.image.parent: sample.image for sample in samples}.values()
        if of_each_folder and not any(path.is_file() for path in of_each_folder):
            raise DataError(
                f"{run.path}: its photographs have moved, {next(iter(of_each_folder))} does not exist. Say where they are: "
                f"dermaseg train --resume {run.path} --data FOLDER, or resume({str(run.path)!r}, data=FOLDER) in Python."
            )
        return samples
    saved, task = run.read_settings(), task_of(run, task)
    samples = task.select(data if isinstance(data, Samples) else read_samples(data))
    if not len(samples):
        lacks = {"mask": "a mask", "label": "a class", "both": "a mask or a class"}[task.target]
        raise DataError(f"{samples.source or 'data'}: no photograph has {lacks} to compare with.")
    return samples if task.target == "mask" else samples.with_class_names(saved["class_names"])


def draw_split(
    samples: Samples, kind: str, *, seed: int, by_class: bool, progress: Progress | None = None
) -> tuple[Samples, Split]:
    """Split a table, with copies of one picture in one part.

    Args:
        samples: The table.
        kind: `"random"` or `"official"`, as for `dermaseg.train`.
        seed: Of the drawing.
        by_class: Leave out pictures whose copies stand in two classes.
        progress: Called with (done, all) while photographs are compared, where it takes that to know the copies.

    Raises:
        DataError: If the table is too small, or came without official parts.
        ValueError: If the kind is not known.

    Returns:
        The photographs that are left, and their split.
    """
    duplicates = _duplicates(samples, progress)
    if by_class:
        samples = _without_contradictions(samples, duplicates or ())
    if kind == "random":
        return samples, split_samples(samples, seed=seed, duplicates=duplicates)
    if kind != "official":
        raise ValueError(f"split must be 'random', 'official' or a Split, got {kind!r}.")
    if not any(sample.metadata.get("part") == "test" for sample in samples):
        raise DataError(f"{samples.source or 'data'}: did not come with a test part (Test/ beside Train/). Use split='random'.")
    return samples, official_split(samples, seed=seed, duplicates=duplicates)


def learning_parts(split: Split, samples: Samples) -> tuple[Samples, Samples]:
    """Return the part that trains and the part that validates.

    Raises:
        DataError: If one of them is missing.
    """
    parts = split.apply(samples)
    for name in ("train", "validation"):
        if not len(parts.get(name, ())):
            raise DataError(f"the split has no {name} part. It needs a train and a validation part.")
    return parts["train"], parts["validation"]


def warn_of_absent_classes(split: Split, samples: Samples) -> None:
    """Warn of classes of which the validation or the test part has no photograph, though the table has some."""
    parts = split.apply(samples)
    for name, consequence in (
        ("validation", "such a class gets no threshold, and the best epoch is chosen without it"),
        ("test", "balanced accuracy and macro AUC leave such a class out"),
    ):
        counts = parts[name].class_counts() if name in parts else {}
        absent = [each for each, count in samples.class_counts().items() if count and not counts.get(each, 1)]
        if absent:
            warnings.warn(
                f"{samples.source or 'data'}: the {name} part has no photograph of {few(absent)}: {consequence}. "
                "Add photographs of more lesions.",
                stacklevel=3,
            )


def with_absolute_paths(sample: Sample) -> Sample:
    """So that the run can be evaluated and resumed from any working folder."""
    mask = None if sample.mask is None else sample.mask.absolute()
    return dataclasses.replace(sample, image=sample.image.absolute(), mask=mask)


def _duplicates(samples: Samples, progress: Progress | None) -> list[tuple[str, str]] | None:
    """Return the pairs of ids of one picture, or None where every photograph says its lesion or its patient."""
    if all(sample.lesion_id is not None or sample.patient_id is not None for sample in samples):
        return None
    thumbnails = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for small in pool.map(lambda sample: thumbnail(read_image(sample.image, min_size=_LOOK_PX)), samples):
            thumbnails.append(small)
            if progress is not None:
                progress(len(thumbnails), len(samples))
    ids = samples.ids
    return [(ids[first], ids[second]) for first, second in near_identical_pairs(np.stack(thumbnails))]


def _without_contradictions(samples: Samples, duplicates: Iterable[tuple[str, str]]) -> Samples:
    """Leave out every copy of a picture that stands in two classes."""
    doubted = [same for same in copies(samples, duplicates) if len(set(same.with_labels().labels.tolist())) > 1]
    if not doubted:
        return samples
    left_out = {key for same in doubted for key in same.ids}
    warnings.warn(
        f"{samples.source or 'data'}: left out {len(left_out)} of {len(samples)} photographs, copies of {len(doubted)} "
        f"pictures that stand in two classes each, first {' and '.join(doubted[0].ids[:2])}. `dermaseg audit` lists them.",
        stacklevel=4,
    )
    return samples.filter(lambda sample: sample.id not in left_out)
