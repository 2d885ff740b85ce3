"""The command `export`."""

from __future__ import annotations

import argparse
import json
import zipfile
from pathlib import Path

from dermaseg.console import load_backend_quietly, say
from dermaseg.pretrained import is_preset, model_file
from dermaseg.runs import check_saved_model, read_json

__all__ = ["SUFFIXES", "export"]

SUFFIXES = (".onnx", ".tflite", "")
"""Of the formats; the module that knows more of them loads Keras."""


def export(options: argparse.Namespace) -> None:
    """Write a model for use without Keras."""
    if options.precision == "int8" and options.calibrate is None:
        raise ValueError("--precision int8 needs --calibrate DIR: photographs like those to come.")
    # What is wrong with a path is said before the seconds that a backend takes to load.
    if options.output.suffix not in SUFFIXES:
        raise ValueError(
            f"{options.output}: no format has the suffix {options.output.suffix!r}. End it in .onnx, .tflite, or nothing "
            "(a folder)."
        )
    if not is_preset(options.model):
        check_saved_model(model_file(options.model))
    load_backend_quietly()
    from dermaseg.export import calibration_photographs, export_model

    size = None if options.size is None else tuple(options.size)
    images, masks = None, None
    if options.calibrate is not None:
        images, masks = calibration_photographs(
            options.calibrate, size=size or _photograph_size(options.model), count=options.calibrate_count
        )
    path = export_model(
        options.model,
        options.output,
        size=size,
        precision=options.precision,
        check_images=images,
        check_masks=masks,
        tolerance=options.tolerance,
        jaccard_tolerance=options.jaccard_tolerance,
    )
    print(path)
    say(_summary(path))


def _summary(path: Path) -> str:
    """Say how large an export is and what its check found, which stands in its card."""
    if path.is_dir():
        card = read_json(path / "assets.extra" / "card.json")
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    else:
        size = path.stat().st_size
        if path.suffix == ".onnx":
            from dermaseg.runtime import OnnxModel

            card = OnnxModel(path).card
        else:
            with zipfile.ZipFile(path) as archive:
                card = json.loads(archive.read("card.json"))
    found = card["export"]
    overlap = f", masks overlap by {found['jaccard_agreement']:.4f} (Jaccard)" if "jaccard_agreement" in found else ""
    written = f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.1f} kB"
    return (
        f"{written}, checked on {found['checked_photographs']} photographs: a probability differs from the Keras "
        f"model's by {found['largest_difference']:.2g} at most{overlap}."
    )


def _photograph_size(model: Path) -> int | tuple[int, int]:
    """Return the height and width that a model is built for, or, where it takes any, the side that it was trained at."""
    from dermaseg.export import training_size
    from dermaseg.saving import load_model

    if not is_preset(model):  # which takes any
        inputs = getattr(load_model(model), "inputs", None) or []
        match [tuple(each.shape) for each in inputs]:
            case [(_, int(height), int(width), _)]:
                return height, width
    return training_size(model)
