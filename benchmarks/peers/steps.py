"""Seconds of a training step and of a prediction, dermaseg beside its peers.

Run from the repository's root:

    python -m benchmarks.peers.steps --output peers-steps
    python -m benchmarks.peers.steps --output rehearsal --quick
    python -m benchmarks.peers.steps --output peers-steps --contestants ours torch-plain --sizes 128
    python -m benchmarks.peers.steps --output peers-steps --table
    python -m benchmarks.gpu --output gpu-steps

Each contestant runs in a process of its own on the same cores, with the same random pictures. They take turns: a round is one
turn of everyone, and ratios are taken within a round, so that a slow minute of the machine meets all alike. Finished sizes and
groups stay in `rounds/`; the same command goes on where it was stopped (delete a file there to measure it again).
`benchmarks/peers/__init__.py` says what to install.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.peers.contestants import ACCELERATED, CONTESTANTS, REFERENCE, SEGMENTERS, Contestant, choose
from benchmarks.peers.fleet import Failed, Process
from benchmarks.peers.machine import Device, cores, describe, has_bfloat16
from benchmarks.peers.steps_report import write_report
from dermaseg.runs import read_json, write_json

__all__ = ["main"]

SIZES = {"128": (128, 128), "256": (256, 256), "450x600": (450, 600)}
# An accelerator is asked for what fills it: with a processor's batches, it would wait for the call to be made.
TRAIN_BATCH: Mapping[Device, Mapping[str, int]] = {
    "cpu": {"128": 16, "256": 8, "450x600": 4},
    "cuda": {"128": 128, "256": 32, "450x600": 8},
}
PREDICT_BATCHES: Mapping[Device, Sequence[int]] = {"cpu": (1, 16), "cuda": (1, 64)}
MATRIX: Mapping[Device, int] = {"cpu": 1536, "cuda": 8192}
_QUICK_SIZE = (96, 96)  # Inception-ResNet-V2 takes no less than 75
_QUICK_MATRIX = 256


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.sizes, options.rounds, options.turn_s, options.pause_s = options.sizes[:1], 2, 0.05, 0.0
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.table:
        try:
            chosen = choose(options.contestants)
        except ValueError as error:
            raise SystemExit(str(error)) from None
        _measure(chosen, options)
    write_report(options.output, reference=REFERENCE)
    print(f"steps.csv, steps.md and steps.png are in {options.output}")


def _measure(chosen: Sequence[Contestant], options: argparse.Namespace) -> None:
    settings = {name: getattr(options, name) for name in ("device", "rounds", "turn_s", "threads", "quick")}
    path = options.output / "machine.json"
    if not path.is_file():
        write_json(path, {**describe(), **settings})
    elif any(read_json(path)[key] != value for key, value in settings.items()):
        raise SystemExit(f"{options.output} was measured with other settings. Give another --output.")
    for name in options.sizes:
        for group in _groups(chosen, options.alive):
            key = hashlib.sha256(" ".join(one.name for one in group).encode()).hexdigest()[:8]
            file = options.output / "rounds" / f"{name}-{key}.json"
            if file.is_file():
                continue
            print(f"{name}: {', '.join(one.name for one in group)}", flush=True)
            write_json(file, _measure_group(name, group, options))


def _groups(chosen: Sequence[Contestant], alive: int) -> list[list[Contestant]]:
    """Cut the contestants into groups whose processes fit into memory together, the reference in each."""
    reference = [one for one in chosen if one.name == REFERENCE]
    others = [one for one in chosen if one.name != REFERENCE]
    share = max(1, alive - len(reference))
    count = max(1, math.ceil(len(others) / share))
    return [[*reference, *others[index::count]] for index in range(count)]


def _measure_group(name: str, group: Sequence[Contestant], options: argparse.Namespace) -> dict[str, Any]:
    size = _QUICK_SIZE if options.quick else SIZES[name]
    cases = [("predict", batch) for batch in PREDICT_BATCHES[options.device]]
    cases.append(("train", TRAIN_BATCH[options.device][name]))
    failed: dict[str, str] = {}
    facts: dict[str, dict[str, Any]] = {}
    measured: list[dict[str, Any]] = []
    peaks: dict[str, list[float]] = {}
    with ExitStack() as stack:
        alive: dict[str, Process] = {}
        chosen = []
        for one in group:
            if reason := _excluded(one, options):
                failed[one.name] = f"not run: {reason}"
            else:
                chosen.append(one)
        for one, process in zip(chosen, _start_all(chosen, size, options, stack), strict=True):
            if isinstance(process, Failed):
                failed[one.name] = str(process)
            else:
                alive[one.name] = process
                facts[one.name] = process.facts
        for mode, batch in cases:
            names = [one.name for one in group if one.name in alive and mode in one.modes]
            case = _measure_case(mode, batch, {key: alive[key] for key in names}, failed, peaks, options)
            for key in failed:
                alive.pop(key, None)
            measured.append({"mode": mode, "batch": batch, "height": size[0], "width": size[1], "contestants": case})
    return {
        "size": name,
        "contestants": [one.to_json() for one in group],
        "failed": failed,
        "facts": facts,
        "cases": measured,
        "matrix_flops_s": peaks,
    }


def _start_all(
    chosen: Sequence[Contestant], size: tuple[int, int], options: argparse.Namespace, stack: ExitStack
) -> list[Process | Failed]:
    """Start processes that end with the stack: at once where a card is measured, whose host has cores enough, else by turns."""

    def start(one: Contestant) -> Process | Failed:
        try:
            process = Process(one, size, threads=options.threads, limit_s=options.limit_s, device=options.device)
        except Failed as error:
            return error
        return stack.enter_context(process)

    with ThreadPoolExecutor(max(1, len(chosen)) if options.device == "cuda" else 1) as pool:
        return list(pool.map(start, chosen))


def _excluded(one: Contestant, options: argparse.Namespace) -> str:
    """Say why a contestant cannot be measured here, or nothing."""
    if options.device == "cuda":
        return "" if one.framework in ACCELERATED else f"{one.framework} is not measured on an accelerator"
    if one.precision == "bfloat16" and not (has_bfloat16() or options.force_bfloat16):
        return "this processor has no bfloat16 instructions"
    return ""


def _measure_case(
    mode: str,
    batch: int,
    processes: dict[str, Process],
    failed: dict[str, str],
    peaks: dict[str, list[float]],
    options: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    """Warm everyone up, then go round; each row has one time a round, None where the contestant had failed by then."""
    rows: dict[str, dict[str, Any]] = {}
    matrix = _QUICK_MATRIX if options.quick else MATRIX[options.device]

    def ask(name: str, do: str, **arguments: Any) -> dict[str, Any]:
        try:
            return processes[name].ask(do, **arguments)
        except Failed as error:
            failed[name] = f"{mode}, batch {batch}: {error}"
            processes.pop(name).stop()
            return {}

    for name in list(processes):  # by turns: kernels are chosen by their times, on a card too
        ask(name, "restart")
        first = ask(name, mode, batch=batch, steps=0) if name in processes else {}
        trial = ask(name, mode, batch=batch, steps=1) if first else {}
        if trial:
            steps = max(1, min(200, math.ceil(options.turn_s / trial["step_s"])))
            rows[name] = {"first_s": first["first_s"], "steps": steps, "step_s": [], "peak_mb": None}
    for number in range(options.rounds):
        names = list(rows)
        shift = number % max(1, len(names))  # nobody always follows the same neighbour
        for name in names[shift:] + names[:shift]:
            turn = ask(name, mode, batch=batch, steps=rows[name]["steps"]) if name in processes else {}
            rows[name]["step_s"].append(turn.get("step_s"))
            rows[name]["peak_mb"] = turn.get("peak_mb", rows[name]["peak_mb"])
            if name in processes and (product := ask(name, "multiply", size=matrix)):
                peaks.setdefault(name, []).append(product["flops_s"])
            time.sleep(options.pause_s)  # until the threads of the one before have stopped spinning
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.steps", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder of the results; may hold some of them")
    parser.add_argument("--contestants", nargs="+", metavar="NAME", default=list(SEGMENTERS), help=", ".join(CONTESTANTS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: JAX and PyTorch, no TensorFlow")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--turn-s", type=float, default=1.0, help="seconds of one turn, at least one step")
    parser.add_argument("--pause-s", type=float, default=0.25, help="seconds between two turns")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--alive", type=int, default=5, help="processes at a time: each keeps one to three gigabytes")
    parser.add_argument("--limit-s", type=float, default=900.0, help="seconds after which a contestant has failed")
    parser.add_argument("--force-bfloat16", action="store_true", help="also where the processor would emulate it")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: 96 pixels, two short rounds")
    parser.add_argument("--table", action="store_true", help="measure nothing, only write the tables")
    return parser


if __name__ == "__main__":
    main()
