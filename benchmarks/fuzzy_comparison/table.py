"""Write what the scored arms say: the table of figures, the table of differences, the reliability diagram."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzzy_comparison.arms import LOSSES, NETWORKS, Arm
from benchmarks.fuzzy_comparison.differences import FIGURES, Difference, Scored, compare, pixel_aurc, questions, read_scored
from dermaseg.metrics import Reliability
from dermaseg.plots import COLOURS
from dermaseg.runs import read_json, write_atomically, write_csv

__all__ = ["draw_reliability", "write_tables"]


def write_tables(output: Path, parts: Sequence[str], *, resamples: int = 2000) -> None:
    """Write `comparison.md`, `comparison.csv`, `differences.csv` and, for each part, `reliability-<part>.png`."""
    lines, figures, differences = ["# Does fuzzy help?", "", *_how_to_read(output), ""], [], []
    for part in parts:
        scored = read_scored(output, part)
        if not scored:
            continue
        by_arm: dict[Arm, list[Scored]] = {}
        for one in scored:
            by_arm.setdefault(one.arm, []).append(one)
        rows = [_figure_row(arm, runs) for arm, runs in by_arm.items()]
        answers = [
            (question, arm, control, compare(by_arm[arm], by_arm[control], resamples=resamples))
            for question, arm, control in questions(list(by_arm))
        ]
        figures += [{"part": part, **row} for row in rows]
        differences += [row for answer in answers for row in _difference_rows(part, *answer)]
        lesions = len(np.unique(scored[0].groups))
        lines += [f"## {part}: {len(scored[0].ids)} photographs, {lesions} lesions", ""]
        lines += [*_figure_table(rows), "", *_difference_table(answers), "", *_rule_entropy_table(by_arm)]
        draw_reliability(by_arm, output / f"reliability-{part}.png")
    text = "\n".join(lines)
    write_atomically(output / "comparison.md", lambda path: path.write_text(text, encoding="utf-8"))
    write_csv(output / "comparison.csv", figures)
    write_csv(output / "differences.csv", differences)


def draw_reliability(by_arm: dict[Arm, list[Scored]], path: Path) -> None:
    """Draw how often pixels of each probability are lesion, and how many pixels have it, all seeds together."""
    from matplotlib.figure import Figure  # not pyplot, which would hold on to it

    styles = {
        Arm("unet", "overlap"): ("blue", "o", "-"),
        Arm("unet", "fuzzy"): ("vermilion", "s", "-"),
        Arm("fuzzy", "overlap"): ("sky", "^", "--"),
        Arm("fuzzy", "fuzzy"): ("orange", "D", "--"),
        Arm("unet", "dice"): ("green", "v", "-."),
        Arm("unet", "crossentropy"): ("black", "x", ":"),
    }
    shown = {arm: style for arm, style in styles.items() if arm in by_arm}
    if not shown:
        return
    figure = Figure(figsize=(5, 6.5))
    curves, shares = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    curves.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
    for arm, (colour, marker, line) in shown.items():
        keys = ("count", "probability_sum", "outcome_sum")
        pooled = Reliability(*(np.sum([run.pooled(key) for run in by_arm[arm]], axis=0) for key in keys))
        label = f"{arm}, error {pooled.calibration_error:.4f}"
        style: dict[str, Any] = {"color": COLOURS[colour], "marker": marker, "linestyle": line, "markersize": 4}
        curves.plot(pooled.probability, pooled.frequency, label=label, **style)
        share = np.where(pooled.count > 0, pooled.count, np.nan) / pooled.count.sum()
        shares.plot(pooled.probability, share, **style)
    curves.set(ylabel="share of pixels that are lesion", xlim=(0, 1), ylim=(0, 1))
    curves.legend(frameon=False, fontsize=8)
    shares.set(xlabel="predicted probability of lesion", ylabel="share of pixels", yscale="log")
    figure.tight_layout()
    write_atomically(path, lambda unfinished: figure.savefig(unfinished, dpi=150))


def _figure_row(arm: Arm, runs: Sequence[Scored]) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": str(arm), "seeds": len(runs), "parameters": runs[0].training["parameters"]}
    for key, figure in FIGURES.items():
        values = [figure.value(run) for run in runs]
        row[key] = statistics.fmean(values)
        row[f"{key}_seed_sd"] = statistics.stdev(values) if len(values) > 1 else float("nan")
    for key in ("training_s", "processor_s", "step_s", "validation_jaccard"):
        row[key] = statistics.fmean(run.training[key] for run in runs)
    row["without_outline"] = sum(int(np.isnan(run.rows["hausdorff95_px"]).sum()) for run in runs)
    return row


def _difference_rows(
    part: str, question: str, arm: Arm, control: Arm, differences: Sequence[Difference]
) -> Iterator[dict[str, Any]]:
    for difference in differences:
        yield {
            "part": part,
            "question": question,
            "arm": str(arm),
            "control": str(control),
            "figure": difference.figure,
            "difference": difference.interval.value,
            "low": difference.interval.low,
            "high": difference.interval.high,
            "seeds": len(difference.by_seed),
            "lowest_seed": min(difference.by_seed),
            "highest_seed": max(difference.by_seed),
            "photographs_left_out": difference.left_out,
            "verdict": difference.verdict,
        }


def _figure_table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    heads = [figure.title for figure in FIGURES.values()]
    yield "Mean over seeds ± their standard deviation."
    yield ""
    yield f"| arm | seeds | parameters | {' | '.join(heads)} | training [s] | of processors [s] | step [ms] |"
    yield f"| --- | --- | --- |{' --- |' * (len(heads) + 3)}"
    for row in rows:
        cells = []
        for key, figure in FIGURES.items():
            spread = row[f"{key}_seed_sd"]
            cells.append(f"{row[key]:.{figure.digits}f}" + ("" if np.isnan(spread) else f" ± {spread:.{figure.digits}f}"))
        cells += [f"{row['training_s']:.0f}", f"{row['processor_s']:.0f}", f"{1e3 * row['step_s']:.0f}"]
        yield f"| {row['arm']} | {row['seeds']} | {row['parameters']:,} | {' | '.join(cells)} |"
    missing = {row["arm"]: row["without_outline"] for row in rows if row["without_outline"]}
    if missing:
        told = ", ".join(f"{arm} {count}" for arm, count in missing.items())
        yield ""
        yield f"Predictions without an outline, which have no Hausdorff distance, over all seeds: {told}."


def _difference_table(answers: Sequence[tuple[str, Arm, Arm, Sequence[Difference]]]) -> Iterator[str]:
    heads = [figure.title for figure in FIGURES.values()]
    yield f"| what is asked | arm - control | {' | '.join(heads)} | Jaccard, seed by seed |"
    yield f"| --- | --- |{' --- |' * (len(heads) + 1)}"
    for question, arm, control, differences in answers:
        told = {difference.figure: str(difference) for difference in differences}
        by_seed = " ".join(f"{value:+.4f}" for value in differences[0].by_seed) if differences else ""
        yield f"| {question} | {arm} - {control} | {' | '.join(told.get(key, '') for key in FIGURES)} | {by_seed} |"


def _rule_entropy_table(by_arm: dict[Arm, list[Scored]]) -> Iterator[str]:
    """Tell whether the rules' entropy ranks wrong pixels better than the distance of p from 1/2 does."""
    having = {arm: runs for arm, runs in by_arm.items() if all("rules_pixels" in run.counts for run in runs)}
    if not having:
        return
    yield "Which map finds the wrong pixels: pixel AURC by 1 - |2 p - 1|, by the finest gate's rule entropy, and by chance."
    yield ""
    yield "| arm | 1 - abs(2 p - 1) | rule entropy | chance |"
    yield "| --- | --- | --- | --- |"
    for arm, runs in having.items():
        everything = np.arange(len(runs[0].ids))
        maps = [statistics.fmean(pixel_aurc(run, everything, name) for run in runs) for name in ("mask", "rules")]
        chance = statistics.fmean(run.pooled("mask_wrong").sum() / run.pooled("mask_pixels").sum() for run in runs)
        yield f"| {arm} | {' | '.join(f'{value:.6f}' for value in (*maps, chance))} |"
    yield ""


def _how_to_read(output: Path) -> Iterator[str]:
    protocol = read_json(output / "protocol.json")
    shown = ("canvas", "steps", "batch_size", "augment", "tau_px", "precision")
    yield ", ".join(f"{key} {protocol[key]}" for key in shown) + "."
    yield ""
    yield "Arms are named network-loss:"
    yield ""
    yield from (f"- `{name}`: {meaning}" for name, meaning in (*NETWORKS.items(), *LOSSES.items()))
    yield ""
    yield (
        "All arms of one seed share the split, the augmented pictures and their order, and the first weights of every layer "
        "of equal shape; the epoch is chosen on the validation part. Differences are arm minus control, averaged over the "
        "seeds, with a paired 95 % bootstrap interval over lesions. Better or worse is said only where that interval "
        "excludes 0 and every seed has that sign; 'not shown' means neither; it does not mean equal: read the interval. "
        "Jaccard is the primary figure, against soft Dice the pixel calibration error. The others are not corrected for how "
        "many they are: of twenty differences of nothing, one interval excludes 0 by chance. Seconds are of the machine that "
        "trained, with whatever else it did; those of processors count this training alone."
    )
    yield ""
    yield from (
        f"- {figure.title}: {figure.meaning}; {'higher' if figure.higher else 'lower'} is better" for figure in FIGURES.values()
    )
