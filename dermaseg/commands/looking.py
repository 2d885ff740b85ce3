"""Commands that look and write nothing: `audit`, `tasks`, `presets`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from dermaseg.console import console, say
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.tasks import TASKS

if TYPE_CHECKING:
    from dermaseg.data import Audit
    from dermaseg.pretrained import Preset

__all__ = ["audit", "presets", "tasks"]

MOST_LISTED = 20
"""So many errors of one kind are listed one by one."""

CARD_FACTS = {
    "task": "task",
    "size": "size, px",
    "class_names": "classes",
    "data": "data",
    "intended_use": "intended use",
    "limits": "limits",
    "license": "licence",
}


def audit(options: argparse.Namespace) -> int:
    """Say what is wrong with a data set; the exit code is 1 where a finding is an error."""
    from dermaseg.data import Split, audit_samples, read_samples
    from dermaseg.progress import counting
    from dermaseg.runs import RunFolder

    samples = read_samples(options.data, need_targets=False)
    if all(sample.mask is None and sample.label is None for sample in samples):
        say(f"{options.data}: found neither masks nor classes; looking at the photographs alone.")
    split = Split.load(RunFolder.open(options.run).split) if options.run else None
    with counting(console, "look at") as looked:
        found = audit_samples(samples, split=split, progress=looked)
    print(json.dumps(found.to_dict(), indent=2) if options.json else "\n".join([str(found), *_error_lines(found)]))
    return int(any(finding.severity == "error" for finding in found.findings))


def _error_lines(found: Audit) -> Iterator[str]:
    """List the errors of each kind that has several: the table shows the first alone."""
    errors = [finding for finding in found.findings if finding.severity == "error"]
    for kind, count in Counter(finding.kind for finding in errors).items():
        if count > 1:
            yield f"\n{kind}:"
            yield from (f"- {finding.message}" for finding in found.of_kind(kind)[:MOST_LISTED])
            if count > MOST_LISTED:
                yield f"- and {count - MOST_LISTED} more: --json lists all"


def tasks(options: argparse.Namespace) -> None:
    """List the tasks."""
    if options.json:
        listed = [
            {"name": task.name, "summary": task.summary, "target": task.target, "settings": dataclasses.asdict(task.settings)}
            for task in TASKS.values()
        ]
        print(json.dumps(listed, indent=2))
    else:
        for task in TASKS.values():
            print(f"{task.name:16} {task.summary}")


def presets(options: argparse.Namespace) -> None:
    """List the trained networks, or show the card of one."""
    from dermaseg.pretrained import find_preset, list_presets

    if options.preset is not None:
        preset = find_preset(options.preset)
        shown = {"name": preset.name, **preset.card}
        print(json.dumps(shown, indent=2) if options.json else "\n".join(_card_lines(preset)))
    elif options.json:
        print(json.dumps([{"name": preset.name, **preset.card} for preset in list_presets()], indent=2))
    else:
        width = max((len(preset.name) for preset in list_presets()), default=0)
        for preset in list_presets():
            print(f"{preset.name:{width}}  {preset.summary}")
        print(f"\n{NOT_A_DIAGNOSIS}\nThe card of one, with its figures and limits: dermaseg presets NAME")


def _card_lines(preset: Preset) -> Iterator[str]:
    yield f"{preset.name}: {preset.card['summary']}"
    yield ""
    for name, title in CARD_FACTS.items():
        value = preset.card.get(name)
        if value:
            text = ", ".join(value) if isinstance(value, list) else str(value)
            yield textwrap.fill(text, 100, initial_indent=f"  {title:14}", subsequent_indent=" " * 16)
    for data, figures in preset.card.get("figures", {}).items():
        yield f"\n{data}, {figures['images']} photographs, 95 % intervals:"
        for name, figure in figures.items():
            if isinstance(figure, Mapping) and {"value", "low", "high"} <= figure.keys():
                interval = "" if figure["low"] is None else f" [{figure['low']:.3f}, {figure['high']:.3f}]"
                yield f"  {name:24} {figure['value']:.3f}{interval}"
    yield f"\n{NOT_A_DIAGNOSIS}"
