import os

# Before Keras chooses its backend and TensorFlow greets.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "agg")

from pathlib import Path

import pytest


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


@pytest.fixture
def keras_policy():
    """Restore the global dtype policy after a test that changes it."""
    import keras

    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)
