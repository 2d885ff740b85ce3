"""Write what trainings by the clock found: Jaccard over seconds, and seconds to a given Jaccard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import numpy as np

from benchmarks.peers.contestants import Contestant
from dermaseg.metrics import paired_bootstrap
from dermaseg.plots import COLOURS
from dermaseg.runs import read_json, write_atomically, write_csv

__all__ = ["difference_cell", "difference_to", "draw_curves", "quality_rows", "read_runs", "seconds_to", "write_report"]

Run = Mapping[str, Any]
_LINES = ("-", "--", ":", "-.")


def read_runs(output: Path) -> list[Run]:
    """Read every finished run of the folder."""
    return [read_json(path) for path in sorted((output / "runs").glob("*.json"))]


def seconds_to(history: Iterable[Mapping[str, Any]], target: float) -> float:
    """Return the seconds of training at the first look that reached the target; infinity if none did.

    Examples:
        >>> seconds_to([{"train_s": 30.0, "jaccard": 0.7}, {"train_s": 60.0, "jaccard": 0.86}], 0.85)
        60.0
    """
    return next((float(row["train_s"]) for row in history if row["jaccard"] >= target), math.inf)


def quality_rows(runs: Iterable[Run], targets: Sequence[float]) -> list[dict[str, Any]]:
    """Return one row for each contestant, plan and learning rate, over its seeds; the quickest to the first target first.

    `difference` is the last Jaccard index less that of dermaseg's shortest plan.
    """
    together: dict[tuple[str, float, float], list[Run]] = {}
    for run in runs:
        together.setdefault(_plan(run), []).append(run)
    reference = min((plan for plan, same in together.items() if _ours(same[0])), key=lambda plan: plan[1:], default=None)
    rows = []
    for plan, same in together.items():
        name, seconds, rate = plan
        last = [run["history"][-1] for run in same]
        row: dict[str, Any] = {
            "contestant": name,
            "label": same[0]["contestant"]["label"],
            "ours": _ours(same[0]),
            "precision": same[0]["contestant"]["precision"],
            "learning_rate": rate,
            "planned_s": seconds,
            "seeds": len(same),
            "diverged": sum(run["diverged"] for run in same),
            "parameters": same[0]["parameters"],
            "steps_s": round(fmean(end["steps"] / end["train_s"] for end in last), 3),
            "last_jaccard": round(fmean(end["jaccard"] for end in last), 4),
            "best_jaccard": round(fmean(max(look["jaccard"] for look in run["history"]) for run in same), 4),
            "first_step_s": round(median(run["first_step_s"] for run in same), 2),
            "peak_mb": round(max(run["peak_mb"] or math.nan for run in same)) if all(run["peak_mb"] for run in same) else None,
        }
        for target in targets:
            reached = sorted(seconds_to(run["history"], target) for run in same)
            # The upper of the middle two: a seed that did not get there is not averaged away.
            row[f"s_to_{target:g}"] = _finite(reached[len(reached) // 2])
            row[f"s_to_{target:g}_low"], row[f"s_to_{target:g}_high"] = _finite(reached[0]), _finite(reached[-1])
            row[f"reached_{target:g}"] = sum(math.isfinite(seconds) for seconds in reached)
        if reference not in (None, plan):
            row |= difference_to(same, together[reference])
        rows.append(row)
    first = f"s_to_{targets[0]:g}"
    return sorted(rows, key=lambda row: (row[first] is None, row[first] or 0.0, -row["best_jaccard"]))


def _plan(run: Run) -> tuple[str, float, float]:
    return run["name"], float(run["lesson"]["seconds"]), run["lesson"]["learning_rate"]


def _ours(run: Run) -> bool:
    return Contestant.from_json(run["contestant"]).ours


def difference_to(runs: Sequence[Run], reference: Sequence[Run]) -> dict[str, Any]:
    """Return the last Jaccard index less the reference's on the same photographs and seeds; nothing if they share no seed.

    Its ends are a 95 % bootstrap over lesions, of scores averaged over the seeds that both have.
    """
    firsts, seconds = ({run["lesson"]["seed"]: run for run in side} for side in (runs, reference))
    both = sorted(set(firsts) & set(seconds))
    if not both:
        return {}
    scores = [np.mean([side[seed]["last_jaccards"] for seed in both], axis=0) for side in (firsts, seconds)]
    found = paired_bootstrap(*scores, groups=np.asarray(runs[0]["lesions"]))
    return {
        "difference": round(found.value, 4),
        "difference_low": round(found.low, 4),
        "difference_high": round(found.high, 4),
        "shared_seeds": len(both),
    }


def difference_cell(row: Mapping[str, Any]) -> str:
    """Return a row's difference and its interval as a table has it; an empty cell where there is none."""
    if "difference" not in row:
        return ""
    return f"{row['difference']:+.4f} [{row['difference_low']:+.4f}, {row['difference_high']:+.4f}]"


def write_report(output: Path, targets: Sequence[float], failures: Mapping[str, str]) -> None:
    """Write `time_to_quality.csv`, `time_to_quality.md` and `time_to_quality.png`."""
    runs = read_runs(output)
    rows = quality_rows(runs, targets)
    write_csv(output / "time_to_quality.csv", rows)
    text = "\n".join([*_page(rows, runs, targets), *_failures(failures)]) + "\n"
    write_atomically(output / "time_to_quality.md", lambda path: path.write_text(text, encoding="utf-8"))
    if runs:
        draw_curves(runs, targets, output / "time_to_quality.png")


def _page(rows: Sequence[Mapping[str, Any]], runs: Sequence[Run], targets: Sequence[float]) -> list[str]:
    lines = ["# Seconds of training to a given Jaccard index", ""]
    if not runs:
        return [*lines, "No run has finished yet.", ""]
    lesson, machine = runs[0]["lesson"], runs[0]["machine"]
    plan = "its seconds" if lesson["steps"] is None else f"{lesson['steps']} steps, at most its seconds,"
    loads = [load for run in runs if (load := run["machine"].get("load average before")) is not None]
    versions = {name: version for run in runs for name, version in run["versions"].items()}
    lines += [
        f"- machine: {machine['processor']}, {', '.join(machine['vector instructions'])}; {runs[0]['threads']} threads",
        f"- load average before each run: {f'{min(loads):.2f} to {max(loads):.2f}' if loads else 'unknown'}",
        f"- versions: {', '.join(f'{name} {version}' for name, version in sorted(versions.items()))}",
        f"- each: {plan} of training in batches of {lesson['batch_size']} at {lesson['size']} px; AdamW, warm-up and cosine",
        f"  over that plan; augmentation `{lesson['augment']}`",
        f"- scored at 256 px on {len(runs[0]['last_jaccards'])} photographs of lesions outside the training part,",
        f"  {round(lesson['seconds'] / lesson['every_s'])} times in equal distances",
        "",
        "Seconds are those at the first look that reached the target: the median seed, with the quickest and the slowest. The",
        "clock includes the first step's tracing and compiling, not the looks. **Bold** is dermaseg. Difference: the last",
        "Jaccard less that of dermaseg's shortest plan, paired by photograph and seed, with a 95 % bootstrap interval over",
        "lesions; it does not cover the variation between random starts.",
        "",
    ]
    heads = "".join(f" s to {target:g} |" for target in targets)
    lines += [
        f"| contestant | planned s | rate | seeds |{heads} last Jaccard | difference | best Jaccard | steps/s | first step s | "
        "memory MB |",
        f"| --- | ---: | ---: | ---: |{' ---: |' * len(targets)} ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        cells = "".join(f" {_cell(row, target)} |" for target in targets)
        label = f"**{row['label']}**" if row["ours"] else row["label"]
        seeds = f"{row['seeds']}" + (f" ({row['diverged']} diverged)" if row["diverged"] else "")
        given = f"{row['planned_s']:g} | {row['learning_rate']:g}"
        quality = f"{row['last_jaccard']:.4f} | {difference_cell(row)} | {row['best_jaccard']:.4f}"
        cost = f"{row['steps_s']:.2f} | {row['first_step_s']:.1f} | {row['peak_mb'] or '?'}"
        lines.append(f"| {label} | {given} | {seeds} |{cells} {quality} | {cost} |")
    return [*lines, ""]


def _cell(row: Mapping[str, Any], target: float) -> str:
    seconds = row[f"s_to_{target:g}"]
    if seconds is None:
        reached = row[f"reached_{target:g}"]
        return f"{reached} of {row['seeds']} seeds" if reached else "not reached"
    if row["seeds"] == 1:
        return f"{seconds:.0f}"
    high = row[f"s_to_{target:g}_high"]
    return f"{seconds:.0f} ({row[f's_to_{target:g}_low']:.0f} to {'never' if high is None else f'{high:.0f}'})"


def _failures(failures: Mapping[str, str]) -> list[str]:
    if not failures:
        return []
    lines = ["## Not measured", "", "| contestant | reason |", "| --- | --- |"]
    return [*lines, *(f"| {name} | {words.replace('|', '/')} |" for name, words in failures.items())]


def _finite(seconds: float) -> float | None:
    return round(seconds, 1) if math.isfinite(seconds) else None


def draw_curves(runs: Sequence[Run], targets: Sequence[float], path: Path) -> None:
    """Draw the Jaccard index over seconds of training, a line a seed, a colour and a dash a contestant."""
    from matplotlib.figure import Figure  # not pyplot, which would hold on to it

    colours = [COLOURS[name] for name in ("blue", "vermilion", "green", "orange", "purple", "sky", "black")]
    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    axis = figure.subplots()
    several = {part for part in range(1, 3) if len({_plan(run)[part] for run in runs}) > 1}
    places: dict[tuple[str, float, float], int] = {}
    for run in sorted(runs, key=lambda run: not _ours(run)):  # whose colour is the first of them, blue
        plan = _plan(run)
        new = plan not in places
        place = places.setdefault(plan, len(places))
        words = {1: f", {plan[1]:g} s", 2: f", rate {plan[2]:g}"}
        label = run["contestant"]["label"] + "".join(words[part] for part in sorted(several))
        axis.plot(
            [row["train_s"] for row in run["history"]],
            [row["jaccard"] for row in run["history"]],
            color=colours[place % len(colours)],
            linestyle=_LINES[place // len(colours) % len(_LINES)],
            marker=".",
            linewidth=1.2,
            markersize=3,
            label=label if new else None,
        )
    for target in targets:
        axis.axhline(target, color="0.5", linewidth=0.8, linestyle=":")
    best = max(row["jaccard"] for run in runs for row in run["history"])
    axis.set(
        xlabel="seconds of training", ylabel="validation Jaccard index", xlim=(0, None), ylim=(0.6 if best > 0.7 else 0, None)
    )
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize=7, loc="lower right")
    write_atomically(path, lambda unfinished: figure.savefig(unfinished, dpi=150))
