"""Fit a task's network in a run folder, and keep its best epoch."""

from __future__ import annotations

import dataclasses
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dermaseg.callbacks import Checkpoint, SeedEpochs, StopOnInterrupt, StopOnNaN
from dermaseg.data import Split, make_dataset
from dermaseg.data.augment import Augment
from dermaseg.data.mix import Mix
from dermaseg.data.samples import Samples
from dermaseg.deciding import decide
from dermaseg.distribution import batch_shares, replica_count
from dermaseg.errors import DermasegError
from dermaseg.models.inception_resnet import has_base
from dermaseg.optimizers import planned_adamw
from dermaseg.pace import LOOKS, measure_pace
from dermaseg.plots import save_figure, training_curves
from dermaseg.precision import dtype_policy
from dermaseg.pretrained import is_preset
from dermaseg.run_data import learning_parts
from dermaseg.runs import RunFolder, write_atomically, write_csv, write_json
from dermaseg.saving import load_model
from dermaseg.tasks import Settings, Task
from dermaseg.tasks.objectives import sampling_weights
from dermaseg.transfer import LABEL_HEAD, head_comes_first, lend_weights, names_others, open_lender, renew_head, train_head

__all__ = ["Callbacks", "fit", "new_model", "shared_batch"]

Callbacks = list[keras.callbacks.Callback]


def fit(
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
    """Fit a network to the training part, from the last saved epoch where there is one, and finish the run.

    Args:
        task: The task.
        plan: How to train it.
        samples: The table that the run was begun with.
        split: Its parts.
        run: The folder, with its settings written. A finished run stays as it is.
        model: What a new run starts from; None builds it.
        callbacks: Further Keras callbacks.
        on_decode: Called with (done, all) while photographs are decoded, and while a frozen base looks at them.

    Returns:
        The folder, with the finished run.

    Raises:
        DataError: If another process trains in the folder, or none of the epochs that it saved can be read.
        DermasegError: If no epoch has the validation figures that choose the best.
        TrainingError: If the loss becomes no number, or the validation lacks a figure that the task's monitor names.
    """
    if run.model.is_file():  # which may stand where nothing can be written
        return run
    with run.locked():
        if not run.model.is_file():
            _fit(task, plan, samples, split, run, model=model, callbacks=callbacks, on_decode=on_decode)
    return run


def _fit(
    task: Task,
    plan: Settings,
    samples: Samples,
    split: Split,
    run: RunFolder,
    *,
    model: keras.Model | None,
    callbacks: Callbacks,
    on_decode: Callable[[int, int], None] | None,
) -> None:
    began = time.monotonic()
    train_part, validation_part = learning_parts(split, samples)
    saved = run.read_settings()
    size = tuple(saved["canvas"])
    common: dict[str, Any] = {"size": size, "target": task.target, "cache_dir": run.cache, "progress": on_decode}
    training_plan = _TrainingPlan(task, plan, train_part, validation_part, common, batch_shares())
    keras.utils.set_random_seed(plan.seed)

    checkpoint = Checkpoint(run, monitor=task.monitor)
    with dtype_policy(saved["precision"]):
        restored = checkpoint.restore()
        if restored is not None:
            model = restored
        else:
            model = model or new_model(task, plan, train_part, precision=saved["precision"], start=saved.get("start"))
            _share_statistics(model)
            if head_comes_first(plan):
                weights = sampling_weights(train_part, plan)
                parts = (train_part, validation_part)
                rows = train_head(model, task, plan, parts, size=size, weights=weights, cache=run.cache, progress=on_decode)
                write_csv(run.head_history, rows)
            if plan.minutes is not None:
                training_plan = training_plan.within(60 * plan.minutes, model, since=began)
                # From here on the run is one of so many steps, whoever goes on with it, and on whatever machine.
                asked = {"minutes": plan.minutes, "steps": plan.steps}
                write_json(run.settings, {**saved, "settings": dataclasses.asdict(training_plan.plan), "asked": asked})
            training_plan.compile(model)
    if checkpoint.epochs_done < training_plan.epochs:
        training, validation = training_plan.feeds(initial_epoch=checkpoint.epochs_done)
        # Validation sees the averaged weights; a checkpoint holds those that training goes on with, and the average beside.
        average = [keras.callbacks.SwapEMAWeights()] if plan.ema else []
        with StopOnInterrupt() as interrupt:
            model.fit(
                training,
                validation_data=validation,
                validation_freq=_validated_epochs(training_plan.epochs),
                initial_epoch=checkpoint.epochs_done,
                epochs=training_plan.epochs,
                callbacks=[interrupt, StopOnNaN(checkpoint.best_path), SeedEpochs(plan.seed), *average, checkpoint, *callbacks],
                shuffle=False,  # the data set has its own order, which a resumed run repeats
                verbose=0,
            )
    model = _best_model(task, plan, train_part, run, checkpoint)
    card = _card(training_plan, run, checkpoint)
    card["decisions"] = decide(model, task, plan, train_part, validation_part, common).to_dict()
    write_json(run.model_card, card)
    save_figure(training_curves(checkpoint.rows), run.path / "curves.png")
    # Last, for it says that the run is finished.
    write_atomically(run.model, model.save)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    shutil.rmtree(run.cache, ignore_errors=True)


def new_model(task: Task, plan: Settings, train_part: Samples, *, precision: str, start: str | Path | None) -> keras.Model:
    """Build the task's model, seeded, with the weights that it starts from.

    Args:
        task: The task.
        plan: The seed, and the arguments of the builder.
        train_part: The samples that train it.
        precision: The dtype policy.
        start: As for `dermaseg.train`.

    Returns:
        The model, not compiled.

    Raises:
        ValueError: If the builder does not take an argument of `plan.model`, or no weights fit.
    """
    keras.utils.set_random_seed(plan.seed)
    with dtype_policy(precision):
        model = task.build(train_part, plan.model)
        if head_comes_first(plan) and not has_base(model):
            raise ValueError(f"head_epochs: the network of {task.name} has no base to freeze; leave it at 0.")
        # A head's column for one class is no start for another's.
        weights = plan.model.get("weights")
        if isinstance(weights, str) and is_preset(weights) and names_others(weights, train_part.class_names):
            renew_head(model)
        if start is not None:
            skip = (LABEL_HEAD,) if names_others(str(start), train_part.class_names) else ()
            lend_weights(open_lender(str(start)), model, skip=skip)
    return model


@dataclass(frozen=True)
class _TrainingPlan:
    """Data, settings and batch sizes of one training."""

    task: Task
    plan: Settings
    train_part: Samples
    validation_part: Samples
    common: Mapping[str, Any]  # of both data sets
    shares: int  # in which devices take a batch

    @property
    def batch_size(self) -> int:
        return shared_batch(min(self.plan.batch_size, len(self.train_part)), self.shares)

    @property
    def epochs(self) -> int:
        return replace(self.plan, batch_size=self.batch_size).epochs(len(self.train_part))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train_part) // self.batch_size

    def compile(self, model: keras.Model) -> None:
        """Give the model its optimizer, with the rate planned to the end, its losses and metrics."""
        plan = self.plan
        average = {"use_ema": True, "ema_momentum": plan.ema} if plan.ema else {}
        steps = self.epochs * self.steps_per_epoch
        model.compile(
            optimizer=planned_adamw(
                plan.learning_rate, steps=steps, weight_decay=plan.weight_decay, global_clipnorm=1.0, **average
            ),
            # TensorFlow 2.21 cannot compile a step over mirrored variables: "auto" must not try it on several GPUs.
            jit_compile=False if plan.jit_compile == "auto" and replica_count() > 1 else plan.jit_compile,
            **_weighted(self.task.compile_options(self.train_part, plan), self.shares),
        )
        # TensorFlow traces a step twice where the first trace makes variables.
        model.optimizer.build(model.trainable_variables)

    def feeds(self, *, initial_epoch: int = 0) -> tuple[Any, Any]:
        """Return the data sets that train and validate."""
        training = make_dataset(
            self.train_part,
            batch_size=self.batch_size,
            augment=Augment.preset(self.plan.augment),
            augment_on=self.plan.augment_on,
            mix=Mix.preset(self.plan.mix),
            shuffle=True,
            weights=sampling_weights(self.train_part, self.plan),
            seed=self.plan.seed,
            drop_remainder=True,
            initial_epoch=initial_epoch,
            **self.common,
        )
        validation = make_dataset(
            self.validation_part,
            batch_size=shared_batch(self.plan.batch_size, self.shares),
            multiple=self.shares,
            one_hot=self.plan.mix != "none",
            **self.common,
        )
        return training, validation

    def within(self, seconds: float, model: keras.Model, *, since: float) -> _TrainingPlan:
        """Return the plan with as many steps as end in time: whole epochs, and one at least.

        The rehearsal compiles the model; its weights are restored. Compile it again for the plan that comes back.
        """
        before = [(variable, np.array(variable)) for variable in model.variables]
        self.compile(model)
        batches = math.ceil(len(self.validation_part) / shared_batch(self.plan.batch_size, self.shares))
        # So that a short time is not spent on finding out what would fit into it.
        pace = measure_pace(model, *self.feeds(), validation_batches=batches, most_s=seconds / 20)
        for variable, value in before:
            variable.assign(value)
        # One look more settles how the output is read.
        left = since + seconds - time.monotonic() - pace.look_s
        fit = max(1, pace.epochs_within(left, steps_per_epoch=self.steps_per_epoch, most=self.epochs))
        if fit < self.epochs:
            whole = pace.seconds(self.epochs, steps_per_epoch=self.steps_per_epoch)
            steps = self.epochs * self.steps_per_epoch
            warnings.warn(
                f"{seconds / 60:g} minutes are enough for {fit * self.steps_per_epoch:,} of {steps:,} steps on this machine, "
                f"so only those are planned. All of them would take about {math.ceil(whole / 60)} minutes: give steps={steps} "
                f"(--steps {steps}) to run them all.",
                stacklevel=5,
            )
        return replace(self, plan=replace(self.plan, steps=fit * self.steps_per_epoch, minutes=None))


def _share_statistics(model: keras.Model) -> None:
    """Let batch normalisation see the whole batch where tf.distribute splits it, as JAX's DataParallel does by itself.

    A few photographs on each of several GPUs give statistics of a few. The finished model is built anew, without this.
    """
    if replica_count() > 1:
        for layer in model._flatten_layers():  # those of an encoder within the model too
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.synchronized = True


def shared_batch(batch: int, shares: int) -> int:
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


def _validated_epochs(epochs: int) -> list[int]:
    """Choose about twenty epochs, counted from 1, the last among them: each look costs a pass over the validation part."""
    return sorted({round(epoch) for epoch in np.linspace(epochs, 1, min(epochs, LOOKS))})


def _best_model(task: Task, plan: Settings, train_part: Samples, run: RunFolder, checkpoint: Checkpoint) -> keras.Model:
    """Return the best epoch, averaged if asked for, as a float32 model: it computes the same on a machine without bfloat16."""
    if checkpoint.best_row is None:
        raise DermasegError(
            f"{run.path}: no epoch has a number as its {' and '.join(checkpoint.monitor)}, so no best model is known. Look at "
            "history.csv, and train anew in another folder."
        )
    best = load_model(checkpoint.best_path, compiled=bool(plan.ema))
    if plan.ema:
        best.optimizer.finalize_variable_values(best.trainable_variables)
    # All weights come from the checkpoint: files that they started from need not be there any more.
    options = {name: None if name in ("weights", "encoder_weights") else value for name, value in plan.model.items()}
    with dtype_policy("float32"):
        model = task.build(train_part, options)
    model.set_weights(best.get_weights())
    # Nor does their absence say any more what learns: parts that were frozen are so for whoever trains on.
    for layer, trained in zip(model._flatten_layers(), best._flatten_layers(), strict=True):
        layer.trainable = trained.trainable
    return model


def _card(done: _TrainingPlan, run: RunFolder, checkpoint: Checkpoint) -> dict[str, Any]:
    task, row = done.task, checkpoint.best_row
    assert row is not None  # or there would be no best model
    return {
        "task": task.name,
        "size": done.plan.size,
        "class_names": list(done.train_part.class_names) if task.target != "mask" else [],
        # What was asked for stands in the run's settings; of few photographs there may be fewer.
        "steps": done.epochs * done.steps_per_epoch,
        "batch_size": done.batch_size,
        "best_epoch": int(row["epoch"]),
        **{name: float(row[name]) for name in task.monitor},
    }
