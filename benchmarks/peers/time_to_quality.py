"""Seconds of training, on this machine, to a given Jaccard index: dermaseg beside its peers.

Run from the repository's root:

    python -m benchmarks.peers.time_to_quality --data ham10000 --output peers-quality --minutes 20 --seeds 0 1 2
    python -m benchmarks.peers.time_to_quality --data ham10000 --output quarter --minutes 5 --contestants ours
    python -m benchmarks.peers.time_to_quality --data ham10000 --output quarter --minutes 20 --contestants torch-plain
    python -m benchmarks.peers.time_to_quality --data ham10000 --output rehearsal --quick
    python -m benchmarks.peers.time_to_quality --output peers-quality --table

All learn from the same decoded pixels in the same order with the same augmentation, by the same loss and optimizer, from random
weights; one process each. With several `--learning-rates`, each is a run of its own: another rate may suit a peer better.
So is each of `--minutes`: the learning rate falls over the time given, so a network that is given four times as long is still
at a high rate where another has ended. To see how many times faster one is, compare plans: its quality after 5 minutes with
another's after 20.
One file a run: stop it at any time, the same command goes on with the runs that are missing. The test part stays unread.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

from benchmarks.peers.contestants import Contestant, choose
from benchmarks.peers.fleet import Failed, run_module
from benchmarks.peers.lesson import Lesson, lesson_json, prepare
from benchmarks.peers.machine import cores, has_bfloat16
from benchmarks.peers.quality_report import write_report
from dermaseg.data.augment import AUGMENTATIONS
from dermaseg.errors import DermasegError
from dermaseg.runs import read_json, write_json

__all__ = ["TARGETS", "main"]

TARGETS = (0.85, 0.88)
_DEFAULT = ("ours", "torch-plain", "monai-unet", "smp-resnet18")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.minutes, options.looks, options.size, options.batch_size = [0.05], 3, 32, 4
        options.limit, options.validation_limit = 24, 8
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.table:
        if options.data is None:
            raise SystemExit("--data is needed to train; --table alone needs none.")
        try:
            _run(choose(options.contestants or _default_names()), options)
        except (DermasegError, ValueError) as error:
            raise SystemExit(str(error)) from None
    failures = options.output / "failures.json"
    write_report(options.output, options.targets, read_json(failures) if failures.is_file() else {})
    print(f"time_to_quality.csv, .md and .png are in {options.output}")


def _default_names() -> list[str]:
    precisions = ("", "-bfloat16") if has_bfloat16() else ("",)
    return [f"{name}{precision}" for name in _DEFAULT for precision in precisions]


def _run(chosen: Sequence[Contestant], options: argparse.Namespace) -> None:
    output: Path = options.output
    common = {
        "steps": options.steps,
        "size": options.size,
        "batch_size": options.batch_size,
        "weight_decay": options.weight_decay,
        "augment": options.augment,
    }
    limits = {"limit": options.limit, "validation_limit": options.validation_limit}
    protocol = {**common, "looks": options.looks, "threads": options.threads}
    prepare(options.data, output, [options.size], protocol=protocol, **limits)
    failures = read_json(output / "failures.json") if (output / "failures.json").is_file() else {}
    for seed in options.seeds:
        # Another order for each seed: what is cut short or disturbed does not always fall on the same contestant.
        shift = seed % len(chosen)
        for one in [*chosen[shift:], *chosen[:shift]]:
            for minutes, rate in itertools.product(options.minutes, options.learning_rates):
                seconds = 60 * minutes
                lesson = Lesson(**common, seconds=seconds, every_s=seconds / options.looks, learning_rate=rate, seed=seed)
                name = f"{one.name}-minutes{minutes:g}-rate{rate:g}-seed{seed}"
                failures.pop(name, None)
                try:
                    train_one(one, lesson, output, name=name, shown=one.name, threads=options.threads)
                except Failed as error:
                    failures[name] = str(error)
                    print(f"{name}: {error}", flush=True)
    write_json(output / "failures.json", failures)


def train_one(one: Contestant, lesson: Lesson, output: Path, *, name: str, shown: str, threads: int) -> None:
    """Train one contestant in a process of its own, unless its result is there; `runs/<name>.json` is the result.

    Raises:
        Failed: If the process fails; `logs/<name>.log` has all that it said.
    """
    result = output / "runs" / f"{name}.json"
    if result.is_file():
        print(f"{name}: done before", flush=True)
        return
    task, log = output / "tasks" / f"{name}.json", output / "logs" / f"{name}.log"
    folder = {"folder": str(output.absolute()), "name": shown}
    write_json(task, {"contestant": one.to_json(), "lesson": lesson_json(lesson), **folder})
    log.parent.mkdir(exist_ok=True)
    print(f"{name}: training for {lesson.seconds:g} s; see {log}", flush=True)
    arguments = [str(task.absolute()), str(result.absolute()), "--threads", str(threads)]
    run_module("benchmarks.peers.learning", arguments, threads=threads, log=log)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers.time_to_quality",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, help="folder of photographs with masks, in a layout of read_samples")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results; may hold some of this protocol")
    parser.add_argument("--contestants", nargs="+", metavar="NAME", help=f"by default {', '.join(_DEFAULT)}, and in bfloat16")
    parser.add_argument("--minutes", type=float, nargs="+", default=[20.0], help="of training, each a run of its own")
    parser.add_argument("--steps", type=int, help="plan the learning rate over steps; by default over the minutes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--targets", type=float, nargs="+", default=list(TARGETS))
    parser.add_argument("--looks", type=int, default=12, help="at the validation part during a training")
    parser.add_argument("--size", type=int, default=128, help="side in pixels of the square of the training area")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[2e-3])
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument("--augment", choices=AUGMENTATIONS, default="light", help="by default that of `dermaseg train`")
    parser.add_argument("--limit", type=int, help="keep about so many training photographs")
    parser.add_argument("--validation-limit", type=int, default=400, help="keep about so many validation photographs")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--quick", action="store_true", help="a rehearsal on 24 photographs of 32 pixels, three seconds each")
    parser.add_argument("--table", action="store_true", help="train nothing, only write the tables")
    return parser


if __name__ == "__main__":
    main()
