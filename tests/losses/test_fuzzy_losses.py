"""Losses with fuzzy targets: values, laws, gradients."""

import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops

from dermaseg.fuzzy import fuzzify_mask, soften_mask
from dermaseg.losses.dice import dice_loss, jaccard_loss, tversky_loss
from dermaseg.losses.fuzzy import (
    FuzzyCMeans,
    FuzzyCrossentropy,
    FuzzyDice,
    FuzzyEntropy,
    FuzzyJaccard,
    FuzzySegmentation,
    FuzzyTversky,
    fuzzy_c_means_loss,
    fuzzy_crossentropy_loss,
    fuzzy_dice_loss,
    fuzzy_entropy_loss,
    fuzzy_jaccard_loss,
    fuzzy_segmentation_loss,
    fuzzy_tversky_loss,
)

SHAPE = (2, 4, 3, 1)
T_NORMS = [("godel", None), ("product", None), ("lukasiewicz", None), ("frank", 0.2), ("frank", 50.0), ("hamacher", 0.0)]

TWINS = [
    (FuzzyTversky, fuzzy_tversky_loss, {"t_norm": "frank", "t_norm_parameter": 3.0, "alpha": 0.3, "beta": 0.7, "smooth": 2.0}),
    (FuzzyDice, fuzzy_dice_loss, {"t_norm": "product"}),
    (FuzzyJaccard, fuzzy_jaccard_loss, {"smooth": 0.5}),
    (FuzzyCrossentropy, fuzzy_crossentropy_loss, {}),
    (FuzzyCMeans, fuzzy_c_means_loss, {"m": 1.5, "calibrated": False}),
    (FuzzyEntropy, fuzzy_entropy_loss, {}),
    (FuzzySegmentation, fuzzy_segmentation_loss, {"tau_px": 1.0}),
]
FITS = [
    fuzzy_tversky_loss,
    fuzzy_dice_loss,
    fuzzy_jaccard_loss,
    fuzzy_crossentropy_loss,
    fuzzy_c_means_loss,
    fuzzy_segmentation_loss,
]
FUNCTIONS = [*FITS, fuzzy_entropy_loss]

elements = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 1.0]))
fuzzy_masks = hnp.arrays("float32", SHAPE, elements=elements)
crisp_masks = hnp.arrays("float32", SHAPE, elements=st.sampled_from([0.0, 1.0]))


def law(*strategies):
    return lambda test: settings(deadline=None, max_examples=25)(given(*strategies)(test))


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def gradient(function, point):
    """Gradient of the sum of a loss with respect to its prediction."""
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.grad(lambda x: ops.sum(function(x)))(ops.convert_to_tensor(point)))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        x = tf.Variable(point)
        with tf.GradientTape() as tape:
            loss = ops.sum(function(x))
        return tape.gradient(loss, x).numpy()
    import torch

    x = torch.tensor(point, requires_grad=True)
    ops.sum(function(x)).backward()
    return x.grad.numpy()


def test_values_by_hand():
    mu = np.array([0.0, 0.5, 1.0, 0.25], "float32").reshape(1, 2, 2, 1)
    p = np.array([0.5, 0.5, 0.5, 0.5], "float32").reshape(1, 2, 2, 1)
    assert numpy(fuzzy_jaccard_loss(mu, p)) == pytest.approx(1 - 2.25 / 3.5)  # sum min 1.25, sum max 2.5, s 1
    assert numpy(fuzzy_dice_loss(mu, p)) == pytest.approx(1 - 4.5 / 5.75)
    assert numpy(fuzzy_tversky_loss(mu, p, alpha=0.2, beta=0.6)) == pytest.approx(1 - 2.25 / (2.25 + 0.2 * 0.75 + 0.6 * 0.5))
    assert numpy(fuzzy_jaccard_loss(mu, p, t_norm="product")) == pytest.approx(1 - 1.875 / 3.875)
    entropy = [0, math.log(2), 0, -0.25 * math.log(0.25) - 0.75 * math.log(0.75)]
    assert numpy(fuzzy_crossentropy_loss(mu, p)) == pytest.approx(math.log(2) - sum(entropy) / 4)
    assert numpy(fuzzy_c_means_loss(mu, p)) == pytest.approx(0.25)
    assert numpy(fuzzy_entropy_loss(mu, p)) == pytest.approx(1.0)


@law(fuzzy_masks, fuzzy_masks)
def test_numpy_oracle(mu, p):
    a, b = mu.astype("float64"), p.astype("float64")
    low, high = np.minimum(a, b).sum((1, 2, 3)), np.maximum(a, b).sum((1, 2, 3))
    np.testing.assert_allclose(numpy(fuzzy_jaccard_loss(mu, p)), 1 - (low + 1) / (high + 1), atol=1e-6)
    c_means = b**1.5 * (1 - a) ** 0.5 + (1 - b) ** 1.5 * a**0.5
    np.testing.assert_allclose(numpy(fuzzy_c_means_loss(mu, p, m=1.5)), c_means.mean((1, 2, 3)), atol=1e-6)
    assert numpy(fuzzy_jaccard_loss(mu, p)).shape == (2,)


@pytest.mark.parametrize(("t_norm", "parameter"), T_NORMS)
@law(crisp_masks, fuzzy_masks)
def test_on_crisp_masks_every_t_norm_is_the_ordinary_loss(t_norm, parameter, mask, p):
    options = {"t_norm": t_norm, "t_norm_parameter": parameter}
    np.testing.assert_allclose(numpy(fuzzy_dice_loss(mask, p, **options)), numpy(dice_loss(mask, p)), atol=2e-6)
    np.testing.assert_allclose(numpy(fuzzy_jaccard_loss(mask, p, **options)), numpy(jaccard_loss(mask, p)), atol=2e-6)
    weights = {"alpha": 0.3, "beta": 0.7}
    fuzzy, ordinary = fuzzy_tversky_loss(mask, p, **options, **weights), tversky_loss(mask, p, **weights)
    np.testing.assert_allclose(numpy(fuzzy), numpy(ordinary), atol=2e-6)


@law(crisp_masks, fuzzy_masks)
def test_c_means_on_crisp_masks_is_the_squared_error(mask, p):
    np.testing.assert_allclose(numpy(fuzzy_c_means_loss(mask, p)), ((mask - p) ** 2).mean((1, 2, 3)), atol=1e-6)
    published = numpy(fuzzy_c_means_loss(mask, p, calibrated=False))
    np.testing.assert_allclose(published, ((mask - p) ** 2).mean((1, 2, 3)), atol=1e-6)


@law(fuzzy_masks)
def test_a_target_predicted_exactly_costs_nothing(mu):
    for loss in (fuzzy_tversky_loss, fuzzy_dice_loss, fuzzy_jaccard_loss, fuzzy_crossentropy_loss, fuzzy_segmentation_loss):
        np.testing.assert_array_equal(numpy(loss(mu, mu)), 0.0)


@law(fuzzy_masks, fuzzy_masks, fuzzy_masks)
def test_godels_jaccard_is_a_metric(a, b, c):
    def distance(x, y):
        return numpy(fuzzy_jaccard_loss(x, y))

    np.testing.assert_allclose(distance(a, b), distance(b, a), atol=1e-6)
    assert np.all(distance(a, c) <= distance(a, b) + distance(b, c) + 1e-6)
    different = np.abs(a - b).sum((1, 2, 3)) > 1e-3
    assert np.all(distance(a, b)[different] > 0)


def test_products_jaccard_is_no_metric_and_pushes_past_its_target():
    half, one = np.full((1, 1, 1, 1), 0.5, "float32"), np.ones((1, 1, 1, 1), "float32")
    for t_norm in ("product", "lukasiewicz"):
        at_target, past = (numpy(fuzzy_jaccard_loss(half, p, t_norm=t_norm, smooth=1e-6))[0] for p in (half, one))
        assert at_target > past > 0
    assert numpy(fuzzy_jaccard_loss(half, one))[0] > numpy(fuzzy_jaccard_loss(half, half))[0]


@law(fuzzy_masks, fuzzy_masks)
def test_losses_are_ordered_as_their_t_norms(mu, p):
    for loss in (fuzzy_tversky_loss, fuzzy_dice_loss, fuzzy_jaccard_loss):
        godel, product, lukasiewicz = (numpy(loss(mu, p, t_norm=t_norm)) for t_norm in ("godel", "product", "lukasiewicz"))
        assert np.all(godel <= product + 1e-6)
        assert np.all(product <= lukasiewicz + 1e-6)


GRID = np.linspace(0, 1, 101, dtype="float32").reshape(-1, 1, 1, 1)


@law(st.integers(0, 100), st.floats(1.25, 4.0))
def test_cheapest_prediction_is_the_target(step, m):
    mu = np.full_like(GRID, GRID.ravel()[step])
    assert numpy(fuzzy_crossentropy_loss(mu, GRID)).argmin() == step
    assert abs(numpy(fuzzy_c_means_loss(mu, GRID)).argmin() - step) == 0
    calibrated = numpy(fuzzy_c_means_loss(mu, GRID, m=m))
    assert calibrated[step] <= calibrated.min() + 1e-6


def test_published_c_means_is_more_certain_than_its_target():
    mu = np.full_like(GRID, 0.3)
    cheapest = GRID.ravel()[numpy(fuzzy_c_means_loss(mu, GRID, calibrated=False)).argmin()]
    assert cheapest == pytest.approx(0.09 / (0.09 + 0.49), abs=0.006)


@law(hnp.arrays("float32", SHAPE, elements=st.floats(-60, 60, width=32)), fuzzy_masks)
def test_gradient_from_logits_is_prediction_minus_target(logits, mu):
    found = gradient(lambda x: fuzzy_crossentropy_loss(mu, x, from_logits=True), logits)
    pixels = np.prod(SHAPE[1:])
    p = 1 / (1 + np.exp(-logits.astype("float64")))
    np.testing.assert_allclose(found * pixels, p - mu, atol=1e-5)


@pytest.mark.parametrize("loss", FUNCTIONS)
@law(hnp.arrays("float32", SHAPE, elements=st.sampled_from([-200.0, -20.0, -1.0, 0.0, 1.0, 20.0, 200.0])), fuzzy_masks)
def test_gradient_from_logits_is_bounded(loss, logits, mu):
    found = gradient(lambda x: loss(mu, x, from_logits=True), logits)
    assert np.all(np.isfinite(found))
    assert np.abs(found).max() <= 1.0


@pytest.mark.parametrize("loss", FUNCTIONS)
@law(fuzzy_masks, fuzzy_masks)
def test_gradient_from_probabilities_is_finite_and_overlap_bounded(loss, mu, p):
    found = gradient(lambda x: loss(mu, x), p)
    assert np.all(np.isfinite(found))
    if loss in (fuzzy_tversky_loss, fuzzy_dice_loss, fuzzy_jaccard_loss):
        assert np.abs(found).max() <= 2.0  # at most (alpha + 1) / s


@pytest.mark.parametrize(("t_norm", "parameter"), T_NORMS)
def test_gradient_of_every_t_norm_matches_differences(t_norm, parameter):
    generator = np.random.default_rng(0)
    mu = generator.uniform(0.05, 0.95, SHAPE).astype("float32")
    p = generator.uniform(0.05, 0.95, SHAPE).astype("float32")
    direction = generator.normal(size=SHAPE).astype("float32")

    def loss(x):
        return fuzzy_jaccard_loss(mu, x, t_norm=t_norm, t_norm_parameter=parameter)

    step = 1e-3
    difference = (numpy(loss(p + step * direction)).sum() - numpy(loss(p - step * direction)).sum()) / (2 * step)
    assert (gradient(loss, p) * direction).sum() == pytest.approx(difference, abs=2e-3)


def test_frank_has_its_smooth_slope_where_prediction_meets_target():
    point, lam = np.full((1, 1, 1, 1), 0.5, "float32"), 4.0
    slope = gradient(lambda x: fuzzy_dice_loss(point, x, t_norm="frank", t_norm_parameter=lam), point).item()
    # By hand: I = log_4(1 + (2 - 1)(2 - 1) / 3) and dI/dp = 2 (2 - 1) / 3 / (4 / 3) = 1/2; p + mu + 2 = 3.
    conjunction = math.log(4 / 3, 4)
    assert slope == pytest.approx(-(2 * 0.5 * 3 - (2 * conjunction + 2)) / 9, abs=1e-5)


@pytest.mark.parametrize("loss", FITS)
def test_empty_masks(loss):
    empty, wrong = np.zeros((1, 4, 4, 1), "float32"), np.zeros((1, 4, 4, 1), "float32")
    wrong[0, 1, 1] = 1
    assert numpy(loss(empty, empty))[0] == 0
    assert numpy(loss(empty, wrong))[0] > 0.01


@pytest.mark.parametrize(("twin", "function", "options"), TWINS)
def test_class_is_the_function(twin, function, options):
    generator = np.random.default_rng(0)
    mu = (generator.uniform(size=(3, 8, 8, 2)) > 0.5).astype("float32")
    p = generator.uniform(0.05, 0.95, size=(3, 8, 8, 2)).astype("float32")
    loss = twin(**options)
    expected = numpy(function(mu, p, **options))
    assert expected.shape == (3,)
    assert float(loss(mu, p)) == pytest.approx(expected.mean(), rel=1e-5)
    assert float(loss(mu, p, sample_weight=np.array([1.0, 0.0, 0.0]))) == pytest.approx(expected[0] / 3, rel=1e-5)
    alone = numpy(function(mu[:1], p[:1], **options))
    np.testing.assert_allclose(alone, expected[:1], rtol=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert set(options) < set(loss.get_config())
    assert float(again(mu, p)) == float(loss(mu, p))


@pytest.mark.parametrize("loss", FUNCTIONS)
def test_half_precision_inputs_are_summed_in_float32(loss):
    mu = np.zeros((1, 300, 300, 1), "float16")
    mu[:, :, :290] = 1  # 87000 pixels: more than float16 can count
    p = np.clip(mu, 0.125, 0.875)
    half = loss(ops.convert_to_tensor(mu), ops.convert_to_tensor(p))
    assert keras.backend.standardize_dtype(half.dtype) == "float32"
    np.testing.assert_allclose(numpy(half), numpy(loss(mu.astype("float32"), p.astype("float32"))), rtol=1e-5)


def test_lists_will_do_as_predictions():
    assert numpy(fuzzy_crossentropy_loss([[[[1.0]]]], [[[[0.0]]]], from_logits=True))[0] == pytest.approx(np.log(2))


@pytest.mark.parametrize("loss", FUNCTIONS)
def test_shapes_must_agree(loss):
    with pytest.raises(ValueError, match="agree"):
        loss(np.zeros((1, 4, 4, 1)), np.zeros((1, 4, 5, 1)))


@pytest.mark.parametrize("loss", FUNCTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_give_what_probabilities_give(loss, channels):
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(2, 5, 5, channels)).astype("float32")
    mu = generator.uniform(size=logits.shape).astype("float32")
    p = ops.sigmoid(logits) if channels == 1 else ops.softmax(logits)
    np.testing.assert_allclose(numpy(loss(mu, logits, from_logits=True)), numpy(loss(mu, p)), atol=1e-5)


def test_the_loss_softens_a_crisp_mask_itself():
    mask = np.zeros((1, 48, 48, 1), "float32")
    mask[:, 8:40, 10:38] = 1
    p = np.full_like(mask, 0.4)
    softened = fuzzy_segmentation_loss(mask, p, tau_px=1.5)
    np.testing.assert_allclose(numpy(softened), numpy(fuzzy_segmentation_loss(soften_mask(mask, 1.5), p)), rtol=1e-6)
    # Close to the exact transform, far from the crisp mask.
    exact = fuzzify_mask(mask, 1.5)
    near, far = (numpy(fuzzy_segmentation_loss(mask, exact, tau_px=tau_px))[0] for tau_px in (1.5, 0.0))
    assert near < 0.25 * far


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FuzzyTversky("min"), "t_norm must be one of"),
        (lambda: FuzzyTversky(alpha=-1.0), "alpha and beta"),
        (lambda: FuzzyDice("frank"), "lam"),
        (lambda: FuzzyJaccard(smooth=0.0), "smooth"),
        (lambda: FuzzyCMeans(m=1.0), "m must be above 1"),
        (lambda: FuzzySegmentation(tau_px=-1.0), "tau_px"),
    ],
)
def test_wrong_parameters_are_refused_when_the_loss_is_made(build, message):
    with pytest.raises(ValueError, match=message):
        build()
