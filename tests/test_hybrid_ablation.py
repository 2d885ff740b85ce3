"""The ablation runs from end to end, goes on where it stopped, and pairs what belongs together."""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are no part of the installed package

from benchmarks.hybrid_ablation import ARMS, QUESTIONS, derange, hold_to, load, main, table, trained_figures  # noqa: E402
from dermaseg.data import Sample, Samples, group_samples, load_arrays, read_samples, split_samples  # noqa: E402
from dermaseg.errors import DataError  # noqa: E402
from dermaseg.runs import write_json  # noqa: E402


def sorted_table(count=3000):
    """A table sorted by seven diagnoses, as unequal as they are, with one to four photographs a lesion."""
    labels = np.sort(np.random.default_rng(0).choice(7, count, p=[0.6, 0.12, 0.1, 0.08, 0.05, 0.03, 0.02]))
    lesions = np.cumsum(np.random.default_rng(1).uniform(size=count) < 0.5)
    return Samples(
        [
            Sample(str(row), Path(f"{row}.jpg"), label=int(label), lesion_id=f"{label}-{lesion}")
            for row, (label, lesion) in enumerate(zip(labels, lesions, strict=True))
        ],
        class_names=tuple("abcdefg"),
    )


# The control of the mask


@pytest.mark.parametrize("seed", [0, 1])
def test_a_guide_is_of_another_lesion_and_tells_no_class(seed):
    samples = sorted_table()
    labels, groups, given = samples.labels, group_samples(samples), derange(samples, seed)
    assert sorted(given) == list(range(len(samples)))
    assert not (groups[given] == groups).any()
    chance = ((np.bincount(labels) / len(labels)) ** 2).sum()
    assert np.mean(labels[given] == labels) == pytest.approx(chance, abs=0.04)
    np.testing.assert_array_equal(given, derange(samples, seed))
    assert (given != derange(samples, seed + 1)).any()


@pytest.mark.parametrize("seed", range(20))
def test_a_lesion_of_half_the_photographs_is_still_deranged(seed):
    lesions = ["x", "a", "x", "b", "x", "c", "c", "x"]
    samples = Samples([Sample(str(row), Path(f"{row}.jpg"), lesion_id=lesion) for row, lesion in enumerate(lesions)])
    given = derange(samples, seed)
    assert sorted(given) == list(range(len(lesions)))
    assert all(lesions[own] != lesions[other] for own, other in enumerate(given))
    with pytest.raises(DataError, match="more than half"):
        derange(samples.select([0, 1, 2, 4]), seed)


@pytest.mark.parametrize("shuffle", [True, False])
def test_guides_are_looked_up_by_position(synthetic_folder, tmp_path, shuffle):
    samples = read_samples(synthetic_folder)
    options = argparse.Namespace(output=tmp_path)
    how = {"size": (24, 32), "batch_size": 8, "shuffle": shuffle}
    batches = load(samples, "shuffled-mask", 3, options, **how)
    images, targets = load_arrays(samples, size=(24, 32), target="both")
    given, orders = derange(samples, 3), []
    for _ in range(2):
        batches.on_epoch_begin()
        order = []
        for index in range(batches.num_batches):
            inputs, own = batches[index]
            order += (positions := [int((images == image).all(axis=(1, 2, 3)).argmax()) for image in inputs["images"]])
            np.testing.assert_array_equal(own["mask"], targets["mask"][positions])
            np.testing.assert_array_equal(inputs["guide"], targets["mask"][given[positions]])
        batches.on_epoch_end()
        assert sorted(order) == list(range(len(samples)))
        orders.append(order)
    assert (orders[0] != orders[1]) == shuffle
    true, own = load(samples, "true-mask", 3, options, **how)[0]
    np.testing.assert_array_equal(true["guide"], own["mask"])


# Arms and tables


def test_questions_are_of_heads_that_both_arms_train():
    assert {"shared-fixed", "guided-fixed"} <= {arm for *pair, _ in QUESTIONS for arm in pair}
    assert {("guided", "class-only", "right"), ("guided", "mask-only", "jaccard"), ("guided", "guided-fixed", "right")} <= set(
        QUESTIONS
    )
    for first, second, figure in QUESTIONS:
        assert figure in trained_figures(first)
        assert figure in trained_figures(second)
    assert {arm: trained_figures(arm) for arm in ("class-only", "mask-only")} == {
        "class-only": ["right"],
        "mask-only": ["jaccard"],
    }
    assert all(ARMS[f"{arm}-fixed"]["guidance"] == ARMS[arm]["guidance"] for arm in ("shared", "guided"))
    assert all(trained_figures(arm) == ["jaccard", "right"] for arm in set(ARMS) - {"class-only", "mask-only"})


def test_an_untrained_head_has_no_figure(tmp_path):
    samples = sorted_table(40)
    right = [1.0] * 30 + [0.0] * 10
    costs = {"training_s": 12.4, "parameters": 1234}
    write_json(tmp_path / "class-only-0.json", {**costs, "right": right})
    write_json(tmp_path / "mask-only-0.json", {**costs, "jaccard": [0.5] * 40})
    write_json(tmp_path / "guided-0.json", {**costs, "jaccard": [0.75] * 40, "right": [1.0] * 40})
    text = table(tmp_path, samples, [0])
    assert "| class-only | 1 | 1,234 | 12 |  | 0.750 (0.750 to 0.750) | " in text
    assert "| mask-only | 1 | 1,234 | 12 | 0.500 (0.500 to 0.500) |  |  |" in text
    assert "| guided minus class-only | right | +0.250 |" in text
    assert "| guided minus mask-only | jaccard | +0.250 | +0.250 to +0.250 |" in text


def test_a_folder_holds_results_of_one_setting(tmp_path):
    hold_to({"steps": 10, "filters": (8, 16)}, tmp_path)
    hold_to({"steps": 10, "filters": (8, 16)}, tmp_path)
    with pytest.raises(SystemExit, match="other settings: steps was 10, is 11"):
        hold_to({"steps": 11, "filters": (8, 16)}, tmp_path)
    (tmp_path / "settings.json").unlink()
    write_json(tmp_path / "guided-0.json", {})
    with pytest.raises(SystemExit, match=r"no settings\.json"):
        hold_to({"steps": 10}, tmp_path)


# The command


def test_parts_too_small_to_shuffle_are_refused_at_the_door(synthetic_folder, tmp_path):
    with pytest.raises(SystemExit, match=r"test part: .* more than half of the photographs"):
        main(["--data", str(synthetic_folder), "--output", str(tmp_path)])
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "jax", reason="minutes of compiling; the parts are tested on JAX")
def test_arms_are_trained_scored_and_compared(classes_folder, tmp_path):
    samples = read_samples(classes_folder)
    output = tmp_path / "ablation"
    command = ["--data", str(classes_folder), "--output", str(output), "--seeds", "0", "--steps", "1"]
    command += ["--size", "32", "--filters", "8", "16"]
    arms = ["--arms", "class-only", "guided", "guided-fixed", "shuffled-mask"]
    main([*command, *arms])
    text = (output / "table.md").read_text()
    for difference in ("shuffled-mask | right", "class-only | right", "guided-fixed | right", "guided-fixed | jaccard"):
        assert f"| guided minus {difference} |" in text
    assert "true-mask" not in text
    test = split_samples(samples, seed=0).apply(samples)["test"]
    scores = {arm: json.loads((output / f"{arm}-0.json").read_text()) for arm in arms[1:]}
    assert len(scores["guided"]["jaccard"]) == len(scores["guided"]["right"]) == len(test)
    assert "jaccard" not in scores["class-only"]
    assert all(score["training_s"] > 0 for score in scores.values())
    # The two learned weights.
    assert scores["guided"]["parameters"] == scores["guided-fixed"]["parameters"] + 2
    before = (output / "guided-0.json").stat().st_mtime_ns
    main([*command, *arms])
    assert (output / "guided-0.json").stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="size was 32, is 48"):
        main([*command, "--size", "48"])
