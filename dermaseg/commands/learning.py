"""Commands that make a run or score one: `train`, `evaluate`, `demo`."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaseg.console import console, load_backend_quietly, say
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.tasks import Settings

if TYPE_CHECKING:
    from dermaseg.data import Samples

__all__ = ["DEMO_STEPS", "demo", "evaluate", "train"]

# Steps and size at which two cores take about two minutes, and outlines are already close.
DEMO_STEPS = 250
DEMO_SIZE = 96
DEMO_PHOTO = (225, 300)


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
    if options.resume is not None and options.output is not None:
        raise ValueError("--resume goes on in the run's own folder: leave --output out, or --resume to train anew.")
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
            data = None if options.data is None else _read(options.data)
            run = training.resume(options.resume, data=data, task=options.task, callbacks=[shown], on_decode=decoded)
        else:
            run = training.train(
                options.task or "segment",
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
    run = RunFolder.open(options.run)
    if options.data is not None and options.part is not None:
        raise ValueError("--part is of the run's own split, and --data are scored whole: leave one of them out.")
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
    written = report_name(run, options.data, part=options.part or "test", tta=options.tta)
    say(f"Look at {options.run / written}.html.")


def demo(options: argparse.Namespace) -> None:
    """Make synthetic photographs, train, evaluate and predict."""
    load_backend_quietly()
    from dermaseg import training
    from dermaseg.data import Split, make_synthetic
    from dermaseg.evaluation import evaluate_run
    from dermaseg.prediction import Predictor
    from dermaseg.progress import counting, training_progress
    from dermaseg.runs import RunFolder

    data, folder, predictions = (options.output / name for name in ("data", "run", "predictions"))
    RunFolder(folder).check_unused()  # whose photographs shall not change under it
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
