"""A model by its folder, its file or its name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dermaseg.pretrained import DEFAULT_PRESET, Preset, find_preset, is_preset, model_file, read_card
from dermaseg.runtime import OnnxModel

__all__ = ["open_model"]


def open_model(model: str | Path | None, *, with_keras: bool) -> tuple[Any, dict[str, Any]]:
    """Open a model, and its card: what it was trained for and how its output is to be read.

    Args:
        model: As for `Predictor`, but a model in memory.
        with_keras: Whether onnxruntime will not do.

    Raises:
        DataError: If there is none, or it cannot be read.
    """
    if model is None or is_preset(model):
        preset = find_preset(str(model or DEFAULT_PRESET))
        return _open_preset(preset, with_keras=with_keras), dict(preset.card)
    file = model_file(model)
    if file.suffix.lower() == ".onnx":
        exported = OnnxModel(file)
        return exported, dict(exported.card)
    from dermaseg.saving import load_model

    return load_model(file), read_card(file)


def _open_preset(preset: Preset, *, with_keras: bool) -> Any:
    """Open a preset on onnxruntime, which starts in a tenth of the time, or in Keras where there is none or it is needed."""
    if preset.runs_without_keras and not with_keras:
        return OnnxModel.from_preset(preset)
    from dermaseg.presets import load_preset

    return load_preset(preset.name)
