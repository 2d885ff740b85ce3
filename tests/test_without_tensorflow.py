"""On JAX nothing needs TensorFlow: data, models, layers, losses, metrics, training and prediction run where there is none.

Where neither is there, a command says so.
"""

import os
import subprocess
import sys

import pytest

HIDE = """
import sys

HIDDEN = ("tensorflow", "tf2onnx")

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
"""
USE = """
import sys
import numpy as np
from dermaseg import Predictor, evaluate, train
from dermaseg.data import make_synthetic
from dermaseg.losses import FuzzySegmentation, LogitAdjustedCrossentropy
from dermaseg.metrics import BalancedAccuracy, JaccardIndex
from dermaseg.models import build_cnn, build_fuzzy_unet, build_hybrid, build_unet

folder = sys.argv[1]
small = {"filters": (8, 16)}
images = np.zeros((1, 32, 32, 3), "float32")
for build in (build_unet, build_fuzzy_unet):
    build(**small)(images)
for build in (build_cnn, build_hybrid):
    build(num_classes=3, **small)(images)
model = build_unet(**small)
model.compile("adam", FuzzySegmentation(tau_px=1.0), metrics=[JaccardIndex()])
model.train_on_batch(images, np.ones((1, 32, 32, 1), "float32"))
BalancedAccuracy(3).update_state([0, 1, 2], np.eye(3))
assert np.isfinite(float(LogitAdjustedCrossentropy(priors=[1, 2, 3])(np.array([0]), np.eye(3, dtype="float32")[:1])))
samples = make_synthetic(f"{folder}/data", count=28, size=(48, 64), seed=1)
run = train("segment", samples, f"{folder}/run", size=32, batch_size=4, steps=2, max_epochs=1, model=small)
assert evaluate(run.path, samples[:2], subgroups=()).figures["jaccard"].count == 2
assert Predictor()(samples[0].image).mask.shape == (48, 64)
assert "tensorflow" not in sys.modules
"""


@pytest.mark.parametrize("missing", ["keras", "tensorflow"])
@pytest.mark.parametrize(
    "command",
    [
        ["predict", "model.keras", "photo.jpg"],
        ["export", "model.keras", "x.onnx"],
        ["train", "--data", "data", "--output", "run"],
    ],
    ids=lambda command: command[0],
)
def test_a_package_that_is_missing_is_named(tmp_path, synthetic_folder, missing, command):
    (tmp_path / "data").symlink_to(synthetic_folder, target_is_directory=True)
    for name in ("model.keras", "photo.jpg"):
        (tmp_path / name).touch()
    code = f"{HIDE}\nHIDDEN = ({missing!r},)\nfrom dermaseg import cli\nsys.exit(cli.run({command!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"dermaseg: {missing} cannot be imported, and this command needs it: pip install dermaseg.")
    assert "KERAS_BACKEND=jax" in done.stderr
    assert "a preset or an .onnx file" in done.stderr


@pytest.mark.slow
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "jax", reason="hides TensorFlow from JAX")
def test_jax_alone_is_enough(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HIDE + USE, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
