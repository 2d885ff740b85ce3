"""The command `predict`."""

from __future__ import annotations

import argparse
import contextlib
import glob
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaseg._version import __version__
from dermaseg.console import USER_ERROR, complain, console, discard_output, load_backend_quietly, say, visible
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.errors import DataError, DermasegError
from dermaseg.prediction.photos import Photo

if TYPE_CHECKING:
    from dermaseg.prediction import Predictor

__all__ = ["predict"]

_LONGEST_NAME = 200  # bytes: file systems take 255, and `_overlay.png` and the name of an unfinished file come around it


def predict(options: argparse.Namespace) -> int:
    """Write masks, a table and a page; a photograph that cannot be read is named, and the others go on."""
    from dermaseg.data.layout import list_images
    from dermaseg.prediction import Prediction, Predictor
    from dermaseg.prediction.result import refuse_to_replace
    from dermaseg.prediction_page import save_predictions
    from dermaseg.progress import counting

    model, given_photos = _model_and_photos(_expanded(options.paths))
    if options.output.exists() and not options.output.is_dir():
        raise ValueError(f"{options.output} is a file, not a folder. Give another --output.")
    output = options.output.resolve()
    if any(given.is_dir() and given.resolve() == output for given in given_photos):
        raise ValueError(f"{options.output}: masks would lie among the photographs. Give another --output.")
    if options.dropout_samples or _needs_keras(model):
        load_backend_quietly()
    elif options.measure:
        threading.Thread(target=_load_what_measures).start()
    found = [path for given in given_photos for path in (list_images(given) if given.is_dir() else [given])]
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

        def named() -> Iterator[tuple[str, Prediction]]:
            for number, prediction in enumerate(predictor.predict(photos, on_error=name_failure)):
                if number == 0:  # before anything is written, and not where nothing will be
                    if prediction.probability is None:
                        del about["threshold of the outline"]  # this model draws none
                    else:
                        refuse_to_replace(options.output, names.values())
                    _tell_of_earlier(options)
                yield names[prediction.photo], prediction

        # Closed on Ctrl-C too, so that the table and the page are written before the command ends.
        about = _about(model, predictor, len(photos), options)
        saved = save_predictions(named(), options.output, measure=options.measure, page=options.page, about=about)
        with contextlib.closing(saved) as rows:
            for done, row in enumerate(rows, start=1):
                _print(json.dumps(row) if as_json else _line(row))
                moved(done + failed, len(photos))
    if done:
        shown = options.output / ("predictions.html" if options.page else "predictions.csv")
        left_out = f" {failed} of {len(photos)} photographs could not be read." if failed else ""
        say(f"Look at {shown}; all else lies beside it.{left_out} {NOT_A_DIAGNOSIS}")
    return USER_ERROR if failed else 0


def _about(model: Path | None, predictor: Predictor, photographs: int, options: argparse.Namespace) -> dict[str, Any]:
    """Say for the page what was done: it may be opened next year."""
    from dermaseg.pretrained import DEFAULT_PRESET

    repeated = options.tta if options.tta != "none" else f"{options.dropout_samples} predictions with dropout"
    return {
        "model": DEFAULT_PRESET if model is None else visible(str(model)),
        "photographs given": photographs,
        "date": time.strftime("%Y-%m-%d"),
        "working area": f"{predictor.size} x {predictor.size} px",
        "threshold of the outline": predictor.threshold,
        **({"mean over": repeated} if options.tta != "none" or options.dropout_samples else {}),
        "made with": f"dermaseg {__version__}",
    }


def _load_what_measures() -> None:
    """Import what each lesion is measured with: SciPy alone takes a quarter of a process that predicts one photograph.

    It gets on while onnxruntime prepares the network, which holds no lock of Python's. What cannot be imported says so where it
    is used.
    """
    with contextlib.suppress(ImportError):
        for name in ("scipy.ndimage", "scipy.spatial", "dermaseg.measurements"):
            importlib.import_module(name)


def _tell_of_earlier(options: argparse.Namespace) -> None:
    """Say what is being replaced, while it is still there."""
    table, page = (options.output / name for name in ("predictions.csv", "predictions.html"))
    if table.exists() or page.exists():
        replaced = "table and page are" if options.page else "the table is"
        removed = "; their page is removed, for it would not fit the new table" if page.exists() and not options.page else ""
        say(f"{options.output} holds earlier predictions: {replaced} replaced, and outlines of the same names{removed}.")


def _print(line: str) -> None:
    """Print a result; a reader who has had enough of them, as `head`, still gets all files."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        discard_output()


def _line(row: Mapping[str, Any]) -> str:
    """Sum up a row of the table for a person."""
    parts = []
    if "lesion_px" in row:
        parts.append(f"lesion {row['lesion_share']:.1%} of the picture" if row["lesion_px"] else "no lesion found")
    if "label" in row:
        parts.append(f"{row['label']} {row['classes'][row['label']]:.0%}")
    if len(row.get("possible", ())) > 1:
        parts.append(f"possible {', '.join(row['possible'])}")
    if row.get("above_threshold"):
        parts.append(f"above its threshold {', '.join(row['above_threshold'])}")
    if row["refer"]:
        parts.append("refer: let a person decide")
    return f"{visible(str(row['photo']))}: {'; '.join(parts)}"


def _expanded(paths: Sequence[Path]) -> list[Path]:
    """Replace `*.jpg` and the like by what fits, as shells do: those of Windows do not, and none does within quotes.

    Raises:
        ValueError: If nothing fits.
    """
    found: list[Path] = []
    for path in paths:
        if path.exists() or not glob.has_magic(str(path)):
            found.append(path)
        elif fitting := sorted(glob.glob(str(path))):
            found += map(Path, fitting)
        else:
            raise ValueError(f"{path}: there is no file or folder whose name fits that.")
    return found


def _model_and_photos(paths: Sequence[Path]) -> tuple[Path | None, Sequence[Path]]:
    """Tell whether the first path is a model; without one it is a photograph like the others."""
    from dermaseg.pretrained import is_preset, list_presets

    presets = ", ".join(preset.name for preset in list_presets())
    first, *others = paths
    for path in paths:
        if kind := _other_export(path):
            raise ValueError(
                f"{path} is {kind}, which predict does not run. It takes a run folder, a .keras or exported .onnx file, or the "
                "name of a preset: export the model to .onnx too."
            )
    for path in others:
        if _holds_model(path):
            raise ValueError(f"{path} is a model: name it before the photographs.")
    if _holds_model(first) or is_preset(first):
        if not others:
            raise ValueError(f"{first} is a model: name one or more photographs after it.")
        return first, others
    if not first.is_dir() and not _is_photograph(first):
        wrong = "neither a model nor a photograph" if first.exists() else "there is no model, preset or photograph of that name"
        raise ValueError(
            f"{first}: {wrong}. A model is a run folder, a .keras or exported .onnx file, or the name of a preset: "
            f"{presets or 'here are none'}."
        )
    if not presets:
        raise ValueError(
            f"{first} is no model, and this installation holds no preset. Give a run folder or a model file first."
        )
    return None, paths


def _holds_model(path: Path) -> bool:
    if path.is_dir():
        return any((path / name).is_file() for name in ("settings.json", "model.keras"))
    return path.suffix.lower() in (".keras", ".onnx")


def _other_export(path: Path) -> str:
    """Say what a model is that `dermaseg export` writes and `predict` does not read; nothing of anything else."""
    if path.suffix.lower() == ".tflite" and path.is_file():
        return "a TensorFlow Lite file"
    return "a SavedModel" if (path / "saved_model.pb").is_file() else ""


def _is_photograph(path: Path) -> bool:
    """Tell by the name, whether the file is there or not; where the name says nothing, by whether it can be read."""
    from dermaseg.data.images import read_image
    from dermaseg.data.layout import IMAGE_SUFFIXES

    if path.suffix.lower() in IMAGE_SUFFIXES:
        return True
    with contextlib.suppress(DataError):
        read_image(path)
        return True
    return False


def _needs_keras(model: Path | None) -> bool:
    """Tell whether predicting with this model takes more than onnxruntime."""
    from dermaseg.pretrained import DEFAULT_PRESET, find_preset, is_preset

    if model is None or is_preset(model):
        return not find_preset(str(model or DEFAULT_PRESET)).runs_without_keras
    return model.suffix.lower() != ".onnx"


def _distinct_names(photos: Sequence[Path]) -> list[str]:
    """Name outputs after the photographs; photographs of one name in two folders get numbers, so that none is lost.

    Names that would leave no room for what is added to them are cut.
    """
    names: dict[str, str] = {}
    for photo in photos:
        stem = _shortened(photo.stem)
        name, count = stem, 1
        while name.casefold() in names:  # which some file systems do not tell apart
            count += 1
            name = f"{stem}_{count}"
        names[name.casefold()] = name
    return list(names.values())


def _shortened(stem: str) -> str:
    """Cut a name between two letters."""
    name = os.fsencode(stem)
    return stem if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME].decode(errors="ignore")
