"""One contestant in a process of its own: JSON lines come in on standard input, answers go out on standard output.

Commands: `{"do": "predict", "batch": 16, "steps": 3}` and the same with `train` time steps after one that is not timed;
`{"do": "restart"}` resets the peak memory; `{"do": "multiply", "size": 1536}` times a matrix product.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.machine import hold_to_cores, peak_memory_mb, restart_peak_memory

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.peers.learners import Learner

__all__ = ["main", "random_batch"]


def main() -> None:
    """Serve one contestant until standard input ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contestant", type=json.loads)
    parser.add_argument("--size", type=int, nargs=2, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    # Libraries print to standard output as they please: the answers keep the real one for themselves.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    start = time.perf_counter()
    hold_to_cores(options.threads)
    from benchmarks.peers.learners import build_learner

    size = tuple(options.size)
    learner = build_learner(Contestant.from_json(options.contestant), size, device=options.device)
    answer(
        {
            "load_s": time.perf_counter() - start,
            "parameters": learner.parameters,
            "forward_flops": learner.forward_flops,
            "versions": learner.versions,
        }
    )
    for line in sys.stdin:
        answer(_obey(json.loads(line), learner, size))


def _obey(command: dict[str, Any], learner: Learner, size: tuple[int, int]) -> dict[str, Any]:
    if command["do"] == "restart":
        restart_peak_memory()
        return {}
    if command["do"] == "multiply":
        return {"flops_s": 2 * command["size"] ** 3 / _best_of_three(_product(learner, command["size"]))}
    images, masks = random_batch(command["batch"], size)

    def run(steps: int) -> None:
        if command["do"] == "train":
            learner.train_steps(images, masks, steps)
        else:
            for _ in range(steps):
                learner.predict(images)

    start = time.perf_counter()
    run(1)  # the first of all compiles; later ones bring the data back into the processor's caches
    first_s = time.perf_counter() - start
    start = time.perf_counter()
    run(command["steps"])
    return {
        "first_s": first_s,
        "step_s": (time.perf_counter() - start) / max(1, command["steps"]),
        # On a card its own memory is what is short. Allocators count from their start: the larger case hides the smaller.
        "peak_mb": peak_memory_mb() if (card := learner.card_memory_mb()) is None else card,
    }


@functools.cache
def random_batch(count: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the same random pictures and masks, uint8, in every process."""
    import numpy as np

    generator = np.random.default_rng((count, *size))
    images = generator.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    return images, generator.integers(0, 2, (count, *size, 1), dtype=np.uint8)


_PRODUCTS: dict[int, Callable[[], object]] = {}


def _product(learner: Learner, size: int) -> Callable[[], object]:
    if size not in _PRODUCTS:
        _PRODUCTS[size] = learner.multiply(size)
    return _PRODUCTS[size]


def _best_of_three(run: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


if __name__ == "__main__":
    main()
