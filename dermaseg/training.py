"""Train a task: from a folder of photographs to a run folder, and on again after an interrupt."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from dermaseg.data import Split, read_samples
from dermaseg.data.geometry import canvas
from dermaseg.data.on_device import choose_device
from dermaseg.data.samples import Samples
from dermaseg.deciding import decide
from dermaseg.decisions import Decisions
from dermaseg.distribution import batch_shares, check_strategy, host_share
from dermaseg.errors import DataError
from dermaseg.fitting import Callbacks, fit, new_model, shared_batch
from dermaseg.models.inception_resnet import check_sides
from dermaseg.precision import choose_precision
from dermaseg.pretrained import is_preset
from dermaseg.run_data import (
    check_output,
    draw_split,
    is_own,
    learning_parts,
    load_samples,
    settings_of,
    task_of,
    warn_of_absent_classes,
    with_absolute_paths,
)
from dermaseg.runs import RunFolder, read_json, versions, write_atomically, write_json
from dermaseg.saving import load_model
from dermaseg.tasks import Settings, Task, get_task
from dermaseg.tasks.objectives import sampling_weights
from dermaseg.transfer import head_comes_first, warn_of_lent_knowledge

__all__ = ["average_runs", "recalibrate", "resume", "train"]


def train(
    task: str | Task,
    data: str | Path | Samples,
    output: str | Path,
    *,
    split: Split | Literal["random", "official"] = "random",
    start: str | Path | None = None,
    callbacks: Callbacks | None = None,
    on_decode: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> RunFolder:
    """Train a task on a folder of photographs and leave a run folder.

    The data are split by lesion before anything else; where photographs say neither lesion nor patient, all are looked at for
    copies of one picture under two names, which then stay together. A classifier does without a picture whose copies stand in
    two classes, as nobody can say which is right. The best epoch is chosen on the validation part; the
    test part is left for `evaluate`.

    Args:
        task: A name in `dermaseg.tasks.TASKS`, or a task of your own.
        data: A folder in one of the layouts of `read_samples`, or a table of samples.
        output: The run folder. It must not hold a run yet, nor the model, history or checkpoints of one, nor pictures or other
            folders: a run among photographs would be taken for one of the two. Other files, as a log, may be there.
        split: `"random"`: 70 % of the photographs train, 15 % validate and 15 % test, in whole lesions. `"official"`: the test
            part that the data came with (`Test/` beside `Train/`), by `official_split`, to compare with published figures.
            Or a split of your own.
        start: A run folder, a saved model or the name of a preset, whose weights the new model starts from wherever layers
            share name and shape: a segmentation network lends its encoder to a classifier of the same filters. Where the card
            of the run or preset names other classes, or these in another order, the layer that names them starts anew; so it
            does where a preset comes by `model={"weights": ...}`.
        callbacks: Further Keras callbacks.
        on_decode: Called with (done, all) while photographs are decoded, and while a frozen base looks at them.
        **settings: Fields of `dermaseg.tasks.Settings`, in place of the task's defaults. Giving `steps` lifts the task's own
            limit of `minutes`.

    Returns:
        The run folder: model, split, settings, versions, history.

    Raises:
        DataError: If the data cannot be read, the folder already holds a run or a part of one, pictures or other folders, or
            another process trains there.
        ValueError: If a setting is outside its range, or an argument in `model` is no JSON value.
        TrainingError: If the loss becomes no number, or the validation lacks a figure that the task's monitor names.

    Warns:
        UserWarning: If photographs say neither lesion nor patient, if photographs are left out, if a class has no photograph in
            the validation or test part, if fewer steps are planned than asked for because `minutes` or `max_epochs` allow no
            more, or if a trained classifier does no better on the validation part than always naming the commonest class.
    """
    chosen = get_task(task) if isinstance(task, str) else task
    unknown = set(settings) - {field.name for field in dataclasses.fields(Settings)}
    if unknown:
        raise ValueError(f"there is no setting {sorted(unknown)[0]!r}; see dermaseg.tasks.Settings.")
    if "model" in settings:
        settings["model"] = {**chosen.settings.model, **settings["model"]}
    if "steps" in settings:
        settings = {"minutes": None, **settings}  # whoever says how many steps wants so many
    plan = dataclasses.replace(chosen.settings, **settings)
    plan = dataclasses.replace(plan, augment_on=choose_device(plan.augment_on), model=_as_json(plan.model))
    check_output(output)
    samples = chosen.prepare(data if isinstance(data, Samples) else read_samples(data)).map(with_absolute_paths)
    if isinstance(split, Split):
        parts = split
    else:
        samples, parts = draw_split(samples, split, seed=plan.seed, by_class=chosen.target != "mask", progress=on_decode)
    train_part, _ = learning_parts(parts, samples)
    if chosen.target != "mask":
        warn_of_absent_classes(parts, samples)
    height, width = canvas(train_part, plan.size)
    precision = choose_precision(plan.precision)
    # Before anything is written: a folder with a run that can't begin could neither be resumed nor used again.
    _check_plan(chosen, plan, train_part)
    if "steps" in settings and "max_epochs" not in settings:
        _warn_of_fewer_steps(plan, len(train_part))
    model = new_model(chosen, plan, train_part, precision=precision, start=start)
    check_sides(model, height, width)
    weights = plan.model.get("weights")
    if start is not None:
        warn_of_lent_knowledge(start, parts, samples)
    if isinstance(weights, str) and is_preset(weights):
        warn_of_lent_knowledge(weights, parts, samples)
    run = RunFolder.create(output)
    with run.locked():
        run.check_unused()  # another process may have begun one while this one read the photographs
        samples.save(run.samples)
        parts.save(run.split)
        write_json(
            run.settings,
            {
                "task": chosen.name,
                "own_task": is_own(chosen),
                "data": samples.source if isinstance(data, Samples) else str(data),
                "settings": dataclasses.asdict(plan),
                "canvas": [height, width],
                "precision": precision,
                "class_names": list(samples.class_names),
                "start": None if start is None else str(start if is_preset(start) else Path(start).absolute()),
                "split": parts.fingerprint,
                "versions": {**versions(), "backend": keras.backend.backend()},
            },
        )
    return fit(chosen, plan, samples, parts, run, model=model, callbacks=callbacks or [], on_decode=on_decode)


def _as_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a builder's arguments as the run's settings hold them: paths as text, which leads there from any working folder.

    Raises:
        ValueError: If another one is no JSON value.
    """
    found = {}
    for name, value in arguments.items():
        if isinstance(value, os.PathLike) or (name.endswith("weights") and isinstance(value, str) and Path(value).is_file()):
            path = Path(value)
            value = str(path.absolute() if path.exists() else path)
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(f"model: {name} must be a JSON value, got {value!r}.") from None
        found[name] = value
    return found


def _check_plan(task: Task, plan: Settings, train_part: Samples) -> None:
    """Refuse what the photographs or the devices do not allow."""
    check_strategy()
    shared_batch(min(plan.batch_size, len(train_part)), batch_shares())
    if task.target == "mask" and plan.imbalance not in ("none", "sampling"):
        raise ValueError(f"imbalance={plan.imbalance!r}: {task.name} learns no classes to weigh; take 'none' or 'sampling'.")
    sampling_weights(train_part, plan)
    if not is_own(task):  # whose metrics may take their names from how many of them there have been
        task.compile_options(train_part, plan)
    if host_share()[1] == 1:
        return
    if plan.minutes is not None:
        raise ValueError("minutes: several processes would plan by their own clocks; give steps instead.")
    if head_comes_first(plan):
        raise ValueError("head_epochs: several processes can't train the head first; set head_epochs=0.")
    if keras.distribution.distribution().auto_shard_dataset:
        raise ValueError("several processes feed their own rows: set DataParallel(auto_shard_dataset=False).")


def _warn_of_fewer_steps(plan: Settings, images: int) -> None:
    """Warn where so few photographs are not seen often enough to make the steps that were asked for."""
    per_epoch = images // shared_batch(min(plan.batch_size, images), batch_shares())
    if round(plan.steps / per_epoch) > plan.max_epochs:
        epochs = math.ceil(plan.steps / per_epoch)
        warnings.warn(
            f"{plan.max_epochs * per_epoch:,} of {plan.steps:,} steps are run: max_epochs={plan.max_epochs} passes over "
            f"{images} training photographs make no more. Give max_epochs={epochs} (--max-epochs {epochs}) to run them all.",
            stacklevel=3,
        )


def resume(
    output: str | Path,
    *,
    data: str | Path | Samples | None = None,
    task: str | Task | None = None,
    callbacks: Callbacks | None = None,
    on_decode: Callable[[int, int], None] | None = None,
) -> RunFolder:
    """Go on with an interrupted run from its last saved epoch; a finished run stays as it is.

    Args:
        output: The run folder.
        data: Where the photographs are now, if they have moved; the run folder remembers it.
        task: The task of your own that the run was begun with; None for one of `dermaseg.tasks.TASKS`.
        callbacks: Further Keras callbacks.
        on_decode: Called with (done, all) while photographs are decoded, and while a frozen base looks at them.

    Returns:
        The run folder.

    Raises:
        DataError: If the folder holds no run, its settings are of another dermaseg, the photographs of its split are not all
            there, none of its saved epochs can be read, the run needs another backend, or another process trains in the folder.
        ValueError: If the run's task is not the one given, or one of your own that is not given.
    """
    run = RunFolder.open(output)
    task = task_of(run, task)
    plan = settings_of(run)
    if run.model.is_file() and data is None:
        return run  # its photographs may have gone
    if not run.model.is_file():
        if plan.augment_on == "accelerator" and keras.backend.backend() != "jax":
            raise DataError(
                f"{run.path}: this run augments its photographs on the accelerator, which needs JAX. Resume it with "
                "KERAS_BACKEND=jax set."
            )
        if host_share()[1] > 1:
            raise DataError(
                f"{run.path}: several processes can't resume a run, since each may have stopped at another epoch. Resume it in "
                "one process, or train anew."
            )
    samples, split = load_samples(run, data, task), Split.load(run.split)
    if data is not None:
        learning_parts(split, samples)  # all are there
        samples = samples.map(with_absolute_paths)
        with run.locked():
            write_atomically(run.samples, samples.save)  # where the finished run will be scored
    return fit(task, plan, samples, split, run, callbacks=callbacks or [], on_decode=on_decode)


def recalibrate(run: str | Path | RunFolder, *, sensitivity: float | None = None, task: str | Task | None = None) -> Decisions:
    """Settle again how to read a finished run's output, on its validation part, and write it to the model's card.

    Training ends with this. It is for thresholds of another sensitivity, without training anew, and for runs of an earlier
    version of this library, whose decisions were fitted otherwise.

    Args:
        run: The run folder.
        sensitivity: As in `dermaseg.tasks.Settings`; None takes that of the training.
        task: As for `resume`.

    Returns:
        Temperature, thresholds, conformal sets and levels of doubt.

    Raises:
        DataError: If the folder holds no finished run, or its photographs have gone.
        ValueError: If `sensitivity` is outside its range, or as for `resume`.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    task = task_of(folder, task)
    train_part, validation_part = learning_parts(Split.load(folder.split), load_samples(folder))
    common = {"size": tuple(folder.read_settings()["canvas"]), "target": task.target, "cache_dir": folder.cache}
    plan = settings_of(folder)
    if sensitivity is not None:
        plan = dataclasses.replace(plan, sensitivity=sensitivity)
    decisions = decide(load_model(folder.model), task, plan, train_part, validation_part, common)
    write_json(folder.model_card, {**read_json(folder.model_card), "decisions": decisions.to_dict()})
    shutil.rmtree(folder.cache, ignore_errors=True)
    return decisions


def average_runs(runs: Sequence[str | Path | RunFolder], output: str | Path, *, task: str | Task | None = None) -> RunFolder:
    """Make a run of the mean of several runs' weights, and settle on their validation part how its output is read.

    Of a network, and the same one trained on with other photographs or another augmentation, the mean often keeps most of what
    each of the two knows, at the cost of one. It needs weights that are not far from each other: of runs that started from
    the same network, or one from the other. Whether it helps, the validation part says.

    Args:
        runs: Finished runs of one task, with the same split, classes and layers; where they name classes, with the same
            `imbalance` and `imbalance_strength`, for one correction of the classes' shares has to do for the mean.
        output: The run folder to make. It must not hold anything yet.
        task: As for `resume`.

    Returns:
        The run folder, without a history, and with the settings of the last run.

    Raises:
        DataError: If a folder holds no finished run, the runs differ, or `output` already holds something.
        ValueError: If there are fewer than two runs, or as for `resume`.

    References:
        Wortsman et al., 2022, "Robust fine-tuning of zero-shot models", equation 2 with a share of one half; Wortsman et al.,
        2022, "Model soups". Deviation: the statistics of batch normalisation are averaged like the weights.
    """
    folders = [run if isinstance(run, RunFolder) else RunFolder.open(run) for run in runs]
    if len(folders) < 2:
        raise ValueError(f"runs must be two at least, got {len(folders)}.")
    target = Path(output)
    if target.is_dir() and any(target.iterdir()):
        raise DataError(f"{output}: is not empty. Give another folder.")
    for folder in folders:
        if not folder.model.is_file():
            raise DataError(f"{folder.path}: not finished. Go on with it by resume first.")
    saved = [folder.read_settings() for folder in folders]
    for name in ("task", "own_task", "split", "class_names"):
        if any(settings.get(name, False) != saved[-1].get(name, False) for settings in saved):
            raise DataError(f"{folders[0].path}: differs from {folders[-1].path} in its {name}.")
    task = task_of(folders[-1], task)
    if task.target != "mask":
        for folder in folders:
            _check_balance(folder, folders[-1])
    models = [load_model(folder.model) for folder in folders]
    weights = [model.get_weights() for model in models]
    if any([values.shape for values in one] != [values.shape for values in weights[-1]] for one in weights):
        raise DataError(f"{folders[0].path}: its layers are not those of {folders[-1].path}.")
    models[-1].set_weights([np.mean(values, axis=0, dtype=np.float64) for values in zip(*weights, strict=True)])

    # Made beside and moved, for a folder with half of it could be neither gone on with nor made again.
    last = folders[-1]
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".unfinished-{target.name}-", dir=target.parent) as beside:
        mean = RunFolder.create(Path(beside) / target.name)
        shutil.copyfile(last.samples, mean.samples)
        shutil.copyfile(last.split, mean.split)
        write_json(mean.settings, {**saved[-1], "start": None})
        own = read_json(last.model_card)
        card: dict[str, Any] = {
            name: own[name] for name in ("task", "size", "class_names", "steps", "batch_size") if name in own
        }
        write_json(mean.model_card, {**card, "mean_of": [str(folder.path) for folder in folders]})
        models[-1].save(mean.model)
        recalibrate(mean, task=task)
        os.replace(mean.path, target)
    return RunFolder(target)


def _check_balance(run: RunFolder, last: RunFolder) -> None:
    """Refuse a run that evened classes out otherwise than the last: no factors would bring their shares back in the mean."""
    for name in ("imbalance", "imbalance_strength"):
        own, other = (getattr(settings_of(folder), name) for folder in (run, last))
        if own != other:
            raise DataError(
                f"{run.path}: was trained with {name}={own!r}, and {last.path} with {other!r}. "
                "Train one of them again with the setting of the other."
            )
