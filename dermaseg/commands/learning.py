"""Commands that make a run or score one: `train`, `evaluate`, `demo`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import warnings
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
DEMO_FEWEST = 24  # photographs: with fewer, some seeds would leave a part of the split empty


def train(options: argparse.Namespace) -> None:
    """Train a task, or go on with a run, and evaluate it."""
    if options.resume is None and (options.data is None or options.output is None):
        raise ValueError("train needs --data DIR and --output RUN, or --resume RUN.")
    from dermaseg.data import read_samples
    from dermaseg.data.layout import scan
    from dermaseg.pretrained import is_preset, model_file
    from dermaseg.run_data import check_output, load_samples
    from dermaseg.runs import RunFolder, check_saved_model
    from dermaseg.tasks import get_task

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
    # What is wrong with a path or a setting is said before the seconds that a backend takes to load.
    finished = False
    if options.resume is not None:
        finished = RunFolder.open(options.resume).model.is_file()
        if options.data is None:
            load_samples(RunFolder(options.resume))
        for folder in options.data or ():
            scan(folder)
    else:
        task = get_task(options.task or "segment")
        dataclasses.replace(task.settings, **settings)
        if options.start is not None and not is_preset(options.start):
            check_saved_model(model_file(options.start))
        with warnings.catch_warnings(action="ignore"):  # they come when the training reads them
            tables = [read_samples(folder) for folder in options.data]
        if len(tables) == 1:
            task.prepare(tables[0])
        check_output(options.output)
    load_backend_quietly()
    from dermaseg import training
    from dermaseg.evaluation import evaluate_run
    from dermaseg.progress import counting, training_progress

    with counting(console, "prepare") as decoded, training_progress(console) as shown:
        if options.resume is not None:
            data = None if options.data is None else _read(options.data)
            run = training.resume(options.resume, data=data, task=options.task, callbacks=[shown], on_decode=decoded)
            if finished:
                say(f"{run.path}: this training was finished already. It is scored again.")
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
    from dermaseg.run_data import load_samples
    from dermaseg.runs import RunFolder, check_saved_model

    if is_preset(options.run):
        raise ValueError(
            f"{options.run} is a preset, not a run folder: it has no test part of yours. Score it on your data in Python, with "
            f"dermaseg.evaluate(dermaseg.Predictor({str(options.run)!r}), dermaseg.data.read_samples('DIR'))."
        )
    run = RunFolder.open(options.run)
    if options.data is not None and options.part is not None:
        raise ValueError("--part is of the run's own split, and --data are scored whole: leave one of them out.")
    check_saved_model(run.model)
    if options.data is None:
        load_samples(run)
    else:
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
    from dermaseg.run_data import check_output

    data, folder, predictions = (options.output / name for name in ("data", "run", "predictions"))
    if options.images < DEMO_FEWEST:
        raise ValueError(f"--images must be {DEMO_FEWEST} at least, so that each part of the split has some lesions.")
    Settings(steps=options.steps, seed=options.seed)
    check_output(folder)  # whose photographs shall not change under it
    load_backend_quietly()
    from dermaseg import training
    from dermaseg.data import Split, make_synthetic
    from dermaseg.evaluation import evaluate_run
    from dermaseg.prediction import Predictor
    from dermaseg.progress import counting, training_progress

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
            max_epochs=options.steps,  # so that as many are run, however few the photographs
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
