import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from keras import ops
from sklearn.utils.class_weight import compute_class_weight

from dermaseg.losses.classification import (
    ClassBalancedFocal,
    LogitAdjustedCrossentropy,
    class_balanced_focal_loss,
    class_weights,
    logit_adjusted_crossentropy,
)

PRIORS = [0.7, 0.2, 0.1]
COUNTS = [700, 200, 10]
CASES = [
    (LogitAdjustedCrossentropy(PRIORS), lambda t, p, **k: logit_adjusted_crossentropy(t, p, priors=PRIORS, **k)),
    (ClassBalancedFocal(COUNTS), lambda t, p, **k: class_balanced_focal_loss(t, p, class_counts=COUNTS, **k)),
]
every_loss = pytest.mark.parametrize(("loss", "function"), CASES, ids=["logit_adjusted", "class_balanced_focal"])

LABELS = np.array([0, 1, 2, 2, 0])
LOGITS = np.random.default_rng(0).normal(0, 2, (5, 3)).astype("float32")


def numpy(tensor):
    return ops.convert_to_numpy(tensor)


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


PROBABILITIES = softmax(LOGITS)


def test_logit_adjustment_is_the_formula_of_the_paper():
    # equation 10: -log(e^(f_y + tau log pi_y) / sum e^(f_c + tau log pi_c))
    for tau in (0.0, 1.0, 1.5):
        adjusted = softmax(LOGITS + tau * np.log(PRIORS))
        expected = -np.log(adjusted[np.arange(5), LABELS])
        found = logit_adjusted_crossentropy(LABELS, LOGITS, priors=PRIORS, tau=tau, from_logits=True)
        np.testing.assert_allclose(numpy(found), expected, rtol=1e-5)


def test_without_strength_it_is_keras_crossentropy():
    found = logit_adjusted_crossentropy(LABELS, PROBABILITIES, priors=PRIORS, tau=0.0)
    theirs = keras.losses.sparse_categorical_crossentropy(LABELS, PROBABILITIES)
    np.testing.assert_allclose(numpy(found), numpy(theirs), rtol=1e-5)


def test_priors_may_be_counts():
    shares = logit_adjusted_crossentropy(LABELS, PROBABILITIES, priors=PRIORS)
    counts = logit_adjusted_crossentropy(LABELS, PROBABILITIES, priors=[700, 200, 100])
    np.testing.assert_allclose(numpy(shares), numpy(counts), rtol=1e-6)


def test_a_rare_class_must_win_by_more():
    even = np.full((3, 3), 1 / 3, "float32")
    cost = numpy(logit_adjusted_crossentropy(np.arange(3), even, priors=PRIORS))
    np.testing.assert_allclose(cost, -np.log(PRIORS), rtol=1e-5)


def test_focal_agrees_with_keras_where_the_classes_are_alike():
    found = class_balanced_focal_loss(LABELS, PROBABILITIES, class_counts=[5, 5, 5], gamma=2.0)
    theirs = keras.losses.categorical_focal_crossentropy(np.eye(3)[LABELS], PROBABILITIES, alpha=1.0, gamma=2.0)
    np.testing.assert_allclose(numpy(found), numpy(theirs), rtol=1e-4)


def test_focal_weights_are_the_effective_numbers():
    effective = (1 - 0.99 ** np.array(COUNTS)) / (1 - 0.99)
    weights = 3 / effective / (1 / effective).sum()
    expected = weights[LABELS] * -np.log(PROBABILITIES[np.arange(5), LABELS])
    found = class_balanced_focal_loss(LABELS, PROBABILITIES, class_counts=COUNTS, beta=0.99, gamma=0.0)
    np.testing.assert_allclose(numpy(found), expected, rtol=1e-4)


@every_loss
def test_labels_may_be_numbers_columns_or_one_hot(loss, function):
    expected = numpy(function(LABELS, PROBABILITIES))
    assert expected.shape == (5,)
    assert expected.dtype == np.float32
    for labels in (LABELS[:, None], LABELS.astype("float32"), np.eye(3)[LABELS]):
        np.testing.assert_allclose(numpy(function(labels, PROBABILITIES)), expected, rtol=1e-6)


@every_loss
def test_a_mixed_up_target_costs_the_mixture(loss, function):
    mixed = 0.3 * np.eye(3)[[0, 1]] + 0.7 * np.eye(3)[[2, 2]]
    first = numpy(function(np.array([0, 1]), PROBABILITIES[:2]))
    second = numpy(function(np.array([2, 2]), PROBABILITIES[:2]))
    np.testing.assert_allclose(numpy(function(mixed, PROBABILITIES[:2])), 0.3 * first + 0.7 * second, rtol=1e-5)


@every_loss
def test_logits_and_probabilities_agree(loss, function):
    from_logits = numpy(function(LABELS, LOGITS, from_logits=True))
    np.testing.assert_allclose(from_logits, numpy(function(LABELS, PROBABILITIES)), rtol=1e-4, atol=1e-6)


@every_loss
def test_a_batch_is_the_mean_of_its_pictures(loss, function):
    alone = [float(loss(LABELS[i : i + 1], PROBABILITIES[i : i + 1])) for i in range(5)]
    assert float(loss(LABELS, PROBABILITIES)) == pytest.approx(np.mean(alone), rel=1e-5)


@every_loss
def test_sample_weights(loss, function):
    weights = np.array([0.0, 1.0, 3.0, 0.5, 0.0], "float32")
    expected = (numpy(function(LABELS, PROBABILITIES)) * weights).sum() / 5
    assert float(loss(LABELS, PROBABILITIES, sample_weight=weights)) == pytest.approx(expected, rel=1e-5)


@every_loss
def test_a_sure_and_right_answer_costs_nothing(loss, function):
    assert numpy(function(np.arange(3), 40 * np.eye(3, dtype="float32"), from_logits=True)) == pytest.approx(0, abs=1e-5)


@every_loss
@settings(deadline=None, max_examples=30)
@given(logits=hnp.arrays("float32", (4, 3), elements=st.floats(-100, 100, width=32)))
def test_never_negative_and_always_finite(loss, function, logits):
    for values in (function(LABELS[:4], logits, from_logits=True), function(LABELS[:4], softmax(logits))):
        assert np.isfinite(numpy(values)).all()
        assert (numpy(values) >= 0).all()


@every_loss
@pytest.mark.parametrize("labels", [[0, 1, 2], [1, 2, 0]], ids=["right", "wrong"])
def test_gradients_are_finite_where_saturated_and_right_or_wrong(loss, function, labels, gradient):
    labels = np.array(labels)
    slopes = gradient(lambda p: function(labels, p), np.eye(3, dtype="float32"))
    assert np.isfinite(slopes).all()
    slopes = gradient(lambda logits: function(labels, logits, from_logits=True), 1000 * np.eye(3, dtype="float32"))
    assert np.isfinite(slopes).all()


def test_the_gradient_at_the_logits_is_adjusted_probability_less_target(gradient):
    found = gradient(lambda x: logit_adjusted_crossentropy(LABELS, x, priors=PRIORS, from_logits=True), LOGITS)
    np.testing.assert_allclose(found, softmax(LOGITS + np.log(PRIORS)) - np.eye(3)[LABELS], atol=1e-5)


@every_loss
def test_float16_is_computed_in_float32(loss, function):
    found = numpy(function(LABELS, PROBABILITIES.astype("float16")))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, numpy(function(LABELS, PROBABILITIES)), rtol=5e-3, atol=1e-3)


@every_loss
def test_config_round_trip(loss, function):
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(LABELS, PROBABILITIES)) == pytest.approx(float(loss(LABELS, PROBABILITIES)), rel=1e-6)


@every_loss
def test_shapes_that_do_not_fit_are_refused(loss, function):
    with pytest.raises(ValueError, match=r"y_pred must be \(batch, 3\)"):
        function(LABELS, PROBABILITIES[:, :2])
    with pytest.raises(ValueError, match=r"y_true must be \(batch,\), \(batch, 1\) or \(batch, 3\)"):
        function(np.eye(4)[LABELS], PROBABILITIES)


def test_training_for_balance_finds_the_rare_class():
    rng = np.random.default_rng(0)
    labels = (rng.random(4000) < 0.05).astype("int64")
    features = (rng.normal(0, 1, 4000) + 1.5 * labels)[:, None].astype("float32")
    found = {}
    for name, loss in (("plain", "sparse_categorical_crossentropy"), ("adjusted", LogitAdjustedCrossentropy([0.95, 0.05]))):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2, activation="softmax")])
        model.compile(keras.optimizers.Adam(0.1), loss)
        model.fit(features, labels, epochs=6, batch_size=500, verbose=0)
        found[name] = (numpy(model(features)).argmax(-1) == 1)[labels == 1].mean()
    assert found["plain"] < 0.3
    assert 0.65 < found["adjusted"] < 0.9  # two normal classes 1.5 apart: 77 % at the balanced threshold


def test_class_weights_agree_with_sklearn():
    labels = np.repeat([0, 1, 2], COUNTS)
    weights = class_weights(labels, 3)
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    assert list(weights) == [0, 1, 2]
    np.testing.assert_allclose(list(weights.values()), theirs)


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(1, 300), min_size=2, max_size=6), beta=st.floats(0, 0.9999))
def test_effective_weights_average_to_one_and_lie_between_none_and_inverse(counts, beta):
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = np.array(list(class_weights(labels, len(counts), scheme="effective", beta=beta).values()))
    inverse = np.array(list(class_weights(labels, len(counts)).values()))
    assert weights[labels].mean() == pytest.approx(1)
    assert 1 - 1e-9 <= weights.max() / weights.min() <= inverse.max() / inverse.min() * (1 + 1e-9)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LogitAdjustedCrossentropy([0.5, 0.0]), "each above 0"),
        (lambda: LogitAdjustedCrossentropy([1.0]), "two or more classes"),
        (lambda: LogitAdjustedCrossentropy(PRIORS, tau=-1.0), "tau must be at least 0"),
        (lambda: ClassBalancedFocal([3, 0]), "at least one picture each"),
        (lambda: ClassBalancedFocal(COUNTS, beta=1.0), "beta must be"),
        (lambda: ClassBalancedFocal(COUNTS, gamma=-1.0), "gamma must be"),
        (lambda: class_weights([0, 1, 1], 3), "at least one picture each"),
        (lambda: class_weights([0, 3], 2), "labels must lie between 0 and 1"),
        (lambda: class_weights([0.0, 1.0], 2), "labels must be integers"),
        (lambda: class_weights([0, 1], 2, scheme="sqrt"), "scheme must be"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
