"""Where a training step of the default U-Net goes on TensorFlow: `python -m benchmarks.step_profile`.

Run it with TF_ENABLE_ONEDNN_OPTS=0 and =1 to see what oneDNN is worth on this processor; TensorFlow decides by itself which
processors get it. Prints the first step, with its tracing, the median step and the operations that took longest, summed over
threads. `--keras-optimizer` takes Keras's AdamW, built within the first step as Keras does, instead of `dermaseg.train`'s.
"""

import argparse
import collections
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from dermaseg.losses import OverlapCrossentropy
from dermaseg.models import build_unet
from dermaseg.optimizers import AdamW

WARM_UP, TIMED, PROFILED = 3, 10, 3


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--keras-optimizer", action="store_true")
    options = parser.parse_args()

    shape = (options.batch_size, options.size, options.size)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (*shape, 3)).astype("float32")
    masks = (random.random((*shape, 1)) > 0.5).astype("float32")
    model = build_unet()
    rate = keras.optimizers.schedules.CosineDecay(2e-5, 7000, warmup_target=2e-3, warmup_steps=350)
    if options.keras_optimizer:
        optimizer = keras.optimizers.AdamW(rate, weight_decay=1e-3, global_clipnorm=1.0)
    else:
        optimizer = AdamW(rate, decay=1e-3, global_clipnorm=1.0)
        optimizer.build(model.trainable_variables)
    model.compile(optimizer, OverlapCrossentropy(overlap="jaccard"), jit_compile=False)
    model.make_train_function()
    batches = iter(tf.data.Dataset.from_tensors((images, masks)).repeat())

    seconds = []
    for _ in range(WARM_UP + TIMED):
        start = time.perf_counter()
        model.train_function(batches)
        seconds.append(time.perf_counter() - start)
    step = statistics.median(seconds[WARM_UP:])
    print(f"{seconds[0]:.1f} s to the first step")
    print(f"oneDNN asked for: {os.environ.get('TF_ENABLE_ONEDNN_OPTS', 'not set')}")
    print(f"{1000 * step:.0f} ms a step, {options.batch_size / step:.0f} images a second")

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(PROFILED):
            model.train_function(batches)
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    total: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                total[name.rpartition(":")[2]] += event.duration_ps
    for name, picoseconds in total.most_common(25):
        print(f"{picoseconds / 1e9 / PROFILED:9.1f} ms  {name}")


if __name__ == "__main__":
    main()
