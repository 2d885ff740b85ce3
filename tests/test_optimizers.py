"""The optimizer takes the steps of Keras's AdamW, and is built before a step is traced."""

import keras
import numpy as np
import pytest

from dermaseg.optimizers import AdamW, planned_adamw


def trained(optimizer, *, built):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Dense(5, activation="tanh")(inputs)))
    model.compile(optimizer, "mse", jit_compile=False)
    if built:
        optimizer.build(model.trainable_variables)
    random = np.random.default_rng(0)
    x, y = random.normal(size=(32, 6)), random.normal(size=(32, 1))
    model.fit(x, y, batch_size=8, epochs=5, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("ema", [{}, {"use_ema": True, "ema_momentum": 0.9}])
@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_steps_are_those_of_keras(decay, ema):
    def rate():
        return keras.optimizers.schedules.CosineDecay(1e-3, 20, warmup_target=0.1, warmup_steps=3)

    ours = trained(AdamW(rate(), decay=decay, global_clipnorm=1.0, **ema), built=True)
    theirs = trained(keras.optimizers.AdamW(rate(), weight_decay=decay, global_clipnorm=1.0, **ema), built=False)
    if ema:
        for model in (ours, theirs):
            model.optimizer.finalize_variable_values(model.trainable_variables)
    for own, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, rtol=2e-5, atol=1e-6)


def test_the_decay_does_something():
    plain, decayed = (trained(AdamW(0.05, decay=decay), built=True) for decay in (0.0, 5.0))
    assert np.abs(decayed.get_weights()[0]).sum() < 0.8 * np.abs(plain.get_weights()[0]).sum()


def test_it_is_saved_with_the_model_and_goes_on(tmp_path):
    model = trained(AdamW(0.05, decay=0.3), built=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(loaded.optimizer, AdamW)
    assert loaded.optimizer.decay == 0.3
    assert int(loaded.optimizer.iterations) == 20
    x = np.ones((8, 6))
    for each in (model, loaded):
        each.train_on_batch(x, np.ones((8, 1)))
    for own, other in zip(loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="what TensorFlow traces")
def test_a_step_is_traced_once_and_its_rate_with_it():
    traced = []

    class Rate(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            traced.append(step)
            return 0.01 + 0.0 * keras.ops.cast(step, "float32")

        def get_config(self):
            return {}

    optimizer = AdamW(Rate(), decay=0.1)
    trained(optimizer, built=True)
    assert len(traced) <= 2  # of the build and of the trace, however many weights there are


def test_the_rate_rises_and_falls_over_the_plan():
    rate = planned_adamw(0.2, steps=100)._learning_rate
    rates = [float(rate(step)) for step in range(101)]
    assert rates[0] == pytest.approx(0.002)
    assert max(rates) == rates[5] == pytest.approx(0.2)
    assert rates[52] == pytest.approx((0.2 + 0.002) / 2, rel=0.03)
    assert rates[100] == pytest.approx(0.002)
