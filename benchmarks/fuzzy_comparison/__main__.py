"""The command: train and score every arm of every seed that is not done yet, then write the tables.

Run from the repository's root. Examples:

    python -m benchmarks.fuzzy_comparison --data ham10000 --data-2 isic2018_task1 --output comparison --seeds 0 1 2
    python -m benchmarks.fuzzy_comparison --data ham10000 --output comparison --only fuzzy-overlap --minutes 60
    python -m benchmarks.fuzzy_comparison --output comparison --table
    python -m benchmarks.fuzzy_comparison --data ham10000 --output tuning --part validation --tau-px 1.5 --only unet-fuzzy

Stop it at any time: finished arms stay, and the same command goes on. `--part validation` leaves the test part unread.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from benchmarks.fuzzy_comparison.arms import ARMS, Arm
from benchmarks.fuzzy_comparison.stages import Protocol, draw_some, run_folder, score, train
from benchmarks.fuzzy_comparison.table import write_tables
from dermaseg.data import Samples, Split, canvas, read_samples
from dermaseg.data.augment import AUGMENTATIONS
from dermaseg.errors import DermasegError
from dermaseg.precision import PRECISIONS, choose_precision
from dermaseg.run_data import draw_split
from dermaseg.runs import read_json, write_atomically, write_json

_JIT: dict[str, bool | Literal["auto"]] = {"auto": "auto", "on": True, "off": False}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _parser().parse_args(arguments)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # every arm is a new model, and each would warn of retracing
    try:
        if not options.table:
            if options.data is None:
                raise SystemExit("--data is needed to train and score; --table alone needs none.")
            _run(options)
        write_tables(options.output, ("test", "second", "validation"), resamples=options.resamples)
    except (DermasegError, ValueError) as error:
        raise SystemExit(str(error)) from None
    print(f"tables and reliability diagrams are in {options.output}", flush=True)


def _run(options: argparse.Namespace) -> None:
    arms = [Arm.parse(name) for name in options.arms] if options.arms else list(ARMS)
    samples = draw_some(read_samples(options.data).with_masks(), options.limit)
    _, split = draw_split(samples, "random", seed=options.split_seed, by_class=False)
    parts = split.apply(samples)
    protocol = Protocol(
        canvas=canvas(parts["train"], options.size),
        size=options.size,
        filters=tuple(options.filters),
        steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        augment=options.augment,
        tau_px=1.5 * options.size / 256 if options.tau_px is None else options.tau_px,
        precision=choose_precision(options.precision),
        jit_compile=_JIT[options.jit_compile],
        split=split.fingerprint,
    )
    _hold_to(protocol, split, options.output)
    scored = {options.part: parts[options.part]}
    if options.data_2 is not None and options.part == "test":
        scored["second"] = draw_some(_new(read_samples(options.data_2).with_masks(), samples), options.limit)
    start, longest = time.monotonic(), 0.0
    for seed in options.seeds:
        for arm in arms:
            folder = run_folder(options.output, arm, seed)
            if all((folder / f"{name}.json").is_file() for name in ("training", *scored)):
                print(f"{arm}, seed {seed}: done before", flush=True)
                continue
            began = time.monotonic()
            if options.minutes is not None and began - start + longest >= 60 * options.minutes:
                print(f"{arm}, seed {seed}: not begun, it would not end within {options.minutes:g} minutes", flush=True)
                return
            train(arm, seed, protocol, parts, folder, options.output / "cache")
            for name, part in scored.items():
                score(arm, seed, protocol, part, name, folder)
            gc.collect()  # a Keras model holds itself in circles
            longest = max(longest, time.monotonic() - began)


def _hold_to(protocol: Protocol, split: Split, output: Path) -> None:
    """Write the protocol and the split, or see that they are those of the results that are there."""
    path = output / "protocol.json"
    content = json.loads(json.dumps(dataclasses.asdict(protocol)))
    if path.is_file():
        saved = read_json(path)
        changed = [f"{key} was {saved.get(key)!r}, is {value!r}" for key, value in content.items() if saved.get(key) != value]
        if changed:
            raise SystemExit(f"{output} holds results of another protocol: {'; '.join(changed)}. Give another --output.")
        return
    write_json(path, content)
    write_atomically(output / "split.json", split.save)


def _new(second: Samples, first: Samples) -> Samples:
    """Keep the photographs of the second table whose name and lesion are not in the first."""
    names = set(first.ids)
    lesions = {sample.lesion_id for sample in first if sample.lesion_id is not None}
    kept = second.filter(lambda sample: sample.id not in names and sample.lesion_id not in lesions)
    if not len(kept):
        raise SystemExit(f"--data-2 {second.source} has no photograph that is not in --data. Give another data set.")
    return kept


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzzy_comparison", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of photographs with masks, in a layout of read_samples")
    parser.add_argument("--data-2", type=Path, help="a second folder, scored whole by the models trained on the first")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results; may hold some of this protocol")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of first weights, order and augmentation")
    parser.add_argument("--arms", "--only", nargs="+", metavar="NETWORK-LOSS", help=f"by default {' '.join(map(str, ARMS))}")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--size", type=int, default=128, help="side in pixels of the square of the training area")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument("--augment", choices=AUGMENTATIONS, default="medium")
    parser.add_argument("--tau-px", type=float, help="softness of fuzzified targets; by default 1.5 pixels at size 256")
    parser.add_argument("--filters", type=int, nargs="+", default=[16, 32, 64, 128, 256, 384])
    parser.add_argument("--precision", choices=PRECISIONS, default="auto")
    parser.add_argument("--jit-compile", choices=_JIT, default="auto")
    parser.add_argument("--split-seed", type=int, default=0, help="all seeds share one split, so that their scores pair up")
    parser.add_argument("--part", choices=("test", "validation"), default="test", help="what is scored; tune on validation")
    parser.add_argument("--limit", type=int, help="keep about so many photographs of each folder, to rehearse")
    parser.add_argument("--minutes", type=float, help="begin no arm that would not end within this time")
    parser.add_argument("--resamples", type=int, default=2000, help="of lesions, for the intervals")
    parser.add_argument("--table", action="store_true", help="train and score nothing, only write the tables")
    return parser


if __name__ == "__main__":
    main()
