import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from dermaseg import losses

CASES = [
    (losses.Dice(), losses.dice_loss),
    (losses.Jaccard(), losses.jaccard_loss),
    (losses.Tversky(0.3, 0.7), lambda t, p, **k: losses.tversky_loss(t, p, alpha=0.3, beta=0.7, **k)),
    (losses.FocalTversky(), losses.focal_tversky_loss),
    (losses.OverlapCrossentropy(), losses.overlap_crossentropy),
    (
        losses.OverlapCrossentropy("dice", 0.3),
        lambda t, p, **k: losses.overlap_crossentropy(t, p, overlap="dice", weight=0.3, **k),
    ),
]
NAMES = ["dice", "jaccard", "tversky", "focal_tversky", "jaccard_crossentropy", "dice_crossentropy"]
every_loss = pytest.mark.parametrize(("loss", "function"), CASES, ids=NAMES)
every_overlap = pytest.mark.parametrize(("loss", "function"), CASES[:4], ids=NAMES[:4])


def numpy(values):
    return ops.convert_to_numpy(values)


def masks(batch=3, size=6, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    true = (rng.random((batch, size, size, channels)) > 0.6).astype("float32")
    return true, rng.uniform(0.02, 0.98, true.shape).astype("float32")


def oracle(true, pred, alpha, beta, smooth=1.0):
    both = (true * pred).sum((1, 2))
    index = (both + smooth) / (both + alpha * (pred.sum((1, 2)) - both) + beta * (true.sum((1, 2)) - both) + smooth)
    return (1 - index).mean(-1)


def test_values_by_hand():
    true = np.array([[1, 1], [0, 0]], "float32").reshape(1, 2, 2, 1)
    pred = np.array([[1, 0.5], [0.5, 0]], "float32").reshape(1, 2, 2, 1)
    # I = 1.5, sum p = 2, sum t = 2, s = 1.
    assert numpy(losses.dice_loss(true, pred))[0] == pytest.approx(1 - (2 * 1.5 + 2) / (2 + 2 + 2))
    assert numpy(losses.jaccard_loss(true, pred))[0] == pytest.approx(1 - (1.5 + 1) / (2 + 2 - 1.5 + 1))
    assert numpy(losses.tversky_loss(true, pred, alpha=0.2, beta=0.8))[0] == pytest.approx(1 - 2.5 / (1.5 + 0.1 + 0.4 + 1))
    assert numpy(losses.mask_crossentropy(true, pred))[0] == pytest.approx(np.log(2) / 2, rel=1e-5)


@settings(deadline=None, max_examples=30)
@given(
    alpha=st.floats(0, 2),
    beta=st.floats(0, 2),
    smooth=st.floats(0.01, 10),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 999),
)
def test_tversky_agrees_with_numpy(alpha, beta, smooth, channels, seed):
    true, pred = masks(channels=channels, seed=seed)
    found = numpy(losses.tversky_loss(true, pred, alpha=alpha, beta=beta, smooth=smooth))
    np.testing.assert_allclose(found, oracle(true, pred, alpha, beta, smooth), atol=1e-5)


def test_focal_tversky_is_a_power():
    true, pred = masks()
    np.testing.assert_allclose(numpy(losses.focal_tversky_loss(true, pred)), oracle(true, pred, 0.3, 0.7) ** 0.75, atol=1e-5)


def test_the_sum_has_its_weights():
    true, pred = masks()
    expected = 0.3 * numpy(losses.dice_loss(true, pred)) + 0.7 * numpy(losses.mask_crossentropy(true, pred))
    found = losses.overlap_crossentropy(true, pred, overlap="dice", weight=0.3)
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-5)


@every_loss
def test_perfect_costs_nothing_and_values_are_per_picture(loss, function):
    true, pred = masks()
    np.testing.assert_allclose(numpy(function(true, true)), 0, atol=1e-5)
    values = numpy(function(true, pred))
    assert values.shape == (3,)
    assert (values > 0).all()
    assert values.dtype == np.float32


@every_overlap
@settings(deadline=None, max_examples=20)
@given(
    true=hnp.arrays("float32", (2, 3, 3, 2), elements=st.sampled_from([0.0, 1.0])),
    pred=hnp.arrays("float32", (2, 3, 3, 2), elements=st.floats(0, 1, width=32)),
)
def test_values_lie_between_0_and_1_and_are_0_for_the_mask_itself(loss, function, true, pred):
    values = numpy(function(true, pred))
    assert (values >= 0).all()
    assert (values < 1).all()
    assert (numpy(function(true, true)) == 0).all()


@settings(deadline=None, max_examples=20)
@given(logits=st.floats(-200, 200), lesion=st.booleans())
def test_crossentropy_of_logits_is_exact(logits, lesion):
    # log(1 + e^-|x|) + max(x, 0) - x t
    expected = np.logaddexp(0, -logits if lesion else logits)
    found = losses.mask_crossentropy(np.full((1, 1, 1, 1), lesion), np.full((1, 1, 1, 1), logits), from_logits=True)
    assert numpy(found)[0] == pytest.approx(expected, rel=1e-5, abs=1e-30)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras knows the logits of a sigmoid on TensorFlow alone")
def test_a_pixel_that_is_surely_wrong_still_teaches():
    inputs = keras.Input((1, 1, 1))
    kernel = keras.initializers.Constant(20.0)
    logits = keras.layers.Conv2D(1, 1, use_bias=False, kernel_initializer=kernel)(inputs)
    model = keras.Model(inputs, keras.layers.Activation("sigmoid")(logits))
    model.compile(keras.optimizers.SGD(1.0), losses.OverlapCrossentropy())
    model.train_on_batch(np.ones((1, 1, 1, 1)), np.zeros((1, 1, 1, 1)))
    assert model.get_weights()[0].item() < 19.6  # half of the loss is the cross-entropy, whose slope is 1


@every_loss
def test_a_batch_is_the_mean_of_its_pictures(loss, function):
    true, pred = masks()
    alone = [numpy(function(true[i : i + 1], pred[i : i + 1]))[0] for i in range(3)]
    np.testing.assert_allclose(numpy(function(true, pred)), alone, rtol=1e-5)
    assert float(loss(true, pred)) == pytest.approx(np.mean(alone), rel=1e-5)


@every_overlap
def test_empty_masks(loss, function):
    empty = np.zeros((1, 8, 8, 1), "float32")
    false_positive = empty.copy()
    false_positive[0, 0, 0] = 1
    assert numpy(function(empty, empty))[0] == 0
    assert numpy(function(empty, false_positive))[0] > 0.1


def test_one_false_positive_on_an_empty_mask_costs_what_the_docstring_says():
    empty = np.zeros((1, 8, 8, 1), "float32")
    pixel = empty.copy()
    pixel[0, 3, 3] = 1
    assert numpy(losses.jaccard_loss(empty, pixel))[0] == pytest.approx(0.5)


@every_loss
def test_sample_weights(loss, function):
    true, pred = masks()
    values = numpy(function(true, pred))
    weights = np.array([0.0, 1.0, 3.0], "float32")
    assert float(loss(true, pred, sample_weight=weights)) == pytest.approx((values * weights).sum() / 3, rel=1e-5)


@every_loss
def test_logits_are_probabilities_through_a_sigmoid_or_softmax(loss, function):
    rng = np.random.default_rng(1)
    true, _ = masks()
    logits = rng.normal(size=true.shape).astype("float32")
    np.testing.assert_allclose(
        numpy(function(true, logits, from_logits=True)), numpy(function(true, 1 / (1 + np.exp(-logits)))), rtol=1e-4
    )
    several = np.eye(3, dtype="float32")[rng.integers(0, 3, (2, 4, 4))]
    logits = rng.normal(size=several.shape).astype("float32")
    softmax = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(numpy(function(several, logits, from_logits=True)), numpy(function(several, softmax)), rtol=1e-4)


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_summed_in_float32(loss, function, dtype):
    true = np.ones((1, 300, 300, 1), "float32")  # 90,000 pixels: float16 overflows at 65,504
    pred = np.full_like(true, 0.75)
    half = numpy(function(ops.cast(true, dtype), ops.cast(pred, dtype)))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, numpy(function(true, pred)), rtol=1e-3)


@every_loss
@pytest.mark.parametrize("wrong", [False, True])
def test_gradients_are_finite_at_the_ends(loss, function, wrong, gradient):
    true = np.zeros((3, 4, 4, 1), "float32")  # an empty mask, a full one, and a lesion
    true[1] = 1
    true[2, 1:3, 1:3] = 1
    pred = 1 - true if wrong else true
    assert np.isfinite(gradient(lambda p: function(true, p), pred)).all()
    logits = 1000 * (2 * pred - 1)
    assert np.isfinite(gradient(lambda x: function(true, x, from_logits=True), logits)).all()


@every_loss
def test_a_step_down_the_gradient_helps_every_pixel(loss, function, gradient):
    true, pred = masks()
    slopes = gradient(lambda p: function(true, p), pred)
    assert (slopes[true == 1] < 0).all()
    assert (slopes[true == 0] > 0).all()


def test_class_weights():
    true, pred = masks(channels=2)
    each = np.stack([oracle(true[..., [c]], pred[..., [c]], 0.5, 0.5) for c in range(2)], -1)
    found = numpy(losses.dice_loss(true, pred, class_weights=(1.0, 3.0)))
    np.testing.assert_allclose(found, (each * [1, 3]).sum(-1) / 4, rtol=1e-5)
    with pytest.raises(ValueError, match="class_weights has 3 entries for 2 channels"):
        losses.dice_loss(true, pred, class_weights=(1.0, 2.0, 3.0))


@pytest.mark.parametrize("make", [losses.Tversky, losses.Jaccard, losses.FocalTversky, losses.OverlapCrossentropy])
def test_a_model_saved_with_an_array_of_class_weights_is_loaded(make, tmp_path):
    model = keras.Sequential([keras.Input((2, 2, 2)), keras.layers.Softmax()])
    model.compile(loss=make(class_weights=np.array([1.0, 2.0])))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config()["class_weights"] == [1.0, 2.0]


@every_loss
def test_config_round_trip(loss, function):
    true, pred = masks()
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(true, pred)) == pytest.approx(float(loss(true, pred)), rel=1e-6)


@every_loss
def test_shapes_that_differ_are_refused(loss, function):
    with pytest.raises(ValueError, match="must agree"):
        function(np.zeros((1, 4, 4, 1)), np.zeros((1, 4, 5, 1)))
    with pytest.raises(ValueError, match=r"must be \(batch, height, width, channels\).*masks\[\.\.\., None\]"):
        function(np.zeros((4, 4, 1)), np.zeros((4, 4, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.Tversky(alpha=-1), "alpha and beta must be at least 0"),
        (lambda: losses.Dice(smooth=0), "smooth must be above 0"),
        (lambda: losses.Jaccard(class_weights=(0.0, 0.0)), "class_weights must be at least 0, and one above 0"),
        (lambda: losses.OverlapCrossentropy(class_weights=(2.0, -1.0)), "class_weights must be at least 0"),
        (lambda: losses.FocalTversky(gamma=0), "gamma must be above 0"),
        (lambda: losses.OverlapCrossentropy(overlap="iou"), "overlap must be 'dice' or 'jaccard'"),
        (lambda: losses.OverlapCrossentropy(weight=1.5), "weight must lie between 0 and 1"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
