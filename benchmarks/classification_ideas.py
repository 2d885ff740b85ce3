"""Which ideas make a classifier better, and which do not: each against one baseline, at equal photographs seen.

    python -m benchmarks.classification_ideas --data ham10000 --output ideas --seeds 0 1
    python -m benchmarks.classification_ideas --data ham10000 --output ideas --arms cutmix masks --steps 1600
    python -m benchmarks.classification_ideas --output ideas --table

Each arm of `ARMS` is `dermaseg.train("classify-7", ...)` with one thing changed. All see as many photographs, of one split by
lesion; they are scored on its validation part, which also chooses the epoch, for every arm alike; the test part stays unread.
Differences are paired by photograph, averaged over the seeds, with 95 % bootstrap intervals over lesions. Finished runs are not
repeated; an interrupted one is resumed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.lesson import hold_to
from dermaseg.data import group_samples, read_samples, split_samples
from dermaseg.metrics import Interval, balanced_accuracy, bootstrap_statistic, macro_auc
from dermaseg.runs import RunFolder, read_json, write_atomically, write_json

BASELINE = "baseline"
ARMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    BASELINE: ("the defaults of `classify-7`", {}),
    "size": ("one and a half times the pixels a side", {"size": 1.5}),  # of --size
    "medium": ("medium augmentation instead of light", {"augment": "medium"}),
    "strong": ("strong augmentation instead of light", {"augment": "strong"}),
    "plain-loss": ("cross-entropy without logit adjustment", {"imbalance": "none"}),
    "focal": ("class-balanced focal loss", {"imbalance": "focal"}),
    "sampling": ("rare classes drawn more often", {"imbalance": "sampling"}),
    "masks": ("start from `unet-ham10000-128`, trained on the masks of the same training part", {"start": "unet-ham10000-128"}),
    "decay": ("weight decay 0.05 instead of 0.001", {"weight_decay": 0.05}),
    "ema": ("averaged weights, decay 0.99", {"ema": 0.99}),  # a hundred steps: comparisons are short
    "mixup": ("mixup", {"mix": "mixup"}),
    "cutmix": ("CutMix", {"mix": "cutmix"}),
}
"""What each arm changes, in words and as arguments of `dermaseg.train`; a size is a factor of the baseline's."""
CAPTION = (
    "**Bold**: the interval excludes 0 and every one of two or more seeds has the same sign. Intervals are not corrected for "
    "their number and do not cover the variation between random starts."
)
"""What the tables of classifiers say below."""
FIGURES: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": lambda labels, probabilities: float((probabilities.argmax(axis=1) == labels).mean()),
    "balanced accuracy": balanced_accuracy,
    "macro AUC": macro_auc,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train what is not trained, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--steps", type=int, default=1600)
    parser.add_argument("--size", type=int, default=128, help="side of the photographs in pixels (default: %(default)s)")
    parser.add_argument("--task", default="classify-7")
    parser.add_argument("--no-baseline", action="store_true", help="train the arms alone: another process trains the baseline")
    train_and_tell(parser, arguments, _run, table, "ideas.md")


def train_and_tell(
    parser: argparse.ArgumentParser,
    arguments: Sequence[str] | None,
    run: Callable[[argparse.Namespace], None],
    table: Callable[[Path], str],
    file: str,
) -> None:
    """Read what every comparison of classifiers is told, train what is not trained, then write and print the table."""
    parser.add_argument("--data", type=Path, help="folder of HAM10000, or another one with its seven classes")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--table", action="store_true", help="train nothing, only write the table")
    options = parser.parse_args(arguments)
    if not options.table:
        if options.data is None:
            parser.error("--data is needed to train; --table alone needs none")
        run(options)
    text = table(options.output)
    write_atomically(options.output / file, lambda path: path.write_text(text, encoding="utf-8"))
    print(text)


def _run(options: argparse.Namespace) -> None:
    from dermaseg.tasks import get_task

    samples = get_task(options.task).prepare(read_samples(options.data))
    split = split_samples(samples, seed=0)
    protocol = {"task": options.task, "size": options.size, "steps": options.steps, "split": split.fingerprint}
    hold_to(options.output / "protocol.json", protocol)
    validation = split.apply(samples)["validation"]
    groups = group_samples(validation).tolist()
    for seed in options.seeds:
        others = [arm for arm in dict.fromkeys(options.arms) if arm != BASELINE]
        for arm in others if options.no_baseline else [BASELINE, *others]:
            file = options.output / f"{arm}-{seed}.json"
            if not file.is_file():
                print(f"{arm}, seed {seed}", flush=True)
                run = _trained(options, samples, split, arm, seed)
                write_json(file, {"arm": arm, "seed": seed, "groups": groups, **scores(run, validation)})


def _trained(options: argparse.Namespace, samples: Any, split: Any, arm: str, seed: int) -> RunFolder:
    from dermaseg.training import resume, train

    folder = options.output / "runs" / f"{arm}-{seed}"
    if (folder / "settings.json").is_file():
        return resume(folder)
    change = dict(ARMS[arm][1])
    settings = {"size": round(change.pop("size", 1) * options.size), "steps": options.steps, **change}
    return train(options.task, samples, folder, split=split, seed=seed, **settings)


def scores(run: RunFolder, samples: Any) -> dict[str, Any]:
    """Return the true classes and the calibrated probabilities of photographs, by the finished model."""
    from dermaseg.prediction import Predictor

    predictor = Predictor(run.path)
    labels = samples.with_class_names(predictor.class_names).labels.tolist()
    predicted = predictor.predict(sample.image for sample in samples)
    return {"labels": labels, "probabilities": [[round(p, 5) for p in one.classes.values()] for one in predicted]}


def table(output: Path) -> str:
    """Return the table of all finished runs as Markdown."""
    found = {(run["arm"], run["seed"]): run for run in map(read_json, sorted(output.glob("*-[0-9]*.json")))}
    lines = [
        "| arm | seeds | " + " | ".join(f"{name} | difference" for name in FIGURES) + " |",
        "| --- | --- |" + " --- | --- |" * len(FIGURES),
    ]
    for arm, (words, _) in ARMS.items():
        seeds = sorted(seed for own, seed in found if own == arm and (BASELINE, seed) in found)
        if not seeds:
            continue
        cells = []
        for figure in FIGURES.values():
            cells.append(str(mean_figure(figure, [found[arm, seed] for seed in seeds])))
            beside = [found[BASELINE, seed] for seed in seeds]
            cells.append("" if arm == BASELINE else difference_cell(figure, [found[arm, seed] for seed in seeds], beside))
        lines.append(f"| {words} | {len(seeds)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", CAPTION, ""])


def difference_cell(
    figure: Callable[[np.ndarray, np.ndarray], float], runs: Sequence[Mapping[str, Any]], beside: Sequence[Mapping[str, Any]]
) -> str:
    """Return a mean difference with its interval, bold as `CAPTION` says."""
    interval = mean_figure(figure, runs, beside)
    labels = np.array(runs[0]["labels"])
    values = [[figure(labels, np.array(run["probabilities"])) for run in each] for each in (runs, beside)]
    by_seed = [own - other for own, other in zip(*values, strict=True)]
    up, down = (interval.low > 0 and min(by_seed) > 0), (interval.high < 0 and max(by_seed) < 0)
    return f"**{interval}**" if len(by_seed) > 1 and (up or down) else str(interval)


def mean_figure(
    figure: Callable[[np.ndarray, np.ndarray], float],
    runs: Sequence[Mapping[str, Any]],
    beside: Sequence[Mapping[str, Any]] = (),
) -> Interval:
    """Return a figure's mean over runs, or its mean difference to others, with an interval over lesions."""
    labels, groups = np.array(runs[0]["labels"]), np.array(runs[0]["groups"])
    own, others = ([np.array(run["probabilities"]) for run in each] for each in (runs, beside))

    def statistic(rows: np.ndarray) -> float:
        means = [
            np.mean([figure(labels[rows], each[rows]) for each in several]) if several else 0.0 for several in (own, others)
        ]
        return float(means[0] - means[1])

    return bootstrap_statistic(statistic, len(labels), groups=groups)


if __name__ == "__main__":
    main()
