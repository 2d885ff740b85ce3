"""What an export keeps of a trained network's masks, and how long it takes: float32 and int8 on ONNX Runtime, OpenVINO.

    python -m benchmarks.export_quality --ham10000 DIR --output exports
    python -m benchmarks.export_quality --ham10000 DIR --output exports --model unet-ham10000-128 --images 300

A preset is exported by `export_model`; int8 takes its ranges from photographs of the training part. Each is scored on
HAM10000's held-out test part (the split of `benchmarks/train_presets.py`, seed 0), differences to float32 paired, with 95 %
bootstrap intervals over lesions. Milliseconds are of the network alone, one photograph at a time at the size of its training,
the runtimes taking turns. OpenVINO (`pip install openvino`) computes in float32 and, where the processor has it, bfloat16.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.peers.machine import describe, has_bfloat16
from dermaseg.data import Samples, fit_area, group_samples, read_image, read_mask, read_samples, resize_image, split_samples
from dermaseg.export import export_model
from dermaseg.metrics import bootstrap_interval, paired_bootstrap, segmentation_scores
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


def runtimes(model: str, photographs: np.ndarray, output: Path) -> dict[str, Any]:
    """Export a preset and open each export, by what the table calls it."""
    network = load_preset(model)
    plain, small = output / f"{model}.onnx", output / f"{model}-int8.onnx"
    export_model(network, plain)
    export_model(network, small, precision="int8", check_images=photographs, tolerance=1.0)
    found: dict[str, Any] = {"ONNX Runtime, float32": OnnxModel(plain), "ONNX Runtime, int8": OnnxModel(small)}
    try:
        found["OpenVINO, float32"] = OpenVino(plain, "f32")
        if has_bfloat16():
            found["OpenVINO, bfloat16"] = OpenVino(plain, "bf16")
    except ImportError:
        print("OpenVINO is not installed: left out.")
    return found


def jaccards(network: Any, samples: Samples, size: int) -> np.ndarray:
    """Return the Jaccard index of each photograph's mask at its own size, `(samples,)`."""
    predictions = Predictor(network, size=size).predict((sample.image for sample in samples), batch_size=1)
    return np.array(
        [
            segmentation_scores(read_mask(sample.mask), prediction.mask)["jaccard"]
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
    train, test = parts["train"], parts["test"]
    chosen = train.select(np.linspace(0, len(train) - 1, 2 * CALIBRATION).astype(int).tolist())
    photographs = np.stack([_resized(sample.image, size) for sample in chosen])
    networks = runtimes(options.model, photographs, options.output)
    count = min(options.images or len(test), len(test))
    test = test.select(np.linspace(0, len(test) - 1, count).astype(int).tolist())
    groups = group_samples(test)
    times = milliseconds(networks, photographs[:1].astype(np.float32), options.rounds)
    print(f"{options.model}, {len(test)} photographs, {size} px; {describe()}\n")
    print(f"| runtime | Jaccard | difference | within {_KEPT} | ms a photograph |\n| --- | --- | --- | --- | --- |")
    plain = None
    for name, network in networks.items():
        own = jaccards(network, test, size)
        plain = own if plain is None else plain
        difference = paired_bootstrap(own, plain, groups=groups)
        kept = "yes" if abs(difference.value) <= _KEPT else "no"
        print(f"| {name} | {bootstrap_interval(own, groups=groups)} | {difference} | {kept} | {times[name]:.1f} |", flush=True)


def _resized(path: Path, size: int) -> np.ndarray:
    image = read_image(path)
    return resize_image(image, fit_area(image.shape[:2], size))


if __name__ == "__main__":
    main()
