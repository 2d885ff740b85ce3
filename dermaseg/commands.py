"""What each command of the shell does with its parsed options: `train`, `evaluate`, `predict`, `audit`, `demo` and the rest.

Heavy libraries are imported inside the commands, so that what needs none of them answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaseg.console import USER_ERROR, complain, console, load_backend_quietly, say
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.errors import DataError, DermasegError
from dermaseg.prediction.photos import Photo
from dermaseg.tasks import TASKS, Settings

if TYPE_CHECKING:
    from dermaseg.data import Samples
    from dermaseg.pretrained import Preset

__all__ = ["DEMO_STEPS", "audit", "demo", "evaluate", "export", "predict", "presets", "tasks", "train"]

# Steps and size at which two cores take about two minutes, and outlines are already close.
DEMO_STEPS = 250
DEMO_SIZE = 96
DEMO_PHOTO = (225, 300)

CARD_FACTS = {
    "task": "task",
    "size": "size, px",
    "class_names": "classes",
    "data": "data",
    "intended_use": "intended use",
    "limits": "limits",
    "license": "licence",
}


def train(options: argparse.Namespace) -> None:
    """Train a task, or go on with a run, and evaluate it."""
    if options.resume is None and (options.data is None or options.output is None):
        raise ValueError("train needs --data DIR and --output RUN, or --resume RUN.")
    from dermaseg.data.layout import scan
    from dermaseg.runs import RunFolder

    names = [field.name for field in dataclasses.fields(Settings) if field.name != "model"]
    settings = {name: value for name in names if (value := getattr(options, name, None)) is not None}
    if options.xla is not None:
        settings["jit_compile"] = options.xla
    if options.model is not None:
        settings["model"] = dict(options.model)
    # Of the run's beginning, like the settings.
    beginning = {name: value for name in ("split", "start") if (value := getattr(options, name)) is not None}
    if options.resume is not None and (settings or beginning):
        given = sorted({**settings, **beginning})[0]
        raise ValueError(
            f"--resume goes on as the run began: leave --{given.replace('_', '-')} out, or train anew with --output."
        )
    # What is wrong with a path is said before the seconds that a backend takes to load.
    if options.resume is not None:
        RunFolder.open(options.resume)
    for folder in options.data or ():
        scan(folder)
    load_backend_quietly()
    from dermaseg import training
    from dermaseg.evaluation import evaluate_run
    from dermaseg.progress import counting, training_progress

    with counting(console, "prepare") as decoded, training_progress(console) as shown:
        if options.resume is not None:
            options.output = options.resume
            data = None if options.data is None else _read(options.data)
            run = training.resume(options.resume, data=data, callbacks=[shown], on_decode=decoded)
        else:
            run = training.train(
                options.task,
                _read(options.data),
                options.output,
                callbacks=[shown],
                on_decode=decoded,
                **beginning,
                **settings,
            )
    with counting(console, "evaluate") as scored:
        report = evaluate_run(run, on_image=scored)
    _print_report(report)
    say(f"Look at {run.path / 'report.html'}.")


def _read(folders: Sequence[Path]) -> Path | Samples:
    """Join the tables of several folders; a class keeps its name, and a photograph that two of them have is an error."""
    from dermaseg.data import Samples, read_samples

    if len(folders) == 1:
        return folders[0]
    tables = [read_samples(folder) for folder in folders]
    names = tuple(dict.fromkeys(name for table in tables for name in table.class_names))
    return Samples.concatenate(table.with_class_names(names) for table in tables)


def evaluate(options: argparse.Namespace) -> None:
    """Score a run."""
    from dermaseg.data.layout import scan
    from dermaseg.pretrained import is_preset
    from dermaseg.runs import RunFolder

    if is_preset(options.run):
        raise ValueError(
            f"{options.run} is a preset, not a run folder: it has no test part of yours. Score it on your data in Python, with "
            f"dermaseg.evaluate(dermaseg.Predictor({str(options.run)!r}), dermaseg.data.read_samples('DIR'))."
        )
    RunFolder.open(options.run)
    if options.data is not None:
        scan(options.data)
    load_backend_quietly()
    from dermaseg.evaluation import evaluate_run, report_name
    from dermaseg.progress import counting

    with counting(console, "evaluate") as scored:
        report = evaluate_run(options.run, data=options.data, part=options.part, tta=options.tta, on_image=scored)
    if options.json:
        print(json.dumps(report.to_dict(), indent=2))
    else:
        _print_report(report)
    written = report_name(options.data, part=options.part, tta=options.tta)
    say(f"Look at {options.run / written}.html.")


def predict(options: argparse.Namespace) -> int:
    """Write masks, a table and a page; a photograph that cannot be read is named, and the others go on."""
    from dermaseg.data.layout import find_images
    from dermaseg.prediction import Predictor
    from dermaseg.prediction_page import save_predictions
    from dermaseg.progress import counting

    model, given_photos = _model_and_photos(options.paths)
    output = options.output.resolve()
    if any(given.is_dir() and given.resolve() == output for given in given_photos):
        raise ValueError(f"{options.output}: masks would lie among the photographs. Give another --output.")
    if (options.output / "predictions.csv").exists():
        say(f"{options.output} holds earlier predictions: table and page are replaced, and outlines of the same names.")
    if options.dropout_samples or _needs_keras(model):
        load_backend_quietly()
    found = [path for given in given_photos for path in (find_images(given).values() if given.is_dir() else [given])]
    photos = list(dict.fromkeys(found))
    names: Mapping[Path | None, str] = dict(zip(photos, _distinct_names(photos), strict=True))
    predictor = Predictor(
        model,
        size=options.size,
        threshold=options.threshold,
        tta=options.tta,
        dropout_samples=options.dropout_samples,
        mm_per_px=options.mm_per_px,
        largest_component=options.largest_component,
        fill_holes=options.fill_holes,
    )
    as_json = options.json or not sys.stdout.isatty()
    done = failed = 0
    with counting(console, "predict") as moved:

        def name_failure(photo: Photo, error: DermasegError) -> None:
            nonlocal failed
            failed += 1
            complain(error)
            moved(done + failed, len(photos))

        named = ((names[prediction.photo], prediction) for prediction in predictor.predict(photos, on_error=name_failure))
        # Closed on Ctrl-C too, so that the table and the page are written before the command ends.
        with contextlib.closing(save_predictions(named, options.output, measure=options.measure, page=options.page)) as rows:
            for done, row in enumerate(rows, start=1):
                print(json.dumps(row) if as_json else _line(row), flush=True)
                moved(done + failed, len(photos))
    if done:
        shown = options.output / ("predictions.html" if options.page else "predictions.csv")
        left_out = f" {failed} of {len(photos)} photographs could not be read." if failed else ""
        say(f"Look at {shown}; all else lies beside it.{left_out} {NOT_A_DIAGNOSIS}")
    return USER_ERROR if failed else 0


def _line(row: Mapping[str, Any]) -> str:
    """Sum up a row of the table for a person."""
    parts = []
    if "lesion_px" in row:
        parts.append(f"lesion {row['lesion_share']:.1%} of the picture" if row["lesion_px"] else "no lesion found")
    if "label" in row:
        parts.append(f"{row['label']} {row['classes'][row['label']]:.0%}")
    if len(row.get("possible", ())) > 1:
        parts.append(f"possible {', '.join(row['possible'])}")
    if row["refer"]:
        parts.append("refer: let a person decide")
    return f"{row['photo']}: {'; '.join(parts)}"


def _model_and_photos(paths: Sequence[Path]) -> tuple[Path | None, Sequence[Path]]:
    """Tell whether the first path is a model; without one it is a photograph like the others."""
    from dermaseg.pretrained import is_preset, list_presets

    first, *others = paths
    for path in others:
        if _holds_model(path):
            raise ValueError(f"{path} is a model: name it before the photographs.")
    if _holds_model(first) or is_preset(first):
        if not others:
            raise ValueError(f"{first} is a model: name one or more photographs after it.")
        return first, others
    if not first.exists() and not first.suffix:
        raise ValueError(
            f"{first}: there is no model, preset or photograph of that name. The presets are "
            f"{', '.join(preset.name for preset in list_presets())}; a run is named by its folder."
        )
    if not list_presets():
        raise ValueError(
            f"{first} is no model, and this installation holds no preset. Give a run folder or a model file first."
        )
    return None, paths


def _holds_model(path: Path) -> bool:
    return path.suffix in (".keras", ".onnx") or (path.is_dir() and (path / "settings.json").is_file())


def _needs_keras(model: Path | None) -> bool:
    """Tell whether predicting with this model takes more than onnxruntime."""
    from dermaseg.pretrained import DEFAULT_PRESET, find_preset, is_preset

    if model is None or is_preset(model):
        return not find_preset(str(model or DEFAULT_PRESET)).runs_without_keras
    return model.suffix != ".onnx"


def _distinct_names(photos: Sequence[Path]) -> list[str]:
    """Name outputs after the photographs; photographs of one name in two folders get numbers, so that none is lost."""
    names: dict[str, None] = {}
    for photo in photos:
        name, count = photo.stem, 1
        while name in names:
            count += 1
            name = f"{photo.stem}_{count}"
        names[name] = None
    return list(names)


def audit(options: argparse.Namespace) -> None:
    """Say what is wrong with a data set."""
    from dermaseg.data import Split, audit_samples, read_samples
    from dermaseg.progress import counting
    from dermaseg.runs import RunFolder

    samples = read_samples(options.data)
    split = Split.load(RunFolder.open(options.run).split) if options.run else None
    with counting(console, "look at") as looked:
        found = audit_samples(samples, split=split, progress=looked)
    print(json.dumps(found.to_dict(), indent=2) if options.json else found)


def tasks(options: argparse.Namespace) -> None:
    """List the tasks."""
    if options.json:
        listed = [
            {"name": task.name, "summary": task.summary, "target": task.target, "settings": dataclasses.asdict(task.settings)}
            for task in TASKS.values()
        ]
        print(json.dumps(listed, indent=2))
    else:
        for task in TASKS.values():
            print(f"{task.name:16} {task.summary}")


def presets(options: argparse.Namespace) -> None:
    """List the trained networks, or show the card of one."""
    from dermaseg.pretrained import find_preset, list_presets

    if options.preset is not None:
        preset = find_preset(options.preset)
        shown = {"name": preset.name, **preset.card}
        print(json.dumps(shown, indent=2) if options.json else "\n".join(_card_lines(preset)))
    elif options.json:
        print(json.dumps([{"name": preset.name, **preset.card} for preset in list_presets()], indent=2))
    else:
        width = max((len(preset.name) for preset in list_presets()), default=0)
        for preset in list_presets():
            print(f"{preset.name:{width}}  {preset.summary}")
        print(f"\n{NOT_A_DIAGNOSIS}\nThe card of one, with its figures and limits: dermaseg presets NAME")


def _card_lines(preset: Preset) -> Iterator[str]:
    yield f"{preset.name}: {preset.card['summary']}"
    yield ""
    for name, title in CARD_FACTS.items():
        value = preset.card.get(name)
        if value:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            yield textwrap.fill(text, 100, initial_indent=f"  {title:14}", subsequent_indent=" " * 16)
    for data, figures in preset.card.get("figures", {}).items():
        yield f"\n{data}, {figures['images']} photographs, 95 % intervals:"
        for name, figure in figures.items():
            if isinstance(figure, Mapping) and {"value", "low", "high"} <= figure.keys():
                yield f"  {name:24} {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"
    yield f"\n{NOT_A_DIAGNOSIS}"


def export(options: argparse.Namespace) -> None:
    """Write a model for use without Keras."""
    if options.precision == "int8" and options.calibrate is None:
        raise ValueError("--precision int8 needs --calibrate DIR: photographs like those to come.")
    load_backend_quietly()
    from dermaseg.export import calibration_photographs, export_model, training_size

    size = None if options.size is None else tuple(options.size)
    images, masks = None, None
    if options.calibrate is not None:
        at = size or training_size(options.model)
        images, masks = calibration_photographs(options.calibrate, size=at, count=options.calibrate_count)
    print(
        export_model(
            options.model,
            options.output,
            size=size,
            precision=options.precision,
            check_images=images,
            check_masks=masks,
            tolerance=options.tolerance,
            jaccard_tolerance=options.jaccard_tolerance,
        )
    )


def demo(options: argparse.Namespace) -> None:
    """Make synthetic photographs, train, evaluate and predict."""
    load_backend_quietly()
    from dermaseg import training
    from dermaseg.data import Split, make_synthetic
    from dermaseg.evaluation import evaluate_run
    from dermaseg.prediction import Predictor
    from dermaseg.progress import counting, training_progress

    data, folder, predictions = (options.output / name for name in ("data", "run", "predictions"))
    if (folder / "settings.json").exists():  # its photographs shall not change under a run
        raise DataError(f"{folder}: holds a run already. Give another --output.")
    say(f"Making {options.images} synthetic photographs in {data}")
    samples = make_synthetic(data, count=options.images, size=DEMO_PHOTO, seed=options.seed)
    with counting(console, "prepare") as decoded, training_progress(console) as shown:
        run = training.train(
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
        prediction.save(predictions, sample.id)
    _print_report(report)
    say(f"Look at {folder / 'report.html'}, {folder / 'MODEL_CARD.md'} and {predictions}.")


def _print_report(report: Any) -> None:
    print(report.title)
    for name, interval in report.figures.items():
        print(f"  {name:24} {interval}")
    say(NOT_A_DIAGNOSIS)
