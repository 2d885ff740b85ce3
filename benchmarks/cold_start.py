"""From a shell to masks: seconds and memory of a whole `dermaseg predict` process, and of each further photograph.

    python -m benchmarks.cold_start
    python -m benchmarks.cold_start --rounds 9 --width 600 --height 450 --further 20

Synthetic photographs are written, then `dermaseg predict` outlines one, and one and `--further` more, each in a process of its
own, in turns. A further photograph costs the difference over their number: masks, overlays, measurements, table and page
included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

from PIL import Image

from benchmarks.peers.machine import describe
from dermaseg.data import make_synthetic, read_samples


def run(photos: list[Path], output: Path, options: list[str]) -> tuple[float, float]:
    """Run the command once; return its seconds and its peak memory in MB.

    Raises:
        RuntimeError: If the command fails.
    """
    command = [sys.executable, "-m", "dermaseg", "predict", *map(str, photos), "--output", str(output), *options]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        said = process.stdout.read().decode() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}: {said[-500:]}")
    # Linux counts in KiB, macOS in bytes.
    return seconds, usage.ru_maxrss * (1024 if sys.platform == "linux" else 1) / 1e6


def main() -> None:
    """Read the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--further", type=int, default=20)
    parser.add_argument("--width", type=int, default=600)
    parser.add_argument("--height", type=int, default=450)
    parser.add_argument(
        "--options", nargs=argparse.REMAINDER, default=[], help="last: those of `dermaseg predict`, as --tta flips"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_synthetic(folder / "photos", count=options.further + 1, size=(options.height, options.width))
        photos = [sample.image for sample in read_samples(folder / "photos")]
        with Image.open(photos[0]) as first:
            assert first.size == (options.width, options.height)
        one: list[tuple[float, float]] = []
        many: list[tuple[float, float]] = []
        for index in range(options.rounds + 1):
            results = (
                run(photos[:1], folder / f"one-{index}", options.options),
                run(photos, folder / f"many-{index}", options.options),
            )
            if index:  # the first round fills the system's file cache
                one.append(results[0])
                many.append(results[1])
    further = [1e3 * (b[0] - a[0]) / options.further for a, b in zip(one, many, strict=True)]
    print(f"{describe()}\n\n| what | median | quartiles |\n| --- | --- | --- |")
    for what, values, digits in (
        ("one photograph, whole process [s]", [seconds for seconds, _ in one], 2),
        (f"a further {options.width} by {options.height} photograph [ms]", further, 0),
        ("peak memory, one photograph [MB]", [memory for _, memory in one], 0),
        (f"peak memory, {options.further + 1} photographs [MB]", [memory for _, memory in many], 0),
    ):
        low, _, high = quantiles(values, n=4, method="inclusive")
        print(f"| {what} | {median(values):.{digits}f} | {low:.{digits}f} to {high:.{digits}f} |")


if __name__ == "__main__":
    main()
