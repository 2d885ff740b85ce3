"""The optimizer takes the steps of Keras's AdamW, and is built before a step is traced."""

import keras
import numpy as np
import pytest

from dermaseg.models import build_hybrid
from dermaseg.optimizers import AdamW, planned_adamw


def trained(optimizer, *, built, jit_compile=False):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dense(5, activation="tanh")(inputs)))
    model.compile(optimizer, "mse", jit_compile=jit_compile)
    if built:
        optimizer.build(model.trainable_variables)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(32, 6)), random.normal(size=(32, 1))
    model.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize(
    ("decay", "options", "jit_compile"),
    [
        (0.0, {}, False),
        (0.3, {}, True),
        (0.3, {"use_ema": True, "ema_momentum": 0.9}, False),
        (0.3, {"amsgrad": True, "beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-5}, False),
        (0.3, {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-5, "gradient_accumulation_steps": 2}, False),
    ],
)
def test_steps_are_those_of_keras(decay, options, jit_compile):
    def rate():
        return keras.optimizers.schedules.CosineDecay(1e-3, 20, warmup_target=0.1, warmup_steps=3)

    ours = trained(AdamW(rate(), weight_decay=decay, global_clipnorm=1.0, **options), built=True, jit_compile=jit_compile)
    theirs = trained(keras.optimizers.AdamW(rate(), weight_decay=decay, global_clipnorm=1.0, **options), built=False)
    if "use_ema" in options:
        for model in (ours, theirs):
            model.optimizer.finalize_variable_values(model.trainable_variables)
    for own, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-4, atol=1e-5)


def test_steps_outside_fit_are_those_of_keras_with_a_rate_that_is_changed_between_them():
    ours, theirs = AdamW(0.1, weight_decay=0.2), keras.optimizers.AdamW(0.1, weight_decay=0.2)
    weights = [keras.Variable([[1.0, -2.0], [3.0, 4.0]]) for _ in range(2)]
    for step in range(4):
        for optimizer, weight in zip((ours, theirs), weights, strict=True):
            optimizer.learning_rate = 0.1 / (step + 1)
            optimizer.apply([keras.ops.cos(weight.value) * 3], [weight])
    np.testing.assert_allclose(*map(np.asarray, weights), rtol=1e-5)


def test_weights_that_are_excluded_are_not_decayed():
    optimizers = AdamW(0.1, weight_decay=0.2), keras.optimizers.AdamW(0.1, weight_decay=0.2)
    pairs = [[keras.Variable([2.0, -3.0], name=name) for name in ("kernel", "bias")] for _ in optimizers]
    for optimizer, variables in zip(optimizers, pairs, strict=True):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
        optimizer.apply([keras.ops.zeros(2), keras.ops.zeros(2)], variables)
    for own, other in zip(*pairs, strict=True):
        np.testing.assert_allclose(np.asarray(own), np.asarray(other), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(pairs[0][1]), [2.0, -3.0])


def test_kernels_only_spares_a_bias():
    optimizer = AdamW(0.1, weight_decay=0.2, kernels_only=True)
    kernel, bias = (keras.Variable([2.0, -3.0], name=name) for name in ("kernel", "bias"))
    optimizer.apply([keras.ops.zeros(2), keras.ops.zeros(2)], [kernel, bias])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), [1.96, -2.94], rtol=1e-6)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(bias), [2.0, -3.0])


def test_in_a_planned_training_kernels_alone_decay():
    model = build_hybrid(num_classes=3, filters=(8, 16), fuzzy=True)
    optimizer = planned_adamw(0.1, steps=20, weight_decay=0.5)
    variables = model.trainable_variables
    optimizer.build(variables)
    for variable in variables:
        variable.assign(keras.ops.ones(variable.shape))
    optimizer.apply([keras.ops.zeros(variable.shape) for variable in variables])
    decayed = {variable.path for variable in variables if (np.asarray(variable) < 1).any()}
    assert decayed == {variable.path for variable in variables if variable.name == "kernel"}
    kept = {variable.name for variable in variables if variable.path not in decayed}
    assert {"bias", "gamma", "beta", "attention", "log_variance", "center", "rho", "theta"} <= kept


def test_an_embedding_is_trained():
    model = keras.Sequential([keras.Input((3,), dtype="int32"), keras.layers.Embedding(7, 4), keras.layers.Flatten()])
    model.compile(AdamW(0.1), "mse", jit_compile=False)
    before = model.get_weights()[0]
    model.train_on_batch(np.array([[1, 1, 4]]), np.ones((1, 12)))
    moved = np.abs(model.get_weights()[0] - before).max(axis=1)
    np.testing.assert_allclose(moved, [0, 0.1, 0, 0, 0.1, 0, 0], atol=1e-4)


def test_the_decay_does_something():
    plain, decayed = (trained(AdamW(0.05, weight_decay=decay), built=True) for decay in (0.0, 5.0))
    assert np.abs(decayed.get_weights()[0]).sum() < 0.8 * np.abs(plain.get_weights()[0]).sum()


def test_it_is_saved_with_the_model_and_goes_on(tmp_path):
    model = trained(AdamW(0.05, weight_decay=0.3, kernels_only=True), built=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, AdamW)
    assert loaded.optimizer.weight_decay == 0.3
    assert loaded.optimizer.kernels_only
    assert int(loaded.optimizer.iterations) == 20
    x = np.ones((8, 6))
    for each in (model, loaded):
        each.train_on_batch(x, np.ones((8, 1)))
    for own, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)


def test_a_config_from_before_it_took_keras_s_word_is_understood():
    config = AdamW(0.05, weight_decay=0.3).get_config()
    del config["weight_decay"]
    old = AdamW.from_config({**config, "decay": 0.3})
    assert old.weight_decay == 0.3
    assert AdamW(weight_decay=None).weight_decay == 0.0


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="what TensorFlow traces")
def test_a_step_is_traced_once_and_its_rate_with_it():
    traced = []

    class Rate(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            traced.append(step)
            return 0.01 + 0.0 * keras.ops.cast(step, "float32")

        def get_config(self):
            return {}

    optimizer = AdamW(Rate(), weight_decay=0.1)
    trained(optimizer, built=True)
    assert len(traced) <= 2  # of the build and of the trace, however many weights there are


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="what TensorFlow traces")
def test_a_weight_takes_one_kernel():
    import tensorflow as tf

    def kinds(count):
        weights = [keras.Variable(np.ones((2, 3), "float32")) for _ in range(count)]
        optimizer = AdamW(0.1, weight_decay=0.1)
        optimizer.build(weights)
        trace = tf.function(lambda: optimizer.apply([weight.value * 2 for weight in weights], weights))
        return [operation.type for operation in trace.get_concrete_function().graph.get_operations()]

    assert kinds(4).count("ResourceApplyAdam") == 4
    assert (len(kinds(8)) - len(kinds(4))) / 4 < 20  # Keras's AdamW takes 49, inputs and constants counted


def test_the_rate_rises_and_falls_over_the_plan():
    rate = planned_adamw(0.2, steps=100)._learning_rate
    rates = [float(rate(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.002)
    assert max(rates) == rates[5] == pytest.approx(0.2)
    assert rates[52] == pytest.approx((0.2 + 0.002) / 2, rel=0.03)
    assert rates[100] == pytest.approx(0.002)
