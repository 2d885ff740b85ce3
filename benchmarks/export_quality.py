"""What an export keeps of a trained network's masks, how large it is, and how long it takes: ONNX, LiteRT, OpenVINO.

    python -m benchmarks.export_quality --ham10000 DIR --output exports
    python -m benchmarks.export_quality --ham10000 DIR --output exports --model unet-ham10000-128 --images 300

A preset is exported by `export_model` in float32, float16 and int8; int8 takes its ranges from photographs of the training
part. Each is scored on HAM10000's held-out test part (the split of `benchmarks/train_presets.py`, seed 0), differences to
float32 paired, with 95 % bootstrap intervals over lesions. Milliseconds are of the network alone, one photograph at a time at
the size of its training, the runtimes taking turns. OpenVINO (`pip install openvino`) reads the float32 file and computes in
float32 and, where the processor has it, bfloat16. What cannot be exported or run is a row that says why.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.peers.machine import cores, describe, has_bfloat16
from dermaseg.converters import quiet
from dermaseg.data import Samples, group_samples, read_mask, read_samples, split_samples
from dermaseg.errors import DermasegError
from dermaseg.export import calibration_photographs, export_model
from dermaseg.metrics import bootstrap_interval, jaccard_index, paired_bootstrap
from dermaseg.prediction import Predictor
from dermaseg.presets import load_preset
from dermaseg.pretrained import DEFAULT_PRESET, find_preset
from dermaseg.runtime import OnnxModel

CALIBRATION = 64
_KEPT = 0.005


class OpenVino:
    """An exported model on OpenVINO, with the `predict_on_batch` of a Keras model."""

    def __init__(self, path: Path, precision: str) -> None:
        import openvino

        hints = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        self._compiled = openvino.Core().compile_model(path, "CPU", hints)
        self._names = [output.get_any_name() for output in self._compiled.outputs]

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        """Run the model on `(batch, height, width, 3)`, 0 to 255."""
        outputs = self._compiled(np.ascontiguousarray(images, dtype=np.float32))
        values = [np.array(outputs[index]) for index in range(len(self._names))]
        return values[0] if len(values) == 1 else dict(zip(self._names, values, strict=True))


class LiteRt:
    """An exported model on TensorFlow's LiteRT interpreter, with the `predict_on_batch` of a Keras model."""

    def __init__(self, path: Path) -> None:
        import tensorflow as tf

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the interpreter moves to another package
            self._run = tf.lite.Interpreter(model_path=str(path), num_threads=cores()).get_signature_runner()

    def predict_on_batch(self, images: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        """Run the model on `(batch, height, width, 3)`, 0 to 255."""
        outputs = self._run(images=np.ascontiguousarray(images, dtype=np.float32))
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def runtimes(model: str, photographs: np.ndarray, masks: np.ndarray | None, output: Path) -> Iterator[tuple[str, Path, Any]]:
    """Export a preset and open each export: what the table calls it, its file, and the runtime or why there is none."""
    network = load_preset(model)
    for kind, suffix, options in (("ONNX Runtime", ".onnx", {}), ("LiteRT", ".tflite", {"size": photographs.shape[1:3]})):
        for precision in ("float32", "float16", "int8"):
            path = output / f"{model}-{precision}{suffix}"
            # Whatever it costs is written and measured: the table is there to tell.
            limits = {} if precision == "float32" else {"tolerance": 1.0, "jaccard_tolerance": 1.0}
            try:
                export_model(
                    network, path, precision=precision, check_images=photographs, check_masks=masks, **options, **limits
                )
                yield f"{kind}, {precision}", path, OnnxModel(path) if suffix == ".onnx" else LiteRt(path)
            except DermasegError as error:
                yield f"{kind}, {precision}", path, str(error)
    plain = output / f"{model}-float32.onnx"
    for precision, hint in (("float32", "f32"), ("bfloat16", "bf16")):
        try:
            if precision == "bfloat16" and not has_bfloat16():
                raise DermasegError("this processor has no bfloat16 instructions")
            yield f"OpenVINO, {precision}", plain, OpenVino(plain, hint)
        except (ImportError, DermasegError) as error:
            yield f"OpenVINO, {precision}", plain, str(error)


def jaccards(network: Any, samples: Samples, size: int) -> np.ndarray:
    """Return the Jaccard index of each photograph's mask at its own size, `(samples,)`."""
    predictions = Predictor(network, size=size).predict((sample.image for sample in samples), batch_size=1)
    return np.array(
        [
            jaccard_index(read_mask(sample.mask), prediction.mask)
            for sample, prediction in zip(samples, predictions, strict=True)
        ]
    )


def milliseconds(networks: Mapping[str, Any], image: np.ndarray, rounds: int) -> dict[str, float]:
    """Return the median time of one photograph for each network, in interleaved rounds of ten."""
    taken: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(rounds):
        for name, network in networks.items():
            network.predict_on_batch(image)
            taken[name].append(_seconds(lambda network=network: [network.predict_on_batch(image) for _ in range(10)]) * 100)
    return {name: median(values) for name, values in taken.items()}


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    """Read the command line, export, score, time, and print a row for each runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ham10000", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the exported files")
    parser.add_argument("--model", default=DEFAULT_PRESET, help="name of a preset")
    parser.add_argument("--images", type=int, default=None, help="only so many photographs of the test part, evenly taken")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()

    options.output.mkdir(parents=True, exist_ok=True)
    samples = read_samples(options.ham10000).with_masks()
    parts = split_samples(samples, seed=0).apply(samples)
    size = find_preset(options.model).card["size"]
    photographs, masks = calibration_photographs(parts["train"], size=size, count=2 * CALIBRATION)
    with quiet():
        found = list(runtimes(options.model, photographs, masks, options.output))
    networks = {name: network for name, _, network in found if not isinstance(network, str)}
    test = parts["test"]
    count = min(options.images or len(test), len(test))
    test = test.select(np.linspace(0, len(test) - 1, count).astype(int).tolist())
    groups = group_samples(test)
    times = milliseconds(networks, photographs[:1].astype(np.float32), options.rounds)
    print(f"{options.model}, {len(test)} photographs, {size} px; {describe()}\n")
    print(f"| runtime | Jaccard | difference | within {_KEPT} | ms a photograph | MB |\n| --- | --- | --- | --- | --- | --- |")
    plain = None
    for name, path, network in found:
        if isinstance(network, str):
            print(f"| {name} | {network} | | | | |", flush=True)
            continue
        own = jaccards(network, test, size)
        plain = own if plain is None else plain
        difference = paired_bootstrap(own, plain, groups=groups)
        kept = "yes" if abs(difference.value) <= _KEPT else "no"
        megabytes = path.stat().st_size / 1e6
        score = bootstrap_interval(own, groups=groups)
        print(f"| {name} | {score} | {difference} | {kept} | {times[name]:.1f} | {megabytes:.1f} |", flush=True)


if __name__ == "__main__":
    main()
