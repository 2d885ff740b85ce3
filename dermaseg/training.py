"""Train a task: from a folder of photographs to a run folder, and on again after an interrupt."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np

from dermaseg.callbacks import Checkpoint, StopOnNaN
from dermaseg.data import Split, group_samples, make_dataset, read_samples
from dermaseg.data.augment import Augment
from dermaseg.data.geometry import canvas
from dermaseg.data.mix import Mix
from dermaseg.data.samples import Samples
from dermaseg.decisions import Decisions, fit_label_decisions, fit_mask_rejection
from dermaseg.distribution import batch_shares, replica_count, undistributed
from dermaseg.errors import DataError, DermasegError
from dermaseg.plots import save_figure, training_curves
from dermaseg.precision import choose_precision, dtype_policy
from dermaseg.prediction import named_outputs
from dermaseg.run_data import draw_split, learning_parts, load_samples, with_absolute_paths
from dermaseg.runs import RunFolder, read_json, versions, write_atomically, write_json
from dermaseg.saving import load_model
from dermaseg.tasks import Settings, Task, get_task, prior_factors
from dermaseg.transfer import lend_weights, open_lender, warn_of_lent_knowledge

__all__ = ["recalibrate", "resume", "train"]

Callbacks = list[keras.callbacks.Callback]


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
        output: The run folder. It must not hold a run yet.
        split: `"random"`: 70 % of the photographs train, 15 % validate and 15 % test, in whole lesions. `"official"`: the test
            part that the data came with (`Test/` beside `Train/`), by `official_split`, to compare with published figures.
            Or a split of your own.
        start: A run folder, a saved model or the name of a preset, whose weights the new model starts from wherever layers
            share name and shape: a segmentation network lends its encoder to a classifier of the same filters.
        callbacks: Further Keras callbacks.
        on_decode: Called with (done, all) while photographs are decoded.
        **settings: Fields of `dermaseg.tasks.Settings`, in place of the task's defaults.

    Returns:
        The run folder: model, split, settings, versions, history.

    Raises:
        DataError: If the data cannot be read, or the folder already holds a run.
        ValueError: If a setting is outside its range.

    Warns:
        UserWarning: If photographs say neither lesion nor patient, if photographs are left out, or if a trained classifier does
            no better on the validation part than always naming the commonest class.
    """
    chosen = get_task(task) if isinstance(task, str) else task
    unknown = set(settings) - {field.name for field in dataclasses.fields(Settings)}
    if unknown:
        raise ValueError(f"there is no setting {sorted(unknown)[0]!r}; see dermaseg.tasks.Settings.")
    if "model" in settings:
        settings["model"] = {**chosen.settings.model, **settings["model"]}
    plan = dataclasses.replace(chosen.settings, **settings)
    if RunFolder(Path(output)).settings.exists():
        raise DataError(f"{output}: holds a run already. Give another folder, or go on with it by resume.")
    samples = chosen.prepare(data if isinstance(data, Samples) else read_samples(data)).map(with_absolute_paths)
    if isinstance(split, Split):
        parts = split
    else:
        samples, parts = draw_split(samples, split, seed=plan.seed, by_class=chosen.target != "mask", progress=on_decode)
    train_part, _ = learning_parts(parts, samples)
    height, width = canvas(train_part, plan.size)
    precision = choose_precision(plan.precision)
    # Before anything is written: a folder with a run that can't begin could neither be resumed nor used again.
    _shared_batch(min(plan.batch_size, len(train_part)), batch_shares())
    model = _new_model(chosen, plan, train_part, precision=precision, start=start)
    if start is not None:
        warn_of_lent_knowledge(start, parts, samples)
    run = RunFolder.create(output)
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
            "start": None if start is None else str(start),
            "split": parts.fingerprint,
            "versions": {**versions(), "backend": keras.backend.backend()},
        },
    )
    return _fit(chosen, plan, samples, parts, run, model=model, callbacks=callbacks or [], on_decode=on_decode)


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


def recalibrate(run: str | Path | RunFolder) -> Decisions:
    """Settle again how to read a finished run's output, on its validation part, and write it to the model's card.

    Training ends with this. It is for runs of an earlier version of this library, whose decisions were fitted otherwise.

    Args:
        run: The run folder.

    Returns:
        Temperature, thresholds, conformal sets and levels of doubt.

    Raises:
        DataError: If the folder holds no finished run, or its photographs have gone.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    saved = read_json(folder.settings)
    task = get_task(saved["task"])
    train_part, validation_part = learning_parts(Split.load(folder.split), Samples.load(folder.samples))
    common = {"size": tuple(saved["canvas"]), "target": task.target, "cache_dir": folder.cache}
    decisions = _decide(load_model(folder.model), task, Settings(**saved["settings"]), train_part, validation_part, common)
    write_json(folder.model_card, {**read_json(folder.model_card), "decisions": decisions.to_dict()})
    shutil.rmtree(folder.cache, ignore_errors=True)
    return decisions


def _fit(
    task: Task,
    plan: Settings,
    samples: Samples,
    split: Split,
    run: RunFolder,
    *,
    model: keras.Model | None = None,
    callbacks: Callbacks,
    on_decode: Callable[[int, int], None] | None,
) -> RunFolder:
    if run.model.is_file():
        return run
    train_part, validation_part = learning_parts(split, samples)
    saved = read_json(run.settings)
    size = tuple(saved["canvas"])
    epochs = plan.epochs(len(train_part))
    steps = plan.steps_per_epoch(len(train_part))
    keras.utils.set_random_seed(plan.seed)
    shares = batch_shares()

    checkpoint = Checkpoint(run, monitor=task.monitor)
    with dtype_policy(saved["precision"]):
        restored = checkpoint.restore()
        if restored is not None:
            model = restored
        else:
            model = model or _new_model(task, plan, train_part, precision=saved["precision"], start=saved.get("start"))
            _share_statistics(model)
            model.compile(
                optimizer=_optimizer(plan, epochs * steps),
                # TensorFlow 2.21 cannot compile a step over mirrored variables: "auto" must not try it on several GPUs.
                jit_compile=False if plan.jit_compile == "auto" and replica_count() > 1 else plan.jit_compile,
                **_weighted(task.compile_options(train_part, plan), shares),
            )
    common: dict[str, Any] = {"size": size, "target": task.target, "cache_dir": run.cache, "progress": on_decode}
    if checkpoint.epochs_done < epochs:
        training = make_dataset(
            train_part,
            batch_size=_shared_batch(min(plan.batch_size, len(train_part)), shares),
            augment=Augment.preset(plan.augment),
            mix=Mix.preset(plan.mix),
            shuffle=True,
            weights=_sampling_weights(train_part, plan),
            seed=plan.seed,
            drop_remainder=True,
            initial_epoch=checkpoint.epochs_done,
            **common,
        )
        validation = make_dataset(
            validation_part,
            batch_size=_shared_batch(plan.batch_size, shares),
            multiple=shares,
            one_hot=plan.mix != "none",
            **common,
        )
        # Validation sees the averaged weights; a checkpoint holds those that training goes on with, and the average beside.
        average = [keras.callbacks.SwapEMAWeights()] if plan.ema else []
        model.fit(
            training,
            validation_data=validation,
            validation_freq=_validated_epochs(epochs),
            initial_epoch=checkpoint.epochs_done,
            epochs=epochs,
            callbacks=[StopOnNaN(), *average, checkpoint, *callbacks],
            shuffle=False,  # the data set has its own order, which a resumed run repeats
            verbose=0,
        )
    model = _best_model(task, plan, train_part, run, checkpoint)
    card = _card(task, plan, train_part, run, checkpoint)
    with undistributed():  # the last batch may be of any size
        card["decisions"] = _decide(model, task, plan, train_part, validation_part, common).to_dict()
    write_json(run.model_card, card)
    save_figure(training_curves(checkpoint.rows), run.path / "curves.png")
    # Last, for it says that the run is finished.
    write_atomically(run.model, model.save)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    shutil.rmtree(run.cache, ignore_errors=True)
    return run


def _new_model(task: Task, plan: Settings, train_part: Samples, *, precision: str, start: str | Path | None) -> keras.Model:
    """Build the task's model, seeded, with the weights that it starts from.

    Raises:
        ValueError: If the builder does not take an argument of `plan.model`, or no weights fit.
    """
    keras.utils.set_random_seed(plan.seed)
    with dtype_policy(precision):
        try:
            model = task.build(train_part, plan.model)
        except TypeError as error:
            raise ValueError(f"model: {error}. See the builder of {task.name} in dermaseg.models.") from error
        if start is not None:
            lend_weights(open_lender(str(start)), model)
    return model


def _share_statistics(model: keras.Model) -> None:
    """Let batch normalisation see the whole batch where tf.distribute splits it, as JAX's DataParallel does by itself.

    A few photographs on each of several GPUs give statistics of a few. The finished model is built anew, without this.
    """
    if replica_count() > 1:
        for layer in model._flatten_layers():  # those of an encoder within the model too
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def _shared_batch(batch: int, shares: int) -> int:
    """Return the largest batch up to the given one that devices can share equally.

    Raises:
        ValueError: If it is smaller than their number.
    """
    if batch < shares:
        raise ValueError(f"{shares} devices cannot share batches of {batch} photographs: batch_size must be {shares} at least.")
    return batch - batch % shares


def _weighted(options: Mapping[str, Any], shares: int) -> dict[str, Any]:
    """Let metrics leave out the photographs of weight 0 that fill up a last batch for several devices."""
    found = dict(options)
    if shares > 1 and "metrics" in found:
        found["weighted_metrics"] = found.pop("metrics")
    return found


def _optimizer(plan: Settings, steps: int) -> keras.optimizers.Optimizer:
    warmup = steps // 20
    rate = keras.optimizers.schedules.CosineDecay(
        plan.learning_rate / 100, steps - warmup, alpha=0.01, warmup_target=plan.learning_rate, warmup_steps=warmup
    )
    average = {"use_ema": True, "ema_momentum": plan.ema} if plan.ema else {}
    return keras.optimizers.AdamW(rate, weight_decay=plan.weight_decay, global_clipnorm=1.0, **average)


def _validated_epochs(epochs: int) -> list[int]:
    """Choose about twenty epochs, counted from 1, the last among them: each look costs a pass over the validation part."""
    return sorted({round(epoch) for epoch in np.linspace(epochs, 1, min(epochs, 20))})


def _sampling_weights(train_part: Samples, plan: Settings) -> np.ndarray | None:
    """Return how likely each training photograph is to be drawn, or None where each is taken once an epoch."""
    if plan.imbalance != "sampling":
        return None
    labels = train_part.labels
    counts = np.bincount(labels[labels >= 0], minlength=train_part.num_classes).astype(float)
    rarity = np.divide(1.0, counts, out=np.zeros_like(counts), where=counts > 0) ** plan.imbalance_strength
    known = rarity[np.maximum(labels, 0)]
    return np.where(labels >= 0, known, known[labels >= 0].mean())  # a photograph without a class is drawn as an average one


def _best_model(task: Task, plan: Settings, train_part: Samples, run: RunFolder, checkpoint: Checkpoint) -> keras.Model:
    """Return the best epoch, averaged if asked for, as a float32 model: it computes the same on a machine without bfloat16."""
    if checkpoint.best_row is None:
        raise DermasegError(f"{run.path}: no epoch was validated, so no best model is known. Start again in another folder.")
    best = load_model(checkpoint.best_path, compiled=bool(plan.ema))
    if plan.ema:
        best.optimizer.finalize_variable_values(best.trainable_variables)
    # All weights come from the checkpoint: files that they started from need not be there any more.
    options = {name: None if name in ("weights", "encoder_weights") else value for name, value in plan.model.items()}
    with dtype_policy("float32"):
        model = task.build(train_part, options)
    model.set_weights(best.get_weights())
    return model


def _card(task: Task, plan: Settings, train_part: Samples, run: RunFolder, checkpoint: Checkpoint) -> dict[str, Any]:
    row = checkpoint.best_row or {}
    return {
        "task": task.name,
        "size": plan.size,
        "class_names": list(train_part.class_names) if task.target != "mask" else [],
        "best_epoch": int(row["epoch"]),
        **{name: float(row[name]) for name in task.monitor},
    }


def _decide(
    model: keras.Model,
    task: Task,
    plan: Settings,
    train_part: Samples,
    validation_part: Samples,
    common: Mapping[str, Any],
) -> Decisions:
    """Read the validation photographs once more, as the finished model sees them, and settle how to read its output."""
    found: dict[str, Any] = {}
    labelled = validation_part.with_labels()
    if task.target != "mask" and len(labelled):
        dataset = make_dataset(labelled, batch_size=plan.batch_size, **{**common, "target": None})
        outputs = named_outputs(model.predict(dataset, verbose=0))
        found = fit_label_decisions(
            labelled.labels,
            outputs["label"],
            labelled.class_names,
            prior_factors=prior_factors(train_part, plan) if outputs["label"].shape[1] > 1 else (),
            groups=group_samples(labelled),
        )
    masked = validation_part.with_masks()
    if task.target != "label" and len(masked):
        dataset = make_dataset(masked, batch_size=plan.batch_size, **{**common, "target": "mask"})
        predicted = ((masks, _predict(model, np.asarray(images))) for images, masks in dataset)
        pairs = ((np.asarray(masks), named_outputs(outputs)["mask"]) for masks, outputs in predicted)
        found["mask_rejection"] = fit_mask_rejection(pairs)
    return Decisions(**found)


def _predict(model: keras.Model, images: np.ndarray) -> Any:
    """Return the outputs for one batch; under tf.distribute `predict_on_batch` gives those of one replica alone."""
    if replica_count() > 1:
        return model.predict(images, batch_size=len(images), verbose=0)
    return model.predict_on_batch(images)
