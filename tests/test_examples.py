"""Every example runs as a newcomer runs it: in a process of its own, on its synthetic photographs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "options.py")

# What each must leave behind beside its words.
FILES = {
    "two_classes.py": "run/report.html",
    "seven_classes.py": "logits/report-validation.html",
    "nine_classes.py": "nine_classes.keras",
    "unet.py": "lesion_overlay.png",
    "fuzzy_unet.py": "firing.png",
    "hybrid.py": "predictions/predictions.html",
    "own_keras_loop.py": "project.keras",
}


def test_every_example_is_known():
    assert set(SCRIPTS) == set(FILES)


@pytest.mark.slow
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "jax", reason="minutes of compiling; the parts are tested on JAX")
@pytest.mark.parametrize("script", SCRIPTS)
def test_example_runs(script, tmp_path):
    options = ["--output", str(tmp_path), "--steps", "3"] + ([] if script == "nine_classes.py" else ["--size", "32"])
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *options], capture_output=True, text=True, timeout=1200, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip()
    assert (tmp_path / FILES[script]).stat().st_size > 1000
