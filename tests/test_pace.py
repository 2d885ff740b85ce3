"""How fast training goes, and what fits into a time."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermaseg.pace import LOOKS, Pace, _Clock, measure_pace

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
    clock = _Clock()
    clock.ends = [0.0, *(50.0 + 2 * batch for batch in range(40))]
    assert clock.batch_s == 2.0
    clock.ends = [0.0, 50.0, 51.0, 53.0]  # of three batches the last two
    assert clock.batch_s == 1.5
    clock.ends = [0.0, 5.0]
    assert clock.batch_s == 5.0


def test_a_rehearsal_ends_after_a_few_batches():
    seen = []

    class Batches(keras.utils.PyDataset):
        num_batches = 1000

        def __getitem__(self, index):
            seen.append(index)
            return np.zeros((2, 4), "float32"), np.zeros((2, 1), "float32")

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    model.compile(keras.optimizers.SGD(use_ema=True), "mse", jit_compile=keras.backend.backend() == "jax")
    pace = measure_pace(model, Batches(), Batches(), validation_batches=1000)
    assert len(seen) < 100
    assert 0 < pace.step_s < 1
    assert 0 < pace.look_s < 1000
    assert pace.save_s > 0
