"""Trained networks that come with the library: from a photograph to an answer with nothing to download.

Each preset is two files in `dermaseg/weights/`: `NAME.npz`, the weights in half precision, and `NAME.json`, its card: how to
build the network, the SHA-256 of the weights, how to read the output, what it was trained on, its figures and its licence.
Nothing here runs code that it finds in a file.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.errors import DataError
from dermaseg.runs import read_json, write_atomically, write_json

if TYPE_CHECKING:
    import keras

__all__ = ["DEFAULT_PRESET", "Preset", "list_presets", "load_preset", "save_preset"]

FOLDER = Path(__file__).parent / "weights"
DEFAULT_PRESET = "unet-ham10000-128"
BUILDERS = ("build_unet", "build_fuzzy_unet", "build_cnn", "build_hybrid")


@dataclass(frozen=True, slots=True)
class Preset:
    """One trained network in the package.

    Args:
        name: What it is: architecture, data and size.
        path: Its weights.
        card: All that is known of it, as in its `.json`: `task`, `size`, `class_names`, `decisions`, `builder`, `arguments`,
            `sha256`, `data`, `figures`, `license`, `intended_use`, `limits`.
    """

    name: str
    path: Path
    card: Mapping[str, Any]

    @property
    def summary(self) -> str:
        """One line for people: task, size of the file, licence."""
        return f"{self.card['summary']} {self.path.stat().st_size / 1e6:.1f} MB. {self.card['license']}"


def list_presets(folder: str | Path | None = None) -> tuple[Preset, ...]:
    """Return the presets of the package, or of another folder, the default first. Reads the cards alone, no weights."""
    cards = sorted(Path(folder or FOLDER).glob("*.json"), key=lambda path: (path.stem != DEFAULT_PRESET, path.stem))
    return tuple(Preset(path.stem, path.with_suffix(".npz"), read_json(path)) for path in cards)


def load_preset(name: str = DEFAULT_PRESET, *, folder: str | Path | None = None) -> keras.Model:
    """Build a preset's network and give it its weights.

    Args:
        name: One of `list_presets()`.
        folder: Where presets stand; by default in the package.

    Returns:
        An uncompiled float32 model, as its builder makes it: raw pixels in, probabilities out.

    Raises:
        DataError: If there is no such preset, or its weights are not those that its card was written for.
    """
    preset = find_preset(name, folder=folder)
    if preset.card["builder"] not in BUILDERS:
        raise DataError(f"{name}: its card names the builder {preset.card['builder']!r}, none of {', '.join(BUILDERS)}.")
    model = _build(preset.card["builder"], preset.card["arguments"])
    stored = _read(preset)
    wanted = {weight.path: tuple(weight.shape) for weight in model.weights}
    if wanted != {key: array.shape for key, array in stored.items()}:
        odd = sorted(set(wanted) ^ set(stored))
        raise DataError(f"{preset.path}: does not fit the network of its card ({', '.join(odd[:2]) or 'shapes differ'}).")
    for weight in model.weights:
        weight.assign(stored[weight.path].astype("float32"))
    return model


def find_preset(name: str, *, folder: str | Path | None = None) -> Preset:
    """Return the preset of that name.

    Raises:
        DataError: If there is none.
    """
    presets = {preset.name: preset for preset in list_presets(folder)}
    if name not in presets:
        raise DataError(f"there is no preset {name!r}; there are {', '.join(presets) or 'none in this installation'}.")
    return presets[name]


def save_preset(
    model: keras.Model, name: str, *, builder: str, arguments: Mapping[str, Any], card: Mapping[str, Any], folder: str | Path
) -> Preset:
    """Write a model as a preset: float16 weights, and the card with their SHA-256.

    Args:
        model: Trained, with all the weights that `builder(**arguments)` has; others, such as learned weights of losses, stay
            behind.
        name: Of the files.
        builder: Name of a function of `dermaseg.models`.
        arguments: Of the builder, JSON values.
        card: Everything else that `Preset.card` holds; `summary` and `license` at least.
        folder: Where to write.

    Raises:
        ValueError: If a weight is missing or leaves the range of half precision, or the card lacks its summary, size or
            licence.
    """
    missing = {"summary", "license", "size"} - set(card)
    if missing:
        raise ValueError(f"card lacks {sorted(missing)[0]!r}.")
    trained = {weight.path: np.asarray(weight) for weight in model.weights}
    wanted = _build(builder, arguments).weights
    absent = [weight.path for weight in wanted if weight.path not in trained]
    if absent:
        raise ValueError(f"model has no weight {absent[0]!r}, which {builder} with these arguments has.")
    with np.errstate(over="ignore"):
        halves = {weight.path: trained[weight.path].astype(np.float16) for weight in wanted}
    lost = [key for key, half in halves.items() if not np.isfinite(half).all()]
    if lost:
        raise ValueError(f"{lost[0]} leaves the range of half precision, 65,504.")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{key.replace("/", "|"): half for key, half in halves.items()})  # type: ignore[arg-type]
    path = Path(folder) / f"{name}.npz"
    write_atomically(path, lambda unfinished: unfinished.write_bytes(buffer.getvalue()))
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    write_json(path.with_suffix(".json"), {**card, "builder": builder, "arguments": dict(arguments), "sha256": digest})
    return find_preset(name, folder=folder)


def _read(preset: Preset) -> dict[str, np.ndarray]:
    try:
        content = preset.path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{preset.path}: the weights of the preset are missing. Install dermaseg again.") from None
    if hashlib.sha256(content).hexdigest() != preset.card["sha256"]:
        raise DataError(f"{preset.path}: not the weights that its card was written for (SHA-256). Install dermaseg again.")
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {key.replace("|", "/"): arrays[key] for key in arrays.files}


def _build(builder: str, arguments: Mapping[str, Any]) -> keras.Model:
    from dermaseg import models
    from dermaseg.precision import dtype_policy

    # JSON has no tuples.
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    with dtype_policy("float32"):
        model: keras.Model = getattr(models, builder)(**given)
    return model
