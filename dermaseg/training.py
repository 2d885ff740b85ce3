"""Train a task: from a folder of photographs to a run folder, and on again after an interrupt."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dermaseg.callbacks import Checkpoint, StopOnNaN
from dermaseg.data import Split, make_dataset, read_samples, split_samples
from dermaseg.data.augment import Augment
from dermaseg.data.geometry import canvas
from dermaseg.data.samples import Samples
from dermaseg.errors import DataError, DermasegError
from dermaseg.plots import save_figure, training_curves
from dermaseg.precision import choose_precision, dtype_policy
from dermaseg.runs import RunFolder, read_json, versions, write_atomically, write_json
from dermaseg.saving import load_model
from dermaseg.tasks import Settings, Task, get_task

__all__ = ["load_samples", "resume", "train"]

Callbacks = list[keras.callbacks.Callback]


def train(
    task: str | Task,
    data: str | Path | Samples,
    output: str | Path,
    *,
    split: Split | None = None,
    callbacks: Callbacks | None = None,
    on_decode: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> RunFolder:
    """Train a task on a folder of photographs and leave a run folder.

    The data are split by lesion before anything else; the best epoch is chosen on the validation part; the test part is
    left for `evaluate`.

    Args:
        task: A name in `dermaseg.tasks.TASKS`, or a task of your own.
        data: A folder in one of the layouts of `read_samples`, or a table of samples.
        output: The run folder. It must not hold a run yet.
        split: A split of your own; by default 70 % of the lesions train, 15 % validate and 15 % test.
        callbacks: Further Keras callbacks.
        on_decode: Called with (done, all) while photographs are decoded.
        **settings: Fields of `dermaseg.tasks.Settings`, in place of the task's defaults.

    Returns:
        The run folder: model, split, settings, versions, history.

    Raises:
        DataError: If the data cannot be read, or the folder already holds a run.
        ValueError: If a setting is outside its range.
    """
    chosen = get_task(task) if isinstance(task, str) else task
    unknown = set(settings) - {field.name for field in dataclasses.fields(Settings)}
    if unknown:
        raise ValueError(f"there is no setting {sorted(unknown)[0]!r}; see dermaseg.tasks.Settings.")
    plan = dataclasses.replace(chosen.settings, **settings)
    samples = chosen.prepare(data if isinstance(data, Samples) else read_samples(data))
    parts = split or split_samples(samples, seed=plan.seed)
    run = RunFolder.create(output)
    if run.settings.exists():
        raise DataError(f"{run.path}: holds a run already. Give another folder, or go on with it by resume.")
    train_part, _ = _parts(parts, samples)
    height, width = canvas(train_part, plan.size)
    precision = choose_precision(plan.precision)
    samples.save(run.samples)
    parts.save(run.split)
    write_json(
        run.settings,
        {
            "task": chosen.name,
            "data": samples.source if isinstance(data, Samples) else str(data),
            "settings": dataclasses.asdict(plan),
            "canvas": [height, width],
            "precision": precision,
            "class_names": list(samples.class_names),
            "split": parts.fingerprint,
            "versions": {**versions(), "backend": keras.backend.backend()},
        },
    )
    return _fit(chosen, plan, samples, parts, run, callbacks=callbacks or [], on_decode=on_decode)


def resume(
    output: str | Path,
    *,
    data: str | Path | Samples | None = None,
    callbacks: Callbacks | None = None,
    on_decode: Callable[[int, int], None] | None = None,
) -> RunFolder:
    """Go on with an interrupted run from its last whole epoch; a finished run stays as it is.

    Args:
        output: The run folder.
        data: Where the photographs are now, if they have moved.
        callbacks: Further Keras callbacks.
        on_decode: Called with (done, all) while photographs are decoded.

    Returns:
        The run folder.

    Raises:
        DataError: If the folder holds no run, or the photographs of its split are not all there.
    """
    run = RunFolder.open(output)
    saved = read_json(run.settings)
    task = get_task(saved["task"])
    plan = Settings(**saved["settings"])
    samples = load_samples(run, data)
    return _fit(task, plan, samples, Split.load(run.split), run, callbacks=callbacks or [], on_decode=on_decode)


def load_samples(run: RunFolder, data: str | Path | Samples | None = None) -> Samples:
    """Return the samples that a run's task works on: the run's own, or those of another folder or table."""
    if data is None:
        return Samples.load(run.samples)
    task = get_task(read_json(run.settings)["task"])
    return task.prepare(data if isinstance(data, Samples) else read_samples(data))


def _parts(split: Split, samples: Samples) -> tuple[Samples, Samples]:
    parts = split.apply(samples)
    for name in ("train", "validation"):
        if not len(parts.get(name, ())):
            raise DataError(f"the split has no {name} part. It needs a train and a validation part.")
    return parts["train"], parts["validation"]


def _fit(
    task: Task,
    plan: Settings,
    samples: Samples,
    split: Split,
    run: RunFolder,
    *,
    callbacks: Callbacks,
    on_decode: Callable[[int, int], None] | None,
) -> RunFolder:
    train_part, validation_part = _parts(split, samples)
    saved = read_json(run.settings)
    size = tuple(saved["canvas"])
    epochs = plan.epochs(len(train_part))
    steps = plan.steps_per_epoch(len(train_part))
    keras.utils.set_random_seed(plan.seed)

    checkpoint = Checkpoint(run, monitor=task.monitor)
    with dtype_policy(saved["precision"]):
        model = checkpoint.restore()
        if model is None:
            model = task.build(train_part, plan.model)
            model.compile(
                optimizer=_optimizer(plan, epochs * steps),
                jit_compile=plan.jit_compile,
                **task.compile_options(train_part),
            )
    if checkpoint.epochs_done < epochs:
        common: dict[str, Any] = {"size": size, "target": task.target, "cache_dir": run.cache, "progress": on_decode}
        training = make_dataset(
            train_part,
            batch_size=min(plan.batch_size, len(train_part)),
            augment=Augment.preset(plan.augment),
            shuffle=True,
            seed=plan.seed,
            drop_remainder=True,
            initial_epoch=checkpoint.epochs_done,
            **common,
        )
        model.fit(
            training,
            validation_data=make_dataset(validation_part, batch_size=plan.batch_size, **common),
            validation_freq=_validated_epochs(epochs),
            initial_epoch=checkpoint.epochs_done,
            epochs=epochs,
            callbacks=[StopOnNaN(), checkpoint, *callbacks],
            shuffle=False,  # the data set has its own order, which a resumed run repeats
            verbose=0,
        )
    _finish(task, plan, train_part, run, checkpoint)
    return run


def _optimizer(plan: Settings, steps: int) -> keras.optimizers.Optimizer:
    warmup = steps // 20
    rate = keras.optimizers.schedules.CosineDecay(
        plan.learning_rate / 100, steps - warmup, alpha=0.01, warmup_target=plan.learning_rate, warmup_steps=warmup
    )
    return keras.optimizers.AdamW(rate, weight_decay=plan.weight_decay, global_clipnorm=1.0)


def _validated_epochs(epochs: int) -> list[int]:
    """Choose about twenty epochs, counted from 1, the last among them: each look costs a pass over the validation part."""
    return sorted({round(epoch) for epoch in np.linspace(epochs, 1, min(epochs, 20))})


def _finish(task: Task, plan: Settings, train_part: Samples, run: RunFolder, checkpoint: Checkpoint) -> None:
    """Write the best epoch as a float32 model: it then computes the same on a machine without bfloat16."""
    if run.model.is_file():
        return
    best = load_model(checkpoint.best_path)
    with dtype_policy("float32"):
        model = task.build(train_part, plan.model)
    model.set_weights(best.get_weights())
    row = checkpoint.best_row
    if row is None:
        raise DermasegError(f"{run.path}: no epoch was validated, so no best model is known. Start again in another folder.")
    write_json(
        run.model_card,
        {
            "task": task.name,
            "size": plan.size,
            "class_names": list(train_part.class_names),
            "best_epoch": int(row["epoch"]),
            task.monitor: float(row[task.monitor]),
        },
    )
    write_atomically(run.model, model.save)
    save_figure(training_curves(checkpoint.rows), run.path / "curves.png")
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    shutil.rmtree(run.cache, ignore_errors=True)
