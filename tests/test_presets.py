import json

import numpy as np
import pytest

from dermaseg import presets
from dermaseg.errors import DataError
from dermaseg.models import build_hybrid
from dermaseg.presets import DEFAULT_PRESET, list_presets, load_preset, save_preset

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
    assert sum(preset.path.stat().st_size for preset in list_presets()) < 25e6
    assert not list_presets() or list_presets()[0].name == DEFAULT_PRESET
    assert presets.FOLDER.name == "weights"
