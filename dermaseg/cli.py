"""The command line: a thin door to `train`, `evaluate`, `predict`, `audit` and `demo`.

Heavy libraries are imported inside the commands, so that `--help` answers at once. What a person should read goes to
standard error; standard output carries only results, so that it can be piped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from dermaseg._version import __version__
from dermaseg.data.augment import AUGMENTATIONS
from dermaseg.errors import DermasegError
from dermaseg.precision import PRECISIONS
from dermaseg.prediction import TTA
from dermaseg.tasks import IMBALANCE, TASKS, Settings

__all__ = ["run"]

USER_ERROR = 2
INTERRUPTED = 130
# Steps and size at which two cores take about two minutes, and outlines are already close.
DEMO_STEPS = 250
DEMO_SIZE = 96
DEMO_PHOTO = (225, 300)

CHOICES = {"augment": AUGMENTATIONS, "imbalance": IMBALANCE, "precision": PRECISIONS}

console = Console(stderr=True)


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code: 0, 2 for a mistake that the user can mend, 130 for Ctrl-C."""
    options = _parser().parse_args(arguments)
    try:
        if options.needs_backend:
            _load_backend_quietly()
        options.command(options)
    except (DermasegError, ValueError, OSError) as error:
        console.print(f"[bold red]dermaseg:[/] {escape(' '.join(str(error).split()))}", highlight=False, soft_wrap=True)
        return USER_ERROR
    except KeyboardInterrupt:
        hint = f" Go on with: dermaseg train --resume {options.output}" if options.name == "train" else ""
        console.print(f"[bold]Interrupted.[/]{escape(hint)}", highlight=False, soft_wrap=True)
        return INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dermaseg",
        description="Segment and classify skin lesions in dermoscopic photographs. Research software, not a medical device.",
        epilog="Try: dermaseg demo",
    )
    parser.add_argument("--version", action="version", version=f"dermaseg {__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def add(name: str, command: Any, summary: str, example: str, *, needs_backend: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example: {example}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        sub.set_defaults(command=command, needs_backend=needs_backend)
        return sub

    demo = add("demo", _demo, "Make a synthetic data set, train, evaluate and predict: no download.", "dermaseg demo")
    demo.add_argument("--output", type=Path, default=Path("dermaseg-demo"), help="folder for everything it makes")
    demo.add_argument("--images", type=int, default=400, help="synthetic photographs")
    demo.add_argument("--steps", type=int, default=DEMO_STEPS, help="training steps")
    demo.add_argument("--seed", type=int, default=0, help="of the data and the training")

    train = add(
        "train",
        _train,
        "Train a task on a folder of photographs, then evaluate it on the held-out test part.",
        "dermaseg train segment --data ham10000 --output run",
    )
    train.add_argument("task", nargs="?", choices=list(TASKS), default="segment", help="what to learn")
    train.add_argument("--data", type=Path, help="folder of photographs, masks and tables")
    train.add_argument("--output", type=Path, help="run folder to make")
    train.add_argument("--resume", type=Path, metavar="RUN", help="go on with an interrupted run instead")
    train.add_argument("--start", metavar="MODEL", help="run, model or preset whose weights to start from, where layers fit")
    train.add_argument(
        "--model",
        type=_builder_argument,
        action="append",
        metavar="NAME=VALUE",
        help="an argument of the task's builder, as dropout=0.3 or weights=file.h5; may be repeated",
    )
    for field in dataclasses.fields(Settings):
        if field.name not in ("model", "jit_compile"):
            kind = type(field.default)
            train.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=kind,
                default=None,
                choices=CHOICES.get(field.name),
                help=f"{kind.__name__}, by default the task's",
            )
    train.add_argument("--xla", action=argparse.BooleanOptionalAction, default=None, help="force XLA on or off")

    evaluate = add(
        "evaluate",
        _evaluate,
        "Score a run on its test part or on another folder.",
        "dermaseg evaluate run --data isic2018",
    )
    evaluate.add_argument("run", type=Path, metavar="RUN", help="run folder")
    evaluate.add_argument("--data", type=Path, help="another folder, scored whole, instead of the run's own test part")
    evaluate.add_argument("--part", choices=("test", "validation", "train"), default="test", help="of the run's split")
    evaluate.add_argument("--tta", choices=TTA, default="none", help="mean over mirrored and turned photographs")
    evaluate.add_argument("--json", action="store_true", help="print the report as JSON")

    predict = add(
        "predict",
        _predict,
        "Outline and name the lesion in photographs of any size.",
        "dermaseg predict run photo.jpg --output masks",
        needs_backend=False,
    )
    predict.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="[MODEL] PHOTO",
        help="a model (run folder, .keras or exported .onnx file, or the name of a preset; else the default preset), then "
        "photographs, or folders of them",
    )
    predict.add_argument("--output", type=Path, default=Path("predictions"), help="folder for masks and overlays")
    predict.add_argument("--size", type=int, help="side of the working area in pixels, where the model does not know it")
    predict.add_argument("--threshold", type=float, help="probability above which a pixel is lesion")
    predict.add_argument("--tta", choices=TTA, default="none", help="mean over mirrored and turned photographs")
    predict.add_argument("--largest-component", action="store_true", help="keep the largest region of each mask alone")
    predict.add_argument("--measure", action=argparse.BooleanOptionalAction, default=True, help="measure each lesion")
    predict.add_argument("--page", action=argparse.BooleanOptionalAction, default=True, help="write predictions.html")
    predict.add_argument("--fill-holes", action="store_true", help="fill holes in each mask")

    audit = add("audit", _audit, "Report what is wrong with a data set.", "dermaseg audit ham10000", needs_backend=False)
    audit.add_argument("data", type=Path, metavar="DIR", help="folder of photographs")
    audit.add_argument("--run", type=Path, help="also check the split of this run for leaks")
    audit.add_argument("--json", action="store_true", help="print the findings as JSON")

    add("tasks", _tasks, "List the tasks.", "dermaseg tasks", needs_backend=False)
    add("presets", _presets, "List the trained networks in this installation.", "dermaseg presets", needs_backend=False)

    export = add(
        "export",
        _export,
        "Write a model for use without Keras, checked against it first.",
        "dermaseg export run lesion.onnx",
    )
    export.add_argument("model", type=Path, metavar="MODEL", help="run folder or .keras file")
    export.add_argument("output", type=Path, metavar="FILE", help="ends in .onnx or .tflite; a folder becomes a SavedModel")
    return parser


def _builder_argument(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; the value is JSON where it can be, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected NAME=VALUE, as dropout=0.3, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _load_backend_quietly() -> None:
    """Import Keras with standard error put aside: TensorFlow greets there from C++, whatever its log level says."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow turns oneDNN on by itself on newer Intel processors alone; on an AMD Zen 3 a training step took less than half
    # the time with it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            import keras  # noqa: F401
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _train(options: argparse.Namespace) -> None:
    if options.resume is None and (options.data is None or options.output is None):
        raise ValueError("train needs --data DIR and --output RUN, or --resume RUN.")
    from dermaseg.evaluation import evaluate_run
    from dermaseg.progress import counting, training_progress
    from dermaseg.training import resume, train

    names = [field.name for field in dataclasses.fields(Settings) if field.name != "model"]
    settings = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    if options.xla is not None:
        settings["jit_compile"] = options.xla
    if options.model is not None:
        settings["model"] = dict(options.model)
    with counting(console, "decode") as decoded, training_progress(console) as shown:
        if options.resume is not None:
            options.output = options.resume
            run = resume(options.resume, data=options.data, callbacks=[shown], on_decode=decoded)
        else:
            run = train(
                options.task,
                options.data,
                options.output,
                start=options.start,
                callbacks=[shown],
                on_decode=decoded,
                **settings,
            )
    with counting(console, "evaluate") as scored:
        report = evaluate_run(run, on_image=scored)
    _print_report(report)
    console.print(f"Run folder: {escape(str(run.path))}", highlight=False)


def _evaluate(options: argparse.Namespace) -> None:
    from dermaseg.evaluation import evaluate_run
    from dermaseg.progress import counting

    with counting(console, "evaluate") as scored:
        report = evaluate_run(options.run, data=options.data, part=options.part, tta=options.tta, on_image=scored)
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print_report(report)


def _predict(options: argparse.Namespace) -> None:
    from dermaseg.data.layout import find_images
    from dermaseg.prediction import Predictor
    from dermaseg.prediction_page import save_predictions
    from dermaseg.progress import counting

    model, given_photos = _model_and_photos(options.paths)
    if _needs_keras(model):
        _load_backend_quietly()
    photos = [path for given in given_photos for path in (find_images(given).values() if given.is_dir() else [given])]
    names = _distinct_names(photos)
    predictor = Predictor(
        model,
        size=options.size,
        threshold=options.threshold,
        tta=options.tta,
        largest_component=options.largest_component,
        fill_holes=options.fill_holes,
    )
    with counting(console, "predict") as moved:
        named = zip(names, predictor.predict(photos), strict=True)
        for done, row in enumerate(
            save_predictions(named, options.output, measure=options.measure, page=options.page), start=1
        ):
            print(json.dumps(row), flush=True)
            moved(done, len(photos))
    console.print(f"Look at {escape(str(options.output))}: masks, overlays and predictions.csv.", highlight=False)


def _model_and_photos(paths: Sequence[Path]) -> tuple[Path | None, Sequence[Path]]:
    """Tell whether the first path is a model; without one it is a photograph like the others."""
    from dermaseg.pretrained import is_preset, list_presets

    first = paths[0]
    names_model = first.suffix in (".keras", ".onnx") or is_preset(first)
    if names_model or (first.is_dir() and (first / "settings.json").is_file()):
        if len(paths) == 1:
            raise ValueError(f"{first} is a model: name one or more photographs after it.")
        return first, paths[1:]
    if not list_presets():
        raise ValueError(
            f"{first} is no model, and this installation holds no preset. Give a run folder or a model file first."
        )
    return None, paths


def _needs_keras(model: Path | None) -> bool:
    """Tell whether predicting with this model takes more than onnxruntime."""
    from dermaseg.pretrained import DEFAULT_PRESET, find_preset, is_preset

    if model is None or is_preset(model):
        return not find_preset(str(model or DEFAULT_PRESET)).runs_without_keras
    return model.suffix != ".onnx"


def _distinct_names(photos: Sequence[Path]) -> list[str]:
    """Name outputs after the photographs; photographs of one name in two folders get numbers, so that none is lost."""
    seen: dict[str, int] = {}
    names = []
    for photo in photos:
        count = seen[photo.stem] = seen.get(photo.stem, 0) + 1
        names.append(photo.stem if count == 1 else f"{photo.stem}_{count}")
    return names


def _audit(options: argparse.Namespace) -> None:
    from dermaseg.data import Split, audit_samples, read_samples
    from dermaseg.progress import counting
    from dermaseg.runs import RunFolder

    samples = read_samples(options.data)
    split = Split.load(RunFolder.open(options.run).split) if options.run else None
    with counting(console, "look at") as looked:
        audit = audit_samples(samples, split=split, progress=looked)
    print(json.dumps(audit.to_dict(), indent=2) if options.json else audit)


def _tasks(options: argparse.Namespace) -> None:
    for task in TASKS.values():
        print(f"{task.name:16} {task.summary}")


def _presets(options: argparse.Namespace) -> None:
    from dermaseg.pretrained import list_presets

    for preset in list_presets():
        print(f"{preset.name:24} {preset.summary}")


def _export(options: argparse.Namespace) -> None:
    from dermaseg.export import export_model

    print(export_model(options.model, options.output))


def _demo(options: argparse.Namespace) -> None:
    from dermaseg.data import Split, make_synthetic
    from dermaseg.evaluation import evaluate_run
    from dermaseg.prediction import Predictor
    from dermaseg.progress import counting, training_progress
    from dermaseg.training import train

    data, folder = options.output / "data", options.output / "run"
    console.print(f"Making {options.images} synthetic photographs in {escape(str(data))}", highlight=False)
    samples = make_synthetic(data, count=options.images, size=DEMO_PHOTO, seed=options.seed)
    with counting(console, "decode") as decoded, training_progress(console) as shown:
        run = train(
            "segment",
            samples,
            folder,
            seed=options.seed,
            size=DEMO_SIZE,
            steps=options.steps,
            callbacks=[shown],
            on_decode=decoded,
        )
    with counting(console, "evaluate") as scored:
        report = evaluate_run(run, data=None, on_image=scored)
    test = Split.load(run.split).apply(samples)["test"]
    for sample, prediction in zip(test[:8], Predictor(run.path).predict(s.image for s in test[:8]), strict=True):
        prediction.save(options.output / "predictions", sample.id)
    _print_report(report)
    console.print(
        f"Look at {escape(str(folder / 'report.png'))}, {escape(str(folder / 'curves.png'))}, "
        f"{escape(str(folder / 'report.md'))} and {escape(str(options.output / 'predictions'))}.",
        highlight=False,
        soft_wrap=True,
    )


def _print_report(report: Any) -> None:
    print(report.title)
    for name, interval in report.figures.items():
        print(f"  {name:24} {interval}")
