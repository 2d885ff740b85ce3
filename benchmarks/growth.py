"""How the cost of the default U-Net grows with the side of the picture and with the batch.

    python -m benchmarks.growth --output growth
    python -m benchmarks.growth --output growth --contestants ours ours-bfloat16 ours-onnx --rounds 5

Each contestant of `benchmarks.peers` runs on random pictures. The sweep over batches has one process, whose cases take turns;
in the sweep over sides, each side has a process of its own, which runs to its end before the next begins. The exponent is the
slope of the seconds over the pixels (or the batch) on logarithmic axes: 1 is proportional, less says that a small case does not
fill the machine. Writes `growth.csv` and prints the table. How memory grows with the number of photographs is a question of the
pipeline: `benchmarks/cold_start.py` has two numbers of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.peers.contestants import CONTESTANTS, Contestant, choose
from benchmarks.peers.fleet import Process
from benchmarks.peers.machine import cores, describe
from dermaseg.runs import write_csv

SIDES = (64, 128, 256, 512)
BATCHES = (1, 4, 16, 64)
_BATCH, _SIDE = 8, 128  # of the sweep over the other


def measure(one: Contestant, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for each case: median seconds a step over the rounds."""
    rows: list[dict[str, Any]] = []
    for side, batches in [(side, (_BATCH,)) for side in SIDES] + [(_SIDE, BATCHES)]:
        with Process(one, (side, side), threads=options.threads, limit_s=600) as process:
            cases = [(mode, batch) for mode in one.modes for batch in batches]
            taken: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
            for _ in range(options.rounds):
                for mode, batch in cases:
                    taken[mode, batch].append(process.ask(mode, batch=batch, steps=options.steps)["step_s"])
        sweep = "side" if len(batches) == 1 else "batch"
        rows += [
            {"contestant": one.name, "sweep": sweep, "mode": mode, "side_px": side, "batch": batch, "step_s": median(times)}
            for (mode, batch), times in taken.items()
        ]
    return rows


def exponent(rows: list[dict[str, Any]], over: str) -> float:
    """Return the slope of log seconds over log pixels or log batch."""
    amounts = [row["side_px"] ** 2 if over == "side" else row["batch"] for row in rows]
    return float(np.polyfit(np.log(amounts), np.log([row["step_s"] for row in rows]), 1)[0])


def main() -> None:
    """Read the command line, measure, and print a row for each sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    names = ["ours", "ours-bfloat16", "ours-onnx"]
    parser.add_argument("--contestants", nargs="+", metavar="NAME", default=names, help=", ".join(CONTESTANTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    rows = [row for one in choose(options.contestants) for row in measure(one, options)]
    options.output.mkdir(parents=True, exist_ok=True)
    write_csv(options.output / "growth.csv", rows)
    print(f"{describe()}\n\n| contestant | mode | over | ms a step | exponent |\n| --- | --- | --- | --- | --- |")
    for key in dict.fromkeys((row["contestant"], row["mode"], row["sweep"]) for row in rows):
        own = [row for row in rows if (row["contestant"], row["mode"], row["sweep"]) == key]
        name, mode, over = key
        swept = f"{SIDES} px, batch {_BATCH}" if over == "side" else f"batch {BATCHES}, {_SIDE} px"
        steps = ", ".join(f"{1e3 * row['step_s']:.1f}" for row in own)
        print(f"| {name} | {mode} | {swept} | {steps} | {exponent(own, over):.2f} |")


if __name__ == "__main__":
    main()
