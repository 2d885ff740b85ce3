import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from dermaseg.metrics import (
    balanced_accuracy,
    bootstrap_interval,
    bootstrap_statistic,
    classification_scores,
    expected_calibration_error,
    macro_auc,
    paired_bootstrap,
    reliability,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
)
from dermaseg.metrics.bootstrap import _draws
from dermaseg.metrics.resampled import alarm_figures, class_figures


def test_the_interval_agrees_with_scipy_on_independent_values():
    values = np.random.default_rng(0).normal(0.8, 0.1, 200)
    ours = bootstrap_interval(values, resamples=4000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=4000, rng=0).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.low, abs=2e-3)
    assert ours.high == pytest.approx(theirs.high, abs=2e-3)


def test_copies_of_a_lesion_bring_no_certainty():
    lesions = np.random.default_rng(0).normal(0.8, 0.1, 60)
    once = bootstrap_interval(lesions)
    copied, groups = np.repeat(lesions, 5), np.repeat(np.arange(60), 5)
    grouped = bootstrap_interval(copied, groups=groups)
    naive = bootstrap_interval(copied)
    assert grouped.high - grouped.low == pytest.approx(once.high - once.low, rel=0.05)
    assert naive.high - naive.low < 0.6 * (grouped.high - grouped.low)
    assert (grouped.count, grouped.groups) == (300, 60)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1), min_size=2, max_size=40), st.integers(0, 5))
def test_the_value_lies_within_the_range_and_seeds_repeat(values, seed):
    interval = bootstrap_interval(np.array(values), resamples=200, seed=seed)
    assert min(values) - 1e-9 <= interval.low <= interval.high <= max(values) + 1e-9
    assert interval == bootstrap_interval(np.array(values), resamples=200, seed=seed)


def test_coverage_is_near_what_is_promised():
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(200):
        means = rng.normal(0, 1, 40)
        values = np.repeat(means, 2) + rng.normal(0, 0.1, 80)
        interval = bootstrap_interval(values, groups=np.repeat(np.arange(40), 2), resamples=300, seed=seed)
        hits += interval.low <= 0 <= interval.high
    assert 0.88 <= hits / 200 <= 0.99


def test_pairing_takes_the_lesions_spread_out():
    rng = np.random.default_rng(0)
    difficulty = rng.normal(0.8, 0.2, 100)
    first, second = difficulty + 0.01 + rng.normal(0, 0.005, 100), difficulty
    paired = paired_bootstrap(first, second)
    assert paired.low > 0
    assert bootstrap_interval(first).low < bootstrap_interval(second).high


def test_groups_of_any_size_weigh_by_their_photographs():
    values, groups = np.array([1.0, 1.0, 1.0, 0.0]), np.array(["a", "a", "a", "b"])
    interval = bootstrap_interval(values, groups=groups)
    assert (interval.value, interval.low, interval.high) == (0.75, 0.0, 1.0)  # aa, ab, bb
    assert str(interval) == "0.750 [0.000, 1.000]"


@pytest.mark.parametrize("weighted", [False, True])
def test_one_group_has_a_figure_without_an_interval(weighted):
    values = np.array([0.25, 0.75])
    groups = np.array(["lesion", "lesion"])

    def mean(drawn):
        return drawn @ values / drawn.sum(axis=1) if weighted else values[drawn].mean()

    for interval in (
        bootstrap_interval(values, groups=groups),
        bootstrap_statistic(mean, 2, weighted=weighted, groups=groups),
        paired_bootstrap(values, np.zeros(2), groups=groups),
    ):
        assert (interval.value, interval.groups, str(interval)) == (0.5, 1, "0.500")
        assert np.isnan([interval.low, interval.high]).all()


def test_a_figure_that_hangs_on_one_lesion_has_no_interval_of_no_width():
    positive, scores = np.arange(12) == 11, np.arange(12) / 12
    found = alarm_figures(positive, scores, rate=0.9)["alarm_sensitivity"]
    interval = bootstrap_statistic(found, 12, weighted=True)
    assert (str(interval), interval.groups) == ("1.000", 12)
    never = bootstrap_statistic(lambda chosen: 0.5 if len(set(chosen.tolist())) == 12 else np.nan, 12, resamples=50)
    assert str(never) == "0.500"  # no resample holds all twelve
    all_right = bootstrap_statistic(lambda chosen: 1.0, 12)
    assert str(all_right) == "1.000 [1.000, 1.000]"


def test_many_groups_are_drawn_block_by_block():
    values = np.random.default_rng(0).normal(0, 1, 5000)
    interval = bootstrap_interval(values, resamples=500)  # 2**20 // 5000 resamples a block
    assert interval.high - interval.low == pytest.approx(2 * 1.96 / np.sqrt(5000), rel=0.15)
    rows = np.concatenate(list(_draws(5000, 500, 0)))
    assert len(np.unique(rows, axis=0)) == 500


@pytest.mark.parametrize("weighted", [False, True])
def test_any_statistic_over_groups(weighted):
    values, groups = np.repeat(np.random.default_rng(0).normal(0, 1, 30), 3), np.repeat(np.arange(30), 3)

    def mean(drawn):
        return drawn @ values / drawn.sum(axis=1) if weighted else values[drawn].mean()

    ours = bootstrap_statistic(mean, 90, weighted=weighted, groups=groups, resamples=500)
    same = bootstrap_interval(values, groups=groups, resamples=500)
    assert (ours.low, ours.high, ours.groups) == (pytest.approx(same.low), pytest.approx(same.high), 30)


def class_data(seed, *, count=60, classes=3, ties=False):
    """Labels of which the last class is rare, probabilities that know a little, and three photographs a lesion."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=[*[0.95 / (classes - 1)] * (classes - 1), 0.05])
    scores = rng.random((count, classes)) + 0.5 * np.eye(classes)[labels]
    scores = scores.round(1) + 0.01 if ties else scores
    return labels, scores / scores.sum(axis=1, keepdims=True), np.arange(count) // 3


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("seed", "classes"), [(0, 3), (1, 2), (2, 7)])
def test_figures_of_all_resamples_at_once_are_those_of_one_after_the_other(seed, classes, ties):
    labels, probabilities, groups = class_data(seed, classes=classes, ties=ties)
    positive, scores = labels == 0, probabilities[:, 0]
    at_once = {**class_figures(labels, probabilities), **alarm_figures(positive, scores, rate=0.9)}

    def both_sides(figure, **rate):
        def one(chosen):
            return figure(positive[chosen], scores[chosen], **rate) if 0 < positive[chosen].sum() < len(chosen) else np.nan

        return one

    def of_all_classes(figure):
        present = set(labels.tolist())
        return lambda chosen: (
            figure(labels[chosen], probabilities[chosen]) if set(labels[chosen].tolist()) == present else np.nan
        )

    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    curve = reliability(right, sure)
    sign = np.sign(curve.outcome_sum - curve.probability_sum)[np.minimum((sure * 15).astype(int), 14)]
    commonest = np.bincount(labels).argmax()
    by_one = {
        "majority_share": lambda chosen: np.mean(labels[chosen] == commonest),
        "balanced_accuracy": of_all_classes(balanced_accuracy),
        "macro_auc": of_all_classes(macro_auc),
        "calibration_error": lambda chosen: max(np.mean(sign[chosen] * (right[chosen] - sure[chosen])), 0),
        "alarm_sensitivity": both_sides(sensitivity_at_specificity, specificity=0.9),
        "alarm_specificity": both_sides(specificity_at_sensitivity, sensitivity=0.9),
    }
    assert at_once.keys() == by_one.keys()
    for name, figure in by_one.items():
        weighted = bootstrap_statistic(at_once[name], 60, weighted=True, groups=groups, resamples=200, seed=seed)
        single = bootstrap_statistic(figure, 60, groups=groups, resamples=200, seed=seed)
        ours, expected = ((one.value, one.low, one.high) for one in (weighted, single))
        assert ours == pytest.approx(expected, abs=1e-9, nan_ok=True), name
        drawn = np.random.default_rng(seed).multinomial(12, np.ones(60) / 60, 50)  # 12 photographs: classes are missing
        resampled = [float(figure(np.repeat(np.arange(60), times))) for times in drawn]
        np.testing.assert_allclose(at_once[name](drawn.astype(float)), resampled, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("seed", "count", "classes"), [(0, 60, 3), (1, 200, 7), (2, 1000, 7), (3, 70, 7)])
def test_a_figure_lies_within_its_interval_and_is_the_one_that_is_reported(seed, count, classes):
    labels, probabilities, groups = class_data(seed, count=count, classes=classes)
    expected = {
        **classification_scores(labels, probabilities),
        "calibration_error": expected_calibration_error(labels, probabilities),
    }
    for name, figure in class_figures(labels, probabilities).items():
        interval = bootstrap_statistic(figure, count, weighted=True, groups=groups, resamples=300)
        assert interval.value == pytest.approx(expected[name], abs=1e-9), name
        assert interval.low <= interval.value <= interval.high, name


def test_as_many_of_each_class_have_a_majority_share_within_its_interval():
    labels = np.repeat(np.arange(7), 10)
    figure = class_figures(labels, np.eye(7)[labels])["majority_share"]
    interval = bootstrap_statistic(figure, 70, weighted=True)
    assert interval.low < interval.value < interval.high


def test_a_class_that_was_not_drawn_leaves_no_better_mean_behind():
    labels = np.array([0] * 40 + [1] * 38 + [2] * 2)
    named = np.where(labels == 2, 0, labels)  # both of the rare class are missed
    named[0] = 1
    probabilities = np.eye(3)[named]
    figure = class_figures(labels, probabilities)["balanced_accuracy"]
    interval = bootstrap_statistic(figure, 80, weighted=True)
    assert interval.low < interval.value == pytest.approx((39 / 40 + 1) / 3)
    assert interval.high == pytest.approx(2 / 3)  # and not that of the two other classes, 1


@pytest.mark.parametrize(
    "unknown", [np.array([1.0, np.nan, np.nan]), np.array(["a", "b", None], object), ["a", float("nan"), float("nan")]]
)
def test_photographs_of_unknown_lesions_are_not_one_lesion(unknown):
    with pytest.raises(ValueError, match="a group of its own"):
        bootstrap_interval(np.arange(3.0), groups=unknown)


def test_a_network_that_has_diverged_has_no_figures():
    with pytest.raises(ValueError, match="probabilities must be finite"):
        class_figures(np.array([0, 1]), np.array([[np.nan, np.nan], [0.5, 0.5]]))


def test_resamples_without_a_value_are_left_out():
    labels = np.array([1] + [0] * 9)

    def share_of_positives(index):
        return labels[index].mean() if labels[index].any() else float("nan")

    interval = bootstrap_statistic(share_of_positives, 10, resamples=200)
    assert (interval.value, interval.low) == (0.1, 0.1)
    assert interval.high > 0.1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": np.array([])}, "at least one sample"),
        ({"values": np.array([1.0, np.nan])}, "must be finite"),
        ({"values": np.ones(3), "groups": np.ones(2)}, "shape of values"),
        ({"values": np.ones(3), "level": 1.0}, "level must lie"),
        ({"values": np.ones(3), "resamples": 0}, "resamples must be at least 1"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(**arguments)


def test_pairs_must_match():
    with pytest.raises(ValueError, match="must have one shape"):
        paired_bootstrap(np.ones(3), np.ones(4))
