"""Where a training step of the default U-Net goes on TensorFlow: `python -m benchmarks.step_profile`.

Run it with TF_ENABLE_ONEDNN_OPTS=0 and =1 to see what oneDNN is worth on this processor; TensorFlow decides by itself which
processors get it. Prints, for `dermaseg.train`'s optimizer and for Keras's AdamW, built within the first step as Keras does,
the first step with its tracing and the median of later ones, in turns; then the operations that took longest, summed over
threads, with the former.
"""

import argparse
import collections
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from dermaseg.losses import OverlapCrossentropy
from dermaseg.models import build_unet
from dermaseg.optimizers import AdamW

WARM_UP, ROUNDS, TURN, PROFILED = 3, 12, 4, 3


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    options = parser.parse_args()

    shape = (options.batch_size, options.size, options.size)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (*shape, 3)).astype("float32")
    masks = (random.random((*shape, 1)) > 0.5).astype("float32")
    batches = iter(tf.data.Dataset.from_tensors((images, masks)).repeat())
    print(f"oneDNN asked for: {os.environ.get('TF_ENABLE_ONEDNN_OPTS', 'not set')}")

    steps = {name: make_step(name) for name in ("dermaseg's AdamW", "Keras's AdamW")}
    first_s = {}
    for name, step in steps.items():
        first_s[name] = seconds(step, batches)
        for _ in range(WARM_UP):
            step(batches)
    later_s: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(ROUNDS):
        for name in list(steps) if number % 2 else reversed(steps):
            steps[name](batches)  # not timed: it reads back what the other has pushed out of the caches
            later_s[name] += [seconds(steps[name], batches) for _ in range(TURN)]
    for name, times in later_s.items():
        quarters = [1000 * value for value in statistics.quantiles(times, n=4)]
        spread = f"{quarters[1]:.0f} ms (quartiles {quarters[0]:.0f} to {quarters[2]:.0f})"
        print(f"{name}: {first_s[name]:.1f} s to the first step, later ones {spread}")

    total = profile(steps["dermaseg's AdamW"], batches)
    for name, picoseconds in total.most_common(25):
        print(f"{picoseconds / 1e9 / PROFILED:9.1f} ms  {name}")


def make_step(optimizer: str) -> Callable[[Iterator[Any]], object]:
    """Return a function that trains a new network on one batch."""
    model = build_unet()
    rate = keras.optimizers.schedules.CosineDecay(2e-5, 7000, warmup_target=2e-3, warmup_steps=350)
    if optimizer.startswith("dermaseg"):
        chosen = AdamW(rate, weight_decay=1e-3, global_clipnorm=1.0)
        chosen.build(model.trainable_variables)
    else:
        chosen = keras.optimizers.AdamW(rate, weight_decay=1e-3, global_clipnorm=1.0)
    model.compile(chosen, OverlapCrossentropy(overlap="jaccard"), jit_compile=False)
    model.make_train_function()
    return model.train_function


def seconds(step: Callable[[Iterator[Any]], object], batches: Iterator[Any]) -> float:
    """Time one step."""
    start = time.perf_counter()
    step(batches)
    return time.perf_counter() - start


def profile(step: Callable[[Iterator[Any]], object], batches: Iterator[Any]) -> collections.Counter[str]:
    """Return picoseconds by operation, of `PROFILED` steps."""
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(PROFILED):
            step(batches)
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    total: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                total[name.rpartition(":")[2]] += event.duration_ps
    return total


if __name__ == "__main__":
    main()
