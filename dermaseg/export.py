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
from dermaseg.converters import CONVERTERS, Recipe, Size, Source, onnx_proto, predict_onnx, quiet
from dermaseg.errors import DataError, DermasegError
from dermaseg.parity import TOLERANCES, Limits, calibration_photographs, compare, make_probes
from dermaseg.presets import load_preset
from dermaseg.pretrained import Preset, folded_kernels, is_preset, model_file, read_card, read_weights
from dermaseg.runs import check_saved_model, write_atomically, write_json
from dermaseg.runtime import OnnxModel
from dermaseg.saving import load_model

__all__ = ["FORMATS", "calibration_photographs", "export_graph", "export_model", "training_size"]

FORMATS = tuple(CONVERTERS)


def export_model(
    model: str | Path | keras.Model,
    path: str | Path,
    *,
    format: str = "auto",
    size: tuple[int, int] | None = None,
    precision: str = "float32",
    check_images: np.ndarray | None = None,
    check_masks: np.ndarray | None = None,
    tolerance: float | None = None,
    jaccard_tolerance: float = 0.005,
) -> Path:
    """Write a model for another runtime, and check that it computes the same there.

    Takes raw RGB pixels and gives float32 probabilities, as the Keras model does: preprocessing, padding and cropping are in
    the graph. For ONNX and LiteRT batch normalisations are folded into the convolutions before them. The file goes to its path
    only after its outputs have been compared with the Keras model's. A model of a mixed dtype policy is exported, and compared,
    in float32.

    The model's card (task, class names, training size, decisions) goes along, with what the check found in its
    entry `export` (`largest_difference`, `mean_difference`, `checked_px`, and of fewer bits `jaccard_agreement`,
    `jaccard_keras`, `jaccard_exported`): in ONNX under `dermaseg` in `metadata_props`, in a SavedModel as
    `assets.extra/card.json`, in LiteRT as `card.json` in the zip archive that is appended to the file.

    Args:
        model: A Keras model with one input of images, a `.keras` file, a run folder, or the name of a preset. Of a model in
            memory there is no card.
        path: The file or folder to write; an export that stands there is replaced.
        format: `"onnx"`, `"litert"`, `"savedmodel"`, or `"auto"`: by the suffix `.onnx`, `.tflite`, or none (a folder).
        size: Height and width in pixels to fix. None leaves them open where the model does. Some runtimes are faster at a
            fixed size, and LiteRT cannot leave it open for every model.
        precision: `"float32"`; or, for ONNX and LiteRT, `"float16"`: weights take half the space, and a processor computes with
            them in float32 (a LiteRT delegate on a GPU in float16); or `"int8"`: convolutions compute in 8 bits and the file is
            about a quarter as large. In ONNX the first and the last convolution stay float32.
        check_images: RGB, `(batch, height, width, 3)`, 0 to 255, to compare on. None draws synthetic photographs. int8 needs
            some tens of photographs like those that it will see, as `calibration_photographs` reads them: the first half sets
            its ranges, the other is compared on.
        check_masks: True masks of `check_images`, `(batch, height, width, 1)`, 0 or 1. With fewer bits the lesion's mask is
            then judged by the Jaccard index that it loses.
        tolerance: Largest difference between a probability of the exported model and Keras's that is accepted. None is 0.001
            for float32, 0.01 for float16 and 0.1 for int8. With fewer bits the output `mask` is not held to it.
        jaccard_tolerance: With fewer bits, how much of the mask's mean Jaccard index may be lost. Without `check_masks` the
            overlap with the Keras model's masks may lack no more than that, so that, whatever is true, no more is lost.

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
    for name, value in (("tolerance", tolerance), ("jaccard_tolerance", jaccard_tolerance)):
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value!r}.")
    network, card = _read(model)
    fixed = _input_size(network, size)
    network = _in_float32(network)
    probes = make_probes(check_images, check_masks, fixed, card)
    calibration = None
    if precision == "int8":
        if check_images is None or len(check_images) < 2:
            raise ValueError("precision='int8' needs check_images: some tens of photographs like those that it will see.")
        calibration, other_half = probes[0].halves()
        probes = [other_half]
    limits = Limits(
        tolerance=TOLERANCES[precision] if tolerance is None else tolerance,
        jaccard_tolerance=None if precision == "float32" else jaccard_tolerance,
    )
    _check_writable(path)

    source = Source(network, fixed)

    def write(unfinished: Path) -> None:
        converter.convert(source, unfinished, Recipe(precision, calibration))
        differences = compare(source, converter.load(unfinished), probes, limits, path)
        facts = {
            "format": kind,
            "precision": precision,
            "size": list(fixed),
            **differences,
            "checked_px": [list(probe.images.shape[1:3]) for probe in probes],
            "checked_photographs": sum(len(probe.images) for probe in probes),
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

    Returns:
        The path of the graph, `preset.graph`.

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
    card = {**preset.card, "graph_sha256": hashlib.sha256(content).hexdigest()}
    with tempfile.TemporaryDirectory() as folder:
        trial = Preset(preset.name, Path(shutil.copy(preset.path, folder)), card)
        trial.graph.write_bytes(content)
        exported = predict_onnx(OnnxModel.from_preset(trial))
        compare(source, exported, make_probes(None, None, source.size, {}), Limits(tolerance=tolerance), preset.graph)
    write_atomically(preset.graph, lambda unfinished: unfinished.write_bytes(content))
    write_json(preset.path.with_suffix(".json"), card)
    return preset.graph


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


def training_size(model: str | Path) -> int:
    """Return the side in pixels that a run folder, a `.keras` file or a preset was trained at, as its card tells it.

    Raises:
        DataError: If there is no model.
        ValueError: If it has no card, or the card says no size.
    """
    if not is_preset(model):
        check_saved_model(model_file(model))
    size = read_card(model).get("size")
    if not isinstance(size, int):
        raise ValueError(f"{model}: no card says at which size it was trained. Give a run folder, or the height and width.")
    return size


def _read(model: str | Path | keras.Model) -> tuple[keras.Model, dict[str, Any]]:
    if not isinstance(model, (str, Path)):
        return model, {}
    return load_preset(str(model)) if is_preset(model) else load_model(model), read_card(model)


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
