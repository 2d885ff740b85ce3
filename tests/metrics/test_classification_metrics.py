import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isic_challenge_scoring.metrics import balanced_multiclass_accuracy
from sklearn import metrics as oracle

from dermaseg.metrics.classification import (
    balanced_accuracy,
    choose_threshold,
    class_scores,
    classification_scores,
    confusion_matrix,
    macro_auc,
    roc_curve,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
)
from dermaseg.metrics.streaming import BalancedAccuracy


def sample(count=200, classes=4, seed=0, decimals=2):
    """Labels, and probabilities that lean to them; rounded, so that there are ties."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=np.array([0.6, 0.2, 0.15, 0.05])[:classes] / sum([0.6, 0.2, 0.15, 0.05][:classes]))
    labels[:classes] = np.arange(classes)
    logits = rng.normal(0, 1.5, (count, classes)) + 2 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return labels, probabilities.round(decimals)


def roc_points(positive, scores):
    """(sensitivity, specificity) at every threshold, by counting."""
    thresholds = [*np.unique(scores), np.inf]
    return [((scores[positive] >= t).mean(), (scores[~positive] < t).mean()) for t in thresholds]


@pytest.mark.parametrize("seed", range(4))
def test_figures_agree_with_sklearn(seed):
    labels, probabilities = sample(seed=seed)
    predicted = probabilities.argmax(1)
    scores = classification_scores(labels, probabilities)
    assert scores["accuracy"] == pytest.approx(oracle.accuracy_score(labels, predicted))
    assert scores["balanced_accuracy"] == pytest.approx(oracle.balanced_accuracy_score(labels, predicted))
    one_hot = np.eye(4)[labels]
    assert scores["macro_auc"] == pytest.approx(oracle.roc_auc_score(one_hot, probabilities, average="macro"))
    assert scores["majority_share"] == np.bincount(labels).max() / len(labels)
    np.testing.assert_array_equal(confusion_matrix(labels, probabilities), oracle.confusion_matrix(labels, predicted))


def test_balanced_accuracy_agrees_with_the_challenge():
    labels, probabilities = sample(decimals=12)
    truth, predictions = pd.DataFrame(np.eye(4)[labels]), pd.DataFrame(probabilities)
    theirs = balanced_multiclass_accuracy(truth, predictions, pd.Series(np.ones(len(labels))))
    assert balanced_accuracy(labels, probabilities) == pytest.approx(theirs)


@pytest.mark.parametrize("digits", [1, 8])
def test_the_roc_curve_agrees_with_sklearn(digits):
    generator = np.random.default_rng(digits)
    positive = generator.random(60) < 0.3
    scores = (generator.random(60) + 0.3 * positive).round(digits)
    ours, theirs = roc_curve(positive, scores), oracle.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(ours, theirs[:2])
    with pytest.raises(ValueError, match="positive"):
        roc_curve(np.ones(3, bool), np.zeros(3))


def test_class_figures_agree_with_sklearn():
    labels, probabilities = sample()
    names = ["mel", "nv", "bcc", "akiec"]
    found = class_scores(labels, probabilities, names)
    assert list(found) == names
    for c, name in enumerate(names):
        own, called = labels == c, probabilities.argmax(1) == c
        assert found[name]["count"] == own.sum()
        assert found[name]["sensitivity"] == pytest.approx(oracle.recall_score(own, called))
        assert found[name]["specificity"] == pytest.approx(oracle.recall_score(~own, ~called))
        assert found[name]["auc"] == pytest.approx(oracle.roc_auc_score(own, probabilities[:, c]))


def test_a_class_that_is_not_there_is_left_out():
    labels, probabilities = sample()
    kept = labels != 3
    found = classification_scores(labels[kept], probabilities[kept])
    recalls = [np.mean(probabilities[labels == c].argmax(1) == c) for c in range(3)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert np.isfinite(found["macro_auc"])
    missing = class_scores(labels[kept], probabilities[kept], list("abcd"))["d"]
    assert missing["count"] == 0
    assert np.isnan([missing["sensitivity"], missing["auc"]]).all()
    assert 0 <= missing["specificity"] <= 1


def test_one_class_alone_has_no_auc():
    assert np.isnan(macro_auc([1, 1], [[0.2, 0.8], [0.4, 0.6]]))
    assert balanced_accuracy([1, 1], [[0.2, 0.8], [0.6, 0.4]]) == 0.5


@settings(deadline=None, max_examples=50)
@given(
    positive=st.lists(st.booleans(), min_size=2, max_size=25),
    seed=st.integers(0, 1000),
    share=st.floats(0.01, 1.0),
)
def test_the_best_point_of_the_curve_is_found(positive, seed, share):
    positive = np.array(positive)
    scores = np.random.default_rng(seed).integers(0, 8, len(positive)) / 8
    if positive.all() or not positive.any():
        assert np.isnan(sensitivity_at_specificity(positive, scores, specificity=share))
        assert np.isnan(specificity_at_sensitivity(positive, scores, sensitivity=share))
        return
    points = roc_points(positive, scores)
    best = max(hit for hit, spared in points if spared >= share - 1e-9)
    assert sensitivity_at_specificity(positive, scores, specificity=share) == pytest.approx(best)
    best = max(spared for hit, spared in points if hit >= share - 1e-9)
    assert specificity_at_sensitivity(positive, scores, sensitivity=share) == pytest.approx(best)


@pytest.mark.parametrize("share", [0.05, 0.55, 0.8, 0.95, 1.0])
def test_the_chosen_threshold_is_the_largest_that_finds_enough(share):
    rng = np.random.default_rng(0)
    positive, scores = rng.random(200) < 0.1, rng.random(200)
    threshold = choose_threshold(positive, scores, sensitivity=share)
    found = np.sort(scores[positive])
    assert (found >= threshold).mean() >= share
    assert (found > threshold).mean() < share


def test_a_share_that_floating_point_overshoots():
    scores = np.arange(100) / 100
    assert 0.55 * 100 > 55
    assert choose_threshold(np.ones(100), scores, sensitivity=0.55) == scores[45]


def test_streaming_is_the_same_however_batches_are_cut():
    labels, probabilities = sample(60)
    expected = balanced_accuracy(labels, probabilities)
    for cuts in ([], [10, 20], [1, 2, 59]):
        metric = BalancedAccuracy(4)
        for own, given_to in zip(np.split(labels, cuts), np.split(probabilities, cuts), strict=True):
            metric.update_state(own, given_to)
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


def test_streaming_takes_columns_one_hot_and_one_sigmoid_unit():
    labels, probabilities = sample(50, classes=2)
    expected = balanced_accuracy(labels, probabilities)
    for own, given_to in (
        (labels[:, None], probabilities),
        (np.eye(2)[labels], probabilities),
        (labels, probabilities[:, 1:]),
    ):
        metric = BalancedAccuracy(2)
        metric.update_state(own, given_to)
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


def test_streaming_leaves_out_what_was_not_seen_and_honours_weights():
    labels, probabilities = np.array([0, 0, 1]), np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.1, 0.9, 0]])
    metric = BalancedAccuracy(3)
    assert float(metric.result()) == 0
    metric.update_state(labels, probabilities)
    assert float(metric.result()) == pytest.approx(0.75)
    metric.reset_state()
    metric.update_state(labels, probabilities, sample_weight=np.array([3.0, 1.0, 0.2]))
    assert float(metric.result()) == pytest.approx((0.75 + 1) / 2)


def test_streaming_in_a_compiled_model_and_from_its_config():
    metric = BalancedAccuracy(3)
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert again.get_config() == metric.get_config()
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[again], jit_compile=keras.backend.backend() != "torch")
    history = model.fit(np.ones((6, 5)), np.array([0, 1, 2, 0, 1, 2]), batch_size=3, verbose=0)
    assert history.history["balanced_accuracy"][0] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classification_scores([0, 1], [0.2, 0.8]), "np.stack"),
        (lambda: classification_scores([], np.zeros((0, 2))), "and a sample"),
        (lambda: balanced_accuracy([0, 2], [[0.5, 0.5]] * 2), "labels must lie between 0 and 1"),
        (lambda: balanced_accuracy([0.0, 1.0], [[0.5, 0.5]] * 2), "labels must be integers"),
        (lambda: macro_auc([0, 1], [[0.5, np.nan]] * 2), "finite"),
        (lambda: class_scores([0, 1], [[0.5, 0.5]] * 2, ["a"]), "1 names for 2 classes"),
        (lambda: choose_threshold([0, 0], [0.1, 0.2], sensitivity=0.9), "at least one positive"),
        (lambda: choose_threshold([0, 1], [0.1, 0.2], sensitivity=0.0), "sensitivity must be above 0"),
        (lambda: sensitivity_at_specificity([0, 1], [0.1, 0.2], specificity=95), "specificity must be above 0 and at most 1"),
        (lambda: specificity_at_sensitivity([0, 1], [0.1], sensitivity=0.9), "must be .samples,. and agree"),
        (lambda: BalancedAccuracy(1), "num_classes must be at least 2"),
        (lambda: BalancedAccuracy(3).update_state([0, 1], [[0.5, 0.5]] * 2), r"y_pred must be \(batch, 3\)"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint64"])
def test_labels_of_any_integer_type_count_alike(dtype):
    labels = np.tile(np.arange(20), 3).astype(dtype)
    assert balanced_accuracy(labels, np.eye(20)[labels.astype(int)]) == 1.0
