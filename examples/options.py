"""The options that all examples share: real photographs by --data, synthetic ones without."""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

# As the command line does: by itself, TensorFlow leaves its oneDNN kernels out on some processors (AMD Zen 3), at half the
# speed. It reads this when Keras loads it, so the examples import this file first.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

from dermaseg.data import Samples, make_synthetic, read_samples


@dataclass(frozen=True)
class Options:
    """What an example works with."""

    samples: Samples
    output: Path
    size: int
    steps: int
    weights: str | None


def parse(description: str, *, size: int = 64, steps: int = 120) -> Options:
    """Read the command line, and the photographs: those of --data, or 210 synthetic ones made on the spot."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, help="a folder in one of the layouts of dermaseg.data.read_samples")
    parser.add_argument("--output", type=Path, help="where to write; a new temporary folder by default")
    parser.add_argument("--size", type=int, default=size, help="side of the training pictures, pixels")
    parser.add_argument("--steps", type=int, default=steps, help="training steps")
    parser.add_argument("--weights", help="pretrained weights, where the example takes any: imagenet, or a file")
    given = parser.parse_args()
    output = given.output or Path(tempfile.mkdtemp(prefix="dermaseg-example-"))
    if given.data is None:
        print("No --data: 210 synthetic photographs. Figures on them say that the code works, nothing about skin.")
        make_synthetic(output / "photographs", count=210, size=(96, 128), seed=0)
    return Options(read_samples(given.data or output / "photographs"), output, given.size, given.steps, given.weights)
