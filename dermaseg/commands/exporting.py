"""The command `export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from dermaseg.console import load_backend_quietly

__all__ = ["export"]


def export(options: argparse.Namespace) -> None:
    """Write a model for use without Keras."""
    if options.precision == "int8" and options.calibrate is None:
        raise ValueError("--precision int8 needs --calibrate DIR: photographs like those to come.")
    load_backend_quietly()
    from dermaseg.export import calibration_photographs, export_model

    size = None if options.size is None else tuple(options.size)
    images, masks = None, None
    if options.calibrate is not None:
        images, masks = calibration_photographs(
            options.calibrate, size=size or _photograph_size(options.model), count=options.calibrate_count
        )
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


def _photograph_size(model: Path) -> int | tuple[int, int]:
    """Return the height and width that a model is built for, or, where it takes any, the side that it was trained at."""
    from dermaseg.export import training_size
    from dermaseg.pretrained import is_preset
    from dermaseg.saving import load_model

    if not is_preset(model):  # which takes any
        inputs = getattr(load_model(model), "inputs", None) or []
        match [tuple(each.shape) for each in inputs]:
            case [(_, int(height), int(width), _)]:
                return height, width
    return training_size(model)
