"""What each format needs: converting a Keras model, loading the result for comparison, and writing a card into it."""

from __future__ import annotations

import logging
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dermaseg._version import __version__
from dermaseg.errors import DermasegError
from dermaseg.runtime import CARD_KEY, OnnxModel

__all__ = ["CONVERTERS", "Converter", "Predict", "Recipe", "Size", "Source", "onnx_proto", "predict_onnx", "quiet"]

_OPSET = 18  # the newest that tf2onnx is tested with
_CARD_FILE = "card.json"

Size = tuple[int | None, int | None]
Predict = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Source:
    """The Keras model as every converter wants it: a function from a batch to a dict of float32 outputs."""

    model: keras.Model
    size: Size

    def __call__(self, images: Any) -> dict[str, Any]:
        """Compute the outputs of one batch by name."""
        outputs = self.model(images, training=False)
        if isinstance(outputs, Mapping):
            return dict(outputs)
        several = outputs if isinstance(outputs, (list, tuple)) else [outputs]
        return dict(zip(self.model.output_names, several, strict=True))

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of one batch by name, as arrays."""
        return {name: np.asarray(values) for name, values in self(images).items()}

    def signature(self) -> Any:
        """Return TensorFlow's description of a batch."""
        import tensorflow as tf

        return [tf.TensorSpec((None, *self.size, 3), tf.float32, name="images")]


@dataclass(frozen=True)
class Recipe:
    """How to write a model: its number format and, for int8, photographs that say how large its values get."""

    precision: str = "float32"
    calibration: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Converter:
    """One format.

    Args:
        suffix: Of its files; empty for a folder.
        packages: What has to be installed beside TensorFlow.
        precisions: Number formats that it can be written in.
        convert: Writes the model.
        load: Opens what was written, as a function from a batch to its outputs.
        write_card: Adds a JSON text to what was written.
    """

    suffix: str
    packages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("float32",)
    convert: Callable[[Source, Path, Recipe], None]
    load: Callable[[Path], Predict]
    write_card: Callable[[Path, str], None]


def _to_onnx(source: Source, path: Path, recipe: Recipe) -> None:
    import onnx

    proto = onnx_proto(source)
    if recipe.precision == "float16":
        _halve_weights(proto)
    onnx.save(proto, path)
    if recipe.calibration is not None:
        _quantise(path, recipe.calibration)


def onnx_proto(source: Source) -> Any:
    """Convert to an ONNX model in memory, its open axes named `batch`, `height` and `width`."""
    import onnx
    import tensorflow as tf

    with quiet():
        import tf2onnx

        function = tf.function(source.__call__)
        proto, _ = tf2onnx.convert.from_function(
            function,
            source.signature(),
            opset=_OPSET,
            # tf2onnx 1.17 writes the remainder of integers with the sign of the dividend, and padding needs -height % stride.
            custom_op_handlers={"FloorMod": (_floor_mod, [])},
        )
        graph = function.get_concrete_function(*source.signature()).graph
    # tf2onnx 1.17 takes a constant that TensorFlow captured, as keras.layers.Normalization does, for an input.
    for extra in [each for each in proto.graph.input if each.name != "images"]:
        value = tf.get_static_value(graph.get_tensor_by_name(extra.name))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), extra.name))
        proto.graph.input.remove(extra)
    axes = ("batch", "height", "width")
    for value in (*proto.graph.input, *proto.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        for axis, dimension in zip(axes if len(dimensions) == 4 else axes[:1], dimensions, strict=False):
            if not dimension.HasField("dim_value"):
                dimension.dim_param = axis
    proto.producer_name, proto.producer_version = "dermaseg", __version__
    onnx.checker.check_model(proto)
    return proto


def _floor_mod(context: Any, node: Any, _name: str, _arguments: Any) -> None:
    """Convert integers by ONNX's own remainder, whose sign is the divisor's; it is defined for integers alone."""
    import onnx
    from tf2onnx.onnx_opset.math import FloorMod

    if context.get_dtype(node.input[0]) in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
        node.type = "Mod"
    else:
        FloorMod.version_7(context, node)


def _halve_weights(proto: Any) -> None:
    """Store kernels in half precision, each with a cast behind it that onnxruntime computes once, when it opens the file."""
    import onnx

    kernels = [each for each in proto.graph.initializer if each.data_type == onnx.TensorProto.FLOAT and len(each.dims) > 1]
    casts = []
    for kernel in kernels:
        name = kernel.name
        with np.errstate(over="ignore"):  # what leaves half precision becomes infinite, and the comparison says so
            halves = onnx.numpy_helper.to_array(kernel).astype(np.float16)
        kernel.CopyFrom(onnx.numpy_helper.from_array(halves, f"{name}:float16"))
        casts.append(onnx.helper.make_node("Cast", [kernel.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *proto.graph.node]  # a node stands behind those that it reads from
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    onnx.checker.check_model(proto)


def _quantise(path: Path, images: np.ndarray) -> None:
    """Put int8 convolutions in place of float32 ones, with the ranges that the images give.

    Raises:
        DermasegError: If there is none between the first and the last.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Photographs(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image[None]}

    with tempfile.TemporaryDirectory() as folder, quiet():
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
        if len(convolutions) < 3:
            raise DermasegError("int8 is for convolutions between the first and the last, and this model has none.")
        quantize_static(
            prepared,
            path,
            Photographs(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[convolutions[0], convolutions[-1]],  # raw pixels, and the logits: they need more than 8 bits
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def _load_onnx(path: Path) -> Predict:
    return predict_onnx(OnnxModel(path))


def predict_onnx(exported: OnnxModel) -> Predict:
    """Return an ONNX model as a function from a batch to its outputs by name."""

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        outputs = exported.predict_on_batch(images)
        return outputs if isinstance(outputs, dict) else {exported.output_names[0]: outputs}

    return predict


def _write_onnx_card(path: Path, card: str) -> None:
    import onnx

    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, {CARD_KEY: card})
    onnx.save(proto, path)


def _to_savedmodel(source: Source, path: Path, _recipe: Recipe) -> None:
    archive = keras.export.ExportArchive()
    archive.track(source.model)
    archive.add_endpoint("serve", source.__call__, input_signature=source.signature())
    with quiet():
        archive.write_out(str(path), verbose=False)


def _load_savedmodel(path: Path) -> Predict:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))

    def predict(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: np.asarray(values) for name, values in loaded.serve(tf.constant(images)).items()}

    return predict


def _write_savedmodel_card(path: Path, card: str) -> None:
    # TensorFlow's own place for what others add to a SavedModel.
    extra = path / "assets.extra"
    extra.mkdir(exist_ok=True)
    (extra / _CARD_FILE).write_text(card, encoding="utf-8")


_IN_FLOAT = ("DIV", "SUM", "EXP", "ADD", "SUB", "MUL")


def _in_8_bits(converter: Any, calibration: np.ndarray) -> bytes:
    """Convert to int8, but keep the operators around divisions (`_IN_FLOAT`) in float.

    Convolutions take nearly all of the time. In 8 bits, a divisor much smaller than those seen in calibration becomes 0, such
    as the area of a mask's border where no lesion is found, and LiteRT's kernel refuses it.
    """
    import tensorflow as tf

    def photographs() -> Iterator[dict[str, np.ndarray]]:
        return ({"images": image[np.newaxis]} for image in calibration)

    converter.representative_dataset = photographs
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_ops=list(_IN_FLOAT))
    debugger = tf.lite.experimental.QuantizationDebugger(converter=converter, debug_dataset=photographs, debug_options=options)
    return debugger.get_nondebug_quantized_model()


def _to_litert(source: Source, path: Path, recipe: Recipe) -> None:
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder, quiet(), _no_word_of_the_interpreter():
        _to_savedmodel(source, Path(folder), recipe)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        if recipe.precision != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if recipe.precision == "float16":
            converter.target_spec.supported_types = [tf.float16]
        try:
            path.write_bytes(converter.convert() if recipe.calibration is None else _in_8_bits(converter, recipe.calibration))
        except Exception as error:
            remedy = "Export at a fixed size, size=(height, width)." if None in source.size else "Export to ONNX instead."
            raise DermasegError(f"LiteRT has no kernel for a part of this model. {remedy} ({str(error)[:300]})") from error


def _load_litert(path: Path) -> Predict:
    import tensorflow as tf

    with _no_word_of_the_interpreter():
        interpreter = tf.lite.Interpreter(model_path=str(path))
    # A runner keeps its memory for the size that it saw first, hence a new one a batch.
    return lambda images: interpreter.get_signature_runner()(images=images)


def _write_litert_card(path: Path, card: str) -> None:
    # As LiteRT's metadata pack their files: a zip archive behind the model, which the interpreter does not read.
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(_CARD_FILE, card)


CONVERTERS: dict[str, Converter] = {
    "onnx": Converter(
        suffix=".onnx",
        packages=("onnx", "onnxruntime", "tf2onnx"),
        precisions=("float32", "float16", "int8"),
        convert=_to_onnx,
        load=_load_onnx,
        write_card=_write_onnx_card,
    ),
    "litert": Converter(
        suffix=".tflite",
        precisions=("float32", "float16", "int8"),
        convert=_to_litert,
        load=_load_litert,
        write_card=_write_litert_card,
    ),
    "savedmodel": Converter(suffix="", convert=_to_savedmodel, load=_load_savedmodel, write_card=_write_savedmodel_card),
}


@contextmanager
def _no_word_of_the_interpreter() -> Iterator[None]:
    """TensorFlow 2.21 announces that its interpreter moves to the package ai-edge-litert, which it does not bring along."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated", UserWarning)
        yield


@contextmanager
def quiet() -> Iterator[None]:
    """Keep converters' progress and their optimisers' tracebacks, which they recover from, off the screen."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
