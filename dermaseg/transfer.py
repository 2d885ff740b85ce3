"""Start a network from the weights of another one."""

from __future__ import annotations

import warnings
from pathlib import Path

import keras

from dermaseg.data import Split
from dermaseg.data.samples import Samples
from dermaseg.presets import load_preset
from dermaseg.pretrained import find_preset, is_preset
from dermaseg.saving import load_model

__all__ = ["lend_weights"]


def lend_weights(lender: keras.Model, borrower: keras.Model) -> int:
    """Copy the weights of every layer that both models have under one name and with the same shapes.

    Args:
        lender: Where weights come from.
        borrower: Where they go; its other layers keep their own.

    Returns:
        How many layers were copied.

    Raises:
        ValueError: If no layer fits.

    Examples:
        >>> from dermaseg.models import build_cnn, build_unet
        >>> lend_weights(build_unet(filters=(8, 16)), build_cnn(num_classes=2, filters=(8, 16))) > 0
        True
    """
    lent = {layer.name: layer.get_weights() for layer in lender.layers if layer.weights}
    copied = 0
    for layer in borrower.layers:
        weights = lent.get(layer.name, [])
        if weights and [array.shape for array in weights] == [tuple(own.shape) for own in layer.weights]:
            layer.set_weights(weights)
            copied += 1
    if not copied:
        raise ValueError(
            f"start: no layer of {lender.name!r} has the name and shape of one of {borrower.name!r}. "
            "Build both with the same filters, or leave start out."
        )
    return copied


def open_lender(start: str) -> keras.Model:
    """Open a preset by its name, a run folder or a saved model.

    Raises:
        DataError: If there is none.
    """
    if is_preset(start):
        return load_preset(start)
    path = Path(start)
    return load_model(path / "model.keras" if path.is_dir() else path)


def warn_of_lent_knowledge(start: str | Path, split: Split, samples: Samples) -> None:
    """Warn where the network that lends its weights was trained on what this run would judge by."""
    folder = Path(start)
    if is_preset(start):
        if any(sample.id.startswith("ISIC_") for sample in samples):  # so are the photographs of every preset named
            warnings.warn(
                f"start={start!r} was trained on photographs of {find_preset(str(start)).card['data']}. If these are some of "
                "them, this run's figures will be too good, unless its split is that of the preset's card: read them on other "
                "data.",
                stacklevel=3,
            )
    elif (folder / "split.json").is_file():
        known = set(Split.load(folder / "split.json").parts.get("train", ()))
        judged = {sample.id for name, part in split.apply(samples).items() if name != "train" for sample in part}
        if known & judged:
            warnings.warn(
                f"{folder}: was trained on {len(known & judged)} of the {len(judged)} photographs that validate and test this "
                "run, whose figures will be too good. Give split=Split.load(...) of that run, or the same data and seed.",
                stacklevel=3,
            )
