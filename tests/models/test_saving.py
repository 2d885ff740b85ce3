"""What is saved by one process is the same function, with its training, in another."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from dermaseg.losses.fuzzy import FuzzySegmentation
from dermaseg.models import build_cnn, build_fuzzy_unet, build_hybrid, build_unet
from dermaseg.monte_carlo import activate_dropout

SMALL = (8, 16)
LOSSES = {"mask": keras.losses.Dice(axis=(1, 2, 3)), "label": keras.losses.SparseCategoricalCrossentropy()}

# A process for all of them, which has imported nothing that built them but the package itself.
LOADER = """
import sys, keras, numpy as np, dermaseg.losses, dermaseg.models
from dermaseg.losses import FuzzySegmentation

for name in sys.argv[2:]:
    model = keras.saving.load_model(f"{sys.argv[1]}/{name}.keras")
    known = np.load(f"{sys.argv[1]}/{name}.npz")
    outputs = model(known["images"])
    for output, values in (outputs if isinstance(outputs, dict) else {"output": outputs}).items():
        np.testing.assert_allclose(keras.ops.convert_to_numpy(values), known[output], atol=1e-5, err_msg=f"{name}: {output}")
    assert model.optimizer is not None, name
    if name == "hybrid":
        np.testing.assert_allclose(keras.ops.convert_to_numpy(model.uncertainty.log_variance), [1.25, -0.5])
        assert int(model.optimizer.iterations) == 1
        model.train_on_batch(known["images"], {"mask": known["true_mask"], "label": known["true_label"]})
    print(name)
"""


def compiled_models(optimizer):
    fuzzy = build_fuzzy_unet(filters=SMALL, bottleneck_gate=True, uncertainty=True)
    made = {
        "unet": (build_unet(filters=SMALL), "binary_crossentropy"),
        "cnn": (build_cnn(num_classes=3, filters=SMALL), "sparse_categorical_crossentropy"),
        "fuzzy_unet": (fuzzy, {"mask": FuzzySegmentation(tau_px=1.5)}),
        "hybrid": (build_hybrid(num_classes=3, filters=SMALL, fuzzy=True), LOSSES),
    }
    for model, loss in made.values():
        model.compile(optimizer(model), loss)
    return {name: model for name, (model, _) in made.items()}


@pytest.mark.slow
def test_compiled_models_load_in_a_fresh_process(tmp_path, adamw):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (2, 21, 34, 3)).astype("float32")
    targets = {"mask": (rng.random((2, 21, 34, 1)) < 0.5).astype("float32"), "label": np.array([0, 2])}
    models = compiled_models(adamw)
    models["hybrid"].train_on_batch(images, targets)
    models["hybrid"].uncertainty.log_variance.assign([1.25, -0.5])
    for name, model in models.items():
        model.save(tmp_path / f"{name}.keras")
        outputs = model(images)
        outputs = outputs if isinstance(outputs, dict) else {"output": outputs}
        known = {output: keras.ops.convert_to_numpy(values) for output, values in outputs.items()}
        true = {f"true_{target}": values for target, values in targets.items()}
        np.savez(tmp_path / f"{name}.npz", images=images, **known, **true)
    command = [sys.executable, "-W", "error::UserWarning", "-c", LOADER, str(tmp_path), *models]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == list(models)


@pytest.mark.slow
def test_a_network_with_dropout_left_on_loads_in_a_fresh_process(tmp_path):
    activate_dropout(build_cnn(num_classes=3, filters=SMALL, dropout=0.5)).save(tmp_path / "model.keras")
    code = "import sys; from dermaseg.saving import load_model; load_model(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.keras")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
