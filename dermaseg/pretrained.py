"""The trained weights in the package: which there are, their cards and their arrays. `dermaseg.presets` builds the networks.

Also where a model and its card stand, whether it is a preset, a run folder or a file.

Each preset is up to three files in `dermaseg/weights/`: `NAME.npz`, the weights in half precision; `NAME.json`, its card: how
to build the network, the SHA-256 of the other files, how to read the output, what it was trained on, its figures and its
licence; and `NAME.onnx`, the network's graph without its weights, for `dermaseg.runtime`. Nothing here runs code that it finds
in a file.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.errors import DataError
from dermaseg.runs import RunFolder, read_json

if TYPE_CHECKING:
    import keras

__all__ = [
    "DEFAULT_PRESET",
    "FOLDER",
    "Preset",
    "find_preset",
    "folded_kernels",
    "is_preset",
    "list_presets",
    "model_file",
    "read_card",
    "read_graph",
    "read_weights",
    "with_weights",
]

FOLDER = Path(__file__).parent / "weights"
DEFAULT_PRESET = "hybrid-ham10000-isic2018-192"

# What a network may have beside a preset's weights: heads for other classes or on coarser maps, gates that start as the
# identity, and the learned weights of where to look and of two losses.
_MAY_STAY_FRESH = (
    *("mask_logits/", "mask_coarse_logits/", "mask_coarsest_logits/", "label_logits/"),
    *("gate_", "lesion_pool_", "uncertainty/"),
)
_EPSILON = 1e-3  # of every batch normalisation in dermaseg.models.blocks: Keras's default


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
    def graph(self) -> Path:
        """The graph that onnxruntime runs with these weights; it may be missing."""
        return self.path.with_suffix(".onnx")

    @property
    def runs_without_keras(self) -> bool:
        """Whether its graph, which its card knows, and onnxruntime are there."""
        return "graph_sha256" in self.card and self.graph.is_file() and importlib.util.find_spec("onnxruntime") is not None

    @property
    def summary(self) -> str:
        """One line for people: task, size of the file, licence."""
        return f"{self.card['summary']} {self.path.stat().st_size / 1e6:.1f} MB. {self.card['license']}"


def list_presets(folder: str | Path | None = None) -> tuple[Preset, ...]:
    """Return the presets of the package, or of another folder, the default first. Reads the cards alone, no weights."""
    cards = sorted(Path(folder or FOLDER).glob("*.json"), key=lambda path: (path.stem != DEFAULT_PRESET, path.stem))
    return tuple(Preset(path.stem, path.with_suffix(".npz"), read_json(path)) for path in cards)


def is_preset(name: str | Path) -> bool:
    """Tell whether a name, and no path, is that of a packaged preset, and of nothing that stands in the working folder."""
    return Path(name).name == str(name) and (FOLDER / f"{name}.json").is_file() and not Path(name).exists()


def find_preset(name: str, *, folder: str | Path | None = None) -> Preset:
    """Return the preset of that name.

    Raises:
        DataError: If there is none.
    """
    presets = {preset.name: preset for preset in list_presets(folder)}
    if name not in presets:
        raise DataError(f"there is no preset {name!r}; there are {', '.join(presets) or 'none in this installation'}.")
    return presets[name]


def model_file(model: str | Path) -> Path:
    """Return the `.keras` file of a run folder; of any other path, the path itself."""
    path = Path(model)
    return RunFolder(path).model if path.is_dir() else path


def read_card(model: str | Path) -> dict[str, Any]:
    """Return the card of a preset, a run folder or a saved model, beside which it stands; empty where there is none."""
    if is_preset(model):
        return dict(find_preset(str(model)).card)
    card = model_file(model).with_suffix(".json")
    return read_json(card) if card.is_file() else {}


def read_weights(preset: Preset) -> dict[str, np.ndarray]:
    """Return a preset's weights, float16, by their paths in the Keras model.

    Raises:
        DataError: If the file is missing or is not the one that the card was written for.
    """
    with np.load(io.BytesIO(_checked(preset.path, preset.card["sha256"])), allow_pickle=False) as arrays:
        return {key.replace("|", "/"): arrays[key] for key in arrays.files}


def read_graph(preset: Preset) -> bytes:
    """Return a preset's ONNX graph, which lacks the kernels that `folded_kernels` gives.

    Raises:
        DataError: If the file is missing or is not the one that the card was written for.
    """
    return _checked(preset.graph, preset.card["graph_sha256"])


def with_weights(model: keras.Model, name: str | None) -> keras.Model:
    """Give a network the weights of a preset.

    Args:
        model: Built by a function of `dermaseg.models`. Its heads keep their own weights where they have another number of
            classes, and so does what the preset's network does not have: fuzzy gates, the weights of two losses.
        name: One of `list_presets()`; None leaves the model as it is.

    Returns:
        The same model.

    Raises:
        DataError: If there is no such preset, or its file is damaged.
        ValueError: If another layer does not fit.
    """
    if name is None:
        return model
    preset = find_preset(name)
    stored = read_weights(preset)
    fitting = {}
    for weight in model.weights:
        array = stored.get(weight.path)
        if array is not None and array.shape == tuple(weight.shape):
            fitting[weight.path] = array
        elif not weight.path.startswith(_MAY_STAY_FRESH):
            arguments = ", ".join(f"{key}={value!r}" for key, value in preset.card["arguments"].items()) or "its defaults"
            raise ValueError(
                f"weights={name!r} do not fit: {weight.path} of shape {tuple(weight.shape)} "
                f"{'is not in the preset' if array is None else f'is {array.shape} there'}. It was trained as "
                f"{preset.card['builder']} with {arguments}."
            )
    for weight in model.weights:
        if weight.path in fitting:
            weight.assign(fitting[weight.path].astype("float32"))
    return model


def folded_kernels(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Fold each batch normalisation's scale into the convolution before it.

    Args:
        weights: As `read_weights` returns them.

    Returns:
        The kernel of each normalised convolution by its path, `(out, in, height, width)` as ONNX has them, float32.
    """
    folded = {}
    for path, kernel in weights.items():
        norm = path.removesuffix("_conv/kernel") + "_norm"
        if path.endswith("_conv/kernel") and f"{norm}/gamma" in weights:
            variance = weights[f"{norm}/moving_variance"].astype(np.float32)
            scale = weights[f"{norm}/gamma"].astype(np.float32) / np.sqrt(variance + np.float32(_EPSILON))
            folded[path] = np.ascontiguousarray((kernel.astype(np.float32) * scale).transpose(3, 2, 0, 1))
    return folded


def _checked(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: this file of the preset is missing. Install dermaseg again.") from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(f"{path}: not the file that its card was written for (SHA-256). Install dermaseg again.")
    return content
