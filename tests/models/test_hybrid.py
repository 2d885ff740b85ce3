import keras
import numpy as np
import pytest
from keras import ops

from dermaseg.models.hybrid import UncertaintyWeightedModel, build_hybrid

SMALL = {"num_classes": 3, "filters": (8, 16, 24)}
TINY = {"num_classes": 3, "filters": (8, 8)}


@keras.saving.register_keras_serializable(package="dermaseg_tests")
class PixelCrossentropy(keras.losses.Loss):
    """One value an image, as the library's mask losses give."""

    def call(self, y_true, y_pred):
        return ops.mean(keras.losses.binary_crossentropy(y_true, y_pred), axis=(1, 2))


def losses():
    return {"mask": PixelCrossentropy(), "label": keras.losses.SparseCategoricalCrossentropy()}


def lesions(count=6, height=32, width=32, seed=0):
    """Discs of three colours, their masks, and the colour as the label."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    masks = (rows - height / 2) ** 2 + (columns - width / 2) ** 2 < rng.uniform(50, 150, (count, 1, 1))
    labels = np.arange(count) % 3
    colours = 70.0 + 130.0 * np.eye(3)[labels]
    images = np.where(masks[..., None], colours[:, None, None], 190.0) + rng.normal(0, 8, (count, height, width, 3))
    return images.astype("float32"), {"mask": masks[..., None].astype("float32"), "label": labels}


def numpy_outputs(outputs):
    return {name: ops.convert_to_numpy(value) for name, value in outputs.items()}


def changed(model, before):
    return {
        variable.path
        for variable, old in zip(model.trainable_variables, before, strict=True)
        if not np.array_equal(ops.convert_to_numpy(variable), old)
    }


def weights_of(model):
    return [ops.convert_to_numpy(variable) for variable in model.trainable_variables]


@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 45, 61), (1, 1, 1)])
@pytest.mark.parametrize("arguments", [{}, {"fuzzy": True}, {"mask_guidance": False}], ids=["guided", "fuzzy", "unguided"])
def test_any_size_gives_a_mask_and_a_diagnosis(shape, arguments):
    images, _ = lesions(*shape)
    outputs = numpy_outputs(build_hybrid(**SMALL, **arguments)(images))
    assert {name: value.shape for name, value in outputs.items()} == {"mask": (*shape, 1), "label": (shape[0], 3)}
    np.testing.assert_allclose(outputs["label"].sum(-1), 1, atol=1e-5)
    assert all(value.dtype == np.float32 for value in outputs.values())


def test_parameters_are_pinned():
    assert build_hybrid(num_classes=7).count_params() == 4_492_813
    assert build_hybrid(**SMALL).count_params() == 18_455


def test_maps_at_stride_16_and_coarser_are_pooled():
    model = build_hybrid(num_classes=7)
    pools = {layer.name for layer in model.layers if "_pool_" in layer.name and layer.name.split("_")[0] != "encoder"}
    assert pools == {f"{kind}_pool_{stride}" for kind in ("global", "lesion", "border") for stride in (16, 32, 64)}


def test_a_given_mask_guides_the_diagnosis_and_leaves_the_mask_alone():
    keras.utils.set_random_seed(0)
    model = build_hybrid(**SMALL, mask_guidance="input")
    images, targets = lesions()
    one = numpy_outputs(model({"images": images, "guide": targets["mask"]}))
    other = numpy_outputs(model({"images": images, "guide": 1 - targets["mask"][:, ::-1, :8].repeat(4, axis=2)}))
    np.testing.assert_array_equal(one["mask"], other["mask"])
    assert not np.allclose(one["label"], other["label"])


def mask_layers(model):
    return {
        variable.path for layer in model.layers if layer.name.startswith(("decoder", "mask")) for variable in layer.variables
    }


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_the_diagnosis_moves_the_mask_only_if_asked(stop_gradient):
    keras.utils.set_random_seed(0)
    images, targets = lesions()
    model = build_hybrid(**SMALL, stop_gradient=stop_gradient)
    model.compile(keras.optimizers.SGD(1.0), loss=losses())
    weights = {"mask": np.zeros(6, "float32"), "label": np.ones(6, "float32")}
    before = weights_of(model)
    model.train_on_batch(images, targets, sample_weight=weights)
    moved = changed(model, before)
    assert any(path.startswith("encoder") for path in moved)
    assert bool(moved & mask_layers(model)) == (not stop_gradient)


@pytest.mark.parametrize("learned_weights", [True, False])
@pytest.mark.parametrize("missing", ["mask", "label"])
def test_a_batch_without_one_target_trains_the_other(learned_weights, missing):
    keras.utils.set_random_seed(0)
    images, targets = lesions()
    weights = {name: np.ones(6, "float32") for name in targets}
    targets[missing], weights[missing] = np.zeros_like(targets[missing]), np.zeros(6, "float32")
    model = build_hybrid(**SMALL, learned_weights=learned_weights)
    model.compile(keras.optimizers.SGD(0.1), loss=losses())
    before = weights_of(model)
    assert np.isfinite(model.train_on_batch(images, targets, sample_weight=weights)).all()
    moved = changed(model, before)
    assert ("label_logits/kernel" in moved) == (missing != "label")
    assert ("mask_logits/kernel" in moved) == (missing != "mask")


def test_a_missing_target_counts_for_nothing_in_a_mixed_batch():
    keras.utils.set_random_seed(0)
    images, targets = lesions()
    has_mask = np.array([1, 1, 1, 0, 0, 0], "float32")
    weights = {"mask": has_mask, "label": 1 - has_mask}
    model = build_hybrid(**SMALL)
    model.compile("sgd", loss=losses())
    figures = model.test_on_batch(images, targets, sample_weight=weights, return_dict=True)
    targets["mask"][3:] = 1 - targets["mask"][3:]
    targets["label"][:3] = 2
    assert model.test_on_batch(images, targets, sample_weight=weights, return_dict=True) == pytest.approx(figures)


def test_the_learned_loss_is_that_of_its_layer():
    images, targets = lesions()
    model = build_hybrid(**SMALL)
    model.compile("sgd", loss=losses())
    model.uncertainty.log_variance.assign([1.0, -0.5])
    figures = model.test_on_batch(images, targets, return_dict=True)
    expected = np.exp(-1.0) * figures["label_loss"] + np.exp(0.5) * figures["mask_loss"] + (1.0 - 0.5) / 2
    assert figures["loss"] == pytest.approx(expected, rel=1e-5)


def test_losses_of_outputs_are_means_over_photographs_however_they_are_batched():
    images, targets = lesions()
    model = build_hybrid(**SMALL)
    model.compile("sgd", loss=losses())
    whole = model.evaluate(images, targets, batch_size=len(images), return_dict=True, verbose=0)
    parts = model.evaluate(images, targets, batch_size=len(images) - 1, return_dict=True, verbose=0)
    assert parts == pytest.approx(whole, rel=1e-4)


@pytest.mark.slow
def test_one_batch_is_learned_by_heart(adamw):
    keras.utils.set_random_seed(0)
    images, targets = lesions()
    model = build_hybrid(**SMALL)
    model.compile(adamw(model, 1e-2), loss=losses())
    for _ in range(60):
        model.train_on_batch(images, targets)
    predicted = model.predict_on_batch(images)
    assert (predicted["label"].argmax(-1) == targets["label"]).all()
    mask, true = predicted["mask"] > 0.5, targets["mask"] > 0.5
    assert (mask & true).sum() / (mask | true).sum() > 0.9
    # Both losses fall below 1, so both log variances fall below 0.
    assert (ops.convert_to_numpy(model.uncertainty.log_variance) < 0).all()


@pytest.mark.thorough
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_xla_trains_and_predicts_in_float32(policy, keras_policy, adamw):
    keras_policy(policy)
    images, targets = lesions(4, 30, 34)
    model = build_hybrid(**TINY, dropout=0.1)
    model.compile(adamw(model), loss=losses(), metrics={"label": ["accuracy"]}, jit_compile=True)
    figures = model.train_on_batch(images, targets, return_dict=True)
    assert set(figures) == {"loss", "mask_loss", "label_loss", "label_accuracy"}
    assert np.isfinite(list(figures.values())).all()
    for value in model.predict_on_batch(images).values():
        assert value.dtype == np.float32
        assert np.isfinite(value).all()


def test_a_clone_with_the_same_weights_is_the_same_function():
    model = build_hybrid(**SMALL, fuzzy=True)
    clone = keras.models.clone_model(model)
    assert isinstance(clone, UncertaintyWeightedModel)
    clone.set_weights(model.get_weights())
    images, _ = lesions(2)
    expected = numpy_outputs(model(images))
    for name, value in numpy_outputs(clone(images)).items():
        np.testing.assert_allclose(value, expected[name], atol=1e-6)


def test_an_encoder_of_keras_applications_can_be_used():
    model = build_hybrid(num_classes=3, encoder="MobileNetV3Large")
    outputs = model.compute_output_spec(keras.KerasTensor((1, 75, 101, 3)))
    assert outputs["mask"].shape == (1, 75, 101, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_guidance": "true"}, "mask_guidance must be True, False or 'input'"),
        ({"dropout": -0.1}, "dropout must be at least 0"),
        ({"filters": (8,)}, "filters must hold two or more"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_hybrid(**{**SMALL, **arguments})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "loss must hold a keras.losses.Loss for each of label, mask"),
        ({"loss": "mse"}, "loss must hold"),
        ({"loss": {"mask": PixelCrossentropy()}}, "loss must hold"),
        ({"loss": {"mask": "mse", "label": "mse"}}, "loss must hold"),
        ({"loss": losses(), "loss_weights": {"mask": 1.0, "label": 2.0}}, "loss_weights are learned"),
    ],
)
def test_compile_wants_a_loss_for_each_output(options, message):
    with pytest.raises(ValueError, match=message):
        build_hybrid(**SMALL).compile("adam", **options)
