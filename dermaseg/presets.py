"""Trained networks that come with the library: from a photograph to an answer with nothing to download."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.errors import DataError
from dermaseg.pretrained import DEFAULT_PRESET, Preset, find_preset, list_presets, read_weights
from dermaseg.runs import write_atomically, write_json

if TYPE_CHECKING:
    import keras

__all__ = ["DEFAULT_PRESET", "Preset", "list_presets", "load_preset", "save_preset"]

BUILDERS = ("build_unet", "build_fuzzy_unet", "build_cnn", "build_hybrid")


def load_preset(name: str = DEFAULT_PRESET, *, folder: str | Path | None = None) -> keras.Model:
    """Build a preset's network and give it its weights.

    To start a network of other classes from them, give the builders their `weights=name` instead.

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
    stored = read_weights(preset)
    wanted = {weight.path: tuple(weight.shape) for weight in model.weights}
    if wanted != {key: array.shape for key, array in stored.items()}:
        odd = sorted(set(wanted) ^ set(stored))
        raise DataError(f"{preset.path}: does not fit the network of its card ({', '.join(odd[:2]) or 'shapes differ'}).")
    for weight in model.weights:
        weight.assign(stored[weight.path].astype("float32"))
    return model


def save_preset(
    model: keras.Model, name: str, *, builder: str, arguments: Mapping[str, Any], card: Mapping[str, Any], folder: str | Path
) -> Preset:
    """Write a model as a preset: float16 weights, and the card with their SHA-256.

    Args:
        model: Trained, with all the weights that `builder(**arguments)` has; others, such as learned weights of losses, stay
            behind.
        name: Of the files.
        builder: `"build_unet"`, `"build_fuzzy_unet"`, `"build_cnn"` or `"build_hybrid"`, of `dermaseg.models`.
        arguments: Of the builder, JSON values.
        card: Everything else that `Preset.card` holds; `summary` and `license` at least.
        folder: Where to write.

    Returns:
        The preset as it now stands in the folder, for `load_preset(name, folder=folder)`.

    Raises:
        ValueError: If a weight is missing or leaves the range of half precision, the card lacks its summary, size or licence,
            or `builder` is another.
    """
    if builder not in BUILDERS:
        raise ValueError(f"builder must be one of {', '.join(BUILDERS)}, got {builder!r}.")
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
    path.with_suffix(".onnx").unlink(missing_ok=True)  # of other weights: its card ends here too
    write_atomically(path, lambda unfinished: unfinished.write_bytes(buffer.getvalue()))
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    write_json(path.with_suffix(".json"), {**card, "builder": builder, "arguments": dict(arguments), "sha256": digest})
    return find_preset(name, folder=folder)


def _build(builder: str, arguments: Mapping[str, Any]) -> keras.Model:
    from dermaseg import models
    from dermaseg.precision import dtype_policy

    # JSON has no tuples.
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    with dtype_policy("float32"):
        model: keras.Model = getattr(models, builder)(**given)
    return model
