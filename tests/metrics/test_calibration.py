import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from dermaseg.metrics.calibration import (
    apply_temperature,
    brier_score,
    expected_calibration_error,
    fit_temperature,
    reliability,
)


def calibrated(count=20_000, classes=3, seed=0):
    """Labels drawn from the very probabilities that are given."""
    rng = np.random.default_rng(seed)
    probabilities = special.softmax(rng.normal(0, 1.5, (count, classes)), axis=1)
    labels = (rng.random((count, 1)) > probabilities.cumsum(1)).sum(1).clip(0, classes - 1)
    return labels, probabilities


def test_the_curve_agrees_with_sklearn():
    rng = np.random.default_rng(0)
    probabilities = rng.random(500)
    outcomes = rng.random(500) < probabilities**2
    curve = reliability(outcomes, probabilities, bins=10)
    frequency, probability = calibration_curve(outcomes, probabilities, n_bins=10)
    np.testing.assert_allclose(curve.frequency, frequency)
    np.testing.assert_allclose(curve.probability, probability)
    assert curve.count.sum() == 500


def test_edges_and_empty_bins():
    curve = reliability([1, 0, 1], [1.0, 0.0, 0.5], bins=4)
    assert curve.count.tolist() == [1, 0, 1, 1]
    assert np.isnan(curve.frequency[1])
    assert curve.calibration_error == pytest.approx(0.5 / 3)


def test_counts_add_up_over_pictures():
    rng = np.random.default_rng(0)
    outcomes, probabilities = rng.random((3, 8, 8)) < 0.5, rng.random((3, 8, 8)).astype("float32")
    parts = [reliability(o, p) for o, p in zip(outcomes, probabilities, strict=True)]
    together = parts[0] + parts[1] + parts[2]
    assert together.calibration_error == pytest.approx(expected_calibration_error(outcomes, probabilities))
    with pytest.raises(ValueError, match="same bins"):
        reliability([1], [0.5], bins=3) + reliability([1], [0.5], bins=4)


def test_errors_by_hand():
    probabilities = np.array([[0.8, 0.2], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    labels = [0, 1, 1, 1]
    # top label, 2 bins: all four confidences lie above 1/2 and sum to 2.9, three answers are right.
    assert expected_calibration_error(labels, probabilities, bins=2) == pytest.approx(0.1 / 4)
    # class 1: below 1/2 sum 0.4 for 1 outcome, above sum 1.3 for 2; class 0: below 0.7 for 0, above 1.6 for 1.
    per_class = expected_calibration_error(labels, probabilities, bins=2, kind="per_class")
    assert per_class == pytest.approx(((0.6 + 0.7) / 4 + (0.7 + 0.6) / 4) / 2)


@pytest.mark.parametrize("kind", ["top_label", "per_class"])
def test_a_calibrated_model_has_next_to_no_error_and_a_sharpened_one_has(kind):
    labels, probabilities = calibrated()
    assert expected_calibration_error(labels, probabilities, kind=kind) < 0.015
    assert expected_calibration_error(labels, apply_temperature(probabilities, 0.4), kind=kind) > 0.05


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 1000))
def test_errors_lie_between_0_and_1(samples, bins, seed):
    labels, probabilities = calibrated(samples, seed=seed)
    for kind in ("top_label", "per_class"):
        assert 0 <= expected_calibration_error(labels, probabilities, bins=bins, kind=kind) <= 1


def test_brier_agrees_with_sklearn():
    labels, probabilities = calibrated(300)
    assert brier_score(labels, probabilities) == pytest.approx(
        brier_score_loss(labels, probabilities, labels=[0, 1, 2], scale_by_half=False)
    )
    binary = labels == 1
    assert brier_score(binary, probabilities[:, 1]) == pytest.approx(brier_score_loss(binary, probabilities[:, 1]))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found_again(temperature):
    labels, probabilities = calibrated(50_000)
    # What was softened by 1 / T must be sharpened by it.
    given_out = apply_temperature(probabilities, 1 / temperature)
    assert fit_temperature(labels, given_out) == pytest.approx(temperature, rel=0.03)
    binary = apply_temperature(calibrated(50_000, classes=2)[1][:, 1], 1 / temperature)
    assert fit_temperature(calibrated(50_000, classes=2)[0], binary) == pytest.approx(temperature, rel=0.05)


def test_the_fit_is_the_best_of_a_grid():
    labels, probabilities = calibrated(400)
    probabilities = apply_temperature(probabilities, 0.3)

    def cost(temperature):
        return log_loss(labels, apply_temperature(probabilities, temperature), labels=[0, 1, 2])

    assert cost(fit_temperature(labels, probabilities)) <= min(cost(t) for t in np.geomspace(0.05, 20, 200)) + 1e-6


def test_a_temperature_changes_no_decision():
    _, probabilities = calibrated(500)
    for temperature in (0.2, 3.0):
        np.testing.assert_array_equal(apply_temperature(probabilities, temperature).argmax(1), probabilities.argmax(1))
    np.testing.assert_allclose(apply_temperature(probabilities, 1.0), probabilities, rtol=1e-6)


def test_saturated_probabilities_stay_finite_and_extremes_are_bounded():
    certain = np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    assert np.isfinite(apply_temperature(certain, 0.5)).all()
    assert fit_temperature([0, 1], certain) >= 0.01
    assert 99 < fit_temperature([1, 0], certain) <= 100


def test_figures_of_reports_load_no_backend():
    modules = ["boundary", "bootstrap", "calibration", "classification", "masks", "selective"]
    script = (
        f"import sys\n{''.join(f'import dermaseg.metrics.{module}; ' for module in modules)}\n"
        "print([name for name in ('keras', 'tensorflow', 'jax', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: reliability([1, 0], [0.5]), "must agree"),
        (lambda: reliability(np.ones((2, 3)), np.ones((3, 2))), r"must agree in shape and not be empty, got \(2, 3\) and"),
        (lambda: reliability([1], [0.5], bins=0), "bins must be at least 1"),
        (lambda: reliability([1], [1.5]), "between 0 and 1"),
        (lambda: expected_calibration_error([0], [[0.5, 0.5]], kind="max"), "kind must be"),
        (lambda: expected_calibration_error([0, 1], [[0.5, 0.5]]), "labels must be"),
        (lambda: expected_calibration_error([2], [[0.5, 0.5]]), "integers between 0 and 1"),
        (lambda: reliability([255], [0.5]), "outcomes must be 0 or 1, got 255 to 255"),
        (lambda: brier_score([0], [[2.0, -1.0]]), "between 0 and 1"),
        (lambda: brier_score([], []), "nothing to score"),
        (lambda: brier_score([255.0], [0.5]), "outcomes must be 0 or 1"),
        (lambda: brier_score([[1, 0], [0, 1]], [[0.9, 0.1], [0.2, 0.8]]), r"one-hot: .* labels.argmax\(axis=1\)"),
        (lambda: expected_calibration_error(np.eye(3), np.eye(3)), "are one-hot"),
        (lambda: apply_temperature(np.full((4, 4), 0.9), 1.0), "must sum to 1 over the classes, got sums from 3.6"),
        (lambda: fit_temperature([0, 1], [[0.5, 0.5]]), "one per row of probabilities"),
        (lambda: fit_temperature([0], [[3.0, -1.0]]), "through a sigmoid or softmax"),
        (lambda: apply_temperature([[0.5, 0.5]], 0.0), "temperature must be above 0"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "function",
    [
        lambda column: apply_temperature(column, 2.0),
        lambda column: fit_temperature([0, 1], column),
        lambda column: brier_score(np.array([0, 1]), column),
    ],
)
def test_a_sigmoid_unit_in_the_shape_that_keras_gives_is_refused(function):
    with pytest.raises(ValueError, match=r"one sigmoid unit: pass them as \(samples,\), p\[:, 0\]"):
        function(np.array([[0.2], [0.7]]))
