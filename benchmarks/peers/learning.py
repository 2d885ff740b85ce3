"""Train one contestant by the clock, in a process of its own: `python -m benchmarks.peers.learning task.json result.json`.

The clock runs while batches are waited for and steps are made, tracing and compiling included. It stands still while the
validation part is looked at.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.learners import Learner, build_learner
from benchmarks.peers.lesson import Lesson, Material, learning_rate, lesson_json, open_material
from benchmarks.peers.machine import cores, describe, hold_to_cores, peak_memory_mb, restart_peak_memory
from dermaseg.runs import read_json, write_json

__all__ = ["jaccard_by_photograph", "learn", "main"]

_LOOK_BATCH = 32


def main() -> None:
    """Read the task, train, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    hold_to_cores(options.threads)
    task = read_json(options.task)
    contestant, lesson = Contestant.from_json(task["contestant"]), Lesson(**task["lesson"])
    material = open_material(Path(task["folder"]), lesson.size)
    learner = build_learner(
        contestant,
        material.images.shape[1:3],
        seed=lesson.seed,
        learning_rate=lesson.learning_rate,
        weight_decay=lesson.weight_decay,
    )
    machine = describe()  # the load before training: afterwards it would be that of the training itself
    found = learn(learner, material, lesson, name=contestant.name)
    write_json(
        options.result,
        {
            "name": task.get("name", contestant.name),
            "contestant": contestant.to_json(),
            "lesson": lesson_json(lesson),
            "machine": machine,
            "threads": options.threads,
            "parameters": learner.parameters,
            "forward_flops": learner.forward_flops,
            "versions": learner.versions,
            **found,
        },
    )


def learn(learner: Learner, material: Material, lesson: Lesson, *, name: str) -> dict[str, Any]:
    """Train until the seconds or the steps are used up, looking at the validation part at fixed intervals.

    Returns:
        `history`, one row a look (`train_s`, `steps`, `loss`, `jaccard`); the last look's Jaccard index of each photograph;
        seconds of the first step; peak memory.
    """
    restart_peak_memory()
    history: list[dict[str, Any]] = []
    scores = np.zeros(0)
    spent_s, first_s, steps, next_look_s = 0.0, 0.0, 0, lesson.every_s
    losses: list[float] = []
    with material.batches(lesson) as take:
        while True:
            start = time.perf_counter()
            learner.set_learning_rate(learning_rate(lesson, spent_s, steps))
            losses.append(learner.train(*take()))
            spent_s += time.perf_counter() - start
            steps += 1
            first_s = first_s or spent_s
            diverged = not math.isfinite(losses[-1])
            ended = diverged or spent_s >= lesson.seconds or steps == lesson.steps
            if ended or spent_s >= next_look_s:
                scores = jaccard_by_photograph(learner, material)
                row = {
                    "train_s": round(spent_s, 3),
                    "steps": steps,
                    "loss": None if diverged else round(float(np.mean(losses)), 5),
                    "jaccard": round(float(scores.mean()), 5),
                }
                history.append(row)
                print(f"{name}: {row}", flush=True)
                losses.clear()
                next_look_s = (spent_s // lesson.every_s + 1) * lesson.every_s
            if ended:
                break
    return {
        "diverged": diverged,
        "first_step_s": round(first_s, 3),
        "peak_mb": peak_memory_mb(),
        "history": history,
        "last_jaccards": [round(float(score), 5) for score in scores],
        "lesions": material.groups.tolist(),
    }


def jaccard_by_photograph(learner: Learner, material: Material) -> np.ndarray:
    """Return the hard Jaccard index of each validation photograph at the size of its mask.

    Probabilities are brought to that size bilinearly before the threshold, for everyone as `dermaseg.Predictor` does it. The
    last batch is filled up: a network compiled for one size of batch then meets no other.
    """
    count = len(material.images)
    height, width = material.masks.shape[1:]
    scores = []
    for first in range(0, count, _LOOK_BATCH):
        positions = np.minimum(np.arange(first, first + _LOOK_BATCH), count - 1)
        probabilities = learner.predict(material.images[positions])[: count - first]
        for probability, true in zip(probabilities[..., 0], material.masks[first : first + _LOOK_BATCH], strict=True):
            full = Image.fromarray(np.ascontiguousarray(probability, np.float32))
            mask = np.asarray(full.resize((width, height), Image.Resampling.BILINEAR)) > 0.5
            union = np.count_nonzero(mask | (true > 0))
            scores.append(np.count_nonzero(mask & (true > 0)) / union if union else 1.0)
    return np.array(scores)


if __name__ == "__main__":
    main()
