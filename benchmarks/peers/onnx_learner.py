"""Inference by ONNX Runtime: a process of its own exports the model, so that Keras is not in the memory that is measured."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.machine import cores

__all__ = ["OnnxLearner"]


class OnnxLearner:
    """A `Learner` that only predicts.

    Args:
        contestant: Whose network to export.
        size: Height and width of the pictures to come, for the count of operations.
        seed: Of the weights.

    Raises:
        ImportError: If this dermaseg has no ONNX export.
        RuntimeError: If the export fails.
    """

    def __init__(self, contestant: Contestant, size: tuple[int, int], *, seed: int) -> None:
        for module in ("dermaseg.export", "dermaseg.runtime"):
            if importlib.util.find_spec(module) is None:
                raise ImportError(f"{module} is missing from this dermaseg")
        from dermaseg.runtime import OnnxModel

        self._folder = tempfile.TemporaryDirectory(prefix="dermaseg-onnx-")
        path = Path(self._folder.name) / "model.onnx"
        exported = subprocess.run(
            [
                sys.executable,
                "-m",
                "benchmarks.peers.onnx_learner",
                json.dumps(contestant.to_json()),
                str(path),
                "--size",
                *map(str, size),
                "--seed",
                str(seed),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        )
        if exported.returncode:
            raise RuntimeError(f"the export failed: {exported.stderr.strip().splitlines()[-1:]}")
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        self.parameters, self.forward_flops = facts["parameters"], facts["forward_flops"]
        self.versions = {"onnxruntime": importlib.metadata.version("onnxruntime")}
        self._model = OnnxModel(path, threads=cores())

    def train(self, images: np.ndarray, masks: np.ndarray) -> float:
        """Refuse."""
        raise NotImplementedError("ONNX Runtime does not train")

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return probabilities."""
        outputs = self._model.predict_on_batch(images)
        return np.asarray(outputs["mask"] if isinstance(outputs, dict) else outputs, np.float32)

    def set_learning_rate(self, rate: float) -> None:
        """Do nothing: there is no training."""

    def multiply(self, size: int) -> Callable[[], object]:
        """Return a function that multiplies two matrices, by NumPy."""
        square = np.ones((size, size), np.float32)
        return lambda: square @ square

    def card_memory_mb(self) -> float | None:
        """Return None: it runs on a processor."""
        return None


def _export() -> None:
    import keras

    from benchmarks.peers.keras_learner import build_network, forward_flops, trainable_parameters
    from dermaseg.data.synthetic import synthetic_batch
    from dermaseg.export import export_model

    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", type=json.loads)
    parser.add_argument("path", type=Path)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    contestant = Contestant.from_json(options.contestant)
    keras.utils.set_random_seed(options.seed)
    model = build_network(contestant, (None, None))
    if contestant.precision == "int8":
        # New weights answer alike whatever the ranges are: here the time counts, `benchmarks.export_quality` has the masks.
        photographs = synthetic_batch(8, size=128)[0]
        export_model(model, options.path, precision="int8", check_images=photographs, tolerance=1.0)
    else:
        export_model(model, options.path)
    facts = {"parameters": trainable_parameters(model), "forward_flops": forward_flops(contestant, tuple(options.size))}
    options.path.with_suffix(".json").write_text(json.dumps(facts), encoding="utf-8")


if __name__ == "__main__":
    _export()
