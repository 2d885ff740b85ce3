"""The options of each command.

`dermaseg.cli` adds them once a command is named, and each imports by itself what its choices and defaults come from: that of
another command would take longer to load than this one may to start.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from dermaseg.console import examples

__all__ = ["SETTINGS", "add_options"]

# `model` and `jit_compile` have options of their own.
SETTINGS = {
    "size": "side in pixels of a square with the area that photographs are trained at; they keep their shape",
    "batch_size": "photographs a step",
    "steps": "steps of the whole training; the number of epochs follows",
    "max_epochs": "at most so many passes, however small the data set",
    "minutes": "minutes that the training may take; only as many steps are planned as fit (no limit if --steps is given "
    "without --minutes)",
    "learning_rate": "peak of the learning rate, which warms up and falls along a cosine",
    "head_epochs": "passes over stored features of a frozen base that train the head alone, first; not with weights=none",
    "weight_decay": "weight decay of AdamW, of kernels alone",
    "ema": "decay of a moving average of the weights, which is then validated and saved; 0 for none; 0.999 suits long runs",
    "augment": "how the training photographs are varied",
    "augment_on": "where they are varied and mixed; auto takes the accelerator where Keras runs on JAX with one GPU",
    "mix": "how training photographs are mixed with each other, and their masks and classes with them",
    "imbalance": "what is done for rare classes",
    "imbalance_strength": "for logits and sampling: 1 treats all classes as equally common, 0 as they come",
    "sensitivity": "share of each class's validation photographs that its threshold must reach, above 0 and at most 1",
    "precision": "of the training; auto takes mixed bfloat16 on accelerators and processors that have it, float32 elsewhere",
    "seed": "of the split, the first weights, the order and the augmentation",
}
_JSON_WORDS = {"none": "null", "true": "true", "false": "false"}


def add_options(command: str, parser: argparse.ArgumentParser) -> None:
    """Give the parser of a command its options and its examples."""
    _ADD[command](parser)


def _demo(demo: argparse.ArgumentParser) -> None:
    from dermaseg.commands.learning import DEMO_STEPS

    demo.epilog = examples(
        "dermaseg demo",
        "dermaseg demo --images 100 --steps 60 --output /tmp/demo",
    )
    demo.add_argument(
        "--output", type=Path, default=Path("dermaseg-demo"), help="folder for everything it makes (default: %(default)s)"
    )
    demo.add_argument("--images", type=int, default=400, help="synthetic photographs (default: %(default)s)")
    demo.add_argument("--steps", type=int, default=DEMO_STEPS, help="training steps (default: %(default)s)")
    demo.add_argument("--seed", type=int, default=0, help="of the data and the training (default: %(default)s)")


def _train(train: argparse.ArgumentParser) -> None:
    from dermaseg.data.augment import AUGMENTATIONS
    from dermaseg.data.mix import MIXES
    from dermaseg.data.on_device import DEVICES
    from dermaseg.precision import PRECISIONS
    from dermaseg.tasks import IMBALANCE, TASKS, Settings

    choices = {"augment": AUGMENTATIONS, "augment_on": DEVICES, "mix": MIXES, "imbalance": IMBALANCE, "precision": PRECISIONS}
    train.usage = "dermaseg train [TASK] --data DIR --output RUN [OPTION ...]\n       dermaseg train --resume RUN"
    train.epilog = examples(
        "dermaseg train segment --data ham10000 --output run",
        "dermaseg train classify --data clinic --output classes --start run --imbalance sampling",
        "dermaseg train hybrid --data masks_only --data diagnoses_only --output both",
        "dermaseg train --resume run",
    )
    train.add_argument(
        "task",
        nargs="?",
        choices=list(TASKS),
        help="what to learn, as `dermaseg tasks` (default: segment; with --resume, what the run learns)",
    )
    train.add_argument(
        "--data",
        type=Path,
        action="append",
        metavar="DIR",
        help="folder of photographs, masks and tables; of several, each named by a --data of its own, all are joined",
    )
    train.add_argument("--output", type=Path, metavar="RUN", help="run folder to make")
    train.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run instead")
    train.add_argument(
        "--split",
        choices=("random", "official"),
        help="random: 70 %% train, 15 %% validate, 15 %% test, in whole lesions; official: the test part that the data came "
        "with, as Test/ beside Train/ (default: random)",
    )
    train.add_argument(
        "--start",
        metavar="MODEL",
        help="run, model or preset to take starting weights from, layer by layer where shapes fit; the head only if the "
        "classes are the same",
    )
    train.add_argument(
        "--model",
        type=_builder_argument,
        action="append",
        metavar="NAME=VALUE",
        help="an argument of the task's builder, as dropout=0.3, weights=file.h5 or weights=none; may be repeated",
    )
    for field in dataclasses.fields(Settings):
        if field.name not in ("model", "jit_compile"):
            kind = float if field.default is None else type(field.default)
            train.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=kind,
                metavar=None if field.name in choices else kind.__name__.upper(),
                choices=choices.get(field.name),
                help=f"{SETTINGS[field.name]} ({_defaults(field.name)})",
            )
    train.add_argument(
        "--xla", action=argparse.BooleanOptionalAction, help="force XLA on or off (default: on accelerators and with JAX)"
    )


def _defaults(name: str) -> str:
    """Say the default of a setting, and which tasks have another."""
    from dermaseg.tasks import TASKS, Settings

    general = getattr(Settings(), name)
    other: dict[Any, list[str]] = {}
    for task in TASKS.values():
        value = getattr(task.settings, name)
        if value != general:
            other.setdefault(value, []).append(task.name)
    words = "no limit" if general is None else general
    return "; ".join([f"default: {words}", *(f"{', '.join(tasks)}: {value}" for value, tasks in other.items())])


def _evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.epilog = examples(
        "dermaseg evaluate run",
        "dermaseg evaluate run --data isic2018 --json > report.json",
    )
    evaluate.add_argument("run", type=Path, metavar="RUN", help="run folder, where the report is written too")
    evaluate.add_argument(
        "--data", type=Path, metavar="DIR", help="another folder, scored whole, instead of the run's own test part"
    )
    evaluate.add_argument(
        "--part", choices=("test", "validation", "train"), help="of the run's split, without --data (default: test)"
    )
    _add_tta(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print the report as JSON")


def _predict(predict: argparse.ArgumentParser) -> None:
    predict.usage = "dermaseg predict [MODEL] PHOTO [PHOTO ...] [OPTION ...]"
    predict.epilog = examples(
        "dermaseg predict photo.jpg --output masks",
        "dermaseg predict run photographs/ --tta flips",
        "dermaseg predict lesion.onnx photographs/ --json > predictions.jsonl",
    )
    predict.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PHOTO",
        help="photographs, or folders of them; before them may stand a MODEL: a run folder, a .keras or exported .onnx file, "
        "or the name of a preset (default: the default preset)",
    )
    predict.add_argument(
        "--output", type=Path, default=Path("predictions"), help="folder for masks, table and page (default: %(default)s)"
    )
    predict.add_argument("--size", type=int, help="side of the working area in pixels (default: that of the training)")
    predict.add_argument(
        "--threshold", type=float, default=0.5, help="probability above which a pixel is lesion (default: %(default)s)"
    )
    _add_tta(predict)
    predict.add_argument(
        "--dropout-samples",
        type=int,
        default=0,
        metavar="N",
        help="mean over N predictions with dropout left on, of a Keras model that has some (default: %(default)s, one without)",
    )
    predict.add_argument(
        "--mm-per-px", type=float, metavar="MM", help="millimetres a pixel of the photographs, for sizes in millimetres"
    )
    for name, what in (
        ("largest-component", "keep the largest region of each mask alone"),
        ("fill-holes", "fill holes in each mask"),
    ):
        predict.add_argument(
            f"--{name}", action=argparse.BooleanOptionalAction, help=f"{what} (default: where the validation part gained by it)"
        )
    predict.add_argument(
        "--measure", action=argparse.BooleanOptionalAction, default=True, help="measure each lesion (default: yes)"
    )
    predict.add_argument(
        "--page", action=argparse.BooleanOptionalAction, default=True, help="write predictions.html (default: yes)"
    )
    predict.add_argument(
        "--json", action="store_true", help="print a JSON line a photograph, as into a pipe, on a terminal too"
    )


def _audit(audit: argparse.ArgumentParser) -> None:
    audit.epilog = examples(
        "dermaseg audit ham10000",
        "dermaseg audit ham10000 --run run --json",
    )
    audit.epilog += "\n\nThe exit code is 1 if there are errors; for warnings it stays 0."
    audit.add_argument("data", type=Path, metavar="DIR", help="folder of photographs, with or without masks or classes")
    audit.add_argument("--run", type=Path, help="also check the split of this run for leaks")
    audit.add_argument("--json", action="store_true", help="print the findings as JSON")


def _tasks(tasks: argparse.ArgumentParser) -> None:
    tasks.epilog = examples(
        "dermaseg tasks",
        "dermaseg tasks --json",
    )
    tasks.add_argument("--json", action="store_true", help="print them with their settings as JSON")


def _presets(presets: argparse.ArgumentParser) -> None:
    from dermaseg.pretrained import DEFAULT_PRESET

    presets.epilog = examples(
        "dermaseg presets",
        f"dermaseg presets {DEFAULT_PRESET}",
        "dermaseg presets --json",
    )
    presets.add_argument("preset", nargs="?", metavar="NAME", help="show its card: data, figures, limits, licence")
    presets.add_argument("--json", action="store_true", help="print the cards as JSON")


def _export(export: argparse.ArgumentParser) -> None:
    export.epilog = examples(
        "dermaseg export run lesion.onnx",
        "dermaseg export run/model.keras lesion.tflite --size 96 128",
        "dermaseg export run lesion.onnx --precision int8 --calibrate ham10000",
    )
    export.add_argument("model", type=Path, metavar="MODEL", help="run folder, .keras file, or name of a preset")
    export.add_argument("output", type=Path, metavar="FILE", help="ends in .onnx or .tflite; a folder becomes a SavedModel")
    export.add_argument(
        "--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="fix them, in pixels; else they stay open"
    )
    export.add_argument(
        "--precision",
        choices=["float32", "float16", "int8"],
        default="float32",
        help="float16: half the file; int8: a quarter, it needs --calibrate. On a processor both are quicker as .tflite alone",
    )
    export.add_argument(
        "--calibrate",
        type=Path,
        metavar="DIR",
        help="photographs like those to come, best of the training data: half of them set the ranges of int8, half check the "
        "file, by the masks' Jaccard index where there are true masks",
    )
    export.add_argument(
        "--calibrate-count", type=int, default=200, metavar="N", help="take so many of them, evenly (default: %(default)s)"
    )
    export.add_argument(
        "--tolerance", type=float, metavar="T", help="largest difference of a probability to accept (default: by --precision)"
    )
    export.add_argument(
        "--jaccard-tolerance",
        type=float,
        default=0.005,
        metavar="J",
        help="how much of the masks' Jaccard index fewer bits may cost (default: %(default)s)",
    )


def _add_tta(command: argparse.ArgumentParser) -> None:
    from dermaseg.prediction.predictor import TTA

    command.add_argument(
        "--tta", choices=TTA, default="none", help="mean over mirrored and turned photographs (default: %(default)s)"
    )


def _builder_argument(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; the value is none, true or false as one writes them, JSON where it can be, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, as dropout=0.3, got {text!r}")
    try:
        return name, json.loads(_JSON_WORDS.get(value.casefold(), value))
    except ValueError:
        return name, value


_ADD = {
    "demo": _demo,
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "audit": _audit,
    "tasks": _tasks,
    "presets": _presets,
    "export": _export,
}
