"""Write what `steps` measured: one CSV, one Markdown page, one picture."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from benchmarks.peers.contestants import Contestant
from dermaseg.plots import COLOURS
from dermaseg.runs import read_json, write_atomically, write_csv

__all__ = ["step_rows", "write_report"]

_OURS = {"float32": "ours", "bfloat16": "ours-bfloat16"}

_BACKWARD = 2.0  # a training step also computes the gradients of features and of weights, each as much as the forward pass


def write_report(output: Path, *, reference: str) -> None:
    """Write `steps.csv`, `steps.md` and `steps.png` from the files in `rounds/`."""
    groups = [read_json(path) for path in sorted((output / "rounds").glob("*.json"))]
    rows = step_rows(groups, reference=reference)
    machine = read_json(output / "machine.json") if (output / "machine.json").is_file() else {}
    write_csv(output / "steps.csv", rows)
    text = "\n".join(_page(rows, groups, machine, reference)) + "\n"
    write_atomically(output / "steps.md", lambda path: path.write_text(text, encoding="utf-8"))
    if rows:
        _draw(rows, reference, output / "steps.png")


def step_rows(groups: Iterable[Mapping[str, Any]], *, reference: str) -> list[dict[str, Any]]:
    """Return one row for each size, mode, batch and contestant, the quickest of each case first.

    `speed` is the reference's time over the contestant's, the median over rounds; `speed_low` and `speed_high` are its
    quartiles. `times_ours` is the contestant's time over that of dermaseg's default in the same number format and round, where
    they were measured together, with its quartiles too. `peak_share` is the share of the quickest matrix product in the same
    number format that any framework made.
    """
    groups = list(groups)
    peaks = _matrix_peaks(groups)
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in groups:
        people = {one["name"]: Contestant.from_json(one) for one in group["contestants"]}
        for case in group["cases"]:
            base = case["contestants"].get(reference, {}).get("step_s", [])
            for name, measured in case["contestants"].items():
                default = _OURS.get(people[name].precision, "")
                own = case["contestants"].get(default, {}).get("step_s", [])
                key = (group["size"], case["mode"], case["batch"], name)
                row = merged.setdefault(
                    key,
                    {
                        "case": case,
                        "who": people[name],
                        "facts": group["facts"][name],
                        "s": [],
                        "speed": [],
                        "times_ours": [],
                        "peak": [],
                    },
                )
                row["first_s"] = measured["first_s"]
                row["s"] += [second for second in measured["step_s"] if second]
                row["peak"] += [measured["peak_mb"]] if measured["peak_mb"] else []
                row["speed"] += [b / s for b, s in zip(base, measured["step_s"], strict=False) if b and s]
                if name != default:
                    row["times_ours"] += [s / o for o, s in zip(own, measured["step_s"], strict=False) if o and s]
    rows = [_row(key, row, peaks) for key, row in merged.items() if row["s"]]
    return sorted(rows, key=lambda row: (_area(row), row["mode"] == "train", row["batch"], row["step_ms"]))


def _row(key: tuple[Any, ...], row: Mapping[str, Any], peaks: Mapping[str, float]) -> dict[str, Any]:
    size, mode, batch, name = key
    who, facts, step_s = row["who"], row["facts"], median(row["s"])
    flops = (facts["forward_flops"] or math.nan) * batch * (1 + _BACKWARD if mode == "train" else 1)
    low, speed, high = _quartiles(row["speed"])
    times_low, times, times_high = _quartiles(row["times_ours"])
    return {
        "size": size,
        "height_px": row["case"]["height"],
        "width_px": row["case"]["width"],
        "mode": mode,
        "batch": batch,
        "contestant": name,
        "label": who.label,
        "ours": who.ours,
        "precision": who.precision,
        "parameters": facts["parameters"],
        "forward_gflop": round((facts["forward_flops"] or math.nan) / 1e9, 3),
        "rounds": len(row["s"]),
        "step_ms": round(1e3 * step_s, 3),
        "images_s": round(batch / step_s, 2),
        "speed": round(speed, 3),
        "speed_low": round(low, 3),
        "speed_high": round(high, 3),
        "times_ours": round(times, 4),
        "times_ours_low": round(times_low, 4),
        "times_ours_high": round(times_high, 4),
        "peak_share": round(flops / step_s / peaks[who.precision], 3) if who.precision in peaks else math.nan,
        "peak_mb": round(max(row["peak"])) if row["peak"] else math.nan,
        "first_s": round(row["first_s"], 2),
    }


def _quartiles(values: Sequence[float]) -> Sequence[float]:
    return quantiles(values, n=4, method="inclusive") if len(values) > 1 else (list(values) or [math.nan]) * 3


def _area(row: Mapping[str, Any]) -> int:
    return row["height_px"] * row["width_px"]


def _matrix_peaks(groups: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return operations a second of the quickest contestant's median matrix product, for each number format."""
    peaks: dict[str, float] = {}
    for group in groups:
        for one in group["contestants"]:
            # ONNX Runtime's process multiplies by NumPy, in float32: no measure of int8.
            if one["precision"] != "int8" and (rates := group["matrix_flops_s"].get(one["name"])):
                peaks[one["precision"]] = max(peaks.get(one["precision"], 0.0), median(rates))
    return peaks


def _page(
    rows: Sequence[Mapping[str, Any]], groups: Sequence[Mapping[str, Any]], machine: Mapping[str, Any], reference: str
) -> list[str]:
    peaks = ", ".join(f"{rate / 1e9:.0f} GFLOP/s in {precision}" for precision, rate in _matrix_peaks(groups).items())
    lines = ["# Seconds a step", ""]
    if machine.get("quick"):
        lines += ["**A rehearsal (`--quick`): it shows that everything runs, its figures say nothing.**", ""]
    lines += [f"- {key}: {', '.join(value) if isinstance(value, list) else value}" for key, value in machine.items()]
    lines += [f"- quickest matrix product: {peaks or 'not measured'}"]
    lines += [f"- versions: {', '.join(_versions(groups)) or 'none'}", ""]
    busy = (machine.get("load average before") or 0) > 0.5
    lines += ["**The machine was not idle when this began: do not trust the times.**", ""] if busy else []
    lines += [
        f"Speed is relative to `{reference}` in the same round: median, and quartiles over the rounds. Times ours is the time",
        "relative to dermaseg's default on TensorFlow in the same number format, within a round too: take ratios from",
        "there, not from the milliseconds, whose medians may be of different rounds. The share of the peak",
        "counts the operations of all convolutions (a training step: three times the forward pass) against the quickest",
        "matrix product in the same number format. Memory is the most that the contestant's process held during the case; the",
        "first step includes tracing and compiling. **Bold** is dermaseg.",
        "",
    ]
    for case in dict.fromkeys((row["size"], row["mode"], row["batch"]) for row in rows):
        chosen = [row for row in rows if (row["size"], row["mode"], row["batch"]) == case]
        what = "training step" if case[1] == "train" else "prediction"
        lines += [
            f"## {chosen[0]['height_px']} by {chosen[0]['width_px']} px, {what}, batch of {case[2]}",
            "",
            "| contestant | ms | images/s | speed | quartiles | times ours | GFLOP/image | share of peak | memory MB | "
            "first step s |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            *map(_line, chosen),
            "",
        ]
    reasons: dict[str, str] = {}
    for group in groups:
        for name, words in group["failed"].items():
            label = next(one["label"] for one in group["contestants"] if one["name"] == name)
            reasons[f"{label}, {group['size']}"] = words
    if reasons:
        lines += ["## Not measured", "", "| contestant, size | reason |", "| --- | --- |"]
        lines += [f"| {name} | {words.replace('|', '/')} |" for name, words in reasons.items()]
    return lines


def _line(row: Mapping[str, Any]) -> str:
    label = f"**{row['label']}**" if row["ours"] else row["label"]
    times = ""
    if not math.isnan(row["times_ours"]):
        times = f"{row['times_ours']:.2f} ({row['times_ours_low']:.2f} to {row['times_ours_high']:.2f})"
    share = "" if math.isnan(row["peak_share"]) else f"{100 * row['peak_share']:.0f} %"
    return (
        f"| {label} | {row['step_ms']:.1f} | {row['images_s']:.1f} | {row['speed']:.2f} | "
        f"{row['speed_low']:.2f} to {row['speed_high']:.2f} | {times} | {row['forward_gflop']:.2f} | {share} | "
        f"{row['peak_mb']:.0f} | {row['first_s']:.1f} |"
    )


def _versions(groups: Iterable[Mapping[str, Any]]) -> list[str]:
    found = {
        name: version for group in groups for facts in group["facts"].values() for name, version in facts["versions"].items()
    }
    return [f"{name} {version}" for name, version in sorted(found.items())]


def _draw(rows: Sequence[Mapping[str, Any]], reference: str, path: Path) -> None:
    """Draw one panel a case, a bar a contestant, the quartiles as whiskers."""
    from matplotlib.figure import Figure  # not pyplot, which would hold on to it

    rows = [row for row in rows if not math.isnan(row["speed"])]
    if not rows:
        return
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    cases = list(dict.fromkeys((row["mode"], row["batch"] if row["mode"] == "predict" else 0) for row in rows))
    most = max(len({row["contestant"] for row in rows if row["size"] == size}) for size in sizes)
    shape = (6.2 * len(cases), (1.2 + 0.24 * most) * len(sizes))
    figure = Figure(figsize=shape, layout="constrained")
    axes = figure.subplots(len(sizes), len(cases), squeeze=False)
    for line, size in enumerate(sizes):
        for column, (mode, batch) in enumerate(cases):
            axis = axes[line][column]
            chosen = [row for row in rows if row["size"] == size and row["mode"] == mode and batch in (0, row["batch"])][::-1]
            if not chosen:
                axis.axis("off")
                continue
            speeds = [row["speed"] for row in chosen]
            below = [max(0.0, row["speed"] - row["speed_low"]) for row in chosen]
            above = [max(0.0, row["speed_high"] - row["speed"]) for row in chosen]
            colours = [COLOURS["blue"] if row["ours"] else COLOURS["orange"] for row in chosen]
            places = range(len(chosen))
            axis.barh(places, speeds, xerr=[below, above], color=colours, error_kw={"elinewidth": 1, "ecolor": "0.3"})
            axis.set_yticks(places, [row["label"] for row in chosen], fontsize=7)
            axis.axvline(1.0, color="0.4", linewidth=1, linestyle=":")
            what = "training step" if mode == "train" else "prediction"
            axis.set_title(
                f"{chosen[0]['height_px']} by {chosen[0]['width_px']} px, {what}, batch of {chosen[0]['batch']}", fontsize=9
            )
            axis.set_xlabel(f"speed ({reference} = 1; blue: dermaseg)", fontsize=8)
            axis.spines[["top", "right"]].set_visible(False)
    write_atomically(path, lambda unfinished: figure.savefig(unfinished, dpi=120))
