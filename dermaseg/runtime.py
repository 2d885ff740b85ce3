"""Run an exported model with onnxruntime alone: neither Keras nor TensorFlow is loaded, so that it starts at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dermaseg.errors import DataError, DermasegError
from dermaseg.pretrained import Preset, folded_kernels, read_graph, read_weights

__all__ = ["CARD_KEY", "OnnxModel"]

CARD_KEY = "dermaseg"
"""Where the metadata of an ONNX file hold the model's card, as JSON."""


class OnnxModel:
    """A model that `export_model` wrote as `.onnx`, with the `predict_on_batch` of a Keras model.

    The file alone is enough: preprocessing is in its graph and the card in its metadata. `Predictor` takes it in place of a
    Keras model, and reads its card.

    Args:
        path: The `.onnx` file.
        threads: Threads within an operation; None takes one for each core, and 1 is best where many processes share a machine.

    Raises:
        DataError: If the file is missing, no ONNX model, or one that does not take photographs alone.
        DermasegError: If onnxruntime is not installed.
        ValueError: If `threads` is not a positive integer.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
            raise ValueError(f"threads must be a positive integer or None, got {threads!r}.")
        self.path = Path(path)
        self._connect(_open(_content(self.path), self.path, threads), {})

    @classmethod
    def from_preset(cls, preset: Preset, *, threads: int | None = None) -> OnnxModel:
        """Open a packaged preset: its graph, with the weights that also the Keras model has.

        Args:
            preset: One of `list_presets()` that has a graph.
            threads: As for the class.

        Raises:
            DataError: If a file of the preset is missing or damaged.
            DermasegError: If onnxruntime is not installed.
        """
        model = cls.__new__(cls)
        model.path = preset.graph
        kernels = folded_kernels(read_weights(preset))
        model._connect(_open(read_graph(preset), preset.graph, threads, kernels), preset.card)
        return model

    def _connect(self, session: Any, card: Mapping[str, Any]) -> None:
        self._session = session
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[-1] != 3 or inputs[0].type != "tensor(float)":
            taken = ", ".join(f"{each.name} {each.shape} {each.type}" for each in inputs)
            raise DataError(f"{self.path}: takes {taken}, not (batch, height, width, 3) of float32. Export it by export_model.")
        self._input = inputs[0]
        self.output_names: tuple[str, ...] = tuple(output.name for output in self._session.get_outputs())
        self.card: dict[str, Any] = dict(card) or _card(self._session.get_modelmeta().custom_metadata_map, self.path)

    @property
    def input_size(self) -> tuple[int | None, int | None]:
        """Height and width that the model takes, in pixels; None where any will do."""
        height, width = (size if isinstance(size, int) else None for size in self._input.shape[1:3])
        return height, width

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        """Run the model on one batch.

        Args:
            images: RGB, `(batch, height, width, 3)`, 0 to 255, uint8 or float.

        Returns:
            What the Keras model returns, float32: an array, or a dict by output name where there are several.

        Raises:
            ValueError: If the images have another shape than the model takes.
        """
        images = np.ascontiguousarray(images, dtype=np.float32)
        wanted = (None, *self.input_size, 3)
        if images.ndim != 4 or any(want not in (None, size) for want, size in zip(wanted, images.shape, strict=True)):
            shape = ", ".join("any" if size is None else str(size) for size in wanted)
            raise ValueError(f"images must have the shape ({shape}), got {images.shape}.")
        outputs = self._session.run(None, {self._input.name: images})
        return outputs[0] if len(outputs) == 1 else dict(zip(self.output_names, outputs, strict=True))


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise DataError(f"{path}: no file here. Give an .onnx file that export_model wrote.")
    return path.read_bytes()


def _open(content: bytes, path: Path, threads: int | None, kernels: Mapping[str, np.ndarray] | None = None) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DermasegError("onnxruntime is not installed: pip install onnxruntime.") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0  # 0: onnxruntime takes the number of cores
    options.log_severity_level = 3  # errors; warnings are about optimisations that it then does without
    try:
        if kernels:
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(kernel) for kernel in kernels.values()]
            options.add_external_initializers(list(kernels), values)
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise DataError(f"{path}: cannot be read as an ONNX model ({str(error)[:300]}).") from error


def _card(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    try:
        card = json.loads(metadata.get(CARD_KEY, "{}"))
    except ValueError as error:
        raise DataError(f"{path}: the card in its metadata is no JSON ({error}).") from error
    if not isinstance(card, dict):
        raise DataError(f"{path}: the card in its metadata is no JSON object.")
    return card
