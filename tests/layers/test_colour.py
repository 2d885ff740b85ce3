"""Shades of grey: white light changes nothing, coloured light goes away, on every backend and policy."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from dermaseg.layers.colour import ShadesOfGray, shades_of_gray


def skin(count=3, height=10, width=12, seed=0):
    return np.random.default_rng(seed).integers(20, 180, (count, height, width, 3)).astype("float32")


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor)


def oracle(images, power):
    light = images.astype(np.float64)
    illuminant = (light**power).mean(axis=(1, 2)) ** (1 / power)
    unit = illuminant / np.linalg.norm(illuminant, axis=-1, keepdims=True)  # Barata et al.: 1 / (e_c * sqrt(3))
    return (light / (np.sqrt(3) * unit[:, None, None])).clip(0, 255)


@pytest.mark.parametrize("power", [1, 2, 6, 12])
def test_agrees_with_the_formula_in_double_precision(power):
    np.testing.assert_allclose(to_numpy(shades_of_gray(skin(), power=power)), oracle(skin(), power), rtol=1e-4, atol=1e-3)


def test_value_by_hand():
    # e = (200, 100, 100), |e| / sqrt(3) = 100 * sqrt(2): every channel becomes 141.4
    images = np.full((1, 2, 2, 3), (200.0, 100.0, 100.0))
    np.testing.assert_allclose(to_numpy(shades_of_gray(images)), 100 * np.sqrt(2), rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.tuples(*[st.floats(0.6, 1.3)] * 3), st.floats(1, 10))
def test_the_colour_of_the_light_goes_away(gains, power):
    def chroma(images):
        corrected = to_numpy(shades_of_gray(images, power=power))
        return corrected / corrected.sum(axis=-1, keepdims=True)

    dim = skin() * 0.5
    np.testing.assert_allclose(chroma(dim * np.float32(gains)), chroma(dim), atol=1e-3)


def test_white_light_stays():
    grey = np.repeat(skin()[..., :1], 3, axis=-1)
    np.testing.assert_allclose(to_numpy(shades_of_gray(grey)), grey, rtol=1e-5)


def test_images_of_a_batch_do_not_meet():
    together = to_numpy(shades_of_gray(skin()))
    apart = np.concatenate([to_numpy(shades_of_gray(image[None])) for image in skin()])
    np.testing.assert_allclose(together, apart, rtol=1e-5)


@pytest.mark.parametrize("level", [0, 1, 255])
def test_flat_pictures_stay_finite_and_as_they_are(level):
    images = np.full((1, 4, 4, 3), level, np.uint8)
    np.testing.assert_allclose(to_numpy(shades_of_gray(images)), level, atol=1e-3)


def test_a_dark_channel_stays_dark():
    images = skin()
    images[..., 2] = 0
    corrected = to_numpy(shades_of_gray(images))
    assert np.isfinite(corrected).all()
    assert corrected[..., 2].max() == 0


@pytest.mark.parametrize("power", [20, 60])
def test_large_powers_correct_dim_pictures_too(power):
    dim = skin() * 0.05
    np.testing.assert_allclose(to_numpy(shades_of_gray(dim, power=power)), oracle(dim / 255, power) * 255, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("power", [1, 6])
def test_a_black_picture_has_a_finite_gradient(power):
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Conv2D(3, 1, use_bias=False), ShadesOfGray(power)])
    model.layers[0].kernel.assign(ops.zeros((1, 1, 3, 3)))
    model.compile("sgd", "mse")
    model.train_on_batch(skin(2, 4, 4), skin(2, 4, 4))
    assert np.isfinite(model.get_weights()[0]).all()


@pytest.mark.parametrize("power", [0.5, 0, -1])
def test_impossible_powers_are_named(power):
    for make in (lambda: shades_of_gray(skin(), power=power), lambda: ShadesOfGray(power=power)):
        with pytest.raises(ValueError, match=f"power={power}"):
            make()


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_layer_computes_in_float32_under_every_policy(policy, keras_policy):
    keras_policy(policy)
    output = ShadesOfGray()(ops.convert_to_tensor(skin()))
    assert keras.backend.standardize_dtype(output.dtype) == "float32"
    np.testing.assert_allclose(to_numpy(output), oracle(skin(), 6), rtol=1e-4, atol=1e-3)


def test_model_with_the_layer_saves_and_takes_any_size(tmp_path):
    inputs = keras.Input((None, None, 3))
    model = keras.Model(inputs, ShadesOfGray(power=4)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[-1].power == 4
    for size in ((10, 12), (7, 5)):
        images = skin(2, *size)
        np.testing.assert_allclose(to_numpy(loaded(images)), oracle(images, 4), rtol=1e-4, atol=1e-3)


def test_layer_predicts_compiled():
    model = keras.Sequential([keras.Input((10, 12, 3)), ShadesOfGray()])
    model.compile(jit_compile=True)
    np.testing.assert_allclose(model.predict(skin(), verbose=0), oracle(skin(), 6), rtol=1e-4, atol=1e-3)
