"""Take a trained model out of Keras: to ONNX, LiteRT or a SavedModel, each checked against the original before it is kept."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dermaseg._version import __version__
from dermaseg.converters import CONVERTERS, Predict, Size, Source, onnx_proto, predict_onnx, quantise, quiet
from dermaseg.data.synthetic import synthetic_batch
from dermaseg.errors import DataError, DermasegError
from dermaseg.presets import load_preset
from dermaseg.pretrained import Preset, find_preset, folded_kernels, is_preset, read_weights
from dermaseg.runs import read_json, write_atomically, write_json
from dermaseg.runtime import OnnxModel
from dermaseg.saving import load_model

__all__ = ["FORMATS", "export_graph", "export_model"]

FORMATS = tuple(CONVERTERS)


def export_model(
    model: str | Path | keras.Model,
    path: str | Path,
    *,
    format: str = "auto",
    size: tuple[int, int] | None = None,
    precision: str = "float32",
    check_images: np.ndarray | None = None,
    tolerance: float = 1e-3,
) -> Path:
    """Write a model for another runtime, and check that it computes the same there.

    Takes raw RGB pixels and gives float32 probabilities, as the Keras model does: preprocessing, padding and cropping are in
    the graph. For ONNX and LiteRT batch normalisations are folded into the convolutions before them. The file goes to its path
    only after its outputs have been compared with the Keras model's. A model of a mixed dtype policy is exported, and compared,
    in float32.

    The model's card (task, class names, training size, decision thresholds) goes along, with what the check found in its
    entry `export` (`largest_difference`, `mean_difference`, `checked_px`): in ONNX under `dermaseg` in `metadata_props`, in a
    SavedModel as `assets.extra/card.json`, in LiteRT as `card.json` in the zip archive that is appended to the file.

    Args:
        model: A Keras model with one input of images, a `.keras` file, a run folder, or the name of a preset. Of a model in
            memory there is no card.
        path: The file or folder to write; an export that stands there is replaced.
        format: `"onnx"`, `"litert"`, `"savedmodel"`, or `"auto"`: by the suffix `.onnx`, `.tflite`, or none (a folder).
        size: Height and width in pixels to fix. None leaves them open where the model does. Some runtimes are faster at a
            fixed size, and LiteRT cannot leave it open for every model.
        precision: `"float32"`, or for ONNX `"int8"`: all convolutions but the first and the last then compute in 8 bits, and
            the file is about a quarter as large. Outputs change: give the `tolerance` that you accept.
        check_images: RGB, `(batch, height, width, 3)`, 0 to 255, to compare on. None draws synthetic photographs. int8 needs
            some tens of photographs like those that it will see: the first half sets its ranges, the other is compared on.
        tolerance: Largest difference between a probability of the exported model and Keras's that is accepted.

    Returns:
        The path.

    Raises:
        DataError: If the model cannot be read, or nothing can be written at the path.
        DermasegError: If a package is missing, the backend is not TensorFlow, the converter refuses the model, or the outputs
            differ by more than the tolerance.
        ValueError: If an argument is outside its range.

    References:
        Jacob et al., 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference", for
        int8: here after training, with a scale for each output channel (onnxruntime's static quantisation).
    """
    path = Path(path)
    kind = _format(path, format)
    converter = CONVERTERS[kind]
    if precision not in converter.precisions:
        raise ValueError(f"precision must be {' or '.join(converter.precisions)} for {kind}, got {precision!r}.")
    if keras.backend.backend() != "tensorflow":
        raise DermasegError(
            f"export needs TensorFlow as Keras's backend, this process runs on {keras.backend.backend()}. Save the model as "
            ".keras and export that file in a process with KERAS_BACKEND=tensorflow."
        )
    _require(converter.packages)
    if not tolerance > 0:
        raise ValueError(f"tolerance must be positive, got {tolerance!r}.")
    network, card = _read(model)
    fixed = _input_size(network, size)
    network = _in_float32(network)
    probes = _probes(check_images, fixed, card)
    if precision == "int8":
        if check_images is None or len(check_images) < 2:
            raise ValueError("precision='int8' needs check_images: some tens of photographs like those that it will see.")
        calibration, probes = probes[0][: len(check_images) // 2], [probes[0][len(check_images) // 2 :]]
    _check_writable(path)

    source = Source(network, fixed)

    def write(unfinished: Path) -> None:
        converter.convert(source, unfinished)
        if precision == "int8":
            quantise(unfinished, calibration)
        differences = _compare(source, converter.load(unfinished), probes, tolerance, path)
        facts = {
            "format": kind,
            "precision": precision,
            "size": list(fixed),
            **differences,
            "checked_px": [list(images.shape[1:3]) for images in probes],
            "dermaseg": __version__,
            "keras": keras.__version__,
        }
        converter.write_card(unfinished, json.dumps({**card, "export": facts}, ensure_ascii=False, indent=1))

    if kind == "savedmodel":
        _replace_folder(path, write)
    else:
        write_atomically(path, write)
    return path


def export_graph(preset: Preset, *, tolerance: float = 1e-4) -> Path:
    """Write `NAME.onnx` beside a preset: the graph of its network without the kernels, which stay in `NAME.npz`.

    The graph takes a hundredth of the weights' space, so that a preset runs on onnxruntime and starts a training in Keras from
    one set of weights. The card gets its SHA-256.

    Args:
        preset: A preset whose network takes any size.
        tolerance: Largest difference between a probability of the graph and Keras's that is accepted.

    Raises:
        DermasegError: As `export_model`; also if a kernel of the network is not found in the graph.
    """
    if keras.backend.backend() != "tensorflow":
        raise DermasegError(f"export needs TensorFlow as Keras's backend, this process runs on {keras.backend.backend()}.")
    _require(CONVERTERS["onnx"].packages)
    source = Source(load_preset(preset.name, folder=preset.path.parent), (None, None))
    proto = onnx_proto(source)
    _leave_out(proto, folded_kernels(read_weights(preset)), preset.path)
    content = proto.SerializeToString()
    write_atomically(preset.graph, lambda unfinished: unfinished.write_bytes(content))
    write_json(preset.path.with_suffix(".json"), {**preset.card, "graph_sha256": hashlib.sha256(content).hexdigest()})
    written = find_preset(preset.name, folder=preset.path.parent)
    _compare(source, predict_onnx(OnnxModel.from_preset(written)), _probes(None, source.size, {}), tolerance, preset.graph)
    return written.graph


def _leave_out(proto: Any, kernels: Mapping[str, np.ndarray], path: Path) -> None:
    """Rename each kernel in the graph to its path in the Keras model, and leave its values to be given when it is opened."""
    import onnx

    for name, kernel in kernels.items():
        layer = f"/{name.removesuffix('/kernel')}"
        found = [each for each in proto.graph.initializer if f"{layer}_1/" in each.name or f"{layer}/" in each.name]
        found = [each for each in found if tuple(each.dims) == kernel.shape]
        if len(found) != 1 or not np.allclose(onnx.numpy_helper.to_array(found[0]), kernel, rtol=1e-4, atol=1e-6):
            raise DermasegError(f"{path}: the converted graph does not hold {name} as one folded kernel.")
        for node in proto.graph.node:
            node.input[:] = [name if each == found[0].name else each for each in node.input]
        found[0].name = name
        found[0].ClearField("raw_data")
        found[0].data_location = onnx.TensorProto.EXTERNAL
        found[0].external_data.add(key="location", value=path.name)


def _format(path: Path, format: str) -> str:
    if format not in ("auto", *FORMATS):
        raise ValueError(f"format must be auto, {', '.join(FORMATS)}, got {format!r}.")
    by_suffix = next((name for name, converter in CONVERTERS.items() if converter.suffix == path.suffix), None)
    if format == "auto":
        if by_suffix is None:
            raise ValueError(
                f"{path}: no format has the suffix {path.suffix!r}. End it in .onnx, .tflite, or nothing (a folder)."
            )
        return by_suffix
    # Other tools go by the suffix of a file; a folder may have any name.
    if format != "savedmodel" and by_suffix != format:
        raise ValueError(f"{path}: a file of the format {format} ends in {CONVERTERS[format].suffix}.")
    return format


def _require(packages: Sequence[str]) -> None:
    for package in packages:
        try:
            with quiet():
                importlib.import_module(package)
        except ImportError as error:
            raise DermasegError(f'{package} is not installed: pip install ".[export]" in a clone of dermaseg.') from error


def _read(model: str | Path | keras.Model) -> tuple[keras.Model, dict[str, Any]]:
    if not isinstance(model, (str, Path)):
        return model, {}
    if is_preset(model):
        return load_preset(str(model)), dict(find_preset(str(model)).card)
    file = Path(model) / "model.keras" if Path(model).is_dir() else Path(model)
    card = file.with_suffix(".json")
    return load_model(file), read_json(card) if card.is_file() else {}


def _in_float32(model: keras.Model) -> keras.Model:
    """Rebuild a model of a mixed policy in float32: converters lose its casts, and many runtimes have no bfloat16."""
    config = model.get_config()
    plain = _float32_config(config)
    if plain == config:
        return model
    rebuilt = type(model).from_config(plain)
    rebuilt.set_weights(model.get_weights())
    return rebuilt


def _float32_config(node: Any) -> Any:
    if isinstance(node, dict):
        if node.get("class_name") == "DTypePolicy" and node["config"]["name"].endswith(
            "float16"
        ):  # bfloat16 and mixed ones too
            return {**node, "config": {**node["config"], "name": "float32"}}
        return {key: _float32_config(value) for key, value in node.items()}
    if isinstance(node, (list, tuple)):
        return type(node)(_float32_config(value) for value in node)
    return node


def _input_size(model: keras.Model, size: tuple[int, int] | None) -> Size:
    """Return the height and width that the exported model takes."""
    # A model without its inputs yet, or a subclass, has no such attribute.
    shapes = [tuple(each.shape) for each in getattr(model, "inputs", None) or []]
    if len(shapes) != 1 or len(shapes[0]) != 4 or shapes[0][-1] != 3:
        raise ValueError(f"model must take one input, (batch, height, width, 3), got {shapes or 'an unbuilt model'}.")
    built: Size = shapes[0][1:3]
    if size is None:
        return built
    if len(size) != 2 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
        raise ValueError(f"size must be (height, width) in pixels, got {size!r}.")
    if any(own not in (None, asked) for own, asked in zip(built, size, strict=True)):
        raise ValueError(f"size={size} does not fit this model, which was built for {built}. Leave size=None.")
    height, width = size
    return height, width


def _probes(images: np.ndarray | None, size: Size, card: Mapping[str, Any]) -> list[np.ndarray]:
    """Return the batches to compare on, float32."""
    if images is not None:
        images = np.asarray(images, np.float32)
        if images.ndim != 4 or images.shape[-1] != 3 or 0 in images.shape:
            raise ValueError(f"check_images must be (batch, height, width, 3), got {images.shape}.")
        if any(own not in (None, given) for own, given in zip(size, images.shape[1:3], strict=True)):
            raise ValueError(f"check_images are {images.shape[1:3]}, the model takes {size} (height, width).")
        return [images]
    height, width = (side or card.get("size") or 96 for side in size)
    shapes = [(2, height, width)]
    if None in size:  # an odd size too, which has to be padded, and another batch size
        shapes.append((3, size[0] or 45, size[1] or 61))
    return [synthetic_batch(count, size=(high, wide))[0].astype(np.float32) for count, high, wide in shapes]


def _compare(source: Source, predict: Predict, probes: Sequence[np.ndarray], tolerance: float, path: Path) -> dict[str, float]:
    """Return the largest and the mean absolute difference between two models' outputs.

    Raises:
        DermasegError: If the largest is above the tolerance, or the outputs differ in name or shape.
    """
    differences = []
    for images in probes:
        expected, found = source.predict(images), predict(images)
        shapes = [{name: values.shape for name, values in outputs.items()} for outputs in (expected, found)]
        if shapes[0] != shapes[1]:
            raise DermasegError(f"{path}: not written. The exported model gives {shapes[1]} where Keras gives {shapes[0]}.")
        differences += [np.abs(values - found[name]).ravel() for name, values in expected.items()]
    every = np.concatenate(differences)
    largest, mean = float(every.max()), float(every.mean())
    if not largest <= tolerance:  # NaN fails too
        raise DermasegError(
            f"{path}: not written. Its outputs differ from the Keras model's by up to {largest:.3g}, {mean:.3g} on average, "
            f"which is more than tolerance={tolerance:g}."
        )
    return {"largest_difference": largest, "mean_difference": mean}


def _check_writable(path: Path) -> None:
    """Fail before the conversion, which may take minutes."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise DataError(f"{path}: cannot be written here ({error.strerror}).") from error


def _replace_folder(path: Path, write: Callable[[Path], None]) -> None:
    """Write a folder beside its place, then rename. Nothing but an earlier SavedModel is ever replaced."""
    if path.exists() and not (path / "saved_model.pb").is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise DataError(f"{path}: exists and is no SavedModel. Give another path.")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".unfinished-{path.name}-") as folder:
        fresh, old = Path(folder) / "fresh", Path(folder) / "old"
        write(fresh)
        if path.exists():
            os.replace(path, old)
        os.replace(fresh, path)
        shutil.rmtree(old, ignore_errors=True)
