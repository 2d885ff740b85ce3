import keras
import numpy as np
import pytest
from keras import ops

from dermaseg.layers.uncertainty import UncertaintyWeights


def total(layer, losses, shares):
    return float(ops.convert_to_numpy(layer(ops.convert_to_tensor(losses), ops.convert_to_tensor(shares))))


def test_starts_as_the_plain_sum():
    assert total(UncertaintyWeights(3), [0.5, 1.0, 2.0], [1.0, 1.0, 0.0]) == pytest.approx(3.5)


def test_weighs_by_the_learned_variance():
    layer = UncertaintyWeights(2)
    layer.log_variance.assign([1.0, -2.0])
    expected = np.exp(-1) * 0.5 + 0.5 * 1.0 + np.exp(2) * 0.25 - 0.5 * 2.0 * 0.5
    assert total(layer, [0.5, 0.25], [1.0, 0.5]) == pytest.approx(expected, rel=1e-6)


def test_variance_grows_for_a_loss_that_stays_high_and_stays_within_its_bound():
    layer = UncertaintyWeights(2)
    inputs = keras.Input((2,))
    model = keras.Model(inputs, layer(ops.mean(inputs, axis=0), ops.ones(2)))
    model.compile(keras.optimizers.SGD(1.0), loss=lambda _, y: y)
    model.fit(np.full((8, 2), (1e4, 0.1), "float32"), np.zeros((8, 1)), batch_size=8, epochs=40, verbose=0)
    low, high = sorted(ops.convert_to_numpy(layer.log_variance))
    assert high == 4.0
    # The minimum of exp(-s) L + s / 2 is at s = ln 2 L.
    assert low == pytest.approx(np.log(0.2), abs=0.02)


def test_config_round_trip():
    layer = UncertaintyWeights.from_config(UncertaintyWeights(2, name="weigh").get_config())
    assert (layer.count, layer.name) == (2, "weigh")


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_wrong_count_is_refused(count):
    with pytest.raises(ValueError, match="count must be a positive integer"):
        UncertaintyWeights(count)
