"""The figures of a report against what its parts say, for a model whose answers are known."""

import json

import numpy as np
import pytest
from scipy import ndimage

from dermaseg.conformal import ConformalClassifier
from dermaseg.data import Sample, Samples, group_samples, read_mask, read_samples
from dermaseg.data.geometry import fit_area
from dermaseg.data.images import read_image, resize_image, resize_mask
from dermaseg.decisions import Decisions
from dermaseg.evaluation import MASK_FIGURES, _subgroup, evaluate
from dermaseg.metrics import (
    balanced_accuracy,
    bootstrap_interval,
    bootstrap_statistic,
    brier_score,
    macro_auc,
    segmentation_scores,
    sensitivity_at_specificity,
    specificity_at_sensitivity,
)
from dermaseg.prediction import Predictor

SIZE = 27  # not that of the photographs


@pytest.fixture(scope="module")
def samples(synthetic_folder):
    """28 photographs of 14 lesions."""
    return read_samples(synthetic_folder)


@pytest.fixture(scope="module")
def probabilities(samples):
    """Of seven classes, that know a little."""
    drawn = np.random.default_rng(0).dirichlet(np.ones(7), len(samples)) + 0.3 * np.eye(7)[samples.labels]
    return drawn / drawn.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def predictor(samples, probabilities):
    """Outlines too much, so that sensitivity and precision differ, and at its own size."""
    canvas = fit_area((48, 64), SIZE)
    wide = [ndimage.binary_dilation(resize_mask(read_mask(sample.mask), canvas)) for sample in samples]
    place = {resize_image(read_image(sample.image), canvas).tobytes(): index for index, sample in enumerate(samples)}

    class Known:
        def predict_on_batch(self, images):
            at = [place[image.tobytes()] for image in images]
            masks = np.stack([wide[index] for index in at])[..., np.newaxis]
            return {"mask": masks.astype("float32"), "label": probabilities[at].astype("float32")}

    known = Predictor(Known(), size=SIZE)
    known.class_names = samples.class_names
    known.decisions = Decisions(conformal=ConformalClassifier((0.8,) * 7, counts=(1,) * 7))
    return known


@pytest.fixture(scope="module")
def report(predictor, samples):
    return evaluate(predictor, samples, subgroups=("sex", "class"), resamples=200)


def test_figures_of_outlines_are_those_of_each_photograph_at_its_own_size_over_lesions(report, predictor, samples):
    scores = [segmentation_scores(read_mask(sample.mask), predictor(sample.image).mask) for sample in samples]
    groups = group_samples(samples)
    assert report.groups == len(set(groups)) == 14
    for name in MASK_FIGURES:
        values = np.array([score[name] for score in scores])
        assert report.figures[name] == bootstrap_interval(values, groups=groups, resamples=200)
    assert report.figures["sensitivity"].value > report.figures["jaccard"].value


def test_figures_of_classes_are_those_of_the_metrics_over_lesions(report, samples, probabilities):
    labels, mel = samples.labels, samples.class_names.index("mel")
    expected = {
        "accuracy": np.mean(probabilities.argmax(axis=1) == labels),
        "majority_share": np.bincount(labels).max() / len(labels),
        "balanced_accuracy": balanced_accuracy(labels, probabilities),
        "macro_auc": macro_auc(labels, probabilities),
        "brier_score": brier_score(labels, probabilities),
        "alarm_sensitivity": sensitivity_at_specificity(labels == mel, probabilities[:, mel], specificity=0.9),
        "alarm_specificity": specificity_at_sensitivity(labels == mel, probabilities[:, mel], sensitivity=0.9),
    }
    for name, value in expected.items():
        assert report.figures[name].value == pytest.approx(value, abs=1e-4), name
        assert report.figures[name].groups == 14
    inside = 1 - probabilities <= 0.8
    inside[np.arange(len(labels)), probabilities.argmax(axis=1)] = True
    assert report.figures["conformal_coverage"].value == pytest.approx(inside[np.arange(len(labels)), labels].mean())
    assert report.figures["conformal_size"].value == pytest.approx(inside.sum(axis=1).mean())
    groups = group_samples(samples)

    def auc_of_all_classes(chosen):
        complete = set(labels[chosen].tolist()) == set(labels.tolist())
        return macro_auc(labels[chosen], probabilities[chosen]) if complete else np.nan

    auc = bootstrap_statistic(auc_of_all_classes, len(labels), groups=groups, resamples=200)
    assert report.figures["macro_auc"].low == pytest.approx(auc.low, abs=1e-3)
    assert report.figures["macro_auc"].high == pytest.approx(auc.high, abs=1e-3)


def test_a_predictor_has_its_own_size(predictor, samples):
    with pytest.raises(ValueError, match=r"size=256: the Predictor has its own, 27\. Leave size out"):
        evaluate(predictor, samples, size=256)


def test_subgroups_hold_their_own_photographs(report, samples):
    for grouping, value_of in (
        ("sex", lambda sample: sample.metadata["sex"]),
        ("class", lambda sample: samples.class_names[sample.label]),
    ):
        assert sum(figures["jaccard"].count for figures in report.subgroups[grouping].values()) == len(samples)
        for value, figures in report.subgroups[grouping].items():
            rows = zip(samples, report.rows, strict=True)
            own = [row["jaccard"] for sample, row in rows if value_of(sample) == value]
            assert figures["jaccard"].value == pytest.approx(np.mean(own))
            assert figures["jaccard"].count == len(own)


@pytest.mark.parametrize(
    ("age", "band"),
    [("0", "00-19"), ("19.0", "00-19"), ("20", "20-39"), ("85", "80-99"), ("nan", ""), ("old", ""), ("", "")],
)
def test_ages_fall_into_bands_of_twenty_years(tmp_path, age, band):
    samples = Samples([Sample("a", tmp_path / "a.png", metadata={"age": age})])
    assert _subgroup(samples, [{}], 0, "age") == band


def test_a_report_on_one_photograph_gives_no_interval(predictor, samples):
    report = evaluate(predictor, samples[:1], subgroups=("sex",), resamples=20)
    assert "[" not in "".join(value for _, value, _ in report.figure_rows())
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["figures"]["jaccard"]["value"] == report.figures["jaccard"].value
    assert content["figures"]["jaccard"]["low"] is content["figures"]["jaccard"]["high"] is None
