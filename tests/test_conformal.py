import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaseg.conformal import ConformalClassifier, MaskRiskControl, Rejection, choose_rejection, coverage_interval

VARIANTS = [("lac", False), ("aps", False), ("aps", True)]


def draw(random, count, *, priors=(0.7, 0.2, 0.1), spread=1.0):
    """Labels, and probabilities of a network that is too sure and worse at the rare classes."""
    labels = random.choice(len(priors), size=count, p=priors)
    logits = random.normal(size=(count, len(priors))) * spread
    logits[np.arange(count), labels] += np.array([3.0, 1.5, 0.8])[labels]
    exponentials = np.exp(1.5 * logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


# Coverage on fresh samples


@pytest.mark.parametrize(("method", "randomized"), VARIANTS)
@pytest.mark.parametrize("coverage", [0.6, 0.9])
def test_the_coverage_on_fresh_samples_is_in_its_interval(method, randomized, coverage):
    random = np.random.default_rng(1)
    labels, probabilities = draw(random, 3000)
    fitted = ConformalClassifier.fit(labels, probabilities, coverage=coverage, method=method, randomized=randomized)
    fresh, probabilities = draw(random, 3000)
    sets = fitted.sets(probabilities)
    low, high = coverage_interval(coverage, calibration=3000, test=3000, level=0.999)
    realised = sets[np.arange(3000), fresh].mean()
    assert low <= realised
    # Plain APS gives every sample its likeliest class: that may cover more than was asked.
    assert realised <= high or (
        method == "aps" and not randomized and realised < (probabilities.argmax(1) == fresh).mean() + 0.1
    )
    assert sets.sum(axis=1).mean() < 3


@pytest.mark.parametrize(("method", "randomized"), VARIANTS)
def test_a_threshold_for_each_class_covers_each_class(method, randomized):
    random = np.random.default_rng(2)
    labels, probabilities = draw(random, 4000)
    fresh, fresh_probabilities = draw(random, 4000)

    def covered(per_class):
        fitted = ConformalClassifier.fit(
            labels, probabilities, method=method, randomized=randomized, per_class=per_class, coverage=0.8
        )
        own = fitted.sets(fresh_probabilities)[np.arange(4000), fresh]
        return fitted, np.array([own[fresh == c].mean() for c in range(3)])

    fitted, shares = covered(True)
    for c, share in enumerate(shares):
        low, _ = coverage_interval(0.8, calibration=fitted.counts[c], test=int((fresh == c).sum()), level=0.999)
        assert share >= low
    if method == "lac":  # what the option is for
        assert covered(False)[1].min() < 0.6 < shares.min()


def test_over_many_repetitions_the_mean_coverage_is_the_exact_one():
    random = np.random.default_rng(3)
    shares = []
    for _ in range(600):
        labels, probabilities = draw(random, 39)
        fresh, fresh_probabilities = draw(random, 40)
        sets = ConformalClassifier.fit(labels, probabilities, coverage=0.9).sets(fresh_probabilities)
        shares.append(sets[np.arange(40), fresh].mean())
    # k / (n + 1) = 36 / 40; the deviation of the mean is below 0.003.
    assert np.mean(shares) == pytest.approx(0.9, abs=0.01)
    low, high = coverage_interval(0.9, calibration=39, test=40, level=0.9)
    inside = np.mean([low <= share <= high for share in shares])
    assert 0.87 <= inside <= 0.97
    assert np.std(shares) == pytest.approx(math.sqrt(0.9 * 0.1 / 41 * (1 + 40 / 40)), rel=0.1)  # of the beta-binomial law


# By hand


def test_lac_by_hand():
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]]
    fitted = ConformalClassifier.fit([0, 0, 1, 0], probabilities, coverage=0.6)  # the third smallest of 0.1 0.2 0.3 0.6
    assert fitted.thresholds == pytest.approx((0.3, 0.3))
    assert fitted.counts == (3, 1)
    assert fitted.sets([[0.71, 0.29], [0.5, 0.5]]).tolist() == [[True, False], [False, False]]


def test_aps_by_hand():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
    # Scores of the true classes: 0.5, 0.6 + 0.3, and 0.5 + 0.25 + 0.25, for of equals the first class goes first.
    fitted = ConformalClassifier.fit([0, 2, 1], probabilities, coverage=0.5, method="aps")
    assert fitted.thresholds == pytest.approx((0.9,) * 3)
    assert fitted.sets([[0.6, 0.25, 0.15], [0.1, 0.85, 0.05]]).tolist() == [[True, True, False], [False, True, False]]
    assert fitted.sets([[0.02, 0.95, 0.03]]).tolist() == [[False, True, False]]  # the class that carries the sum over 0.9


@pytest.mark.parametrize("per_class", [False, True])
def test_plain_aps_names_a_class_for_every_photograph_of_an_easy_task(per_class):
    labels, probabilities = draw(np.random.default_rng(4), 500, spread=0.2)
    options = {"coverage": 0.7, "method": "aps", "per_class": per_class}
    assert ConformalClassifier.fit(labels, probabilities, **options).sets(probabilities).any(axis=1).all()
    drawn = ConformalClassifier.fit(labels, probabilities, randomized=True, **options).sets(probabilities)
    assert not drawn.any(axis=1).all()


def test_randomized_aps_counts_a_share_of_the_last_class():
    classes = np.full((2000, 2), 0.5)
    fitted = ConformalClassifier((0.6, 0.6), "aps", randomized=True, counts=(1, 1))
    sets = fitted.sets(classes)
    assert sets[:, 0].all()  # at most 0.5
    assert sets[:, 1].mean() == pytest.approx(0.2, abs=0.03)  # 0.5 + 0.5 u <= 0.6
    np.testing.assert_array_equal(sets, fitted.sets(classes))
    assert not np.array_equal(sets, fitted.sets(classes, seed=1))


def test_a_class_has_a_threshold_of_its_own():
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6], [0.5, 0.5]]
    fitted = ConformalClassifier.fit([0, 0, 1, 1, 1], probabilities, coverage=0.6, per_class=True)
    assert fitted.thresholds == pytest.approx((0.2, 0.5))  # the second of 0.1 0.2, the third of 0.3 0.4 0.5
    fitted = ConformalClassifier.fit([0, 0, 1, 1, 1], probabilities, coverage=0.7, per_class=True)
    assert fitted.thresholds == pytest.approx((math.inf, 0.5))
    assert fitted.sets([[0.0, 1.0]]).tolist() == [[True, True]]


def test_few_samples_give_every_class():
    labels, probabilities = draw(np.random.default_rng(0), 18)
    assert ConformalClassifier.fit(labels, probabilities, coverage=0.95).sets(probabilities).all()
    assert not ConformalClassifier.fit(labels, probabilities, coverage=0.94).sets(probabilities).all()
    nothing = ConformalClassifier.fit(np.zeros(0, int), np.zeros((0, 3)))
    assert nothing.sets(probabilities).all()


@pytest.mark.parametrize(("samples", "coverage", "rank"), [(99, 0.55, 55), (9, 0.9, 9), (19, 0.95, 19), (10, 0.5, 6)])
def test_the_rank_is_free_of_rounding(samples, coverage, rank):
    scores = np.arange(1, samples + 1) / (samples + 1)
    fitted = ConformalClassifier.fit(np.zeros(samples, int), np.stack([1 - scores, scores], axis=1), coverage=coverage)
    assert fitted.thresholds[0] == pytest.approx(scores[rank - 1])


@pytest.mark.parametrize(("method", "randomized"), VARIANTS)
def test_json_keeps_a_classifier(method, randomized):
    labels, probabilities = draw(np.random.default_rng(0), 60)
    labels[labels == 2] = 1
    fitted = ConformalClassifier.fit(labels, probabilities, method=method, randomized=randomized, per_class=True, coverage=0.8)
    assert math.isinf(fitted.thresholds[2])
    text = json.dumps(fitted.to_dict(), allow_nan=False)
    assert ConformalClassifier.from_dict(json.loads(text)) == fitted


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from(VARIANTS), st.booleans())
def test_more_coverage_never_takes_a_class_away(seed, variant, per_class):
    random = np.random.default_rng(seed)
    labels, probabilities = draw(random, 40)
    options = {"method": variant[0], "randomized": variant[1], "per_class": per_class}
    sets = [ConformalClassifier.fit(labels, probabilities, coverage=c, **options).sets(probabilities) for c in (0.5, 0.7, 0.9)]
    assert (sets[0] <= sets[1]).all()
    assert (sets[1] <= sets[2]).all()


@pytest.mark.parametrize("coverage", [0, 1, -0.1, 90, math.nan])
def test_coverage_out_of_range(coverage):
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1"):
        ConformalClassifier.fit([0], [[0.5, 0.5]], coverage=coverage)
    with pytest.raises(ValueError, match="coverage must lie between 0 and 1"):
        coverage_interval(coverage, calibration=10, test=10)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0], [0.5], "probabilities must be"),
        ([0], [[0.5]], "probabilities must be"),
        ([0, 1], [[0.5, 0.5]], "labels must be"),
        ([[0]], [[0.5, 0.5]], "labels must be"),
        ([2], [[0.5, 0.5]], "labels must be integers from 0 to 1"),
        ([-1], [[0.5, 0.5]], "labels must be integers from 0 to 1"),
        ([0.0], [[0.5, 0.5]], "labels must be integers"),
        ([0], [[2.0, -1.0]], "probabilities must lie"),
        ([0], [[0.9, 0.9]], "probabilities must lie"),
        ([0], [[math.nan, 1.0]], "probabilities must lie"),
    ],
)
def test_what_a_classifier_does_not_take(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        ConformalClassifier.fit(labels, probabilities)


def test_other_arguments_of_a_classifier():
    with pytest.raises(ValueError, match="method must be"):
        ConformalClassifier.fit([0], [[0.5, 0.5]], method="raps")
    with pytest.raises(ValueError, match="randomized belongs to"):
        ConformalClassifier.fit([0], [[0.5, 0.5]], randomized=True)
    with pytest.raises(ValueError, match="must have 2 classes, as in fit, got 3"):
        ConformalClassifier.fit([0], [[0.5, 0.5]]).sets([[0.5, 0.25, 0.25]])


def test_the_interval_narrows_and_knows_too_few():
    assert coverage_interval(0.9, calibration=8, test=10) == (1.0, 1.0)
    # One photograph, half wanted: the share covered of nine is any of 0 / 9 to 9 / 9 alike.
    assert coverage_interval(0.5, calibration=1, test=9, level=0.7) == (1 / 9, 8 / 9)
    widths = [np.diff(coverage_interval(0.9, calibration=n, test=n))[0] for n in (50, 500, 5000)]
    assert widths[0] > widths[1] > widths[2]
    with pytest.raises(ValueError, match="calibration and test must be at least 1"):
        coverage_interval(0.9, calibration=10, test=0)
    with pytest.raises(ValueError, match="level must lie"):
        coverage_interval(0.9, calibration=10, test=10, level=95)


# Masks


def lesions(random, count, size=16):
    """Squares, and probabilities that are surer of some lesions than of others."""
    true = np.zeros((count, size, size))
    for mask in true:
        top, left = random.integers(0, size // 2, 2)
        mask[top : top + random.integers(3, size // 2), left : left + random.integers(3, size // 2)] = 1
    logits = (2 * true - 1) * 2 + random.normal(size=true.shape) + random.normal(size=(count, 1, 1))
    return (1 / (1 + np.exp(-logits))).astype("float32"), true


@pytest.mark.parametrize("level", [0.05, 0.2])
def test_the_mean_share_missed_of_fresh_lesions_is_at_most_the_level(level):
    random = np.random.default_rng(0)
    realised = []
    for _ in range(40):
        fitted = MaskRiskControl.fit(*lesions(random, 50), level=level)
        probability, true = lesions(random, 50)
        missed = ((fitted.mask(probability) == 0) & (true == 1)).sum((1, 2)) / true.sum((1, 2))
        realised.append(missed.mean())
    # The expectation lies between level - 2 / (n + 1) and level.
    assert level - 2 / 51 - 0.01 <= np.mean(realised) <= level + 3 * np.std(realised) / math.sqrt(len(realised))


def test_the_level_holds_also_where_some_lesions_are_missed_altogether():
    random = np.random.default_rng(5)
    realised, thresholds = [], []
    for _ in range(400):
        probability, true = lesions(random, 60, size=8)
        probability[random.uniform(size=60) < 0.15] = 0.0
        fitted = MaskRiskControl.fit(probability[:30], true[:30], level=0.15)
        missed = (~fitted.mask(probability[30:]) & (true[30:] == 1)).sum((1, 2)) / true[30:].sum((1, 2))
        realised.append(missed.mean())
        thresholds.append(fitted.threshold)
    # Whoever leaves out the draws in which no other threshold does has more than the level in the rest.
    assert 0.1 < np.mean(np.array(thresholds) == -1) < 0.9
    assert np.mean(realised) <= 0.15 + 3 * np.std(realised) / math.sqrt(len(realised))


def test_a_network_that_finds_nothing_gets_the_whole_photograph():
    fitted = MaskRiskControl.fit([np.zeros((2, 2))] * 20, [np.ones((2, 2))] * 20)
    assert (fitted.threshold, fitted.risk) == (-1, 0)
    assert fitted.mask(np.zeros((2, 2))).all()


def test_a_mask_threshold_by_hand():
    # 9 lesions of two pixels; a tenth of the weight is the unknown one: (missed + 1) / 10 <= 0.35 allows 2.5 lesions' worth.
    probability = [np.array([[0.9, p, 0.99]]) for p in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85)]
    fitted = MaskRiskControl.fit(probability, [np.array([[1, 1, 0]])] * 9, level=0.35)
    assert 0.59 < fitted.threshold < 0.6  # five lesions miss a half
    assert fitted.risk == pytest.approx(2.5 / 9)
    assert fitted.samples == 9
    assert fitted.mask(np.array([0.59, 0.6, 0.61])).tolist() == [False, True, True]


def test_the_reported_risk_is_that_of_the_mask():
    probability, true = lesions(np.random.default_rng(1), 30)
    fitted = MaskRiskControl.fit(probability[..., None], true[..., None] == 1, level=0.15)
    missed = (~fitted.mask(probability) & (true == 1)).sum((1, 2)) / true.sum((1, 2))
    assert fitted.risk == pytest.approx(missed.mean())
    assert (missed.sum() + 1) / 31 <= 0.15


@pytest.mark.parametrize("value", [0.5, 0.7, 0.99908894])
def test_a_probability_at_the_threshold_is_missed_in_fit_and_mask_alike(value):
    probability = np.full((2, 2), value, "float32")  # 0.5 and the last are on the grid
    fitted = MaskRiskControl.fit([probability] * 20, [np.ones((2, 2))] * 20)
    assert fitted.risk == 0
    assert fitted.mask(probability).all()
    assert fitted.threshold > value - 0.003
    assert not fitted.mask(np.float32(fitted.threshold))


def test_masks_stream_and_sizes_differ():
    shapes = [(4, 6), (5, 5), (8, 3)] * 4
    fitted = MaskRiskControl.fit((np.full(s, 0.7) for s in shapes), (np.ones(s) for s in shapes), level=0.1)
    assert fitted.samples == 12
    assert 0.69 < fitted.threshold < 0.7
    assert MaskRiskControl.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted


def test_photographs_without_lesion_do_not_count():
    probability, true = [np.full((2, 2), 0.7)] * 12, [np.ones((2, 2))] * 9 + [np.zeros((2, 2))] * 3
    assert MaskRiskControl.fit(probability, true).samples == 9
    with pytest.raises(ValueError, match=r"level=0.1 needs at least 9 lesions to hold, got 8"):
        MaskRiskControl.fit(probability[1:], true[1:])


@pytest.mark.parametrize(
    ("probability", "true", "message"),
    [
        (np.full((2, 2), 0.5), np.ones((2, 3)), "agree.*position 3"),
        (np.full((2, 2, 2), 0.5), np.ones((2, 2, 2)), "must be"),
        (np.full((2, 2), 0.5), np.full((2, 2), 255), "true_masks must hold 0 and 1.*position 3"),
        (np.full((2, 2), 3.0), np.ones((2, 2)), "probability_masks must lie.*position 3"),
        (np.full((2, 2), math.nan), np.ones((2, 2)), "probability_masks must lie"),
    ],
)
def test_what_masks_must_be(probability, true, message):
    good = [np.full((2, 2), 0.5)] * 3, [np.ones((2, 2))] * 3
    with pytest.raises(ValueError, match=message):
        MaskRiskControl.fit([*good[0], probability], [*good[1], true])


def test_other_faults_of_masks():
    with pytest.raises(ValueError, match="one has only 2"):
        MaskRiskControl.fit([np.ones((2, 2))] * 3, iter([np.ones((2, 2))] * 2))
    for level in (0, 1, 10):
        with pytest.raises(ValueError, match="level must lie between 0 and 1"):
            MaskRiskControl.fit([], [], level=level)


# Rejection


def test_a_wanted_risk_or_share_by_hand():
    errors, uncertainty = [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert choose_rejection(errors, uncertainty, risk=0.0) == Rejection(0.2, pytest.approx(2 / 6), 0.0, 6)
    # 0, 0, 1/3, 1/4, 2/5, 1/2: as many as possible, though the third alone would be too dear.
    assert choose_rejection(errors, uncertainty, risk=0.25) == Rejection(0.4, pytest.approx(4 / 6), 0.25, 6)
    assert choose_rejection(errors, uncertainty, risk=0.5).coverage == 1
    chosen = choose_rejection(errors, uncertainty, share=1 / 3)
    assert chosen == Rejection(0.4, pytest.approx(4 / 6), 0.25, 6)
    assert chosen.refer(uncertainty).tolist() == [False] * 4 + [True] * 2
    assert chosen.refer([math.nan, 0.0]).tolist() == [True, False]
    assert Rejection.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


def test_ties_go_the_same_way():
    errors, uncertainty = [0, 1, 0, 1], [0.1, 0.5, 0.5, 0.5]
    assert choose_rejection(errors, uncertainty, risk=0.4).coverage == 0.25
    chosen = choose_rejection(errors, uncertainty, share=0.5)
    assert chosen.coverage == 0.25
    assert chosen.refer(uncertainty).mean() == 0.75


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.05, 0.9))
def test_the_chosen_threshold_does_what_it_says(seed, wanted):
    random = np.random.default_rng(seed)
    uncertainty = random.integers(0, 12, 50) / 12
    errors = random.uniform(size=50) * uncertainty
    by_share = choose_rejection(np.append(errors, 0), np.append(uncertainty, -1), share=wanted)
    assert by_share.refer(np.append(uncertainty, -1)).mean() >= wanted - 1e-9
    by_risk = choose_rejection(np.append(errors, 0), np.append(uncertainty, -1), risk=wanted)
    accepted = ~by_risk.refer(np.append(uncertainty, -1))
    assert np.append(errors, 0)[accepted].mean() <= wanted + 1e-9
    assert accepted.mean() == pytest.approx(by_risk.coverage)


def test_what_rejection_does_not_take():
    with pytest.raises(ValueError, match="risk or share, one of the two"):
        choose_rejection([0, 1], [0.1, 0.2])
    with pytest.raises(ValueError, match="risk or share, one of the two"):
        choose_rejection([0, 1], [0.1, 0.2], risk=0.1, share=0.1)
    with pytest.raises(ValueError, match=r"risk=0.1 is not reached: the surest 2 have 0.500"):
        choose_rejection([0, 1, 1], [0.1, 0.1, 0.2], risk=0.1)
    with pytest.raises(ValueError, match=r"share=0.5 would refer everything, for the surest 3"):
        choose_rejection([0, 1, 1], [0.1, 0.1, 0.1], share=0.5)
    with pytest.raises(ValueError, match="share must lie between 0 and 1"):
        choose_rejection([0, 1], [0.1, 0.2], share=1.5)
    with pytest.raises(ValueError, match="must be finite"):
        choose_rejection([0, 1], [0.1, math.nan], share=0.5)
    with pytest.raises(ValueError, match="agree"):
        choose_rejection([0, 1], [0.1], share=0.5)
