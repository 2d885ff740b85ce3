import atexit
import os
import shutil
import sys
import tempfile
from pathlib import Path

# Before Keras chooses its backend and TensorFlow greets.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # the kernels that the command line takes
os.environ.setdefault("MPLBACKEND", "agg")
if os.environ["KERAS_BACKEND"] == "jax" and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # What one test has compiled, the others read, in whatever process: most of JAX's time here is compiling.
    compiled = tempfile.mkdtemp(prefix="dermaseg-tests-")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

if "xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    # Small networks for a few steps: what XLA spends on quick code comes back to no test.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=1".strip()

import pytest
from hypothesis import settings

sys.path.append(str(Path(__file__).parents[1]))  # benchmarks are no part of the installed package

settings.register_profile("tests", deadline=None)  # a busy machine is no failure
settings.load_profile("tests")

# Files that take minutes go first, so that at the end no worker waits for another; the longest leads.
LONGEST = ("test_training.py", "test_examples.py", "test_cli.py", "test_tasks.py", "test_doctests.py", "test_benchmarks.py")


# What is tested on PyTorch too: the rest is of files, of TensorFlow and JAX, or takes hours where nothing is compiled.
ON_PYTORCH = {"losses", "layers", "metrics", "models", "test_fuzzy.py", "test_optimizers.py", "test_precision.py"}
ON_PYTORCH |= {"test_explain.py", "test_uncertainty.py", "test_prediction.py", "test_training.py", "test_tasks.py"}


def pytest_collection_modifyitems(config, items):
    if os.environ["KERAS_BACKEND"] == "torch":
        left = [item for item in items if "xla" in item.name or not ON_PYTORCH & {item.path.name, item.path.parent.name}]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONGEST) + (item.path.parent.name != "models")))


@pytest.fixture(scope="session")
def real_data():
    """The folder of real dermoscopic images; tests that ask for it are skipped where there is none."""
    folder = os.environ.get("DERMASEG_DATA")
    if not folder:
        pytest.skip("set DERMASEG_DATA to a folder with ham10000, isic2018_task1 and isic9")
    return Path(folder)


@pytest.fixture(scope="session")
def synthetic_folder(tmp_path_factory):
    """A folder of 28 synthetic photographs with masks and seven classes; tests only read it."""
    from dermaseg.data import make_synthetic

    folder = tmp_path_factory.mktemp("synthetic")
    make_synthetic(folder, count=28, size=(48, 64), seed=1)
    return folder


@pytest.fixture(scope="session")
def classes_folder(tmp_path_factory):
    """A folder of 84 synthetic photographs, twelve of each of seven classes; tests only read it."""
    from dermaseg.data import make_synthetic

    folder = tmp_path_factory.mktemp("classes")
    make_synthetic(folder, count=84, size=(48, 64), seed=3)
    return folder


@pytest.fixture
def keras_policy():
    """Restore the global dtype policy after a test that changes it."""
    import keras

    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


@pytest.fixture
def adamw():
    """Make an optimizer that has a model's weights already: TensorFlow then traces the first step once, not twice."""
    from dermaseg.optimizers import AdamW

    def make(model, learning_rate=1e-3):
        optimizer = AdamW(learning_rate)
        optimizer.build(model.trainable_variables)
        return optimizer

    return make


@pytest.fixture
def small_networks(monkeypatch):
    """Give the default networks two stages instead of six, where a page or an example is about what is done with them."""
    import dermaseg.models.cnn
    import dermaseg.models.unet

    monkeypatch.setattr(dermaseg.models.unet, "DEFAULT_FILTERS", (8, 16))
    monkeypatch.setattr(dermaseg.models.cnn, "RESIDUAL_FILTERS", (8, 16))
    monkeypatch.setattr(dermaseg.models.cnn, "RESIDUAL_BLOCKS", (1, 1))


@pytest.fixture
def small_base(monkeypatch):
    """Take for Inception-ResNet-V2 what the functions around it see of it: names, a nested model, batch normalisation."""
    import keras
    from keras import layers

    def stand_in(*, include_top, weights, input_shape, name):
        images = keras.Input(input_shape)
        x = images
        for stage, width in (("stem", 4), ("mixed_7a", 6), ("conv_7b", 8)):
            x = layers.Conv2D(width, 3, strides=2, padding="same", name=f"{stage}_conv")(x)
            x = layers.BatchNormalization(name=f"{stage}_bn")(x)
            x = layers.Activation("relu", name=stage)(x)
        base = keras.Model(images, x, name=name)
        if weights is not None:
            base.load_weights(weights)
        return base

    monkeypatch.setattr(keras.applications, "InceptionResNetV2", stand_in)
