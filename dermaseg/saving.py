"""Load saved models in a process that has imported nothing else."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path

import keras

# Importing registers: Keras finds a class of a saved model by its registered name, and only then.
import dermaseg.layers
import dermaseg.losses
import dermaseg.metrics.segmentation
import dermaseg.metrics.streaming
import dermaseg.models
import dermaseg.monte_carlo
import dermaseg.optimizers  # noqa: F401
from dermaseg.errors import DataError
from dermaseg.pretrained import model_file
from dermaseg.runs import check_saved_model

__all__ = ["load_model"]


def load_model(path: str | Path, *, compiled: bool = False) -> keras.Model:
    """Load a `.keras` file in Keras's safe mode, with every class of dermaseg known.

    Args:
        path: The file, or the run folder that holds it as `model.keras`.
        compiled: Also restore loss, metrics and the optimizer's state.

    Raises:
        DataError: If the file is missing, damaged or no Keras model, or the run that it would be of is not finished.
    """
    path = model_file(path)
    check_saved_model(path)
    try:
        if path.suffix != ".keras" and path.suffix.lower() == ".keras":  # Keras knows its files by small letters alone
            with tempfile.TemporaryDirectory() as folder:
                return keras.saving.load_model(shutil.copy(path, Path(folder) / "model.keras"), compile=compiled)
        return keras.saving.load_model(path, compile=compiled)
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: cannot be read as a Keras model ({str(error)[:300]}).") from error
