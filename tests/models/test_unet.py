import functools

import keras
import numpy as np
import pytest

from dermaseg.models import ENCODERS, build_fuzzy_unet, build_hybrid, build_unet

SMALL = (8, 16, 24)


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype("float32")


def discs(count, size, seed=0):
    """Dark discs on light skin, and their masks."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    centre = rng.uniform(size / 3, 2 * size / 3, (count, 2, 1, 1))
    radius = rng.uniform(size / 6, size / 3, (count, 1, 1))
    masks = (rows - centre[:, 0]) ** 2 + (columns - centre[:, 1]) ** 2 < radius**2
    images = np.where(masks[..., None], 90.0, 190.0) + rng.normal(0, 12, (count, size, size, 3))
    return images.clip(0, 255).astype("float32"), masks[..., None].astype("float32")


@pytest.mark.parametrize("shape", [(1, 64, 64), (2, 45, 60), (1, 101, 97), (1, 1, 1), (1, 450, 600)])
def test_any_size_comes_back_at_its_own_size(shape):
    masks = build_unet(filters=SMALL)(pictures(*shape))
    assert tuple(masks.shape) == (*shape, 1)
    values = keras.ops.convert_to_numpy(masks)
    assert ((values >= 0) & (values <= 1)).all()


def test_the_plain_full_resolution_network_can_be_built():
    model = build_unet(filters=SMALL, stem_stride=1)
    assert model.get_layer("stem_conv").strides == (1, 1)
    assert tuple(model(pictures(1, 33, 35)).shape) == (1, 33, 35, 1)


def test_several_classes_share_one():
    masks = keras.ops.convert_to_numpy(build_unet(filters=SMALL, num_classes=4)(pictures(1, 20, 24)))
    assert masks.shape == (1, 20, 24, 4)
    np.testing.assert_allclose(masks.sum(-1), 1, atol=1e-5)


def test_no_activation_gives_the_logits():
    probabilities = build_unet(filters=SMALL)
    logits = build_unet(filters=SMALL, classifier_activation=None)
    logits.set_weights(probabilities.get_weights())
    images = pictures(1, 32, 32)
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(probabilities(images)),
        1 / (1 + np.exp(-keras.ops.convert_to_numpy(logits(images)))),
        atol=1e-5,
    )


def test_deep_supervision_names_its_masks():
    masks = build_unet(filters=(8, 16, 24, 32), deep_supervision=True)(pictures(1, 40, 50))
    assert {name: tuple(mask.shape) for name, mask in masks.items()} == {
        "mask": (1, 40, 50, 1),
        "mask_coarse": (1, 40, 50, 1),
        "mask_coarsest": (1, 40, 50, 1),
    }


def test_parameters_are_pinned():
    assert build_unet().count_params() == 4_475_905
    assert build_unet(filters=SMALL).count_params() == 18_209


@pytest.mark.slow
def test_one_batch_is_learned_by_heart(adamw):
    keras.utils.set_random_seed(0)
    images, masks = discs(8, 32)
    model = build_unet(filters=SMALL)
    model.compile(adamw(model, 1e-2), "binary_crossentropy")
    for _ in range(60):
        model.train_on_batch(images, masks)
    predicted = model.predict_on_batch(images) > 0.5
    overlap = (predicted & (masks > 0.5)).sum() / (predicted | (masks > 0.5)).sum()
    assert overlap > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_xla_trains_and_predicts_in_float32_probabilities(policy, keras_policy, adamw):
    keras_policy(policy)
    model = build_unet(filters=SMALL[:2])
    model.compile(adamw(model), "binary_crossentropy", jit_compile=True)
    images, masks = discs(2, 30)
    loss = model.train_on_batch(images, masks)
    assert np.isfinite(loss)
    predicted = model.predict_on_batch(images)
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()


def test_clone_has_the_same_weights_shape():
    model = build_unet(filters=SMALL, dropout=0.1)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    images = pictures(1, 32, 32)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(clone(images)), keras.ops.convert_to_numpy(model(images)), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "encoder",
    [name if name == "MobileNetV3Large" else pytest.param(name, marks=pytest.mark.thorough) for name in sorted(ENCODERS)],
)
def test_encoders_give_skips_at_exact_strides_of_odd_sizes(encoder):
    if keras.backend.backend() == "jax" and encoder != "MobileNetV3Large":
        pytest.skip("building hundreds of layers takes JAX minutes; one encoder shows that the backend works")
    model = build_unet(encoder=encoder)
    pyramid = model.get_layer("encoder")
    specs = pyramid.compute_output_spec(keras.KerasTensor((1, 96, 160, 3)))
    strides = [96 // spec.shape[1] for spec in specs]
    assert strides == ([4, 8, 16, 32] if encoder == "ConvNeXtTiny" else [2, 4, 8, 16, 32])
    assert all(spec.shape[1:3] == (96 // stride, 160 // stride) for spec, stride in zip(specs, strides, strict=True))
    assert model.compute_output_spec(keras.KerasTensor((1, 75, 101, 3))).shape == (1, 75, 101, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": (16,)}, "filters must hold two or more"),
        ({"filters": (16, 0)}, "filters must hold two or more"),
        ({"num_classes": 0}, "num_classes must be a positive integer"),
        ({"stem_stride": 3}, "stem_stride must be 1 or 2"),
        ({"dropout": 1.0}, "dropout must be at least 0"),
        ({"encoder": "VGG16"}, "encoder must be one of"),
        ({"encoder_weights": "imagenet"}, "encoder_weights needs an encoder"),
        ({"filters": (8, 16, 24), "deep_supervision": True}, "deep_supervision needs at least 3"),
        ({"encoder": "MobileNetV3Large", "encoder_weights": "no/such.weights.h5"}, "could not be loaded"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_unet(**arguments)


def test_numpys_integers_are_integers(tmp_path):
    model = build_unet(filters=tuple(np.array([8, 16])), num_classes=np.int64(2))
    model.save(tmp_path / "model.keras")
    assert keras.saving.load_model(tmp_path / "model.keras").output_shape == (None, None, None, 2)
    with pytest.raises(ValueError, match="num_classes must be a positive integer"):
        build_unet(filters=(8, 16), num_classes=True)


@pytest.mark.parametrize("build", [build_unet, build_fuzzy_unet, functools.partial(build_hybrid, num_classes=3)])
def test_an_odd_picture_is_seen_as_its_mirrored_one(build):
    """Of 31 by 47 pixels the stem alone needs one more: padded beforehand, the same mask comes out at the same place."""
    model = build(filters=(8, 8))
    images = np.random.default_rng(0).uniform(0, 255, (1, 31, 47, 3)).astype("float32")
    mirrored = np.pad(images, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="reflect")
    odd, even = (model.predict_on_batch(each) for each in (images, mirrored))
    odd, even = (each["mask"] if isinstance(each, dict) else each for each in (odd, even))
    np.testing.assert_allclose(odd, even[:, :31, :47], atol=1e-5)
