"""Our batch normalisation is Keras's: values, gradients, running statistics; only the time differs."""

import keras
import numpy as np
import pytest
from keras import ops

from dermaseg.layers import BatchNormalization

FEATURES = np.random.default_rng(0).normal(3, 2, (4, 6, 5, 8)).astype("float32")
TARGETS = np.random.default_rng(1).normal(size=FEATURES.shape).astype("float32")


def trained(layer, policy, steps=3):
    """A convolution, the layer, a loss; a few steps. The convolution's gradient is the layer's with regard to its input."""
    with_policy = keras.dtype_policies.get(policy)
    first = keras.layers.Conv2D(8, 1, kernel_initializer=keras.initializers.GlorotUniform(seed=0), dtype=with_policy)
    model = keras.Sequential([keras.Input(FEATURES.shape[1:]), first, layer])
    layer.gamma.assign(np.linspace(0.5, 1.5, 8))
    layer.beta.assign(np.linspace(-1, 1, 8))
    model.compile(keras.optimizers.SGD(0.1), "mse")
    losses = [float(model.train_on_batch(FEATURES, TARGETS)) for _ in range(steps)]
    weights = [ops.convert_to_numpy(ops.cast(weight, "float32")) for weight in model.weights]
    return losses, weights, np.asarray(model.predict_on_batch(FEATURES), "float32")


@pytest.mark.parametrize(("policy", "tolerance"), [("float32", 2e-5), ("mixed_bfloat16", 2e-2), ("mixed_float16", 2e-2)])
def test_trains_as_keras_does(policy, tolerance):
    ours, keras_own = (
        trained(kind(momentum=0.9, dtype=keras.dtype_policies.get(policy)), policy)
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    )
    np.testing.assert_allclose(ours[0], keras_own[0], rtol=tolerance)
    for own, other in zip(ours[1], keras_own[1], strict=True):
        np.testing.assert_allclose(own, other, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(ours[2], keras_own[2], atol=3 * tolerance)


@pytest.mark.skipif(keras.backend.backend() == "jax", reason="JAX has no double precision unless it is told to")
def test_double_precision_is_left_to_keras():
    ours, keras_own = (
        trained(kind(momentum=0.9, dtype="float64"), "float64")
        for kind in (BatchNormalization, keras.layers.BatchNormalization)
    )
    np.testing.assert_allclose(ours[0], keras_own[0], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"axis": 1}, (2, 4, 5, 6)),
        ({"scale": False}, (2, 4, 5, 6)),
        ({"center": False}, (2, 4, 5, 6)),
        ({}, (8, 6)),
        ({}, (2, 5, 6)),
    ],
)
def test_what_the_kernel_cannot_do_is_left_to_keras(options, shape):
    features = np.random.default_rng(2).normal(1, 3, shape).astype("float32")
    ours, keras_own = BatchNormalization(**options), keras.layers.BatchNormalization(**options)
    found, expected = (ops.convert_to_numpy(layer(features, training=True)) for layer in (ours, keras_own))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    for own, other in zip(ours.weights, keras_own.weights, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(own), ops.convert_to_numpy(other), atol=1e-6)


def test_a_frozen_layer_keeps_its_statistics():
    layer = BatchNormalization()
    layer.build(FEATURES.shape)
    layer.trainable = False
    outputs = layer(FEATURES, training=True)
    np.testing.assert_allclose(outputs, FEATURES / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(8))


def test_is_saved_with_all_its_settings(tmp_path):
    model = keras.Sequential([keras.Input((None, None, 8)), BatchNormalization(momentum=0.8, epsilon=1e-2)])
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert isinstance(again, BatchNormalization)
    assert (again.momentum, again.epsilon) == (0.8, 1e-2)


def test_compiles_under_xla():
    losses = []
    for compiled in (True, keras.backend.backend() == "jax"):
        model = keras.Sequential([keras.Input(FEATURES.shape[1:]), BatchNormalization()])
        model.compile("sgd", "mse", jit_compile=compiled)
        losses.append(float(model.train_on_batch(FEATURES, TARGETS)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
