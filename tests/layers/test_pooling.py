import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

from dermaseg.layers.pooling import BorderPooling, LesionPooling

POOLINGS = [LesionPooling, BorderPooling]


def maps(batch=2, height=5, width=7, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(batch, height, width, channels)).astype("float32"), rng.random(
        (batch, height, width, 1), dtype="float32"
    )


def call(layer, *inputs):
    return ops.convert_to_numpy(layer(*map(ops.convert_to_tensor, inputs)))


def set_weights(layer, attention, beta):
    layer.attention.assign(np.reshape(attention, (-1, 1)))
    layer.beta.assign(beta)


def test_lesion_pooling_starts_as_the_global_mean():
    features, guide = maps()
    np.testing.assert_allclose(call(LesionPooling(), features, guide), features.mean(axis=(1, 2)), atol=1e-6)


def test_beta_of_one_is_the_mean_over_the_lesion():
    features, guide = maps()
    lesion = (guide > 0.5).astype("float32")
    layer = LesionPooling()
    call(layer, features, guide)
    layer.beta.assign(1.0)
    expected = (features * lesion).sum((1, 2)) / lesion.sum((1, 2))
    np.testing.assert_allclose(call(layer, features, lesion), expected, atol=1e-2)


def test_lesion_pooling_is_softmax_of_attention_and_mask():
    features, guide = maps()
    layer = LesionPooling()
    call(layer, features, guide)
    attention, beta = np.array([0.5, -1.0, 2.0]), 0.7
    set_weights(layer, attention, beta)
    weights = np.exp(features @ attention[:, None] + beta * np.log(guide + 1e-3))
    expected = (features * weights).sum((1, 2)) / weights.sum((1, 2))
    np.testing.assert_allclose(call(layer, features, guide), expected, rtol=1e-4, atol=1e-5)


def test_large_scores_do_not_overflow():
    features, guide = maps()
    layer = LesionPooling()
    call(layer, features, guide)
    set_weights(layer, np.full(3, 500.0), 50.0)
    assert np.isfinite(call(layer, features, guide)).all()


def test_border_pooling_reads_undecided_places():
    features, guide = maps()
    weights = 4 * guide * (1 - guide) + 1e-3
    expected = (features * weights).sum((1, 2)) / weights.sum((1, 2))
    np.testing.assert_allclose(call(BorderPooling(), features, guide), expected, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_mask_without_border_gives_the_global_mean(value):
    features, guide = maps()
    pooled = call(BorderPooling(), features, np.full_like(guide, value))
    np.testing.assert_allclose(pooled, features.mean(axis=(1, 2)), atol=1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
@given(
    seed=st.integers(0, 2**16),
    height=st.integers(1, 6),
    beta=st.floats(-3, 3, width=32),
)
@settings(deadline=None, max_examples=15)
def test_a_pooled_value_lies_between_the_smallest_and_the_largest(pooling, seed, height, beta):
    features, guide = maps(height=height, seed=seed)
    layer = pooling()
    layer.build(features.shape, guide.shape)
    if pooling is LesionPooling:
        set_weights(layer, np.random.default_rng(seed).normal(size=3), beta)
    pooled = call(layer, features, guide)
    assert (pooled <= features.max((1, 2)) + 1e-4).all()
    assert (pooled >= features.min((1, 2)) - 1e-4).all()


@pytest.mark.parametrize("pooling", POOLINGS)
def test_half_precision_inputs_are_summed_in_float32(pooling):
    features, guide = maps(height=40, width=40)
    exact = call(pooling(), features, guide)
    mixed = call(pooling(dtype="mixed_bfloat16"), features, guide)
    assert keras.backend.standardize_dtype(mixed.dtype) == "bfloat16"
    np.testing.assert_allclose(mixed.astype("float32"), exact, atol=2e-2)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_config_round_trip_and_symbolic_shape(pooling):
    layer = pooling.from_config(pooling(name="pool").get_config())
    assert layer.name == "pool"
    assert layer(keras.Input((None, None, 6)), keras.Input((None, None, 1))).shape == (None, 6)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("guide", [(2, 5, 6, 1), (2, 5, 7, 2)])
def test_maps_that_do_not_fit_are_refused(pooling, guide):
    with pytest.raises(ValueError, match="of one size"):
        pooling()(ops.zeros((2, 5, 7, 3)), ops.zeros(guide))
