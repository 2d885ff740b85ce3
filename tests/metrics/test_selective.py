import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaseg.metrics.selective import area_under_risk_coverage, risk_coverage_curve


def test_risk_and_coverage_by_hand():
    coverage, risk = risk_coverage_curve([0, 1, 0, 1], [0.9, 0.2, 0.8, 0.4])
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 1 / 2])
    assert area_under_risk_coverage([0, 1, 0, 1], [0.9, 0.2, 0.8, 0.4]) == pytest.approx((1 / 3 + 1 / 2) / 4)


def test_ties_count_as_the_mean_over_their_orders():
    rng = np.random.default_rng(0)
    errors, confidence = np.array([1.0, 0.0, 0.0, 0.5, 1.0]), np.array([3, 3, 3, 1, 1])
    orders = []
    for _ in range(4000):
        noise = confidence + rng.random(5) / 2
        orders.append(area_under_risk_coverage(errors, noise))
    assert area_under_risk_coverage(errors, confidence) == pytest.approx(np.mean(orders), abs=0.01)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=20), st.randoms())
def test_the_area_does_not_depend_on_the_rows_and_lies_between_best_and_worst(rows, random):
    errors, confidence = np.array(rows, dtype=float).T
    area = area_under_risk_coverage(errors, confidence)
    order = random.sample(range(len(rows)), len(rows))
    assert area_under_risk_coverage(errors[order], confidence[order]) == pytest.approx(area)
    best, worst = area_under_risk_coverage(errors, -errors), area_under_risk_coverage(errors, errors)
    assert best - 1e-9 <= area <= worst + 1e-9
    assert area_under_risk_coverage(errors, np.ones(len(rows))) == pytest.approx(errors.mean())


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"must be .samples,. and agree"):
        risk_coverage_curve([0, 1], [1.0])
    with pytest.raises(ValueError, match="finite"):
        area_under_risk_coverage([0, np.nan], [1.0, 2.0])
