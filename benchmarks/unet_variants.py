"""Why the default U-Net is as it is: variants trained for the same seconds on the same photographs.

Run from the repository's root:

    python -m benchmarks.unet_variants --data ham10000 --output unet-variants --minutes 10 --seeds 0 1 2
    python -m benchmarks.unet_variants --data ham10000 --output unet-variants --minutes 10 --variants default plain
    python -m benchmarks.unet_variants --data ham10000 --output rehearsal --quick
    python -m benchmarks.unet_variants --output unet-variants --table

A smaller network makes more steps in a minute, so equal seconds are the comparison that a user meets. All see the same order
of photographs and the same augmentation, with the settings of `dermaseg.train`, the learning rate planned over the seconds.
They are scored on validation photographs of other lesions, at 256 pixels whatever size the network works at; the test part
stays unread.
Each run is a process and a file of its own: stop at any time, the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.peers.contestants import DEFAULT_FILTERS, PLAIN_FILTERS, Contestant
from benchmarks.peers.fleet import Failed
from benchmarks.peers.lesson import Lesson, prepare
from benchmarks.peers.machine import cores, has_bfloat16
from benchmarks.peers.quality_report import difference_cell, difference_to, draw_curves, read_runs
from benchmarks.peers.time_to_quality import train_one
from dermaseg.data.augment import AUGMENTATIONS
from dermaseg.errors import DermasegError
from dermaseg.runs import read_json, write_atomically, write_csv, write_json

__all__ = ["VARIANTS", "Variant", "main", "variant_rows"]

CONTROL = "default"


@dataclass(frozen=True, slots=True)
class Variant:
    """A U-Net of `dermaseg.models.build_unet` and the size that it works at.

    Args:
        label: What the table calls it.
        filters: Channels a stage.
        stem_stride: Stride of the first convolution.
        size: Side in pixels of the square of the training area.
    """

    label: str
    filters: tuple[int, ...] = DEFAULT_FILTERS
    stem_stride: int = 2
    size: int = 128


# In the order of what they tell: a comparison that is cut short still has its centre.
VARIANTS: Mapping[str, Variant] = {
    "default": Variant("default: stem of stride 2, six stages"),
    "plain": Variant("plain: full resolution, five stages", PLAIN_FILTERS, 1),
    "default-192": Variant("default at 192 px", size=192),
    "default-96": Variant("default at 96 px", size=96),
    "shallow": Variant("stem of stride 2, five stages", PLAIN_FILTERS),
    "plain-96": Variant("plain at 96 px", PLAIN_FILTERS, 1, 96),
    "narrow": Variant("default, half as wide", (8, 16, 32, 64, 128, 192)),
    "wide": Variant("default, half as wide again", (24, 48, 96, 192, 384, 576)),
    "plain-deep": Variant("full resolution, six stages", DEFAULT_FILTERS, 1),
    "plain-192": Variant("plain at 192 px", PLAIN_FILTERS, 1, 192),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.minutes, options.every_s, options.batch_size, options.limit, options.validation_limit = 0.05, 1.0, 4, 24, 8
    options.output.mkdir(parents=True, exist_ok=True)
    if not options.table:
        if options.data is None:
            raise SystemExit("--data is needed to train; --table alone needs none.")
        try:
            _run(options)
        except (DermasegError, ValueError) as error:
            raise SystemExit(str(error)) from None
    failures = options.output / "failures.json"
    write_tables(options.output, read_json(failures) if failures.is_file() else {})
    print(f"unet_variants.csv, .md and .png are in {options.output}")


def _run(options: argparse.Namespace) -> None:
    output: Path = options.output
    precision = options.precision
    if precision == "auto":  # as `dermaseg.train` chooses on a CPU
        precision = "bfloat16" if has_bfloat16() else "float32"
    common = {
        "seconds": 60 * options.minutes,
        "steps": None,
        "every_s": options.every_s,
        "batch_size": options.batch_size,
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "augment": options.augment,
    }
    limits = {"limit": options.limit, "validation_limit": options.validation_limit}
    protocol = {**common, "precision": precision, "threads": options.threads}
    chosen = {name: VARIANTS[name] for name in options.variants}
    prepare(options.data, output, sorted({variant.size for variant in chosen.values()}), protocol=protocol, **limits)
    failures = read_json(output / "failures.json") if (output / "failures.json").is_file() else {}
    for seed in options.seeds:
        for name, variant in chosen.items():
            contestant = Contestant(
                name=name,
                label=variant.label,
                framework="tensorflow",
                options={"filters": variant.filters, "stem_stride": variant.stem_stride},
                precision=precision,
            )
            lesson = Lesson(**common, size=variant.size, seed=seed)
            failures.pop(f"{name}-seed{seed}", None)
            try:
                train_one(contestant, lesson, output, name=f"{name}-seed{seed}", shown=name, threads=options.threads)
            except Failed as error:
                failures[f"{name}-seed{seed}"] = str(error)
                print(f"{name}, seed {seed}: {error}", flush=True)
    write_json(output / "failures.json", failures)


def variant_rows(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row a variant over its seeds, the best first.

    `difference` is its Jaccard index less the default's at the end of training, on the same photographs and seeds; its ends
    are a 95 % bootstrap over lesions, of scores averaged over the seeds that both have. The seeds' own spread stands beside.
    """
    by_variant: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        by_variant.setdefault(run["name"], []).append(run)
    control = by_variant.get(CONTROL, [])
    rows = []
    for name, same in by_variant.items():
        last = [run["history"][-1] for run in same]
        ends = [end["jaccard"] for end in last]
        row: dict[str, Any] = {
            "variant": name,
            "label": same[0]["contestant"]["label"],
            "filters": " ".join(map(str, same[0]["contestant"]["options"]["filters"])),
            "stem_stride": same[0]["contestant"]["options"]["stem_stride"],
            "size_px": same[0]["lesson"]["size"],
            "parameters": same[0]["parameters"],
            "forward_gflop": round(same[0]["forward_flops"] / 1e9, 3),
            "seeds": len(same),
            "diverged": sum(run["diverged"] for run in same),
            "steps": round(fmean(end["steps"] for end in last)),
            "jaccard": round(fmean(ends), 4),
            "jaccard_low": min(ends),
            "jaccard_high": max(ends),
            "best_jaccard": round(fmean(max(look["jaccard"] for look in run["history"]) for run in same), 4),
            "peak_mb": round(max(run["peak_mb"] for run in same)) if all(run["peak_mb"] for run in same) else None,
        }
        if name != CONTROL:
            row |= difference_to(same, control)
        rows.append(row)
    return sorted(rows, key=lambda row: -row["jaccard"])


def write_tables(output: Path, failures: Mapping[str, str]) -> None:
    """Write `unet_variants.csv`, `unet_variants.md` and `unet_variants.png` from the finished runs."""
    runs = read_runs(output)
    rows = variant_rows(runs)
    write_csv(output / "unet_variants.csv", rows)
    text = "\n".join(_page(rows, runs, failures)) + "\n"
    write_atomically(output / "unet_variants.md", lambda path: path.write_text(text, encoding="utf-8"))
    if runs:
        draw_curves(runs, (), output / "unet_variants.png")


def _page(rows: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]], failures: Mapping[str, str]) -> list[str]:
    lines = ["# U-Nets at equal seconds of training", ""]
    if not runs:
        return [*lines, "No run has finished yet."]
    lesson, machine = runs[0]["lesson"], runs[0]["machine"]
    lines += [
        f"- machine: {machine['processor']}, {', '.join(machine['vector instructions'])}; {runs[0]['threads']} threads",
        f"- each: {lesson['seconds']:g} s of training, batches of {lesson['batch_size']}, {runs[0]['contestant']['precision']}",
        f"- scored at 256 px at the end of training, on {len(runs[0]['last_jaccards'])} photographs of",
        f"  {len(set(runs[0]['lesions']))} lesions outside the training part",
        "",
        "Jaccard: mean over the seeds (the lowest to the highest). Difference: to the default on the same photographs and",
        "seeds, with a 95 % bootstrap interval over lesions; it does not cover the variation between random starts.",
        "",
        "| network | size px | parameters | GFLOP/image | seeds | steps | Jaccard | difference to the default | memory MB |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        spread = f" ({row['jaccard_low']:.4f} to {row['jaccard_high']:.4f})" if row["seeds"] > 1 else ""
        label = f"**{row['label']}**" if row["variant"] == CONTROL else row["label"]
        seeds = f"{row['seeds']}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")
        lines.append(
            f"| {label} | {row['size_px']} | {row['parameters']:,} | {row['forward_gflop']:.2f} | {seeds} | {row['steps']:,} | "
            f"{row['jaccard']:.4f}{spread} | {difference_cell(row)} | {row['peak_mb'] or '?'} |"
        )
    if failures:
        lines += ["", "## Not measured", "", "| run | reason |", "| --- | --- |"]
        lines += [f"| {name} | {words.replace('|', '/')} |" for name, words in failures.items()]
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.unet_variants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of photographs with masks, in a layout of read_samples")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results; may hold some of this protocol")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--minutes", type=float, default=10.0, help="of training for each variant and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--every-s", type=float, default=60.0, help="seconds of training between two looks")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--weight-decay", type=float, default=1e-3)
    parser.add_argument("--augment", choices=AUGMENTATIONS, default="light", help="by default that of `dermaseg train`")
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--limit", type=int, help="keep about so many training photographs")
    parser.add_argument("--validation-limit", type=int, default=400, help="keep about so many validation photographs")
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--quick", action="store_true", help="a rehearsal on 24 photographs, three seconds each")
    parser.add_argument("--table", action="store_true", help="train nothing, only write the tables")
    return parser


if __name__ == "__main__":
    main()
