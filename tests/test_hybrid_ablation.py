"""The ablation runs from end to end, goes on where it stopped, and pairs what belongs together."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dermaseg.data import read_samples, split_samples

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "hybrid_ablation.py"


@pytest.mark.slow
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "jax", reason="minutes of compiling; the parts are tested on JAX")
def test_arms_are_trained_scored_and_compared(synthetic_folder, tmp_path):
    options = [
        "--seeds",
        "0",
        "--steps",
        "1",
        "--size",
        "32",
        "--filters",
        "8",
        "16",
        "--arms",
        "shared",
        "guided",
        "shuffled-mask",
    ]
    command = [sys.executable, str(SCRIPT), "--data", str(synthetic_folder), "--output", str(tmp_path), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    table = (tmp_path / "table.md").read_text()
    assert "| guided less shared | right |" in table
    assert "true-mask" not in table
    samples = read_samples(synthetic_folder)
    test = split_samples(samples, seed=0).apply(samples)["test"]
    scores = json.loads((tmp_path / "guided-0.json").read_text())
    assert len(scores["jaccard"]) == len(scores["right"]) == len(test)
    before = (tmp_path / "guided-0.json").stat().st_mtime_ns
    subprocess.run(command, capture_output=True, check=True, timeout=300)
    assert (tmp_path / "guided-0.json").stat().st_mtime_ns == before
