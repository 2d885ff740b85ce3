"""The Fuzzy U-Net is the U-Net plus gates."""

import keras
import numpy as np
import pytest
from keras import ops

from dermaseg.losses.fuzzy import FuzzySegmentation
from dermaseg.models.fuzzy_unet import build_fuzzy_unet
from dermaseg.models.unet import build_unet

FILTERS = (8, 16, 24)


def images(height=32, width=32, count=2):
    return np.random.default_rng(0).uniform(0, 255, (count, height, width, 3)).astype("float32")


def share_weights(source, target):
    """Copy weights by layer name, as a fair comparison does."""
    for layer in source.layers:
        if layer.weights:
            target.get_layer(layer.name).set_weights(layer.get_weights())


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ({}, "float32"),
        ({}, "mixed_bfloat16"),
        ({"gate": "linear", "bottleneck_gate": True}, "float32"),
        ({"gate": "attention"}, "float32"),
        ({"gate_stride": 1, "rules": 3, "gate_channels": 4}, "float32"),
        ({"gate_stride": 1}, "mixed_bfloat16"),
    ],
)
def test_starts_as_the_plain_unet(options, policy, keras_policy):
    keras_policy(policy)
    plain = build_unet(filters=FILTERS)
    fuzzy = build_fuzzy_unet(filters=FILTERS, **options)
    share_weights(plain, fuzzy)
    picture = images(45, 27)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(model(picture)) for model in (fuzzy, plain)))


def test_bottleneck_gate_takes_a_coarsest_map_of_one_pixel():
    assert build_fuzzy_unet(filters=FILTERS, bottleneck_gate=True)(images(5, 7)).shape == (2, 5, 7, 1)


def test_adds_only_gates():
    plain = {layer.name for layer in build_unet(filters=FILTERS).layers}
    fuzzy = {layer.name for layer in build_fuzzy_unet(filters=FILTERS).layers}
    # An odd skip is made even for its gate, and cut again.
    assert fuzzy - plain == {f"gate_{level}{part}" for level in (0, 1) for part in ("", "_pad", "_crop")}
    assert plain <= fuzzy


def test_parameter_count_is_pinned():
    assert build_fuzzy_unet().count_params() == 4_526_214


@pytest.mark.parametrize(("num_classes", "stem_stride"), [(1, 2), (3, 1)])
def test_uncertainty_maps(num_classes, stem_stride):
    options = {"filters": FILTERS, "num_classes": num_classes, "stem_stride": stem_stride}
    plain, model = build_fuzzy_unet(**options), build_fuzzy_unet(**options, uncertainty=True)
    model.set_weights(plain.get_weights())
    picture = images(45, 27)
    outputs = {name: ops.convert_to_numpy(output) for name, output in model(picture).items()}
    assert {name: output.shape for name, output in outputs.items()} == {
        "mask": (2, 45, 27, num_classes),
        "uncertainty": (2, 45, 27, 1),
        "rule_entropy": (2, 45, 27, 1),
    }
    np.testing.assert_array_equal(outputs["mask"], ops.convert_to_numpy(plain(picture)))
    best = outputs["mask"].max(-1, keepdims=True)
    expected = 1 - np.abs(2 * best - 1) if num_classes == 1 else (1 - best) * 1.5
    np.testing.assert_allclose(outputs["uncertainty"], expected, atol=1e-6)
    for name in ("uncertainty", "rule_entropy"):
        assert outputs[name].dtype == np.float32
        assert outputs[name].min() >= 0
        assert outputs[name].max() <= 1 + 1e-5
    assert outputs["rule_entropy"].std() > 0


def test_rule_entropy_is_that_of_the_finest_gate():
    model = build_fuzzy_unet(filters=FILTERS, stem_stride=1, gate_stride=1, rules=4, uncertainty=True)
    picture = images()
    strengths = ops.convert_to_numpy(keras.Model(model.input, model.get_layer("gate_0").output[1])(picture))
    entropy = -(strengths * np.log(strengths)).sum(-1, keepdims=True) / np.log(4)
    np.testing.assert_allclose(ops.convert_to_numpy(model(picture)["rule_entropy"]), entropy, atol=1e-5)


def test_deep_supervision_keeps_its_outputs_beside_the_uncertainty():
    model = build_fuzzy_unet(filters=(8, 8, 8, 8), deep_supervision=True, uncertainty=True)
    assert set(model(images())) == {"mask", "mask_coarse", "mask_coarsest", "uncertainty", "rule_entropy"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "soft"}, "gate must be one of"),
        ({"uncertainty": True, "gate": "attention"}, "uncertainty needs"),
        ({"uncertainty": True, "classifier_activation": None}, "uncertainty needs"),
        ({"rules": 1}, "rules"),
        ({"gate_stride": 4}, "gate_stride must be 1 or 2, got 4"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        build_fuzzy_unet(filters=FILTERS, **options)


@pytest.mark.thorough
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_overfits_one_batch_under_xla(policy, keras_policy, adamw):
    keras_policy(policy)
    keras.utils.set_random_seed(0)
    picture = images()
    mask = np.zeros((2, 32, 32, 1), "float32")
    mask[0, 8:24, 6:20] = mask[1, 4:14, 10:28] = 1
    picture = picture * 0.2 + 180 * (1 - 0.7 * mask)
    model = build_fuzzy_unet(input_shape=(32, 32, 3), filters=FILTERS[:2])
    model.compile(adamw(model, 0.01), FuzzySegmentation(tau_px=1.0), jit_compile=True)
    first = model.train_on_batch(picture, mask)
    for _ in range(40):
        last = model.train_on_batch(picture, mask)
    assert last < 0.3 * first
    prediction = model.predict_on_batch(picture)
    assert prediction.dtype == np.float32
    assert np.any(ops.convert_to_numpy(model.get_layer("gate_0").theta) != 0)


def test_clones():
    model = build_fuzzy_unet(filters=FILTERS, uncertainty=True)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    picture = images()
    found, expected = (ops.convert_to_numpy(each(picture)["mask"]) for each in (clone, model))
    np.testing.assert_allclose(found, expected, atol=1e-6)
