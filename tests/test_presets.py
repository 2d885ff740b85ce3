import json
from pathlib import Path

import numpy as np
import pytest

from dermaseg.errors import DataError
from dermaseg.models import build_cnn, build_fuzzy_unet, build_hybrid, build_unet
from dermaseg.presets import DEFAULT_PRESET, list_presets, load_preset, save_preset
from dermaseg.pretrained import FOLDER, folded_kernels, is_preset, read_weights

ARGUMENTS = {"num_classes": 3, "filters": [8, 16]}
CARD = {"summary": "A test.", "license": "CC BY-NC 4.0", "size": 32}


@pytest.fixture
def made(tmp_path):
    model = build_hybrid(num_classes=3, filters=(8, 16))
    return model, save_preset(model, "tiny", builder="build_hybrid", arguments=ARGUMENTS, card=CARD, folder=tmp_path)


def test_a_preset_comes_back_in_half_precision(made, tmp_path):
    model, preset = made
    again = load_preset("tiny", folder=tmp_path)
    photo = np.random.default_rng(0).integers(0, 256, (1, 45, 61, 3)).astype("uint8")
    for name, output in again.predict_on_batch(photo).items():
        np.testing.assert_allclose(output, model.predict_on_batch(photo)[name], atol=5e-3)
    assert "CC BY-NC" in preset.summary
    assert [found.name for found in list_presets(tmp_path)] == ["tiny"]


def test_changed_weights_are_refused(made, tmp_path):
    _, preset = made
    content = bytearray(preset.path.read_bytes())
    content[len(content) // 2] ^= 1
    preset.path.write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        load_preset("tiny", folder=tmp_path)
    preset.path.unlink()
    with pytest.raises(DataError, match="missing"):
        load_preset("tiny", folder=tmp_path)


def test_a_card_cannot_name_any_function(made, tmp_path):
    _, preset = made
    card = preset.path.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "builder": "load_model"}))
    with pytest.raises(DataError, match="none of build_unet"):
        load_preset("tiny", folder=tmp_path)


def test_a_graph_of_other_weights_is_not_run(made, tmp_path):
    model, preset = made
    preset.graph.write_bytes(b"of the weights before")
    assert not preset.runs_without_keras  # whose card knows no graph
    save_preset(model, "tiny", builder="build_hybrid", arguments=ARGUMENTS, card=CARD, folder=tmp_path)
    assert not preset.graph.exists()


def test_weights_of_another_network_are_refused(made, tmp_path):
    _, preset = made
    card = preset.path.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), "arguments": {"num_classes": 4, "filters": [8, 16]}}))
    with pytest.raises(DataError, match="does not fit the network"):
        load_preset("tiny", folder=tmp_path)


def test_mistakes_are_named(made, tmp_path):
    model, _ = made
    with pytest.raises(DataError, match="there is no preset 'huge'; there are tiny"):
        load_preset("huge", folder=tmp_path)
    with pytest.raises(ValueError, match=r"builder must be one of build_unet, .* got 'build_encoder'"):
        save_preset(model, "x", builder="build_encoder", arguments={}, card=CARD, folder=tmp_path)
    with pytest.raises(ValueError, match="card lacks 'license'"):
        save_preset(model, "x", builder="build_hybrid", arguments={}, card={"summary": "", "size": 1}, folder=tmp_path)
    model.get_layer("label_logits").kernel.assign(np.full(model.get_layer("label_logits").kernel.shape, 1e5))
    with pytest.raises(ValueError, match="range of half precision"):
        save_preset(model, "x", builder="build_hybrid", arguments=ARGUMENTS, card=CARD, folder=tmp_path)


@pytest.mark.parametrize("preset", list_presets(), ids=lambda preset: preset.name)
def test_packaged_presets_are_whole(preset):
    model = load_preset(preset.name)
    assert model.count_params() > 0
    for field in ("task", "size", "data", "figures", "intended_use", "limits", "license"):
        assert preset.card[field], field


def test_packaged_presets_stay_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 25e6
    assert list_presets()[0].name == DEFAULT_PRESET
    assert is_preset(DEFAULT_PRESET)
    assert not is_preset("photo.jpg")


@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_is_no_preset(kind, tmp_path):
    (tmp_path / "model.json").write_text("{}")
    assert not is_preset(kind(tmp_path / "model"))
    assert not is_preset(kind(FOLDER / DEFAULT_PRESET))


@pytest.mark.parametrize("preset", list_presets(), ids=lambda preset: preset.name)
def test_a_preset_computes_the_same_without_keras(preset):
    pytest.importorskip("onnxruntime")
    from dermaseg.data.synthetic import synthetic_batch
    from dermaseg.prediction.outputs import named_outputs
    from dermaseg.runtime import OnnxModel

    photographs = synthetic_batch(2, size=(75, 101), seed=1)[0]
    expected = named_outputs(load_preset(preset.name).predict_on_batch(photographs))
    found = named_outputs(OnnxModel.from_preset(preset).predict_on_batch(photographs))
    assert found.keys() == expected.keys()
    for name, output in expected.items():
        np.testing.assert_allclose(found[name], output, atol=1e-3)


def test_folding_keeps_what_convolution_and_normalisation_compute():
    import keras

    rng = np.random.default_rng(0)
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(5, 1, use_bias=False, name="a_conv")])
    model.add(keras.layers.BatchNormalization(name="a_norm"))
    model.set_weights([rng.uniform(0.5, 2, weight.shape) for weight in model.weights])
    weights = {"/".join(weight.path.split("/")[-2:]): np.asarray(weight) for weight in model.weights}
    pixels = rng.normal(size=(1, 4, 4, 3)).astype("float32")
    folded = folded_kernels(weights)["a_conv/kernel"]
    assert folded.shape == (5, 3, 1, 1)
    slope = model.predict_on_batch(pixels) - model.predict_on_batch(0 * pixels)
    np.testing.assert_allclose(slope, pixels @ folded[:, :, 0, 0].T, rtol=1e-4, atol=1e-5)


def test_builders_start_from_a_preset():
    stored = read_weights(list_presets()[0])
    for build in (build_unet, build_fuzzy_unet):
        model = build(weights="unet-ham10000-128")
        assert model.count_params() > 0
    assert set(build_unet(weights="unet-ham10000-128", deep_supervision=True).output) == {
        "mask",
        "mask_coarse",
        "mask_coarsest",
    }
    hybrid = build_hybrid(num_classes=3, weights=DEFAULT_PRESET)
    for weight in hybrid.weights:
        if weight.path.startswith("encoder_"):
            np.testing.assert_array_equal(np.asarray(weight), stored[weight.path].astype("float32"))
    assert hybrid.output["label"].shape == (None, 3)


def test_a_preset_that_does_not_fit_a_builder_says_how_it_was_trained():
    with pytest.raises(ValueError, match=r"weights='unet-ham10000-128' do not fit: .* trained as build_unet with its defaults"):
        build_cnn(num_classes=2, weights="unet-ham10000-128")
    with pytest.raises(DataError, match="there is no preset 'imagenet'"):
        build_unet(weights="imagenet")
