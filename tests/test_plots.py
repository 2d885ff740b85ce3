import itertools
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from scipy import ndimage

from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.metrics import Interval, confusion_matrix, reliability, risk_coverage_curve
from dermaseg.plots import (
    COLOURS,
    cases,
    choose_cases,
    confusion_matrix_plot,
    firing_maps,
    forest_plot,
    heatmap_panel,
    membership_functions,
    overlay,
    panel,
    reliability_diagram,
    risk_coverage_plot,
    roc_curves,
    save_figure,
    training_curves,
)
from dermaseg.plots.rules import _firing_strengths
from dermaseg.plots.style import shorten


@pytest.fixture(autouse=True)
def nothing_left_open():
    """No plot stays in pyplot's hands, and none changes the caller's settings."""
    import matplotlib
    import matplotlib.pyplot as plt

    settings, figures = dict(matplotlib.rcParams), plt.get_fignums()
    yield
    assert plt.get_fignums() == figures
    assert dict(matplotlib.rcParams) == settings


def disc(radius=20):
    rows, columns = np.mgrid[:60, :80]
    return ((rows - 30) ** 2 + (columns - 40) ** 2 < radius**2).astype("uint8")


def photos(count):
    return [np.full((60, 80, 3), 150, "uint8")] * count


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def fits(figure):
    """Whether nothing sticks out of the figure."""
    figure.draw_without_rendering()
    box, size = figure.get_tightbbox(), figure.get_size_inches()
    return min(box.x0, box.y0) > -0.02 and (np.array([box.x1, box.y1]) < size + 0.02).all()


# Masks


def test_an_outline_is_drawn_on_the_border_and_nowhere_else():
    image = np.full((60, 80, 3), 128, "uint8")
    drawn = overlay(image, disc(), colour="#F0E442")
    assert (image == 128).all()
    changed = (drawn != 128).any(-1)
    rows, columns = np.mgrid[:60, :80]
    distance = np.abs(np.hypot(rows - 30, columns - 40) - 20)
    assert changed[distance < 1].all()
    assert not changed[distance > 4].any()
    assert [0xF0, 0xE4, 0x42] in drawn[changed].tolist()


def test_an_empty_mask_changes_nothing():
    image = np.full((10, 10, 3), 99, "uint8")
    assert (overlay(image, np.zeros((10, 10), "uint8")) == 99).all()


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="they must agree"):
        overlay(np.zeros((4, 4, 3), "uint8"), np.zeros((5, 4), "uint8"))
    with pytest.raises(ValueError, match="they must agree"):
        panel([np.zeros((4, 4, 3), "uint8")], predicted=[np.zeros((5, 4), "uint8")])


@pytest.mark.parametrize("width", [1, 3])
def test_the_outline_is_that_of_scipy_also_along_the_edge(width):
    mask = np.zeros((40, 50), "uint8")
    mask[:25, 10:30] = mask[30:34, 35:] = 1
    drawn = overlay(np.full((40, 50, 3), 90, "uint8"), mask, colour="#FFFFFF", width_px=width)
    line = ndimage.binary_dilation(mask, iterations=width) & ~ndimage.binary_erosion(mask, iterations=width)
    rim = ndimage.binary_dilation(line, iterations=max(1, width // 2)) & ~line
    np.testing.assert_array_equal(drawn[..., 0], np.select([line, rim], [255, 30], 90))


def test_a_panel_shows_each_photograph_with_both_outlines(tmp_path):
    figure = panel(photos(5), predicted=[disc(12)] * 5, true=[disc(25)] * 5, titles=list("abcde"))
    shown = [axis for axis in figure.axes if axis.images]
    assert [axis.get_title() for axis in shown] == list("abcde")
    assert legend(figure) == ["predicted", "true"]
    colours = {tuple(pixel) for pixel in np.asarray(shown[0].images[0].get_array()).reshape(-1, 3).tolist()}
    for name in ("yellow", "sky"):
        assert tuple(bytes.fromhex(COLOURS[name][1:])) in colours
    save_figure(figure, tmp_path / "panel.png")
    assert (tmp_path / "panel.png").stat().st_size > 1000
    assert legend(panel(photos(1), predicted=[disc()])) == ["predicted"]


@pytest.mark.parametrize("count", [1, 3])
def test_pictures_of_an_opinion_say_that_it_is_no_diagnosis(count):
    images, masks = photos(count), [np.zeros((60, 80), int)] * count
    outlined = panel(images, predicted=masks)
    sorted_out = cases(images, predicted=masks, true=masks, scores=[0.5] * count)
    for figure in (outlined, sorted_out):
        assert figure.legends[0].get_title().get_text().replace("\n", " ") == NOT_A_DIAGNOSIS
    assert heatmap_panel(images, masks).get_supxlabel().replace("\n", " ") == NOT_A_DIAGNOSIS


def test_a_panel_wants_one_mask_and_title_a_photograph():
    with pytest.raises(ValueError, match="no photograph to show"):
        panel([], predicted=[])
    with pytest.raises(ValueError, match="titles must have one entry for each of the 2 images, got 1"):
        panel(photos(2), predicted=[disc()] * 2, titles=["a"])
    with pytest.raises(ValueError, match="columns must be at least 1"):
        panel(photos(1), predicted=[disc()], columns=0)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 11, 12, 13, 40])
def test_cases_are_the_worst_the_middle_and_the_best_and_none_twice(count):
    scores = np.random.default_rng(0).random(count)
    chosen = choose_cases(scores, each=4)
    everything = [index for where in chosen.values() for index in where]
    assert len(set(everything)) == len(everything) == min(count, 12)
    assert (np.diff(scores[everything]) >= 0).all()
    assert scores[chosen["worst"][0]] == scores.min()
    assert scores[everything[-1]] == scores.max()
    # Chosen from again, the same photographs come out in the same places.
    again = choose_cases(scores[everything], each=4)
    assert [everything[index] for where in again.values() for index in where] == everything


def test_of_distances_the_longest_is_the_worst():
    assert choose_cases([3.0, 9.0, 1.0], each=1, higher_is_better=False) == {"worst": [1], "middling": [0], "best": [2]}


def test_cases_are_captioned_and_only_they_are_read():
    class Reader(list):
        asked: ClassVar = set()

        def __getitem__(self, index):
            self.asked.add(index)
            return super().__getitem__(index)

    scores, names = [0.9, 0.1, 0.5, 0.7, 0.3], ["best$1$", "worst_with_a_name_that_is_much_too_long.jpg", "c", "d", "e"]
    images = Reader(photos(5))
    figure = cases(images, predicted=[disc()] * 5, true=[disc()] * 5, scores=scores, names=names, each=1)
    assert [axis.get_ylabel() for axis in figure.axes] == ["worst", "middling", "best"]
    worst, middling, best = (axis.get_title() for axis in figure.axes)
    assert worst.splitlines()[1] == "Jaccard 0.10"
    assert len(worst.splitlines()[0]) == 30
    assert (middling, best) == ("c\nJaccard 0.50", "best$1$\nJaccard 0.90")
    assert images.asked == {0, 1, 2}
    assert not figure.axes[2].title.get_parse_math()  # a dollar in a file name is a dollar


def test_cases_name_what_is_wrong():
    with pytest.raises(ValueError, match="scores must be finite"):
        choose_cases([0.5, float("nan")])
    with pytest.raises(ValueError, match="each must be at least 1"):
        choose_cases([0.5], each=0)
    with pytest.raises(ValueError, match="scores must have one entry for each of the 2 images"):
        cases(photos(2), predicted=[disc()] * 2, true=[disc()] * 2, scores=[1.0])


def test_a_long_name_keeps_both_ends():
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert shorten("abc", 5) == "abc"


# Training


def test_curves_hold_every_measured_point(tmp_path):
    history = [{"epoch": "1", "loss": "0.5", "val_loss": ""}, {"epoch": "2", "loss": "0.4", "val_loss": "0.6"}]
    curves = training_curves(history)
    lines = {line.get_label(): list(line.get_ydata()) for line in curves.axes[0].lines}
    assert lines == {"training": [0.5, 0.4], "validation": [0.6]}
    save_figure(curves, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_each_figure_has_its_axis_and_a_loss_that_falls_far_a_logarithmic_one():
    history = [
        {"epoch": epoch, "loss": 0.5**epoch, "mask_loss": 1 / epoch, "jaccard": 0.1 * epoch, "val_auc": 0.5, "learning_rate": 1}
        for epoch in range(1, 9)
    ]
    figure = training_curves(history, monitor="jaccard")
    axes = {axis.get_ylabel(): axis for axis in figure.axes if axis.get_ylabel()}
    assert list(axes) == ["loss", "mask loss", "jaccard", "auc"]
    assert [axis.get_yscale() for axis in axes.values()] == ["log", "linear", "linear", "linear"]
    assert axes["jaccard"].get_title() == "best: 0.800 in epoch 8"
    assert [line.get_label() for line in axes["auc"].lines] == ["validation", "_best"]
    figure.draw_without_rendering()
    labels = [text.get_text() for text in axes["loss"].get_yticklabels()]
    assert "0.1" in labels  # not 10^-1


@pytest.mark.parametrize(
    ("monitor", "values", "title"),
    [
        ("val_loss", [0.9, 0.4, 0.8], "best: 0.400 in epoch 2"),
        ("val_jaccard", [float("nan"), 0.6, 0.7], "best: 0.700 in epoch 3"),
    ],
)
def test_the_best_epoch_has_the_lowest_loss_and_is_finite(monitor, values, title):
    figure = training_curves([{"epoch": epoch, monitor: value} for epoch, value in enumerate(values, 1)], monitor=monitor)
    assert figure.axes[0].get_title() == title


def test_curves_name_what_is_wrong():
    with pytest.raises(ValueError, match="no epoch to draw"):
        training_curves([])
    with pytest.raises(ValueError, match="must have an 'epoch'"):
        training_curves([{"loss": 1}])
    with pytest.raises(ValueError, match="monitor must name a figure of the history with a finite value, got 'val_dice'"):
        training_curves([{"epoch": 1, "loss": 1}], monitor="val_dice")


# Classification


@pytest.mark.parametrize("classes", [2, 7, 9])
def test_a_confusion_matrix_says_counts_and_shares_of_rows(classes):
    matrix = np.diag(np.arange(1, classes + 1) * 600)
    matrix[0, 1] = 200
    names = [f"pigmented benign keratosis {index}" for index in range(classes)]
    figure = confusion_matrix_plot(matrix, names)
    (axis,) = figure.axes
    texts = [text.get_text() for text in axis.texts]
    assert len(texts) == classes**2
    assert texts[:2] == ["600\n75 %", "200\n25 %"]
    assert texts[classes] == "0"
    assert axis.get_yticklabels()[0].get_text() == "pigmented benign\nkeratosis 0\nn = 800"
    np.testing.assert_allclose(np.asarray(axis.images[0].get_array()).sum(axis=1), 1)
    assert fits(figure)


def test_a_class_without_samples_has_no_shares():
    figure = confusion_matrix_plot(np.array([[0, 0], [1, 3]]), ["a", "b"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0", "0", "1\n25 %", "3\n75 %"]


def test_a_confusion_matrix_names_what_is_wrong():
    with pytest.raises(ValueError, match="matrix must hold counts"):
        confusion_matrix_plot(np.ones((2, 3)), ["a", "b"])
    with pytest.raises(ValueError, match="class_names has 1 names for the 2 classes"):
        confusion_matrix_plot(np.ones((2, 2)), ["a"])


def classified(classes=3, count=90):
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    probabilities = rng.dirichlet(np.ones(classes), count)
    probabilities[np.arange(count), labels] += 0.5
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def test_roc_curves_and_their_areas_agree():
    labels, probabilities = classified()
    figure = roc_curves(labels, probabilities, ["mel", "nv", "bcc"])
    curves = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert len(curves) == 3
    for line, text in zip(curves, legend(figure), strict=True):
        area = np.trapezoid(line.get_ydata(), line.get_xdata())
        assert f"{area:.3f} (n = 30)" in text
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 3


def test_an_operating_point_stands_on_its_curve_with_its_costs():
    labels, probabilities = classified(2)
    assert confusion_matrix(labels, probabilities).sum() == 90
    figure = roc_curves(labels, probabilities, ["benign", "malignant"], operating_points={"malignant": 0.5})
    found = probabilities[:, 1] >= 0.5
    sensitivity, specificity = found[labels == 1].mean(), 1 - found[labels == 0].mean()
    assert legend(figure)[1] == f"malignant at p ≥ 0.5:\nsensitivity {sensitivity:.2f}, specificity {specificity:.2f}"
    point = figure.axes[0].lines[-1]
    assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((1 - specificity, sensitivity))


def test_nine_classes_are_told_apart_and_a_missing_one_is_said():
    labels, probabilities = classified(9, 180)
    probabilities = np.pad(probabilities, ((0, 0), (0, 1)))
    figure = roc_curves(labels, probabilities, [f"class {index}" for index in range(10)])
    curves = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
    assert len({(line.get_color(), line.get_linestyle()) for line in curves}) == 10
    assert legend(figure)[9] == "class 9  not defined (n = 0)"


@pytest.mark.parametrize(
    "names", [["a", "b"], ["benign", "malignant"], ["nevus", "pigmented benign keratosis"], ["nevus", "x" * 50]]
)
@pytest.mark.parametrize("marked", [False, True])
def test_names_of_any_length_find_room(names, marked):
    labels, probabilities = classified(2)
    figure = roc_curves(labels, probabilities, names, operating_points={names[1]: 0.5} if marked else None)
    assert fits(figure)
    groups = {"site": {name: Interval(0.88, 0.86, 0.9, 0.95, 1210, 180) for name in names}}
    assert fits(forest_plot(groups, overall=Interval(0.89, 0.87, 0.91, 0.95, 1221, 188)))


@pytest.mark.parametrize("classes", [7, 9, 12])
def test_the_classes_of_any_number_find_room_with_their_operating_points(classes):
    labels, probabilities = classified(classes, 10 * classes)
    names = [f"pigmented benign keratosis {index}" for index in range(classes)]
    figure = roc_curves(labels, probabilities, names, operating_points=dict.fromkeys(names, 0.5))
    figure.draw_without_rendering()  # as save_figure does: Matplotlib's layout settles at the second time
    assert fits(figure)


def test_a_name_that_begins_with_an_underscore_stands_in_the_legend():
    probabilities = np.eye(3)[[0, 1, 2, 1]]
    figures = [
        roc_curves([0, 1, 2, 1], probabilities, ["_a", "b", "c"]),
        reliability_diagram({"_a": reliability([1], [0.5])}),
        risk_coverage_plot({"_a": risk_coverage_curve([0, 1], [1, 2])}),
    ]
    for figure in figures:
        legend = figure.legends[0] if figure.legends else figure.axes[0].get_legend()
        assert "_a" in legend.get_texts()[0].get_text()


def test_roc_curves_name_what_is_wrong():
    labels, probabilities = classified(2)
    with pytest.raises(ValueError, match="there is no curve of 'benign'"):
        roc_curves(labels, probabilities, ["benign", "malignant"], operating_points={"benign": 0.5})
    with pytest.raises(ValueError, match="class_names has 3 names"):
        roc_curves(labels, probabilities, ["a", "b", "c"])


# Calibration


def test_a_reliability_diagram_has_points_a_diagonal_and_the_counts():
    probabilities = np.repeat([0.05, 0.95, 0.55], [400, 400, 5])
    outcomes = np.concatenate([np.arange(400) < 40, np.arange(400) < 300, np.arange(5) < 5])
    curve = reliability(outcomes, probabilities, bins=10)
    top, below = (figure := reliability_diagram(curve)).axes
    drawn = {line.get_label(): line for line in top.lines}
    np.testing.assert_allclose(drawn["_calibrated"].get_xydata(), [[0, 0], [1, 1]])
    np.testing.assert_allclose(drawn[legend(figure)[0]].get_xydata(), [[0.05, 0.1], [0.55, 1.0], [0.95, 0.75]])
    np.testing.assert_allclose(drawn["_few"].get_xydata(), [[0.55, 1.0]])  # hollow: five outcomes
    assert [bar.get_height() for bar in below.patches if bar.get_height()] == [400, 5, 400]
    assert legend(figure) == [f"calibration error {curve.calibration_error:.3f}"]


def test_several_curves_share_their_axes_without_covering_bars():
    curves = {name: reliability(np.arange(50) % 2, np.linspace(0, 1, 50), bins=5) for name in ("a", "b", "c")}
    figure = reliability_diagram(curves)
    assert [text[:2] for text in legend(figure)] == ["a:", "b:", "c:"]
    bars = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in figure.axes[1].patches)
    assert len(bars) == 15
    assert all(end <= start + 1e-9 for (_, end), (start, _) in itertools.pairwise(bars))


def test_reliability_names_what_is_wrong():
    with pytest.raises(ValueError, match="at least one Reliability"):
        reliability_diagram({})
    with pytest.raises(ValueError, match="curves must share their bins, got 2, 3"):
        reliability_diagram({"a": reliability([1], [0.5], bins=2), "b": reliability([1], [0.5], bins=3)})


def test_risk_and_coverage_are_drawn_with_their_area():
    errors = np.arange(100) >= 80
    coverage, risk = risk_coverage_curve(errors, -np.arange(100))
    figure = risk_coverage_plot({"sure": (coverage, risk), "unsure": risk_coverage_curve(errors, np.arange(100))}, risk="error")
    (axis,) = figure.axes
    assert axis.get_ylabel() == "error among them"
    assert axis.get_legend().get_texts()[0].get_text() == f"sure: {risk.mean():.3f}"
    thick, thin = axis.lines[:2]
    np.testing.assert_allclose(np.concatenate([thin.get_xdata()[:-1], thick.get_xdata()]), 100 * coverage)
    assert axis.get_ylim()[1] > 1.0
    with pytest.raises(ValueError, match="nothing to draw"):
        risk_coverage_plot({})
    with pytest.raises(ValueError, match=r"curves\['a'\] must be"):
        risk_coverage_plot({"a": (coverage, risk[1:])})


def test_three_photographs_make_a_curve_too():
    figure = risk_coverage_plot({"all right": risk_coverage_curve([0, 0, 0], [1, 2, 3])})
    figure.draw_without_rendering()


# Subgroups


def test_a_forest_shows_small_groups_as_such():
    groups = {
        "sex": {"female": Interval(0.88, 0.86, 0.9, 0.95, 1210, 180), "male": Interval(0.9, 0.7, 1.0, 0.95, 9, 7)},
        "site": {"scalp": Interval(0.5, 0.5, 0.5, 0.95, 2, 1)},
    }
    figure = forest_plot(groups, overall=Interval(0.89, 0.87, 0.91, 0.95, 1221, 188))
    axis, numbers = figure.axes
    assert [text.get_text() for text in axis.get_yticklabels()] == ["all", "sex", "female", "male", "site", "scalp"]
    marks = {round(float(mark.get_offsets()[0][0]), 2): mark for mark in axis.collections if len(mark.get_offsets())}
    sizes = {value: mark.get_sizes()[0] for value, mark in marks.items()}
    assert sizes[0.89] > sizes[0.88] > sizes[0.9] > sizes[0.5]
    faces = {value: tuple(mark.get_facecolor()[0][:3]) for value, mark in marks.items()}
    assert faces[0.9] == faces[0.5] == (1, 1, 1)  # hollow
    assert faces[0.88] != (1, 1, 1)
    texts = [text.get_text() for text in numbers.texts]
    assert "0.880 [0.860, 0.900]" in texts
    assert "1,210" in texts
    assert "0.500 (one lesion)" in texts  # an interval that does not exist is not written
    single = forest_plot(groups, overall=Interval(0.5, np.nan, np.nan, 0.95, 3, 2))
    assert "0.500" in [text.get_text() for text in single.axes[1].texts]
    assert fits(single)
    with pytest.raises(ValueError, match="no group to draw"):
        forest_plot({"sex": {}})


# Heat


def test_heat_covers_by_its_value():
    heat = np.zeros((60, 80), "float32")
    heat[10, 20] = 1
    figure = heatmap_panel(photos(4), [heat] * 4, titles=["nevus 0.9"] * 4, opacity=0.5, columns=2)
    assert len(figure.axes) == 8
    alpha = figure.axes[1].images[1].get_alpha()
    assert (alpha.max(), alpha[10, 20], alpha.sum()) == (0.5, 0.5, 0.5)
    figure.draw_without_rendering()


def test_heat_names_what_is_wrong():
    with pytest.raises(ValueError, match="heatmaps must have one entry"):
        heatmap_panel(photos(2), [np.zeros((60, 80))])
    with pytest.raises(ValueError, match=r"heatmaps\[0\] is \(6, 8\)"):
        heatmap_panel(photos(1), [np.zeros((6, 8))])
    with pytest.raises(ValueError, match="opacity must be from 0 to 1"):
        heatmap_panel(photos(1), [np.zeros((60, 80))], opacity=2)


# Rules


@pytest.fixture(scope="module")
def fuzzy_model():
    import keras

    from dermaseg.models import build_fuzzy_unet

    keras.utils.set_random_seed(0)
    model = build_fuzzy_unet(filters=(8, 8), rules=5, gate_channels=4, gate_gain=0.5)
    gate = model.get_layer("gate_0")
    theta = np.zeros(gate.theta.shape, "float32")
    theta[3], theta[1] = 2.0, -1.0  # rule 3 changes the skip most, then rule 1
    gate.theta.assign(theta)
    return model


def test_the_sets_of_the_strongest_rules_are_drawn_as_the_gate_computes_them(fuzzy_model):
    from keras import ops

    gate = fuzzy_model.get_layer("gate_0")
    figure = membership_functions(gate, rules=2, channels=3)
    assert sorted(legend(figure)) == ["rule 1", "rule 3"]
    consequents, *sets = [axis for axis in figure.axes if axis.get_title()]
    assert consequents.get_title() == "what each rule lets pass"
    medians = {round(mark.get_ydata()[0]): mark.get_xdata()[0] for mark in consequents.lines if mark.get_marker() == "o"}
    assert medians[0] == 1
    assert [medians[3], medians[1]] == pytest.approx([2 / (1 + np.exp(-0.5 * 2)), 2 / (1 + np.exp(0.5))])
    assert len(sets) == 3
    channel = int(sets[0].get_title().split()[-1])
    line = {line.get_label(): line for line in sets[0].lines}["rule 3"]
    q, membership = line.get_data()
    center = ops.convert_to_numpy(gate.center)[channel, 3]
    sharpness = np.log1p(np.exp(ops.convert_to_numpy(gate.rho)[channel, 3])) + 1e-3
    np.testing.assert_allclose(membership, np.exp(-0.5 * (sharpness * (q - center)) ** 2), rtol=1e-5)


def test_a_gate_without_sets_is_refused(fuzzy_model):
    from dermaseg.layers import FuzzySkipGate

    with pytest.raises(ValueError, match="is not built"):
        membership_functions(FuzzySkipGate())
    linear = FuzzySkipGate(quadratic=False)
    linear(np.zeros((1, 4, 4, 8), "float32"), np.zeros((1, 4, 4, 8), "float32"))
    with pytest.raises(ValueError, match="no Gaussian sets"):
        membership_functions(linear)
    with pytest.raises(ValueError, match="channels must be at least 1"):
        membership_functions(fuzzy_model.get_layer("gate_0"), channels=0)


def test_firing_strengths_cover_the_photograph_and_sum_to_one(fuzzy_model):
    image = np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype="uint8")
    strengths = _firing_strengths(fuzzy_model, image, "gate_0")
    assert strengths.shape == (37, 50, 5)
    np.testing.assert_allclose(strengths.sum(axis=-1), 1, atol=1e-5)
    assert strengths.std(axis=(0, 1)).max() > 1e-3  # they depend on the place
    figure = firing_maps(fuzzy_model, image)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[:2] == ["photograph", "strongest rule"]
    assert titles[2:] == [f"rule {rule} (mean {strengths[..., rule].mean():.2f})" for rule in range(5)]
    np.testing.assert_array_equal(figure.axes[1].images[0].get_array(), strengths.argmax(axis=-1))


def test_firing_strengths_are_those_of_the_model_s_own_rule_entropy():
    """`build_fuzzy_unet(uncertainty=True)` computes the entropy of the same strengths inside its graph."""
    import keras
    from keras import ops

    from dermaseg.models import build_fuzzy_unet

    keras.utils.set_random_seed(1)
    model = build_fuzzy_unet(filters=(8, 8), rules=4, gate_stride=1, stem_stride=1, uncertainty=True)
    image = np.random.default_rng(0).integers(0, 256, (19, 22, 3), dtype="uint8")
    strengths = _firing_strengths(model, image, "gate_0")
    entropy = -(strengths * np.log(strengths)).sum(axis=-1) / np.log(4)
    expected = ops.convert_to_numpy(model(image[None].astype("float32"))["rule_entropy"])[0, ..., 0]
    np.testing.assert_allclose(entropy, expected, atol=1e-4)


def test_firing_maps_name_what_is_wrong(fuzzy_model):
    with pytest.raises(ValueError, match=r"image must be \(height, width, 3\)"):
        firing_maps(fuzzy_model, np.zeros((1, 8, 8, 3)))
    with pytest.raises(ValueError, match="gate_name must be one of gate_0, got 'gate_7'"):
        firing_maps(fuzzy_model, np.zeros((8, 8, 3)), "gate_7")


# The package


def test_matplotlib_loads_with_the_first_plot():
    code = "import dermaseg.plots, sys; assert not {'matplotlib', 'keras', 'sklearn', 'scipy'} & set(sys.modules), sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_figure_of_pyplot_is_let_go_when_saved(tmp_path):
    import matplotlib.pyplot as plt

    figure = plt.figure()
    save_figure(figure, tmp_path / "new" / "figure.svg")
    assert (tmp_path / "new" / "figure.svg").read_text().startswith("<?xml")
