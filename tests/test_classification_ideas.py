"""The benchmark of ideas for classifiers: what it changes, what it compares, and that it goes on where it stopped."""

import dataclasses
import os
from functools import partial

import numpy as np
import pytest

from benchmarks import classification_ideas
from benchmarks.classification_ideas import ARMS, BASELINE, CAPTION, FIGURES, difference_cell, table
from dermaseg import training
from dermaseg.data import make_synthetic
from dermaseg.runs import read_json, write_json
from dermaseg.tasks import Settings


def test_every_idea_changes_one_setting_that_exists():
    known = {field.name for field in dataclasses.fields(Settings)} | {"start"}
    assert ARMS[BASELINE][1] == {}
    for arm, (words, change) in ARMS.items():
        assert words
        assert arm == BASELINE or (len(change) == 1 and set(change) <= known)
        Settings(**{name: value for name, value in change.items() if name not in ("start", "size")})


def test_arms_are_shared_out_among_processes(tmp_path, monkeypatch):
    make_synthetic(tmp_path / "data", count=84, size=(48, 64), seed=3)
    trained = []
    monkeypatch.setattr(
        classification_ideas, "_trained", lambda options, samples, split, arm, seed: trained.append((arm, seed))
    )
    monkeypatch.setattr(classification_ideas, "scores", lambda run, samples: {"labels": [], "probabilities": []})
    monkeypatch.setattr(classification_ideas, "table", lambda output: "")
    command = ["--data", str(tmp_path / "data"), "--output", str(tmp_path / "ideas"), "--seeds", "0"]
    classification_ideas.main([*command, "--no-baseline"])
    assert [arm for arm, _ in trained] == [arm for arm in ARMS if arm != BASELINE]
    trained.clear()
    classification_ideas.main([*command, "--arms", "ema"])
    assert trained == [(BASELINE, 0)]  # the other one is there already


def result(arm, seed, right):
    """Three lesions of two classes; `right` of the first two photographs are named as they are."""
    probabilities = np.array([[0.1, 0.9], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    probabilities[:right] = probabilities[:right, ::-1]
    return {"arm": arm, "seed": seed, "groups": [0, 1, 2, 2], "labels": [0, 0, 1, 1], "probabilities": probabilities.tolist()}


def test_differences_are_means_over_the_seeds_that_both_have(tmp_path):
    for arm, seed, right in ((BASELINE, 0, 0), (BASELINE, 1, 1), ("ema", 0, 1), ("ema", 1, 2), ("ema", 2, 0)):
        write_json(tmp_path / f"{arm}-{seed}.json", result(arm, seed, right))
    lines = table(tmp_path).splitlines()
    assert len(lines) == 6
    assert lines[-1] == CAPTION
    cells = [cell.strip() for cell in lines[2].split("|")]
    assert cells[2] == "2"
    assert cells[3].startswith("0.625 [")  # a half, and three quarters
    assert cells[4] == ""
    cells = [cell.strip() for cell in lines[3].split("|")]
    assert cells[1].startswith("averaged weights")
    assert cells[2] == "2"
    assert (cells[3][:5], cells[4][:5], cells[6][:5]) == ("0.875", "0.250", "0.250")


def test_bold_takes_the_interval_and_every_seed():
    def of(right):  # so many of 40 lesions are named rightly
        probabilities = np.tile([0.1, 0.9], (40, 1))
        probabilities[:right] = [0.9, 0.1]
        return {"groups": list(range(40)), "labels": [0] * 40, "probabilities": probabilities.tolist()}

    accuracy, low = FIGURES["accuracy"], of(4)
    assert difference_cell(accuracy, [of(36), of(30)], [low, low]).startswith("**0.725 [")
    assert difference_cell(accuracy, [low, low], [of(36), of(30)]).startswith("**-0.725 [")
    assert difference_cell(accuracy, [of(36), of(3)], [low, low]).startswith("0.387 [0.3")  # seeds differ in sign
    assert difference_cell(accuracy, [of(36)], [low]).startswith("0.800 [0.")  # one seed
    assert difference_cell(accuracy, [of(5), of(5)], [low, low]).startswith("0.025 [0.000")  # touches 0


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:the model names the class right:UserWarning")
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "jax", reason="minutes of compiling; the parts are tested on JAX")
def test_runs_from_end_to_end_and_goes_on(tmp_path, monkeypatch):
    make_synthetic(tmp_path / "data", count=84, size=(48, 64), seed=3)
    small = {"batch_size": 8, "precision": "float32", "model": {"filters": (8, 16)}}
    monkeypatch.setattr(training, "train", partial(training.train, **small))
    data, output = tmp_path / "data", tmp_path / "ideas"
    command = ["--data", str(data), "--output", str(output), "--seeds", "0", "--size", "32", "--steps", "2"]
    classification_ideas.main([*command, "--arms", "cutmix"])
    text = (tmp_path / "ideas" / "ideas.md").read_text()
    assert text.count("\n") == 6  # the last says what its bold means
    assert read_json(tmp_path / "ideas" / "runs" / "cutmix-0" / "settings.json")["settings"]["mix"] == "cutmix"
    before = (tmp_path / "ideas" / "cutmix-0.json").stat().st_mtime_ns
    classification_ideas.main([*command, "--arms", "cutmix"])
    assert (tmp_path / "ideas" / "cutmix-0.json").stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="steps"):
        classification_ideas.main([*command[:-1], "3"])
