"""The laws of fuzzy sets, as properties."""

import itertools
import math

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from scipy import ndimage

from dermaseg.fuzzy import (
    T_NORMS,
    bell_membership,
    fuzzify_mask,
    fuzzy_entropy,
    gaussian_membership,
    sigmoid_membership,
    soften_mask,
    t_conorm,
    t_norm,
    trapezoid_membership,
    triangular_membership,
)

TOLERANCE = 2e-6

FRANK_FAMILY = [("godel", None), ("product", None), ("lukasiewicz", None)] + [
    ("frank", lam) for lam in (0.0, 1e-12, 0.1, 1.0 - 1e-7, 1.0, 4.0, 1e6, math.inf)
]
ALL = [*FRANK_FAMILY, ("hamacher", 0.0), ("hamacher", 2.0), ("hamacher", 50.0)]

memberships = hnp.arrays("float32", 12, elements=st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 1.0])))
masks = hnp.arrays("uint8", hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 1))
softness = st.floats(0.25, 4.0)


def law(*strategies, max_examples=25):
    def decorate(test):
        return settings(deadline=None, max_examples=max_examples)(given(*strategies)(test))

    return decorate


def numpy(function, *arrays):
    return ops.convert_to_numpy(function(*(ops.convert_to_tensor(array) for array in arrays)))


each_t_norm = pytest.mark.parametrize(("name", "parameter"), ALL)


@each_t_norm
@law(memberships, memberships)
def test_t_norm_commutes_and_stays_below_the_minimum(name, parameter, p, mu):
    conjunction = t_norm(name, parameter)
    result = numpy(conjunction, p, mu)
    np.testing.assert_allclose(result, numpy(conjunction, mu, p), atol=TOLERANCE)
    assert np.all(result <= np.minimum(p, mu) + TOLERANCE)
    assert np.all(result >= -TOLERANCE)


@each_t_norm
@law(memberships, memberships, memberships)
def test_t_norm_associates(name, parameter, a, b, c):
    conjunction = t_norm(name, parameter)
    left = numpy(lambda a, b, c: conjunction(conjunction(a, b), c), a, b, c)
    right = numpy(lambda a, b, c: conjunction(a, conjunction(b, c)), a, b, c)
    np.testing.assert_allclose(left, right, atol=2e-5)


@each_t_norm
@law(memberships, memberships, memberships)
def test_t_norm_is_monotone(name, parameter, p, a, b):
    conjunction = t_norm(name, parameter)
    low, high = numpy(conjunction, p, np.minimum(a, b)), numpy(conjunction, p, np.maximum(a, b))
    assert np.all(low <= high + TOLERANCE)


@each_t_norm
@law(memberships)
def test_one_is_the_unit_and_zero_annihilates(name, parameter, p):
    conjunction, disjunction = t_norm(name, parameter), t_conorm(name, parameter)
    ones, zeros = np.ones_like(p), np.zeros_like(p)
    np.testing.assert_allclose(numpy(conjunction, p, ones), p, atol=TOLERANCE)
    np.testing.assert_allclose(numpy(conjunction, p, zeros), zeros, atol=TOLERANCE)
    np.testing.assert_allclose(numpy(disjunction, p, zeros), p, atol=TOLERANCE)
    np.testing.assert_allclose(numpy(disjunction, p, ones), ones, atol=TOLERANCE)


@pytest.mark.parametrize(("name", "parameter"), FRANK_FAMILY)
@law(memberships, memberships)
def test_and_plus_or_is_the_sum_in_franks_family(name, parameter, p, mu):
    total = numpy(t_norm(name, parameter), p, mu) + numpy(t_conorm(name, parameter), p, mu)
    np.testing.assert_allclose(total, p + mu, atol=4e-6)


def test_and_plus_or_is_not_the_sum_for_hamacher():
    total = float(t_norm("hamacher", 0.0)(0.5, 0.25)) + float(t_conorm("hamacher", 0.0)(0.5, 0.25))
    assert abs(total - 0.75) > 0.01


@law(memberships, memberships, st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_franks_family_falls_from_godel_to_lukasiewicz(p, mu, a, b):
    low, high = sorted((a, b))
    order = [("lukasiewicz", None), ("frank", high), ("frank", low), ("godel", None)]
    for (small, first), (large, second) in itertools.pairwise(order):
        assert np.all(numpy(t_norm(small, first), p, mu) <= numpy(t_norm(large, second), p, mu) + 4e-6)


@law(memberships, memberships)
def test_lukasiewicz_product_godel_are_ordered(p, mu):
    lukasiewicz, product, godel = (numpy(t_norm(name), p, mu) for name in ("lukasiewicz", "product", "godel"))
    assert np.all(lukasiewicz <= product + TOLERANCE)
    assert np.all(product <= godel + TOLERANCE)


@law(memberships, memberships)
def test_frank_reaches_its_limits(p, mu):
    def frank(lam):
        return numpy(t_norm("frank", lam), p, mu)

    # Off its limits by at most ln 2 / |ln lam|, at p = mu and p = 1 - mu.
    np.testing.assert_allclose(frank(1e-300), numpy(t_norm("godel"), p, mu), atol=1.01 * math.log(2) / (300 * math.log(10)))
    np.testing.assert_allclose(frank(1e300), numpy(t_norm("lukasiewicz"), p, mu), atol=2e-3)
    np.testing.assert_allclose(frank(1 + 1e-9), p * mu, atol=TOLERANCE)
    np.testing.assert_allclose(frank(1 - 1e-9), p * mu, atol=TOLERANCE)
    np.testing.assert_array_equal(frank(0.0), numpy(t_norm("godel"), p, mu))
    np.testing.assert_array_equal(frank(math.inf), numpy(t_norm("lukasiewicz"), p, mu))


@law(memberships, memberships, st.floats(1e-3, 1e3).filter(lambda lam: abs(lam - 1) > 1e-2))
def test_frank_is_its_textbook_formula(p, mu, lam):
    a, b = p.astype("float64"), mu.astype("float64")
    textbook = np.log1p((lam**a - 1) * (lam**b - 1) / (lam - 1)) / np.log(lam)
    np.testing.assert_allclose(numpy(t_norm("frank", lam), p, mu), textbook, atol=TOLERANCE)


@law(memberships, memberships, st.sampled_from([(0.0, 0.5), (0.5, 1.0), (1.0, 2.0), (2.0, 9.0)]))
def test_hamacher_falls_with_gamma_through_the_product(p, mu, gammas):
    small, large = (numpy(t_norm("hamacher", gamma), p, mu) for gamma in gammas)
    assert np.all(large <= small + TOLERANCE)
    np.testing.assert_allclose(numpy(t_norm("hamacher", 1.0), p, mu), p * mu, atol=TOLERANCE)


def test_values_by_hand():
    assert float(t_norm("godel")(0.25, 0.5)) == 0.25
    assert float(t_norm("product")(0.25, 0.5)) == 0.125
    assert float(t_norm("lukasiewicz")(0.75, 0.5)) == 0.25
    assert float(t_norm("hamacher", 0.0)(0.5, 0.5)) == pytest.approx(1 / 3)
    assert float(t_norm("hamacher", 0.0)(0.0, 0.0)) == 0.0
    assert float(t_conorm("product")(0.5, 0.5)) == 0.75


@pytest.mark.parametrize(
    ("name", "parameter", "message"),
    [
        ("min", None, "godel, product"),
        ("godel", 1.0, "no parameter"),
        ("frank", None, "lam"),
        ("frank", -1.0, "at least 0"),
        ("frank", math.nan, "at least 0"),
        ("hamacher", None, "gamma"),
        ("hamacher", -0.1, "at least 0"),
        ("hamacher", math.inf, "finite"),
    ],
)
def test_t_norm_refuses(name, parameter, message):
    with pytest.raises(ValueError, match=message):
        t_norm(name, parameter)


def test_table_names_every_t_norm():
    assert set(T_NORMS) == {name for name, _ in ALL}


MEMBERSHIP_FUNCTIONS = {
    "gaussian": (lambda x: gaussian_membership(x, 1.0, 2.0), lambda x: np.exp(-((x - 1) ** 2) / 8)),
    "bell": (lambda x: bell_membership(x, 1.0, 2.0, 3.0), lambda x: 1 / (1 + np.abs((x - 1) / 2) ** 6)),
    "sigmoid": (lambda x: sigmoid_membership(x, 1.0, 2.0), lambda x: 1 / (1 + np.exp(-2 * (x - 1)))),
    "triangular": (lambda x: triangular_membership(x, -1.0, 0.5, 3.0), lambda x: np.interp(x, [-1, 0.5, 3], [0, 1, 0])),
    "trapezoid": (
        lambda x: trapezoid_membership(x, -1.0, 0.5, 2.0, 3.0),
        lambda x: np.interp(x, [-1, 0.5, 2, 3], [0, 1, 1, 0]),
    ),
    "left shoulder": (
        lambda x: trapezoid_membership(x, -1.0, -1.0, 2.0, 3.0),
        lambda x: (x >= -1) * np.interp(x, [2, 3], [1, 0]),
    ),
}


@pytest.mark.parametrize("name", MEMBERSHIP_FUNCTIONS)
@law(hnp.arrays("float32", 12, elements=st.floats(-5, 5, width=32)))
def test_membership_function_matches_numpy(name, x):
    function, oracle = MEMBERSHIP_FUNCTIONS[name]
    np.testing.assert_allclose(numpy(function, x), oracle(x.astype("float64")), atol=1e-5)


class Bell(keras.layers.Layer):
    def __init__(self, slope):
        super().__init__()
        self.slope = slope
        self.center = self.add_weight(shape=(), initializer="zeros")

    def call(self, x):
        return bell_membership(x, self.center, 1.0, self.slope)


def test_a_bell_is_1_at_its_centre_however_pointed():
    values = ops.convert_to_numpy(bell_membership(ops.convert_to_tensor([1.0, 1.1]), 1.0, 1.0, 0.01))
    np.testing.assert_allclose(values, [1.0, 1 / (1 + 0.1**0.02)], rtol=1e-6)


@pytest.mark.parametrize("slope", [0.25, 0.5, 0.75, 1.0])
def test_a_bell_has_a_finite_gradient_at_its_centre(slope):
    bell = Bell(slope)
    model = keras.Sequential([keras.Input((2,)), bell])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.train_on_batch(np.array([[0.0, 1.0]]), np.zeros((1, 2)))
    moved = float(ops.convert_to_numpy(bell.center))
    # Of the second value: d/dc of (1 / (1 + (1 - c)^(2 slope)))^2 / 2 at c = 0.
    assert moved == pytest.approx(-0.1 * 0.5 * slope / 2, rel=1e-4)


def test_trapezoid_refuses_falling_corners():
    with pytest.raises(ValueError, match="must not fall"):
        triangular_membership(0.0, 1.0, 0.0, 2.0)


@law(memberships, memberships)
def test_entropy_is_de_luca_and_terminis(p, mu):
    entropy = numpy(fuzzy_entropy, p)
    np.testing.assert_array_equal(entropy[(p == 0) | (p == 1)], 0.0)
    np.testing.assert_allclose(entropy[p == 0.5], 1.0, atol=1e-6)
    assert np.all((entropy >= 0) & (entropy <= 1 + 1e-6))
    np.testing.assert_allclose(entropy, numpy(fuzzy_entropy, 1 - p), atol=3e-6)
    # A set sharpened towards crisp is never fuzzier; and entropy is a valuation: H(max) + H(min) = H(p) + H(mu).
    sharper = np.where(p < 0.5, p / 2, (1 + p) / 2)
    assert np.all(numpy(fuzzy_entropy, sharper) <= entropy + 3e-6)
    both = numpy(fuzzy_entropy, np.maximum(p, mu)) + numpy(fuzzy_entropy, np.minimum(p, mu))
    np.testing.assert_allclose(both, entropy + numpy(fuzzy_entropy, mu), atol=1e-6)


@law(masks, softness)
def test_more_than_half_is_the_mask_and_complement_gives_complement(mask, tau_px):
    mu = fuzzify_mask(mask, tau_px)
    assert mu.dtype == np.float32
    np.testing.assert_array_equal(mu > 0.5, mask == 1)
    np.testing.assert_allclose(fuzzify_mask(1 - mask, tau_px), 1 - mu, atol=1e-6)


@law(masks)
def test_softness_zero_is_the_limit_and_the_mask(mask):
    np.testing.assert_array_equal(fuzzify_mask(mask, 0.0), mask)
    np.testing.assert_allclose(fuzzify_mask(mask, 0.02), mask, atol=1e-6)
    np.testing.assert_allclose(numpy(lambda m: soften_mask(m, 0.02), mask[None, :, :, None])[0, :, :, 0], mask, atol=1e-6)
    np.testing.assert_array_equal(numpy(lambda m: soften_mask(m, 0.0), mask[None, :, :, None])[0, :, :, 0], mask)


def test_fuzzify_is_the_sigmoid_of_the_brute_force_distance():
    mask = np.random.default_rng(0).uniform(size=(9, 11)) > 0.6
    rows, columns = np.indices(mask.shape)
    for row, column in np.ndindex(mask.shape):
        other = mask != mask[row, column]
        distance = np.hypot(rows - row, columns - column)[other].min() - 0.5
        phi = -distance if mask[row, column] else distance
        assert fuzzify_mask(mask, 1.5)[row, column] == pytest.approx(1 / (1 + math.exp(phi / 1.5)), abs=1e-6)


@pytest.mark.parametrize("value", [0, 1])
def test_empty_and_full_masks_stay(value):
    mask = np.full((2, 6, 5, 1), value, "uint8")
    np.testing.assert_array_equal(fuzzify_mask(mask, 1.5), mask)
    np.testing.assert_allclose(numpy(lambda m: soften_mask(m, 1.5), mask), mask, atol=1e-6)


def test_fuzzify_treats_each_image_and_channel_alone():
    stack = (np.random.default_rng(0).uniform(size=(3, 8, 9, 2)) > 0.5).astype("float32")
    together = fuzzify_mask(stack, 1.0)
    for image, channel in np.ndindex(3, 2):
        np.testing.assert_array_equal(together[image, :, :, channel], fuzzify_mask(stack[image, :, :, channel], 1.0))
    np.testing.assert_array_equal(fuzzify_mask(stack[0], 1.0), together[0])
    assert set(np.unique(stack)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("mask", "tau_px", "message"),
    [
        (np.zeros((4, 4)), -1.0, "tau_px"),
        (np.zeros((4, 4)), math.nan, "tau_px"),
        (np.zeros(4), 1.0, "shape"),
        (np.full((4, 4), 255), 1.0, "0 and 1 only"),
        (np.full((4, 4), 0.5), 0.0, "0 and 1 only"),
    ],
)
def test_fuzzify_refuses(mask, tau_px, message):
    with pytest.raises(ValueError, match=message):
        fuzzify_mask(mask, tau_px)


@law(masks, st.floats(0.05, 4.0), max_examples=25)
def test_soften_is_scipys_gaussian_and_keeps_complements(mask, tau_px):
    batch = mask[None, :, :, None].astype("float32")
    soft = numpy(lambda m: soften_mask(m, tau_px), batch)
    assert soft.min() >= 0
    assert soft.max() <= 1
    np.testing.assert_allclose(numpy(lambda m: soften_mask(m, tau_px), 1 - batch), 1 - soft, atol=1e-5)
    if tau_px > 0.6:  # below, SciPy's point-sampled Gaussian is not the pixel-integrated one
        scipy = ndimage.gaussian_filter(batch[0, :, :, 0], 4 * tau_px / math.sqrt(2 * math.pi), mode="reflect", truncate=3)
        np.testing.assert_allclose(soft[0, :, :, 0], scipy, atol=0.03)


@pytest.mark.parametrize("tau_px", [0.5, 1.5, 3.0])
def test_soften_matches_the_exact_transform_along_a_straight_border(tau_px):
    mask = np.zeros((1, 40, 40, 2), "float32")
    mask[:, :, 20:, 0] = 1
    mask[:, 20:, :, 1] = 1
    difference = np.abs(numpy(lambda m: soften_mask(m, tau_px), mask) - fuzzify_mask(mask, tau_px))
    assert 0.01 < difference.max() < 0.019


def test_soften_is_close_to_the_exact_transform_on_a_lesion_sized_disc():
    rows, columns = np.indices((128, 128)) - 63.5
    disc = (np.hypot(rows, columns) < 40).astype("float32")[None, :, :, None]
    exact = fuzzify_mask(disc, 1.5)
    band = (exact > 0.02) & (exact < 0.98)
    difference = np.abs(numpy(lambda m: soften_mask(m, 1.5), disc) - exact)
    assert difference[band].mean() < 0.035
    assert difference.max() < 0.10


def test_soften_compiles_with_static_shapes():
    mask = np.zeros((1, 16, 16, 1), "float32")
    mask[:, 4:12, 4:12] = 1
    eager = numpy(lambda m: soften_mask(m, 1.5), mask)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(lambda m: soften_mask(m, 1.5), jit_compile=True)
    elif keras.backend.backend() == "jax":
        import jax

        compiled = jax.jit(lambda m: soften_mask(m, 1.5))
    else:
        pytest.skip("no ahead-of-time compiler on this backend")
    np.testing.assert_allclose(ops.convert_to_numpy(compiled(mask)), eager, atol=1e-6)
