import csv
import json
import re
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np
import pytest
from keras import ops
from matplotlib.axes import Axes

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the installed package

from benchmarks.fuzzy_comparison.__main__ import main  # noqa: E402
from benchmarks.fuzzy_comparison.arms import (  # noqa: E402
    ARMS,
    LOSSES,
    NETWORKS,
    Arm,
    build_loss,
    build_network,
    initial_network,
    matched_filters,
)
from benchmarks.fuzzy_comparison.differences import FIGURES, binned_aurc, compare, questions, read_scored  # noqa: E402
from benchmarks.fuzzy_comparison.gates import constant_theta, read_gates  # noqa: E402
from benchmarks.fuzzy_comparison.gates import main as main_gates  # noqa: E402
from benchmarks.fuzzy_comparison.stages import draw_some, photograph_doubt, pixel_counts, run_folder  # noqa: E402
from benchmarks.fuzzy_comparison.table import write_tables  # noqa: E402
from dermaseg.data import group_samples, make_synthetic  # noqa: E402
from dermaseg.errors import DataError  # noqa: E402
from dermaseg.metrics import area_under_risk_coverage, expected_calibration_error  # noqa: E402
from dermaseg.runs import write_csv, write_json  # noqa: E402

TINY = (8, 16)
COUNT = 24


def write_run(output, arm, seed, *, shift=0.0, blur=0.0, photographs=COUNT):
    """Leave what a scored run leaves: Jaccard higher by `shift`, probabilities less sure by `blur`."""
    folder = run_folder(output, Arm.parse(arm), seed)
    folder.mkdir(parents=True)
    generator = np.random.default_rng(7)  # the same photographs in all runs
    rows, counts = [], []
    for index in range(photographs):
        true = (generator.uniform(size=(12, 12)) > 0.5).astype(np.uint8)
        probability = np.clip(0.9 * true + 0.05 + generator.normal(0, 0.3, true.shape), 0.01, 0.99)
        probability = blur * 0.5 + (1 - blur) * probability
        jaccard = float(np.clip(generator.uniform(0.5, 0.9) + shift, 0, 1))
        distance = float("nan") if index == 0 else 10.0 - shift
        rows.append(
            {"id": f"p{index}", "group": index // 2, "jaccard": jaccard, "thresholded_jaccard": jaccard}
            | {"boundary_jaccard": jaccard / 2, "hausdorff95_px": distance, "doubt": photograph_doubt(probability)}
        )
        counts.append(pixel_counts(true, probability, 0.5 * probability if arm.startswith("fuzzy") else None))
    write_csv(folder / "test.csv", rows)
    np.savez(folder / "test.npz", **{key: np.stack([count[key] for count in counts]) for key in counts[0]})
    costs = {"training_s": 5.0, "processor_s": 9.0, "step_s": 0.1}
    write_json(folder / "training.json", {"parameters": 1000, "validation_jaccard": 0.7, **costs})
    write_json(folder / "test.json", {"arm": arm, "seed": seed})


def by_arm(output):
    scored = read_scored(output, "test")
    return {str(arm): [run for run in scored if run.arm == arm] for arm in {run.arm for run in scored}}


# Arms


def test_an_arm_is_a_known_network_and_a_known_loss():
    assert str(Arm.parse("fuzzy-overlap")) == "fuzzy-overlap"
    with pytest.raises(ValueError, match="there is no arm fuzy-overlap"):
        Arm.parse("fuzy-overlap")


def test_every_default_arm_answers_a_question_or_is_a_control():
    asked = list(questions(ARMS))
    assert {arm for _, *pair in asked for arm in pair} == set(ARMS)
    assert ("the fuzzy gates, beyond attention", Arm("fuzzy", "overlap"), Arm("attention", "overlap")) in asked
    assert ("the calibration of the fuzzy loss, against soft Dice", Arm("unet", "fuzzy"), Arm("unet", "dice")) in asked
    assert not list(questions([Arm("fuzzy", "fuzzy")]))


def test_gated_networks_start_as_the_plain_network_of_their_seed():
    images = np.random.default_rng(0).uniform(0, 255, (1, 16, 16, 3)).astype("float32")
    plain, own = initial_network("unet", filters=TINY, seed=3)
    assert not own
    expected = ops.convert_to_numpy(plain(images))
    for name in sorted(set(NETWORKS) - {"unet", "wide"}):
        model, own = initial_network(name, filters=TINY, seed=3)
        assert own == (["gate_bottleneck", "gate_0"] if name == "bottleneck" else ["gate_0"])
        np.testing.assert_array_equal(ops.convert_to_numpy(model(images)), expected)
    other, _ = initial_network("unet", filters=TINY, seed=4)
    assert np.abs(ops.convert_to_numpy(other(images)) - expected).max() > 1e-4


@pytest.mark.thorough
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="minutes of compiling first weights; the count is the same")
def test_widened_network_has_the_parameters_of_the_fuzzy_network():
    filters = (16, 32, 64, 128)
    target = build_network("fuzzy", filters=filters).count_params()
    assert build_network("unet", filters=filters).count_params() < target
    wide = build_network("wide", filters=filters).count_params()
    assert abs(wide / target - 1) < 0.01
    assert all(wide >= plain for wide, plain in zip(matched_filters(filters), filters, strict=True))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_least_at_its_own_target(name):
    mask = np.zeros((1, 12, 12, 1), "uint8")
    mask[:, :, 6:] = 1
    softened = 1 / (1 + np.exp(-(np.arange(12) - 5.5) / 0.75)) * np.ones((12, 1))
    crisp = np.clip(mask.astype("float32"), 1e-3, 1 - 1e-3)
    fuzzy = softened.reshape(mask.shape).astype("float32")
    loss = build_loss(name, tau_px=0.75)
    to_crisp, to_fuzzy = float(loss(mask, crisp)), float(loss(mask, fuzzy))
    assert (to_fuzzy < to_crisp) == (name in ("fuzzy", "soft"))


def test_dice_has_no_crossentropy_beside_it():
    mask = np.zeros((1, 4, 4, 1), "float32")
    mask[:, :, 2:] = 1
    # (2 * 4 + 2 s) / (8 + 8 + 2 s) at p = 1/2 and s = 1.
    assert float(build_loss("dice", tau_px=0.75)(mask, np.full_like(mask, 0.5))) == pytest.approx(1 - 10 / 18)


# Counting pixels


def test_pixel_counts_hold_the_calibration_error_and_the_wrong_pixels():
    generator = np.random.default_rng(0)
    true, probability = generator.integers(0, 2, (9, 11)), generator.uniform(size=(9, 11))
    counts = pixel_counts(true, probability)
    gap = np.abs(counts["outcome_sum"] - counts["probability_sum"]).sum() / counts["count"].sum()
    assert gap == pytest.approx(expected_calibration_error(true, probability))
    assert counts["mask_wrong"].sum() == ((probability > 0.5) != true).sum()
    assert counts["mask_pixels"].sum() == true.size
    assert "rules_pixels" not in counts


def test_binned_area_is_that_of_the_pixels():
    generator = np.random.default_rng(1)
    bins = generator.integers(0, 6, 200)
    wrong = generator.uniform(size=200) > 0.3 + 0.1 * bins
    pixels, errors = np.bincount(bins, minlength=8), np.bincount(bins[wrong], minlength=8)
    assert binned_aurc(pixels, errors) == pytest.approx(area_under_risk_coverage(wrong, bins))


def test_doubt_is_what_the_model_expects_to_get_wrong():
    assert photograph_doubt(np.array([[1.0, 1.0, 0.0]])) == 0.0
    assert photograph_doubt(np.zeros((2, 2))) == 0.0
    # Inside 0.8, union 1 + 0.2.
    assert photograph_doubt(np.array([[0.8, 0.2]])) == pytest.approx(1 - 0.8 / 1.2)


# Differences


def test_better_needs_the_interval_and_every_seed(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, "unet-overlap", seed)
        write_run(tmp_path, "unet-fuzzy", seed, shift=0.05)
        write_run(tmp_path, "fuzzy-overlap", seed, shift=0.1 if seed else -0.05)
        write_run(tmp_path, "fuzzy-fuzzy", seed, blur=0.9)
    runs = by_arm(tmp_path)

    def verdicts(arm, control="unet-overlap", count=2):
        found = compare(runs[arm][:count], runs[control], resamples=200)
        return {difference.figure: difference for difference in found}

    better = verdicts("unet-fuzzy")
    assert set(better) == set(FIGURES)
    assert better["jaccard"].verdict == "better"
    assert better["jaccard"].interval.value == pytest.approx(0.05)
    assert better["hausdorff95_px"].verdict == "better"  # 0.05 px less
    assert better["hausdorff95_px"].left_out == 1
    assert better["calibration_error"].verdict == "not shown"
    assert verdicts("unet-overlap", "unet-fuzzy")["jaccard"].verdict == "worse"
    # The mean of the two seeds is +0.025 on every lesion alike, but the seeds disagree.
    disagreeing = verdicts("fuzzy-overlap")["jaccard"]
    assert disagreeing.interval.low > 0
    assert disagreeing.verdict == "not shown"
    assert verdicts("unet-fuzzy", count=1)["jaccard"].verdict == "one seed"
    assert verdicts("fuzzy-fuzzy")["calibration_error"].verdict == "worse"


def test_only_seeds_of_both_arms_are_compared(tmp_path):
    write_run(tmp_path, "unet-overlap", 0)
    write_run(tmp_path, "unet-fuzzy", 1)
    runs = by_arm(tmp_path)
    assert compare(runs["unet-fuzzy"], runs["unet-overlap"]) == []


def test_a_resample_of_lesions_counts_their_pixels_as_often(tmp_path):
    write_run(tmp_path, "unet-overlap", 0)
    (run,) = read_scored(tmp_path, "test")
    positions = np.array([1, 1, 4])
    counts, sums, outcomes = (run.counts[key][positions].sum(axis=0) for key in ("count", "probability_sum", "outcome_sum"))
    expected = np.abs(outcomes - sums).sum() / counts.sum()
    assert FIGURES["calibration_error"].whole(run, positions) == pytest.approx(expected)


def test_runs_on_other_photographs_are_refused(tmp_path):
    write_run(tmp_path, "unet-overlap", 0)
    write_run(tmp_path, "unet-fuzzy", 0, photographs=COUNT - 1)
    with pytest.raises(DataError, match="not the photographs of"):
        read_scored(tmp_path, "test")


# Tables


def test_tables_tell_figures_differences_and_pictures(tmp_path):
    for arm in ("unet-overlap", "unet-fuzzy", "fuzzy-overlap", "unet-dice"):
        for seed in (0, 1):
            write_run(tmp_path, arm, seed, shift=0.05 * (arm == "unet-fuzzy") + 0.01 * seed, blur=0.9 * (arm == "unet-dice"))
    write_json(
        tmp_path / "protocol.json", dict.fromkeys(("canvas", "steps", "batch_size", "augment", "tau_px", "precision"), 1)
    )
    with mock.patch.object(Axes, "plot", autospec=True, side_effect=Axes.plot) as plot:
        write_tables(tmp_path, ("test", "second"), resamples=100)
    drawn = [call.kwargs["label"] for call in plot.call_args_list if "label" in call.kwargs]
    assert " ".join(name.split(",")[0] for name in drawn) == "calibrated unet-overlap unet-fuzzy fuzzy-overlap unet-dice"
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert f"## test: {COUNT} photographs, {COUNT // 2} lesions" in text
    assert "| unet-fuzzy | 2 | 1,000 |" in text
    assert "| the fuzzy loss | unet-fuzzy - unet-overlap | +0.0500 [+0.0500, +0.0500] better |" in text
    (asked,) = (line for line in text.splitlines() if "against soft Dice |" in line)
    assert "unet-fuzzy - unet-dice" in asked
    calibration = asked.split(" | ")[2 + list(FIGURES).index("calibration_error")]
    assert re.fullmatch(r"-.* better", calibration)
    assert "over all seeds: unet-overlap 2, unet-fuzzy 2, fuzzy-overlap 2, unet-dice 2." in text
    assert text.count("| fuzzy-overlap |") == 2  # figures and rule entropy
    assert "second" not in text
    with (tmp_path / "comparison.csv").open(newline="") as file:
        figures = {row["arm"]: row for row in csv.DictReader(file)}
    assert float(figures["unet-fuzzy"]["jaccard"]) - float(figures["unet-overlap"]["jaccard"]) == pytest.approx(0.05)
    assert float(figures["unet-fuzzy"]["jaccard_seed_sd"]) == pytest.approx(0.01 / 2**0.5)
    with (tmp_path / "differences.csv").open(newline="") as file:
        assert {row["control"] for row in csv.DictReader(file)} == {"unet-overlap", "unet-dice"}
    assert (tmp_path / "reliability-test.png").stat().st_size > 1000


# What the gates do


def gated_network():
    """A Fuzzy U-Net whose gate decides by place, and a photograph of two halves to decide about."""
    keras.utils.set_random_seed(0)
    model = build_network("eager", filters=TINY)
    gate = model.get_layer("gate_0")
    gate.theta.assign(np.random.default_rng(0).normal(0, 0.2, gate.theta.shape))
    image = np.zeros((1, 32, 32, 3), "float32")
    image[:, :, 16:] = 255
    return model, gate, image


def test_a_gate_is_read_as_it_weighs_the_skip():
    model, gate, image = gated_network()
    skip, decoded = keras.Model(model.inputs[0], gate.input)(image, training=False)
    ones = ops.ones_like(skip)
    strengths = gate.firing_strengths(skip, decoded)
    weights = ops.convert_to_numpy(gate._apply_gate(ones, gate.gain * ops.matmul(strengths, gate.theta)))
    reading = read_gates(model, [(image, None)])["gate_0"]
    np.testing.assert_allclose(reading.mean, weights.mean(axis=(0, 1, 2)), rtol=1e-5)
    figures = reading.figures
    assert figures["places_from_channel"] == pytest.approx(np.sqrt(weights.var(axis=(0, 1, 2)).mean()), rel=1e-4)
    assert figures["channels_from_1"] == pytest.approx(np.sqrt(np.mean((weights.mean(axis=(0, 1, 2)) - 1) ** 2)), rel=1e-4)
    shares = ops.convert_to_numpy(strengths).reshape(-1, gate.rules)
    local = -np.mean(np.sum(shares * np.log(shares), axis=1))
    assert figures["rules_at_a_place"] == pytest.approx(np.exp(local), rel=1e-4)
    assert 1 <= figures["rules_at_a_place"] < figures["rules_in_use"] <= gate.rules


def test_a_gate_that_is_taken_away_is_constant_or_the_identity():
    model, gate, image = gated_network()
    reading = read_gates(model, [image])["gate_0"]
    gate.theta.assign(constant_theta(gate, reading.mean))
    constant = read_gates(model, [image])["gate_0"]
    np.testing.assert_allclose(constant.mean, reading.mean, rtol=1e-5)
    assert reading.figures["places_from_channel"] > 0.05
    assert constant.figures["places_from_channel"] < 1e-3
    assert constant.figures["channels_from_1"] == pytest.approx(reading.figures["channels_from_1"], rel=1e-4)
    assert not constant_theta(gate, np.ones(4)).any()  # the identity


# The command


def test_a_limit_keeps_whole_lesions(tmp_path):
    samples = make_synthetic(tmp_path, count=20, size=(24, 32), images_per_lesion=3)
    kept = draw_some(samples, 8)
    assert 6 <= len(kept) <= 8
    whole = {sample.lesion_id for sample in kept}
    assert len(kept) == sum(sample.lesion_id in whole for sample in samples)
    assert len(group_samples(kept)) == len(kept)
    assert draw_some(samples, 100) is samples


@pytest.mark.thorough
def test_the_command_trains_scores_goes_on_and_tells(tmp_path, capsys):
    # Their photographs share names, so that only the last six of the second are new to the first.
    for name, count in (("data", 42), ("data-2", 48)):
        make_synthetic(tmp_path / name, count=count, size=(48, 64))
    command = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "out"), "--seeds", "0", "--steps", "14"]
    command += ["--size", "32", "--batch-size", "4", "--filters", "8", "16", "--precision", "float32", "--resamples", "40"]
    main([*command, "--arms", "unet-overlap", "fuzzy-fuzzy"])
    said = capsys.readouterr().out
    assert "unet-overlap, seed 0: epoch 2/2, loss" in said
    out = tmp_path / "out"
    folders = [run_folder(out, Arm.parse(arm), 0) for arm in ("unet-overlap", "fuzzy-fuzzy")]
    for folder in folders:
        training = json.loads((folder / "training.json").read_text())
        assert training["steps"] == 14
        assert len(training["history"]) == 2
        scored = json.loads((folder / "test.json").read_text())
        pixels = scored["photographs"] * 48 * 64
        assert sum(scored["pixel_reliability"]["count"]) == pixels
        with (folder / "test.csv").open(newline="") as file:
            jaccard = [float(row["jaccard"]) for row in csv.DictReader(file)]
        assert np.mean(jaccard) == pytest.approx(scored["jaccard"], abs=1e-5)
    text = (out / "comparison.md").read_text(encoding="utf-8")
    assert "| gates and loss together | fuzzy-fuzzy - unet-overlap |" in text
    assert "one seed" in text
    assert " better |" not in text  # one seed is no difference
    assert len(list((out / "cache").glob("*.pixels"))) == 2  # decoded once for all arms: training and validation

    kept = [(folder / "best.weights.h5").stat().st_mtime_ns for folder in folders]
    with pytest.raises(SystemExit, match="another protocol: steps was 14, is 15"):
        main([*command[:7], "15", *command[8:]])
    # A second data set is scored by the networks that are there; no time is left for a new one.
    main([*command, "--arms", "unet-overlap", "--data-2", str(tmp_path / "data-2")])
    assert [(folder / "best.weights.h5").stat().st_mtime_ns for folder in folders] == kept
    assert json.loads((folders[0] / "second.json").read_text())["photographs"] == 6
    with pytest.raises(SystemExit, match="no photograph that is not in"):
        main([*command, "--data-2", str(tmp_path / "data")])
    main([*command, "--minutes", "0"])
    said = capsys.readouterr().out
    assert "unet-overlap, seed 0: done before" in said
    assert "unet-fuzzy, seed 0: not begun" in said
    main(["--output", str(out), "--table", "--resamples", "40"])

    main_gates(["--data", str(tmp_path / "data"), "--output", str(out), "--resamples", "40"])
    text = (out / "gates.md").read_text(encoding="utf-8")
    assert "| fuzzy-fuzzy | gate_0 |" in text
    assert re.search(r"\| fuzzy-fuzzy \| 1 \| as trained \| 0\.\d{4} \|  \|  \|", text)
    assert re.search(r"\| fuzzy-fuzzy \| 1 \| g = 1 \| 0\.\d{4} \| [+-]0\.\d{4} \[", text)
    assert "unet-overlap" not in text  # it has no gates
    for folder in folders:
        (folder / "training.json").unlink()
    with pytest.raises(SystemExit, match="no trained run has fuzzy gates"):
        main_gates(["--data", str(tmp_path / "data"), "--output", str(out)])
