"""An exported model runs without Keras."""

import json
import subprocess
import sys

import numpy as np
import pytest

from dermaseg.errors import DataError, DermasegError
from dermaseg.runtime import CARD_KEY, OnnxModel

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def write_onnx(path, *, shape=("batch", "height", "width", 3), outputs=1, card='{"task": "segment", "size": 32}'):
    """Write a model that gives each pixel's brightest channel, 0 to 1, and its darkest too where there are two outputs."""
    from onnx import TensorProto, helper

    kinds = [("mask", "ReduceMax"), ("dark", "ReduceMin")][:outputs]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [3])
    scale = helper.make_tensor("scale", TensorProto.FLOAT, [], [255.0])
    nodes = []
    for name, kind in kinds:
        nodes.append(helper.make_node(kind, ["images", "axes"], [f"{name}_raw"]))
        nodes.append(helper.make_node("Div", [f"{name}_raw", "scale"], [name]))
    taken = helper.make_tensor_value_info("images", TensorProto.FLOAT, list(shape))
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [*shape[:3], 1]) for name, _ in kinds]
    graph = helper.make_graph(nodes, "brightness", [taken], given, [axes, scale])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    if card is not None:
        helper.set_model_props(model, {CARD_KEY: card})
    onnx.save(model, path)
    return path


def photographs(count=2, height=5, width=7):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3)).astype("uint8")


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_one_output_is_an_array(tmp_path, dtype):
    model = OnnxModel(write_onnx(tmp_path / "model.onnx"))
    images = photographs()
    found = model.predict_on_batch(images.astype(dtype))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, images.max(-1, keepdims=True) / 255, rtol=1e-6)
    assert model.card == {"task": "segment", "size": 32}
    assert model.input_size == (None, None)


def test_several_outputs_are_a_dict(tmp_path):
    model = OnnxModel(str(write_onnx(tmp_path / "model.onnx", outputs=2, card=None)), threads=1)
    images = photographs()
    found = model.predict_on_batch(images)
    assert list(found) == ["mask", "dark"]
    np.testing.assert_allclose(found["dark"], images.min(-1, keepdims=True) / 255, rtol=1e-6)
    assert model.card == {}


def test_a_fixed_size_is_known_and_kept(tmp_path):
    model = OnnxModel(write_onnx(tmp_path / "model.onnx", shape=("batch", 5, 7, 3)))
    assert model.input_size == (5, 7)
    assert model.predict_on_batch(photographs()).shape == (2, 5, 7, 1)
    with pytest.raises(ValueError, match=r"\(any, 5, 7, 3\), got \(2, 6, 7, 3\)"):
        model.predict_on_batch(photographs(height=6))


def test_mistakes_are_named(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="no file here"):
        OnnxModel(tmp_path / "none.onnx")
    junk = tmp_path / "junk.onnx"
    junk.write_text("not a model")
    with pytest.raises(DataError, match=r"junk\.onnx: cannot be read as an ONNX model"):
        OnnxModel(junk)
    with pytest.raises(DataError, match=r"takes images \['batch', 8\]"):
        OnnxModel(write_vector_model(tmp_path / "vector.onnx"))
    for number, card in enumerate(("{", "[1]")):
        with pytest.raises(DataError, match="card in its metadata is no JSON"):
            OnnxModel(write_onnx(tmp_path / f"card_{number}.onnx", card=card))
    path = write_onnx(tmp_path / "model.onnx")
    for threads in (0, True, 1.5):
        with pytest.raises(ValueError, match="threads must be a positive integer"):
            OnnxModel(path, threads=threads)
    with pytest.raises(ValueError, match=r"\(any, any, any, 3\), got \(5, 7, 3\)"):
        OnnxModel(path).predict_on_batch(photographs()[0])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DermasegError, match="pip install onnxruntime"):
        OnnxModel(path)


def write_vector_model(path):
    from onnx import TensorProto, helper

    taken = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 8])
    given = helper.make_tensor_value_info("label", TensorProto.FLOAT, ["batch", 8])
    graph = helper.make_graph([helper.make_node("Sigmoid", ["images"], ["label"])], "vector", [taken], [given])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), path)
    return path


def test_a_predictor_reads_the_card_of_a_model_that_is_open(tmp_path):
    from dermaseg.prediction import Predictor

    card = {"size": 16, "class_names": ["a", "b"], "decisions": {"tidy_masks": True, "temperature": 2.0}}
    path = write_onnx(tmp_path / "LESION.ONNX", card=json.dumps(card))
    for predictor in (Predictor(OnnxModel(path)), Predictor(path)):
        assert (predictor.size, predictor.class_names) == (16, ("a", "b"))
        assert predictor.decisions.tidy_masks
        assert predictor.decisions.temperature == 2.0
    assert Predictor(OnnxModel(path), size=8).size == 8


def test_no_deep_learning_library_is_loaded(tmp_path):
    path = write_onnx(tmp_path / "model.onnx")
    script = f"""
import json, sys
import numpy as np
from dermaseg.runtime import OnnxModel
shape = OnnxModel({str(path)!r}).predict_on_batch(np.zeros((1, 5, 7, 3), np.uint8)).shape
heavy = {{"keras", "tensorflow", "jax", "torch", "tf2onnx", "onnx", "scipy", "skimage", "matplotlib"}}
print(json.dumps([shape, sorted(heavy & set(sys.modules))]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[1, 5, 7, 1], []]
