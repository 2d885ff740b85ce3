"""What a preset is worth as a start: fine-tuning against training from scratch on few photographs.

Run from the repository's root:

    python -m benchmarks.fine_tuning --data isic2018_task1 --output fine-tuning
    python -m benchmarks.fine_tuning --data isic2018_task1 --output fine-tuning --sizes 50 200 --seeds 0 --steps 300
    python -m benchmarks.fine_tuning --data isic2018_task1 --output rehearsal --quick
    python -m benchmarks.fine_tuning --output fine-tuning --table

The data are split once, whole lesions and copies of one picture together. A seed draws the training photographs of each size,
the smaller sets within the larger, and is the seed of the training too. For each size and seed two networks of one
architecture see the same photographs in the same order for the same number of steps, choose their best epoch on the same
validation part and are scored on the same test part at each photograph's own size; they differ in their first weights, and in
the learning rate, which each has from its own option. The preset as it comes, trained no further, stands beside them. The
validation part is larger than the smallest sets: with few photographs of your own the choice of the epoch is less sure.

The preset must know nothing of the data: `unet-ham10000-128` has learned from HAM10000, which is refused with it; ISIC 2018
Task 1 shares no photograph with that. Each run is a folder and a file of its own: stop at any time, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.peers.lesson import hold_to
from dermaseg.data import Samples, Split, audit_samples, group_samples, read_samples, split_samples
from dermaseg.data.augment import AUGMENTATIONS
from dermaseg.errors import DermasegError
from dermaseg.metrics import bootstrap_interval, paired_bootstrap
from dermaseg.pretrained import find_preset
from dermaseg.runs import read_json, write_atomically, write_json

__all__ = ["check_unseen", "looks_of", "main", "size_rows", "some_of", "steps_to"]

SCRATCH, TUNED, PRESET = "scratch", "tuned", "preset"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.sizes, options.seeds, options.steps, options.size, options.batch_size = [8], [0], 2, 32, 4
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.table:
        if options.data is None:
            raise SystemExit("--data is needed to train; --table alone needs none.")
        try:
            _run(options)
        except (DermasegError, ValueError) as error:
            raise SystemExit(str(error)) from None
    text = "\n".join(_page(options.output)) + "\n"
    write_atomically(options.output / "fine_tuning.md", lambda path: path.write_text(text, encoding="utf-8"))
    print(text)


def _run(options: argparse.Namespace) -> None:
    output: Path = options.output
    settings = {name: getattr(options, name) for name in ("size", "batch_size", "steps", "augment", "precision")}
    rates = {SCRATCH: options.learning_rate, TUNED: options.start_rate}
    samples = read_samples(options.data).with_masks()
    check_unseen(samples, find_preset(options.start).card)
    protocol = {"data": samples.source, "photographs": len(samples), "start": options.start, **settings, "rates": rates}
    hold_to(output / "protocol.json", protocol)
    split, groups = _split(samples, output)
    parts = split.apply(samples)
    most = len(parts["train"])
    if max(options.sizes) > most:
        raise SystemExit(f"--sizes {max(options.sizes)}: the training part has {most} photographs.")
    if not (output / f"{PRESET}.json").is_file():
        write_json(output / f"{PRESET}.json", {"arm": PRESET, **_scores(options.start, parts["test"], groups)})
    for size in options.sizes:
        for seed in options.seeds:
            for arm in (SCRATCH, TUNED):
                file = output / "results" / f"{arm}-{size}-seed{seed}.json"
                if not file.is_file():
                    print(f"{arm}, {size} photographs, seed {seed}", flush=True)
                    chosen = some_of(parts["train"], size, groups=groups, seed=seed)
                    own = Split({**split.parts, "train": chosen.ids}, seed=seed, group=split.group)
                    start = options.start if arm == TUNED else None
                    found = _train_one(
                        output / "runs" / file.stem, samples, own, start, groups, {**settings, "learning_rate": rates[arm]}
                    )
                    write_json(file, {"arm": arm, "size": size, "seed": seed, **found})


def check_unseen(samples: Samples, card: Mapping[str, Any]) -> None:
    """See that a preset has not learned from this data set.

    Raises:
        SystemExit: If its card names it.
    """
    is_of = {
        "HAM10000": any((sample.lesion_id or "").startswith("HAM_") for sample in samples),
        "ISIC 2018": samples.source.startswith("ISIC 2018"),
    }
    for name, of_it in is_of.items():
        if of_it and name in card["data"]:
            raise SystemExit(f"the preset has learned from {name}. Give data that it has not seen, or another --start.")
    if card["task"] != "segment":
        raise SystemExit(f"--start: a preset of the task segment is needed, this one is of {card['task']}.")


def _split(samples: Samples, output: Path) -> tuple[Split, dict[str, int]]:
    """Split the photographs once and for all; return also the group of each id: what may not be in two parts."""
    files = output / "split.json", output / "groups.json"
    if not all(file.is_file() for file in files):
        duplicates = audit_samples(samples).duplicates
        numbers = group_samples(samples, duplicates).tolist()
        split_samples(samples, seed=0, duplicates=duplicates).save(files[0])
        write_json(files[1], dict(zip(samples.ids, numbers, strict=True)))
    return Split.load(files[0]), read_json(files[1])


def some_of(samples: Samples, count: int, *, groups: Mapping[str, int], seed: int) -> Samples:
    """Draw so many photographs, group after group in an order of the seed's: a smaller draw lies within a larger one.

    Args:
        samples: The training part.
        count: How many; the last group may be cut.
        groups: The group of each id.
        seed: Of the order.
    """
    members: dict[int, list[str]] = {}
    for key in sorted(samples.ids):
        members.setdefault(groups[key], []).append(key)
    order = np.random.default_rng(seed).permutation(len(members))
    names = list(members)
    return samples.select([key for index in order for key in members[names[index]]][:count])


def _train_one(
    folder: Path, samples: Samples, split: Split, start: str | None, groups: Mapping[str, int], settings: Mapping[str, Any]
) -> dict[str, Any]:
    from dermaseg.runs import RunFolder
    from dermaseg.training import resume, train

    if (folder / "settings.json").is_file():
        run = resume(folder)
    else:
        # As many passes as the steps take: equal steps, however few the photographs.
        run = train(
            "segment", samples, folder, split=split, start=start, seed=split.seed, max_epochs=settings["steps"], **settings
        )
    count, batch_size = len(split.parts["train"]), settings["batch_size"]
    looks = looks_of(RunFolder(run.path).history.read_text(encoding="utf-8"), steps_an_epoch=max(1, count // batch_size))
    return {"looks": looks, **_scores(run.path, split.apply(samples)["test"], groups)}


def looks_of(history: str, *, steps_an_epoch: int) -> list[list[float]]:
    """Return `[steps, validation Jaccard]` of each look, from the text of a run's history."""
    head, *rows = (line.split(",") for line in history.splitlines())
    epoch, jaccard = head.index("epoch"), head.index("val_jaccard")
    return [[int(row[epoch]) * steps_an_epoch, float(row[jaccard])] for row in rows if row[jaccard]]


def _scores(model: str | Path, test: Samples, groups: Mapping[str, int]) -> dict[str, Any]:
    from dermaseg.evaluation import evaluate

    rows = evaluate(model, test, subgroups=()).rows
    return {"jaccards": [row["jaccard"] for row in rows], "groups": [groups[row["id"]] for row in rows]}


def steps_to(looks: Sequence[Sequence[float]], jaccard: float) -> float | None:
    """Return the steps at the first look that reaches a Jaccard index, or None where none does."""
    return next((steps for steps, value in looks if value >= jaccard), None)


def size_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each number of training photographs, over the seeds that both arms have.

    `difference` is the Jaccard index of the fine-tuned network less that of the one from scratch, on the same test photographs
    and averaged over the seeds, with a 95 % bootstrap over lesions. `sooner` is the median over the seeds of the steps at which
    the fine-tuned network is first as good on the validation part as the other ever was, None where it was not in most.
    """
    found = {(run["arm"], run["size"], run["seed"]): run for run in runs}
    rows = []
    for size in sorted({run["size"] for run in runs}):
        seeds = sorted(seed for arm, own, seed in found if arm == SCRATCH and own == size and (TUNED, size, seed) in found)
        if not seeds:
            continue
        arms = {arm: [found[arm, size, seed] for seed in seeds] for arm in (SCRATCH, TUNED)}
        means = {arm: [fmean(run["jaccards"]) for run in own] for arm, own in arms.items()}
        scores = [np.mean([run["jaccards"] for run in arms[arm]], axis=0) for arm in (TUNED, SCRATCH)]
        first = [
            steps_to(tuned["looks"], max(value for _, value in scratch["looks"]))
            for scratch, tuned in zip(arms[SCRATCH], arms[TUNED], strict=True)
        ]
        middle = median(np.inf if steps is None else steps for steps in first)
        rows.append(
            {
                "size": size,
                "seeds": len(seeds),
                "steps": arms[SCRATCH][0]["looks"][-1][0],  # in whole passes, so not always just what was asked for
                **means,
                "difference": paired_bootstrap(*scores, groups=np.asarray(arms[SCRATCH][0]["groups"])),
                "sooner": float(middle) if np.isfinite(middle) else None,
            }
        )
    return rows


def _page(output: Path) -> list[str]:
    runs = [read_json(file) for file in sorted((output / "results").glob("*.json"))]
    lines = ["# Fine-tuning against training from scratch", ""]
    rows = size_rows(runs)
    if not rows:
        return [*lines, "No size has finished with both starts yet."]
    protocol, preset = read_json(output / "protocol.json"), read_json(output / f"{PRESET}.json")
    untouched = bootstrap_interval(np.array(preset["jaccards"]), groups=np.array(preset["groups"]))
    lines += [
        f"- data: {protocol['data']}; scored on {untouched.count} photographs in {untouched.groups} groups (lesions where they "
        "are known, copies of one picture)",
        f"- each: {protocol['steps']} steps of at most {protocol['batch_size']} at {protocol['size']} px, augmentation "
        f"{protocol['augment']}; learning rate {protocol['rates'][SCRATCH]:g} from scratch, {protocol['rates'][TUNED]:g} from "
        f"`{protocol['start']}`",
        f"- `{protocol['start']}` as it comes, trained no further: {untouched}",
        "",
        "Jaccard: mean over the test photographs, then over the seeds (the lowest to the highest). Difference: on the same",
        "photographs and seeds, with a 95 % bootstrap interval over the groups. Sooner: steps until the fine-tuned network is",
        "as good on the validation part as the other at its best, median of the seeds.",
        "",
        "| training photographs | seeds | from scratch | fine-tuned | difference | sooner: steps |",
        "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        difference = row["difference"]
        cells = [
            f"{row['size']:,}",
            str(row["seeds"]),
            *(_spread(row[arm]) for arm in (SCRATCH, TUNED)),
            f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]",
            "not reached" if row["sooner"] is None else f"{row['sooner']:.0f} of {row['steps']:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(values: Sequence[float]) -> str:
    spread = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{fmean(values):.3f}{spread}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fine_tuning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of photographs with masks that the preset has not seen")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results; may hold some of this protocol")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000], help="numbers of training photographs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=600, help="of every training")
    parser.add_argument("--start", default="unet-ham10000-128", help="preset of the task segment (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="from scratch (default: %(default)s)")
    parser.add_argument("--start-rate", type=float, default=5e-4, help="from the preset (default: %(default)s)")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--augment", choices=AUGMENTATIONS, default="medium")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--quick", action="store_true", help="a rehearsal: 8 photographs, two steps of 4 at 32 px")
    parser.add_argument("--table", action="store_true", help="train nothing, only write the table")
    return parser


if __name__ == "__main__":
    main()
