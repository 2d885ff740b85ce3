"""The residual CNN of `classify-7` beside a ResNet-18 and the notebooks' stacked CNN, each trained for the same time.

    python -m benchmarks.classifiers --data ham10000 --output classifiers --minutes 40 --seeds 0 1
    python -m benchmarks.classifiers --data ham10000 --output slower --minutes 40 --learning-rate 5e-4
    python -m benchmarks.classifiers --output classifiers --table

All three are trained by `dermaseg.train` from random weights: the same split by lesion, photographs, order, augmentation, loss,
optimizer and precision; only the network differs. The learning rate is planned over the whole time: a short rehearsal measures
each network's steps, validations and checkpoints, and the time is what ResNet-18 takes for the whole epochs nearest to
`--minutes`; the others get the most whole epochs that fit into it. The machine should be idle otherwise. The validation part
chooses the epoch, and the test part is scored once, by what `predict` would say. Differences to ResNet-18 are paired by
photograph, averaged over the seeds, with 95 % bootstrap intervals over lesions. Finished runs are not repeated; an
interrupted one starts again, because its time is a result.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from benchmarks.classification_ideas import CAPTION, FIGURES, difference_cell, mean_figure, scores, train_and_tell
from benchmarks.peers.lesson import hold_to
from dermaseg.data import Split, canvas, group_samples, read_samples, split_samples
from dermaseg.data.augment import AUGMENTATIONS
from dermaseg.data.samples import Samples
from dermaseg.layers import BatchNormalization
from dermaseg.models.blocks import dense_head
from dermaseg.pace import Pace
from dermaseg.precision import choose_precision
from dermaseg.runs import read_json, write_json
from dermaseg.tasks import Settings, Task, get_task
from dermaseg.training import train

__all__ = ["CONTESTANTS", "build_resnet18", "main", "table"]

REFERENCE = "resnet18"
CONTESTANTS: Mapping[str, str] = {
    "cnn": "`build_cnn`, the residual CNN of `classify-7`",
    REFERENCE: "ResNet-18 of torchvision's shape",
    "plain": '`build_cnn(variant="plain")`, the notebooks\' stacked CNN',
}
"""What each contestant is, in words."""
_DROPOUT = 0.2  # of all three heads, as `classify-7` builds them
_REHEARSED_STEPS = 25
_REHEARSALS = 2


def build_resnet18(*, num_classes: int, dropout: float = 0.0) -> keras.Model:
    """Build a ResNet-18 of torchvision's shape from raw pixels to class probabilities.

    A 7x7 stem of stride 2, max pooling, four stages of two basic blocks with 64, 128, 256 and 512 channels, global average
    pooling and a dense layer: 11,180,103 parameters for seven classes. Initialised as torchvision does; `"same"` padding puts
    the odd pixel of a strided convolution elsewhere. Batch normalisation is dermaseg's, so that both run the same kernels.

    Args:
        num_classes: As for `build_cnn`.
        dropout: Rate before the dense layer; torchvision has none.

    References:
        He et al., 2016, "Deep residual learning for image recognition", table 1.
    """
    images = keras.Input((None, None, 3), name="images")
    x = layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(images)
    x = _convolution(x, 64, kernel_size=7, stride=2, name="stem")
    x = layers.Activation("relu", name="stem_act")(x)
    x = layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            x = _basic_block(x, width, stride=2 if stage and not block else 1, name=f"stage_{stage}_{block}")
    x = layers.GlobalAveragePooling2D(dtype="float32", name="pool")(x)
    outputs = dense_head(x, num_classes=num_classes, dropout=dropout, classifier_activation="auto", name="label")
    return keras.Model(images, outputs, name="resnet18")


def _basic_block(x: Any, width: int, *, stride: int, name: str) -> Any:
    shortcut = x
    if stride > 1 or x.shape[-1] != width:
        shortcut = _convolution(x, width, kernel_size=1, stride=stride, name=f"{name}_shortcut")
    x = layers.Activation("relu", name=f"{name}_act")(_convolution(x, width, stride=stride, name=f"{name}_1"))
    x = layers.Add(name=f"{name}_add")([shortcut, _convolution(x, width, name=f"{name}_2")])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _convolution(x: Any, width: int, *, kernel_size: int = 3, stride: int = 1, name: str) -> Any:
    he_by_outputs = keras.initializers.VarianceScaling(2.0, mode="fan_out", distribution="untruncated_normal")
    x = layers.Conv2D(
        width,
        kernel_size,
        strides=stride,
        padding="same",
        use_bias=False,
        kernel_initializer=he_by_outputs,
        name=f"{name}_conv",
    )(x)
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)


def _build_reference(samples: Samples, options: Mapping[str, Any]) -> keras.Model:
    return build_resnet18(**{"num_classes": samples.num_classes, "dropout": _DROPOUT, **options})


def entry(task: Task, name: str, shape: tuple[int, int]) -> tuple[Task, dict[str, Any]]:
    """Return the task with a contestant's network, and what its builder is told; it sees photographs of `shape`."""
    if name == REFERENCE:
        return dataclasses.replace(task, name=f"{task.name}-{name}", build=_build_reference), {}
    if name == "plain":
        return task, {"variant": "plain", "input_shape": (*shape, 3), "dropout": _DROPOUT}
    return task, {"dropout": _DROPOUT}


class Clock(keras.callbacks.Callback):
    """Time what a training does: its steps, validations and checkpoints."""

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        super().__init__()
        self.now = now
        self.batches: list[float] = []
        self.epochs: list[float] = []
        self.validations: list[float] = []
        self.saves: list[float] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Start."""
        self.began = self.now()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the steps of the last epoch alone: the first compiles."""
        self.batches = []
        self.last = self.now()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the end of a step."""
        self.batches.append(self.now())

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Note the begin of a validation."""
        self.validation_began = self.now()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Note its end."""
        self.validations.append(self.now() - self.validation_began)
        self.validated = self.now()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note the epoch; the checkpoint was written just before, for this callback comes last."""
        self.epochs.append(self.now() - self.last)
        if self.validations:
            self.saves.append(self.now() - self.validated)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Stop."""
        self.seconds = self.now() - self.began


def plan_epochs(paces: Mapping[str, Pace], seconds: float, *, steps_per_epoch: int) -> dict[str, int]:
    """Return each contestant's epochs: the reference's nearest to `seconds`, and the most of the others within its time."""
    own = functools.partial(paces[REFERENCE].seconds, steps_per_epoch=steps_per_epoch)
    reference = 1
    while abs(own(reference + 1) - seconds) < abs(own(reference) - seconds):
        reference += 1
    most = {name: math.ceil(own(reference) / (steps_per_epoch * pace.step_s)) for name, pace in paces.items()}
    within = functools.partial(Pace.epochs_within, seconds=own(reference), steps_per_epoch=steps_per_epoch)
    return {name: reference if name == REFERENCE else max(1, within(pace, most=most[name])) for name, pace in paces.items()}


def rehearse(task: Task, options: Mapping[str, Any], parts: Mapping[str, Samples], plan: Settings, folder: Path) -> Pace:
    """Train two short epochs on some of the photographs, twice, and take the faster of each figure."""
    count = min(len(parts["train"]), _REHEARSED_STEPS * plan.batch_size)
    labels = parts["train"].labels.tolist()
    one_each = [labels.index(label) for label in sorted(set(labels))]  # the loss weighs every class that there is
    chosen = list(dict.fromkeys([*one_each, *range(len(labels))]))[:count]
    some = {"train": parts["train"].select(chosen), "validation": parts["validation"][: 8 * plan.batch_size]}
    split = Split({name: part.ids for name, part in some.items()})
    steps = 2 * plan.steps_per_epoch(count)
    clocks = []
    for _ in range(_REHEARSALS):
        clock = Clock()
        shutil.rmtree(folder, ignore_errors=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # so short a training names no class right
            settings = {**dataclasses.asdict(plan), "steps": steps, "model": options, "max_epochs": 2}
            train(task, Samples.concatenate(some.values()), folder, split=split, callbacks=[clock], **settings)
        clocks.append(clock)
    shutil.rmtree(folder, ignore_errors=True)
    step_s = min((one.batches[-1] - one.batches[0]) / max(1, len(one.batches) - 1) for one in clocks)
    return Pace(
        step_s=step_s if len(clocks[0].batches) > 1 else min(one.epochs[-1] for one in clocks),
        look_s=min(one.validations[-1] for one in clocks) * len(parts["validation"]) / len(some["validation"]),
        save_s=min(one.saves[-1] for one in clocks),
        first_s=max(0.0, min(one.epochs[0] - one.epochs[-1] for one in clocks)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train what is not trained, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=40.0, help="of training, for each run (default: %(default)s)")
    parser.add_argument("--contestants", nargs="+", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    for name in ("size", "batch_size", "learning_rate", "augment"):
        default = getattr(get_task("classify-7").settings, name)
        option, choices = f"--{name.replace('_', '-')}", AUGMENTATIONS if name == "augment" else None
        parser.add_argument(option, type=type(default), default=default, choices=choices, help="default: %(default)s")
    train_and_tell(parser, arguments, _run, table, "classifiers.md")


def _run(options: argparse.Namespace) -> None:
    task = get_task("classify-7")
    samples = task.prepare(read_samples(options.data))
    split = split_samples(samples, seed=0)
    parts = split.apply(samples)
    chosen = {name: getattr(options, name) for name in ("size", "batch_size", "learning_rate", "augment")}
    precision = choose_precision()
    protocol = {**chosen, "precision": precision, "backend": keras.backend.backend(), "split": split.fingerprint}
    hold_to(options.output / "protocol.json", {"minutes": options.minutes, **protocol})
    plan = dataclasses.replace(task.settings, **chosen, precision=precision)
    names = list(dict.fromkeys([REFERENCE, *options.contestants]))  # without it there is no time to train for
    entries = {name: entry(task, name, canvas(parts["train"], plan.size)) for name in names}
    epochs = _planned(options, entries, parts, plan)
    steps_per_epoch = plan.steps_per_epoch(len(parts["train"]))
    for seed in options.seeds:
        # Another order for each seed: what is cut short or disturbed does not always fall on the same contestant.
        shift = seed % len(names)
        for name in [*names[shift:], *names[:shift]]:
            file = options.output / f"{name}-{seed}.json"
            if file.is_file():
                continue
            own, builder_options = entries[name]
            settings = {"steps": epochs[name] * steps_per_epoch, "max_epochs": epochs[name], "seed": seed}
            full = {**dataclasses.asdict(plan), **settings, "model": builder_options}
            print(f"{name}, seed {seed}: {epochs[name]} epochs", flush=True)
            clock, folder = Clock(), options.output / "runs" / f"{name}-{seed}"
            shutil.rmtree(folder, ignore_errors=True)
            run = train(own, samples, folder, split=split, callbacks=[clock], **full)
            model = keras.saving.load_model(run.model, compile=False)
            found = {
                "contestant": name,
                "seed": seed,
                "epochs": epochs[name],
                "seconds": clock.seconds,
                "parameters": sum(int(np.prod(weight.shape)) for weight in model.trainable_weights),
                "groups": group_samples(parts["test"]).tolist(),
            }
            write_json(file, {**found, **scores(run, parts["test"])})


def _planned(
    options: argparse.Namespace,
    entries: Mapping[str, tuple[Task, dict[str, Any]]],
    parts: Mapping[str, Samples],
    plan: Settings,
) -> dict[str, int]:
    """Return each contestant's epochs; what was measured once is kept, so that all seeds train alike."""
    file = options.output / "paces.json"
    known = read_json(file) if file.is_file() else {}
    for name, (task, builder_options) in entries.items():
        if name not in known:
            print(f"{name}: rehearsing", flush=True)
            pace = rehearse(task, builder_options, parts, plan, options.output / "rehearsal")
            known[name] = dataclasses.asdict(pace)
            write_json(file, known)
    paces = {name: Pace(**known[name]) for name in entries}
    return plan_epochs(paces, 60 * options.minutes, steps_per_epoch=plan.steps_per_epoch(len(parts["train"])))


def table(output: Path) -> str:
    """Return the table of all finished runs as Markdown."""
    found = {(run["contestant"], run["seed"]): run for run in map(read_json, sorted(output.glob("*-[0-9]*.json")))}
    lines = [
        "| network | parameters | seeds | epochs | minutes | "
        + " | ".join(f"{name} | difference to ResNet-18" for name in FIGURES)
        + " |",
        "| --- | --- | --- | --- | --- |" + " --- | --- |" * len(FIGURES),
    ]
    for name, words in CONTESTANTS.items():
        seeds = sorted(seed for own, seed in found if own == name and (REFERENCE, seed) in found)
        if not seeds:
            continue
        runs, beside = ([found[own, seed] for seed in seeds] for own in (name, REFERENCE))
        minutes = np.mean([run["seconds"] for run in runs]) / 60
        cells = [words, f"{runs[0]['parameters']:,}", str(len(seeds)), str(runs[0]["epochs"]), f"{minutes:.1f}"]
        for figure in FIGURES.values():
            cells.append(str(mean_figure(figure, runs)))
            cells.append("" if name == REFERENCE else difference_cell(figure, runs, beside))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", CAPTION, ""])


if __name__ == "__main__":
    main()
