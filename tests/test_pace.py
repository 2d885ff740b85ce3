"""How fast training goes, and what fits into a time."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermaseg.pace import LOOKS, Pace, _Clock, _some, measure_pace

seconds = st.floats(0.001, 100)


@given(
    st.builds(Pace, step_s=seconds, look_s=seconds, save_s=seconds, first_s=seconds),
    st.floats(0, 1e4),
    st.integers(1, 500),
    st.integers(1, 200),
)
def test_no_more_epochs_would_fit(pace, time, steps_per_epoch, most):
    epochs = pace.epochs_within(time, steps_per_epoch=steps_per_epoch, most=most)
    assert 0 <= epochs <= most
    assert epochs == 0 or pace.seconds(epochs, steps_per_epoch=steps_per_epoch) <= time
    assert epochs == most or pace.seconds(epochs + 1, steps_per_epoch=steps_per_epoch) > time


def test_looks_and_states_do_not_grow_with_short_epochs():
    pace = Pace(step_s=0.01, look_s=3.0, save_s=1.0)
    hundred = pace.seconds(100, steps_per_epoch=10)
    assert hundred == pytest.approx(10 + LOOKS * 3 + (LOOKS + 10 / 20) * 1)
    assert Pace(step_s=1.0, look_s=3.0, save_s=1.0).seconds(100, steps_per_epoch=100) == pytest.approx(10_000 + 60 + 100)


def test_the_first_batches_do_not_count():
    clock = _Clock(math.inf)
    clock.ends = [0.0, *(50.0 + 2 * batch for batch in range(40))]
    assert clock.batch_s == 2.0
    assert clock.first_s == 48.0
    clock.ends = [0.0, 50.0, 51.0, 53.0]  # of three batches the last two
    assert clock.batch_s == 1.5


class Batches(keras.utils.PyDataset):
    def __init__(self, count):
        super().__init__()
        self.count, self.seen = count, []

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        self.seen.append(index)
        return np.zeros((2, 4), "float32"), np.zeros((2, 1), "float32")


@pytest.fixture
def small():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(use_ema=True), "mse", jit_compile=keras.backend.backend() == "jax")
    return model


def test_a_rehearsal_ends_after_a_few_batches(small):
    training, validation = Batches(1000), Batches(1000)
    pace = measure_pace(small, training, validation, validation_batches=1000)
    assert len(training.seen) + len(validation.seen) < 100
    assert 0 < pace.step_s < 1
    assert 0 < pace.look_s < 1000
    assert pace.save_s > 0


def test_where_an_epoch_has_one_batch_it_is_taken_again_and_what_compiles_does_not_count(small):
    training, validation = Batches(1), Batches(1)
    pace = measure_pace(small, training, validation, validation_batches=1)
    assert len(training.seen) > 16
    assert set(training.seen) == {0}
    assert pace.first_s > 10 * (pace.step_s + pace.look_s)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="data sets of TensorFlow")
def test_a_data_set_of_tensorflow_with_one_batch_is_taken_again_too():
    import tensorflow as tf

    few = tf.data.Dataset.from_tensors((np.zeros((2, 4), "float32"), np.zeros((2, 1), "float32")))
    assert sum(1 for _ in _some(few)) > 16


def test_a_rehearsal_of_slow_steps_takes_no_more_than_it_may(small):
    training, validation = Batches(1000), Batches(1000)
    measure_pace(small, training, validation, validation_batches=1, most_s=0)
    assert 8 <= len(training.seen) < 30  # some are read ahead
    assert 8 <= len(validation.seen) < 30
