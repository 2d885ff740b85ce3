"""Exported models compute what the Keras models do, or are not written."""

import dataclasses
import json
import shutil
import sys
import zipfile
from collections import Counter
from unittest import mock

import keras
import numpy as np
import pytest

from dermaseg import cli
from dermaseg.commands.exporting import SUFFIXES
from dermaseg.converters import CONVERTERS
from dermaseg.data.synthetic import make_synthetic, synthetic_batch
from dermaseg.errors import DataError, DermasegError
from dermaseg.export import export_graph, export_model, training_size
from dermaseg.metrics import segmentation_scores
from dermaseg.models import build_cnn, build_fuzzy_unet, build_hybrid, build_unet
from dermaseg.prediction import Predictor
from dermaseg.pretrained import FOLDER, find_preset
from dermaseg.runtime import OnnxModel
from dermaseg.saving import load_model

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("tf2onnx")

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="export needs TensorFlow's graphs")

BUILDERS = {
    "unet": lambda: build_unet(filters=(8, 16)),
    "unet at full resolution": lambda: build_unet(filters=(4, 8), stem_stride=1, num_classes=3),
    "cnn": lambda: build_cnn(num_classes=7, filters=(8, 16)),
    "fuzzy unet": lambda: build_fuzzy_unet(filters=(8, 16), uncertainty=True),
    "hybrid": lambda: build_hybrid(num_classes=7, filters=(8, 16)),
}


def as_if_trained(model):
    """Give every normalisation statistics of its own: with those of a new model, folding it is no test."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([weight + rng.uniform(0, 0.5, weight.shape) for weight in layer.get_weights()])
    return model


def tiny_model(policy=None):
    """One convolution and its normalisation: quick to convert."""
    inputs = keras.Input((None, None, 3), name="images")
    x = keras.layers.Rescaling(1 / 255, dtype=policy)(inputs)
    x = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, dtype=policy)(x)
    x = keras.layers.BatchNormalization(dtype=policy)(x)
    return as_if_trained(keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid", dtype="float32", name="mask")(x)))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return tiny_model()


def photographs(height=45, width=61, count=2):
    return synthetic_batch(count, size=(height, width), seed=1)[0]


def operations(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def assert_same_outputs(expected, found):
    assert isinstance(found, dict) == isinstance(expected, dict)
    if not isinstance(expected, dict):
        expected, found = {"only": expected}, {"only": found}
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5, err_msg=name)


@tensorflow_only
@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_each_family_in_onnx_at_any_size(family, tmp_path):
    keras.utils.set_random_seed(0)
    network = as_if_trained(BUILDERS[family]())
    exported = OnnxModel(export_model(network, tmp_path / "model.onnx"))
    assert exported.input_size == (None, None)
    # 45x61 and 7x100 are mirrored out to the stride at both ends, 64x64 is not padded at all.
    for height, width, count in ((45, 61, 2), (64, 64, 1), (7, 100, 3)):
        images = photographs(height, width, count)
        outputs = network(images.astype("float32"), training=False)
        expected = {name: np.asarray(each) for name, each in outputs.items()} if isinstance(outputs, dict) else outputs
        assert_same_outputs(expected, exported.predict_on_batch(images))
    assert not operations(exported.path)["BatchNormalization"]


@tensorflow_only
def test_a_fixed_size(model, tmp_path):
    exported = OnnxModel(export_model(model, tmp_path / "model.onnx", size=(32, 40)))
    assert exported.input_size == (32, 40)
    assert exported.card["export"]["checked_px"] == [[32, 40]]
    assert exported.predict_on_batch(photographs(32, 40, 3)).shape == (3, 32, 40, 1)


@tensorflow_only
def test_a_run_folder_gives_its_card(model, tmp_path):
    card = {"task": "segment", "size": 40, "class_names": ["mel", "nævus"], "threshold": 0.4, "temperature": 1.5}
    run = tmp_path / "run"
    run.mkdir()
    model.save(run / "model.keras")
    (run / "model.json").write_text(json.dumps(card), encoding="utf-8")
    for source in (run, str(run / "model.keras")):
        exported = OnnxModel(export_model(source, tmp_path / "new" / "folder" / "model.onnx"))
        facts = exported.card.pop("export")
        assert exported.card == card
        assert facts["checked_px"] == [[40, 40], [45, 61]]
        assert 0 <= facts["mean_difference"] <= facts["largest_difference"] < 1e-5
        assert_same_outputs(np.asarray(model(photographs().astype("float32"))), exported.predict_on_batch(photographs()))


@tensorflow_only
def test_what_differs_is_not_written(model, tmp_path, monkeypatch):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the last good one")
    onnx = CONVERTERS["onnx"]

    def wrong(unfinished):
        predict = onnx.load(unfinished)
        return lambda images: {name: values + 0.25 for name, values in predict(images).items()}

    monkeypatch.setitem(CONVERTERS, "onnx", dataclasses.replace(onnx, load=wrong))
    with pytest.raises(DermasegError, match=r"not written.*by up to 0\.25, 0\.25 on average.*tolerance=0\.001"):
        export_model(model, path)
    monkeypatch.setitem(CONVERTERS, "onnx", dataclasses.replace(onnx, load=lambda _: lambda images: {"mask": images * np.nan}))
    with pytest.raises(DermasegError, match="not written"):  # another shape
        export_model(model, path)
    assert path.read_bytes() == b"the last good one"
    assert list(tmp_path.iterdir()) == [path]


def convolutional(outputs="mask"):
    """Four convolutions, of which int8 takes the two in the middle."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3), name="images")
    x = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    for _ in range(3):
        x = keras.layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    return keras.Model(inputs, keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid", name=outputs)(x))


def stored_as(path, kind):
    return sorted(
        tuple(each.dims) for each in onnx.load(path).graph.initializer if each.data_type == kind and len(each.dims) == 4
    )


@tensorflow_only
def test_int8_is_judged_by_its_masks(tmp_path):
    path, network = tmp_path / "model.onnx", convolutional()
    images, masks, *_ = synthetic_batch(6, size=(45, 61), seed=1)
    with pytest.raises(ValueError, match="precision='int8' needs check_images"):
        export_model(network, path, precision="int8")
    with pytest.raises(DermasegError, match=r"not written\. Its masks overlap .* Give check_masks to learn whether"):
        export_model(network, path, precision="int8", check_images=images, jaccard_tolerance=1e-9)
    assert not path.exists()
    exported = OnnxModel(
        export_model(network, path, precision="int8", check_images=images, check_masks=masks, jaccard_tolerance=0.1)
    )
    assert operations(path)["Conv"] == 4
    assert stored_as(path, onnx.TensorProto.INT8) == [(8, 8, 3, 3)] * 2
    facts = exported.card["export"]
    assert (facts["precision"], facts["checked_photographs"]) == ("int8", 3)
    mine, theirs = exported.predict_on_batch(images[3:]), np.asarray(network(images[3:].astype("float32")))
    assert facts["largest_difference"] == pytest.approx(np.abs(mine - theirs).max(), abs=1e-5)
    scores = [
        segmentation_scores(true, found > 0.5)["jaccard"] for true, found in zip(masks[3:, ..., 0], mine[..., 0], strict=True)
    ]
    assert facts["jaccard_exported"] == pytest.approx(np.mean(scores))


@tensorflow_only
def test_outputs_that_are_no_mask_are_held_to_the_tolerance(tmp_path):
    images = photographs(count=6)
    with pytest.raises(DermasegError, match=r"Its outputs \(heat\) differ .* tolerance=1e-06"):
        export_model(convolutional("heat"), tmp_path / "model.onnx", precision="int8", check_images=images, tolerance=1e-6)


@tensorflow_only
def test_a_file_of_one_size_reads_photographs_of_any(model, tmp_path):
    path = export_model(model, tmp_path / "model.onnx", size=(24, 40))
    prediction = Predictor(path)(photographs()[0])
    assert prediction.mask.shape == photographs().shape[1:3]


@tensorflow_only
def test_a_presets_graph_that_differs_leaves_the_one_that_is_there(tmp_path, monkeypatch):
    for suffix in (".npz", ".onnx", ".json"):
        shutil.copy(FOLDER / f"unet-ham10000-128{suffix}", tmp_path)
    preset = find_preset("unet-ham10000-128", folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(DermasegError, match="not written"):
        export_graph(preset, tolerance=1e-12)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    preset.graph.unlink()
    assert OnnxModel.from_preset(find_preset(preset.name, folder=export_graph(preset).parent)).output_names == ("mask",)


@tensorflow_only
def test_int8_needs_convolutions_in_the_middle(model, tmp_path):
    with pytest.raises(DermasegError, match="convolutions between the first and the last"):
        export_model(model, tmp_path / "model.onnx", precision="int8", check_images=photographs())


@tensorflow_only
def test_float16_halves_the_weights_and_nothing_else(tmp_path):
    network = convolutional()
    exported = OnnxModel(export_model(network, tmp_path / "model.onnx", precision="float16"))
    assert len(stored_as(exported.path, onnx.TensorProto.FLOAT16)) == 4
    assert not stored_as(exported.path, onnx.TensorProto.FLOAT)
    assert exported.card["export"]["jaccard_agreement"] > 0.995
    for weight in network.weights:
        weight.assign(np.asarray(weight).astype(np.float16).astype(np.float32) if len(weight.shape) == 4 else weight)
    assert_same_outputs(np.asarray(network(photographs().astype("float32"))), exported.predict_on_batch(photographs()))


@tensorflow_only
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_litert_with_fewer_bits(precision, tmp_path):
    images, masks, *_ = synthetic_batch(6, size=(45, 61), seed=1)
    checks = {"check_images": images, "check_masks": masks, "jaccard_tolerance": 0.1}
    plain = export_model(convolutional(), tmp_path / "model.tflite")
    small = export_model(convolutional(), tmp_path / "small.tflite", precision=precision, **checks)
    assert small.stat().st_size < plain.stat().st_size
    with zipfile.ZipFile(small) as archive:
        facts = json.loads(archive.read("card.json"))["export"]
    assert facts["precision"] == precision
    assert facts["jaccard_exported"] == pytest.approx(facts["jaccard_keras"], abs=0.1)


@tensorflow_only
def test_the_shell_calibrates_on_a_folder(tmp_path, capsys):
    run, data, path = tmp_path / "run", tmp_path / "data", tmp_path / "lesion.onnx"
    run.mkdir()
    convolutional().save(run / "model.keras")
    make_synthetic(data, count=6, size=(45, 60))
    command = ["export", str(run), str(path), "--precision", "int8"]
    assert cli.run(command) == cli.USER_ERROR
    assert "--precision int8 needs --calibrate DIR" in capsys.readouterr().err
    command += ["--calibrate", str(data), "--jaccard-tolerance", "0.2"]
    assert cli.run(command) == cli.USER_ERROR
    assert "no card says at which size it was trained" in capsys.readouterr().err
    (run / "model.json").write_text(json.dumps({"size": 40}))
    assert not cli.run([*command, "--calibrate-count", "4"])
    facts = OnnxModel(path).card["export"]
    assert (facts["precision"], facts["checked_photographs"], facts["checked_px"]) == ("int8", 2, [[35, 46]])
    shown = capsys.readouterr()
    assert shown.out == f"{path}\n"
    assert shown.err.endswith(
        f"{path.stat().st_size / 1e3:.1f} kB, checked on 2 photographs: a probability differs from the Keras model's by "
        f"{facts['largest_difference']:.2g} at most, masks overlap by {facts['jaccard_agreement']:.4f} (Jaccard).\n"
    )
    assert "jaccard_keras" in facts


@tensorflow_only
def test_the_shell_calibrates_on_photographs_alone(tmp_path):
    make_synthetic(tmp_path / "data", count=4, size=(45, 60))
    convolutional().save(tmp_path / "model.keras")
    (tmp_path / "model.json").write_text(json.dumps({"size": 40}))
    command = ["export", str(tmp_path / "model.keras"), str(tmp_path / "lesion.onnx"), "--calibrate"]
    assert not cli.run([*command, str(tmp_path / "data" / "images")])
    facts = OnnxModel(tmp_path / "lesion.onnx").card["export"]
    assert (facts["checked_photographs"], facts["checked_px"]) == (4, [[35, 46]])


@tensorflow_only
def test_the_shell_calibrates_at_the_size_that_a_model_is_built_for(tmp_path):
    inputs = keras.Input((32, 40, 3), name="images")
    keras.Model(inputs, convolutional()(inputs)).save(tmp_path / "model.keras")
    (tmp_path / "model.json").write_text(json.dumps({"size": 64}))
    make_synthetic(tmp_path / "data", count=4, size=(45, 60))
    command = ["export", str(tmp_path / "model.keras"), str(tmp_path / "lesion.onnx"), "--calibrate", str(tmp_path / "data")]
    assert not cli.run(command)
    assert OnnxModel(tmp_path / "lesion.onnx").card["export"]["checked_px"] == [[32, 40]]


@tensorflow_only
@pytest.mark.thorough
def test_a_preset_is_exported_by_its_name_and_has_no_normalisation_left(tmp_path):
    path = export_model("unet-ham10000-128", tmp_path / "model.onnx")
    assert OnnxModel(path).card["size"] == training_size("unet-ham10000-128") == 128
    convolutions = sum(isinstance(layer, keras.layers.Conv2D) for layer in build_unet().layers)  # of which it is trained
    found = operations(path)
    assert found["BatchNormalization"] == 0
    assert found["Conv"] == convolutions


def test_the_training_size_is_told_by_the_card(model, tmp_path):
    with pytest.raises(DataError, match="no model here"):
        training_size(tmp_path / "model.keras")
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="no card says at which size"):
        training_size(tmp_path / "model.keras")
    (tmp_path / "model.json").write_text(json.dumps({"size": 96}))
    assert training_size(tmp_path / "model.keras") == training_size(tmp_path) == 96


def test_an_export_is_no_model_to_export(tmp_path):
    for name in ("lesion.onnx", "lesion.TFLITE", "folder/saved_model.pb"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
        given = path if path.suffix != ".pb" else path.parent
        for act in (load_model, training_size):
            with pytest.raises(DataError, match=rf"{given.name}: is exported already, .* Give the run folder or the \.keras"):
                act(given)
    assert set(SUFFIXES) == {converter.suffix for converter in CONVERTERS.values()}


def test_a_damaged_model_is_named(model, tmp_path):
    path = tmp_path / "model.keras"
    model.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(50) + content[150:])
    with pytest.raises(DataError, match=r"model\.keras: cannot be read as a Keras model \("):
        load_model(path)


@tensorflow_only
def test_a_mixed_policy_is_exported_in_float32(tmp_path):
    keras.utils.set_random_seed(0)
    mixed = tiny_model("mixed_bfloat16")
    plain = tiny_model("float32")
    plain.set_weights(mixed.get_weights())
    exported = OnnxModel(export_model(mixed, tmp_path / "model.onnx"))
    assert_same_outputs(np.asarray(plain(photographs().astype("float32"))), exported.predict_on_batch(photographs()))
    assert mixed.layers[2].compute_dtype == "bfloat16"


@tensorflow_only
def test_constants_that_tensorflow_captures_stay_constants(tmp_path):
    """EfficientNetV2B0 brings a normalisation with given statistics: tf2onnx makes inputs of them."""
    inputs = keras.Input((None, None, 3), name="images")
    x = keras.layers.Normalization(mean=[100.0, 120.0, 140.0], variance=[900.0, 400.0, 100.0])(inputs)
    network = keras.Model(inputs, keras.layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x))
    exported = OnnxModel(export_model(network, tmp_path / "model.onnx"))
    assert_same_outputs(np.asarray(network(photographs().astype("float32"))), exported.predict_on_batch(photographs()))


@tensorflow_only
@pytest.mark.slow
def test_litert(tmp_path):
    import tensorflow as tf

    network = as_if_trained(build_unet(filters=(8, 16)))
    path = export_model(network, tmp_path / "model.tflite")
    with zipfile.ZipFile(path) as archive:
        assert json.loads(archive.read("card.json"))["export"]["format"] == "litert"
    with pytest.warns(UserWarning, match=r"tf\.lite\.Interpreter is deprecated"):
        interpreter = tf.lite.Interpreter(model_path=str(path))
    images = photographs().astype("float32")
    found = interpreter.get_signature_runner()(images=images)
    np.testing.assert_allclose(found["mask"], np.asarray(network(images)), atol=1e-5)


@tensorflow_only
def test_litert_says_when_a_fixed_size_would_help(model, tmp_path, monkeypatch):
    import tensorflow as tf

    failing = mock.Mock(convert=mock.Mock(side_effect=OSError))
    with monkeypatch.context() as patch:
        patch.setattr(tf.lite.TFLiteConverter, "from_saved_model", lambda folder: failing)
        with pytest.raises(DermasegError, match=r"no kernel for a part of this model.*size=\(height, width\)"):
            export_model(model, tmp_path / "model.tflite")
        with pytest.raises(DermasegError, match=r"no kernel for a part of this model\. Export to ONNX instead"):
            export_model(model, tmp_path / "model.tflite", size=(45, 61))
    assert not list(tmp_path.iterdir())


@tensorflow_only
@pytest.mark.thorough
def test_litert_has_kernels_for_fuzzy_gates_of_any_size(tmp_path):
    assert export_model(build_fuzzy_unet(filters=(4, 8)), tmp_path / "model.tflite").is_file()


@tensorflow_only
def test_savedmodel_replaces_a_savedmodel_only(model, tmp_path):
    import tensorflow as tf

    path = tmp_path / "saved"
    path.mkdir()
    for _ in range(2):  # into an empty folder, then over the first
        assert export_model(model, path) == path
    images = photographs().astype("float32")
    served = tf.saved_model.load(str(path))
    np.testing.assert_allclose(served.serve(images)["mask"], np.asarray(model(images)), atol=1e-6)
    assert json.loads((path / "assets.extra" / "card.json").read_text())["export"]["format"] == "savedmodel"
    assert list(tmp_path.iterdir()) == [path]
    precious = tmp_path / "photographs"
    precious.mkdir()
    (precious / "a.jpg").write_bytes(b"a")
    with pytest.raises(DataError, match="exists and is no SavedModel"):
        export_model(model, precious)
    assert (precious / "a.jpg").is_file()


@tensorflow_only
def test_int8_in_litert_divides_by_what_is_small_beside_the_calibration(tmp_path):
    images = keras.Input((16, 16, 3))
    shares = images / (keras.ops.sum(images, axis=(1, 2), keepdims=True) + 1e-3)
    network = keras.Model(images, keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")(256.0 * shares))
    bright = np.random.default_rng(0).uniform(200, 255, (4, 16, 16, 3)).astype("float32")
    path = export_model(network, tmp_path / "model.tflite", precision="int8", check_images=bright, jaccard_tolerance=0.5)
    dark = np.full((1, 16, 16, 3), 0.1, "float32")
    (found,) = CONVERTERS["litert"].load(path)(dark).values()
    np.testing.assert_allclose(found, network.predict_on_batch(dark), atol=0.1)


@tensorflow_only
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model.onnx", {"format": "torch"}, "format must be auto, onnx, litert, savedmodel, got 'torch'"),
        ("model.pb", {}, r"no format has the suffix '\.pb'"),
        ("model.tflite", {"format": "onnx"}, r"a file of the format onnx ends in \.onnx"),
        ("model.onnx", {"size": (32,)}, r"size must be \(height, width\)"),
        ("model.onnx", {"size": (32, 0)}, r"size must be \(height, width\)"),
        ("model.onnx", {"precision": "int4"}, "precision must be float32 or float16 or int8 for onnx, got 'int4'"),
        ("model", {"precision": "int8"}, "precision must be float32 for savedmodel"),
        ("model.onnx", {"tolerance": 0}, "tolerance must be positive"),
        ("model.onnx", {"jaccard_tolerance": 0}, "jaccard_tolerance must be positive"),
        ("model.onnx", {"check_masks": np.zeros((1, 4, 4, 1))}, "check_masks needs the check_images"),
        (
            "model.onnx",
            {"check_images": np.zeros((1, 4, 4, 3)), "check_masks": np.zeros((1, 4, 4))},
            r"check_masks must be \(1, 4, 4, 1\), as check_images are, got \(1, 4, 4\)",
        ),
        ("model.onnx", {"check_images": np.zeros((4, 4, 3))}, r"check_images must be \(batch, height, width, 3\)"),
        ("model.onnx", {"check_images": np.zeros((1, 4, 4, 3)), "size": (8, 8)}, r"check_images are \(4, 4\)"),
    ],
)
def test_wrong_arguments_are_named(model, tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        export_model(model, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@tensorflow_only
def test_wrong_models_and_places_are_named(model, tmp_path, monkeypatch):
    fixed = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"does not fit this model, which was built for \(8, 8\)"):
        export_model(fixed, tmp_path / "model.onnx", size=(9, 9))
    with pytest.raises(ValueError, match="an unbuilt model"):
        export_model(keras.Sequential([keras.layers.Flatten()]), tmp_path / "model.onnx")
    guided = build_hybrid(num_classes=2, filters=(4, 8), mask_guidance="input")
    with pytest.raises(ValueError, match="model must take one input"):
        export_model(guided, tmp_path / "model.onnx")
    with pytest.raises(DataError, match="no model here"):
        export_model(tmp_path / "none.keras", tmp_path / "model.onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"model\.onnx: cannot be written here"):
        export_model(model, tmp_path / "file" / "model.onnx")
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    with pytest.raises(DermasegError, match=r'tf2onnx is not installed: pip install "\.\[export\]" in a clone of dermaseg'):
        export_model(model, tmp_path / "model.onnx")


def test_another_backend_is_told_what_to_do(model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(DermasegError, match="KERAS_BACKEND=tensorflow"):
        export_model(model, tmp_path / "model.onnx")
