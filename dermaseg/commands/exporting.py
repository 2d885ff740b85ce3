"""The command `export`."""

from __future__ import annotations

import argparse

from dermaseg.console import load_backend_quietly

__all__ = ["export"]


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
