"""A model and samples in, a report with intervals and subgroups out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dermaseg.data import Samples, Split, group_samples
from dermaseg.data.images import read_image, read_mask
from dermaseg.errors import DataError
from dermaseg.metrics import Interval, bootstrap_interval, segmentation_scores
from dermaseg.plots import panel, save_figure
from dermaseg.prediction import NOT_A_DIAGNOSIS, Predictor
from dermaseg.runs import RunFolder, read_json, write_atomically, write_csv, write_json
from dermaseg.training import load_samples

__all__ = ["Report", "evaluate", "evaluate_run"]

# What a report says of the figures, in the order it shows them.
MEANINGS: Mapping[str, str] = {
    "jaccard": "mean hard Jaccard index (IoU) over images, at each image's own size",
    "thresholded_jaccard": "the same, an image below 0.65 counting 0 (ISIC 2018)",
    "dice": "mean Dice score over images",
    "sensitivity": "lesion pixels found, mean over images",
    "specificity": "skin pixels left alone, mean over images",
    "boundary_jaccard": "Jaccard index of the bands along the two outlines",
    "hausdorff95_px": "95 % Hausdorff distance of the outlines, in pixels",
    "boundary_distance_px": "average distance of the outlines, in pixels",
}

SUBGROUP_FIGURES = ("jaccard", "thresholded_jaccard", "dice")


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one model on one set of photographs.

    Args:
        title: What was evaluated on what.
        figures: Each figure's value and interval.
        subgroups: For each grouping (`sex`, `age` ...), for each of its values, the figures of that group.
        rows: One dictionary a photograph: its id and its scores.
        groups: Independent groups (lesions) that were resampled for the intervals.
    """

    title: str
    figures: Mapping[str, Interval]
    subgroups: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    rows: Sequence[Mapping[str, Any]]
    groups: int

    def to_dict(self) -> dict[str, Any]:
        """Return all but the rows, ready for JSON."""
        return {
            "title": self.title,
            "images": len(self.rows),
            "groups": self.groups,
            "figures": {name: dataclasses.asdict(interval) for name, interval in self.figures.items()},
            "subgroups": {
                grouping: {
                    value: {name: dataclasses.asdict(interval) for name, interval in figures.items()}
                    for value, figures in values.items()
                }
                for grouping, values in self.subgroups.items()
            },
            "note": NOT_A_DIAGNOSIS,
        }

    def to_markdown(self) -> str:
        """Return the report as a Markdown page."""
        lines = [
            f"# {self.title}",
            "",
            f"{len(self.rows)} photographs in {self.groups} independent groups (lesions, where they are known). "
            "Brackets hold 95 % bootstrap intervals over the groups.",
            "",
            "| figure | value | meaning |",
            "| --- | --- | --- |",
            *(f"| {name} | {interval} | {self._meaning(name)} |" for name, interval in self.figures.items()),
        ]
        for grouping, values in self.subgroups.items():
            names = list(next(iter(values.values())))
            lines += ["", f"## By {grouping}", "", f"| {grouping} | images | {' | '.join(names)} |"]
            lines += [f"| --- | --- |{' --- |' * len(names)}"]
            lines += [
                f"| {value} | {next(iter(figures.values())).count} | {' | '.join(map(str, figures.values()))} |"
                for value, figures in values.items()
            ]
        return "\n".join([*lines, "", f"*{NOT_A_DIAGNOSIS}*", ""])

    def _meaning(self, name: str) -> str:
        missing = len(self.rows) - self.figures[name].count
        return MEANINGS[name] + (f"; {missing} photographs without a predicted or true outline are left out" if missing else "")

    def save(self, folder: str | Path, *, name: str = "report") -> None:
        """Write `<name>.json`, `<name>.md` and, one row a photograph, `<name>.csv`."""
        target = Path(folder)
        text = self.to_markdown()
        write_json(target / f"{name}.json", self.to_dict())
        write_atomically(target / f"{name}.md", lambda path: path.write_text(text, encoding="utf-8"))
        write_csv(target / f"{name}.csv", self.rows)


def evaluate(
    model: Predictor | str | Path | keras.Model,
    samples: Samples,
    *,
    size: int | None = None,
    title: str = "Segmentation report",
    subgroups: Sequence[str] = ("class", "sex", "age", "localization"),
    resamples: int = 2000,
    seed: int = 0,
    on_image: Callable[[int, int], None] | None = None,
) -> Report:
    """Score a segmentation model on photographs with masks, each at its own size.

    Args:
        model: A `Predictor`, or what makes one.
        samples: The photographs; all must have masks. Use a part that neither trained nor chose the model.
        size: As for `Predictor`.
        title: Heading of the report.
        subgroups: Groupings to report: `class`, or a key of the samples' metadata; `age` falls into bands of 20 years. A
            grouping that no sample has is left out.
        resamples: Bootstrap resamples.
        seed: Of the bootstrap.
        on_image: Called with (done, all).

    Raises:
        DataError: If a sample has no mask, or its mask is not of the photograph's size.
    """
    mask_paths = _mask_paths(samples)
    predictor = model if isinstance(model, Predictor) else Predictor(model, size=size)
    rows: list[dict[str, Any]] = []
    predictions = predictor.predict(sample.image for sample in samples)
    for sample, mask_path, prediction in zip(samples, mask_paths, predictions, strict=True):
        true, predicted = read_mask(mask_path), prediction.mask
        if true.shape != predicted.shape:
            raise DataError(
                f"{mask_path}: the mask is {true.shape}, its photograph {predicted.shape} (height, width). "
                "Masks must have the size of their photograph."
            )
        rows.append({"id": sample.id, **segmentation_scores(true, predicted)})
        if on_image is not None:
            on_image(len(rows), len(samples))
    groups = group_samples(samples)

    def figures(chosen: np.ndarray) -> dict[str, Interval]:
        found = {}
        for name in MEANINGS:
            values = np.array([rows[index][name] for index in chosen], dtype=float)
            # A distance to an outline that is not there has no value.
            known = np.isfinite(values)
            if known.any():
                found[name] = bootstrap_interval(values[known], groups=groups[chosen][known], resamples=resamples, seed=seed)
        return found

    everything = figures(np.arange(len(rows)))
    return Report(title, everything, _by_subgroup(samples, subgroups, figures), rows, len(np.unique(groups)))


def evaluate_run(
    run: str | Path | RunFolder,
    *,
    data: str | Path | Samples | None = None,
    part: str = "test",
    on_image: Callable[[int, int], None] | None = None,
) -> Report:
    """Score a finished run on a part of its own split, or on other data, and write the report into the run folder.

    Args:
        run: The run folder.
        data: None for the run's own data; another folder or table is scored whole.
        part: `"test"`, `"validation"` or `"train"`, of the run's own split.
        on_image: Called with (done, all).

    Returns:
        The report, also written as `report.*` (own test part), `report-<part>.*` or `report-<data>.*`, with a panel of the
        worst, middling and best photographs.
    """
    folder = run if isinstance(run, RunFolder) else RunFolder.open(run)
    task = read_json(folder.settings)["task"]
    samples = load_samples(folder, data)
    if data is None:
        parts = Split.load(folder.split).apply(samples)
        if part not in parts:
            raise ValueError(f"part must be one of {', '.join(parts)}, got {part!r}.")
        samples, name = parts[part], "report" if part == "test" else f"report-{part}"
        title = f"{task}: {part} part of {samples.source or 'the data'}"
    else:
        label = (samples.source if isinstance(data, Samples) else Path(data).name) or "data"
        name, title = f"report-{label}", f"{task}: all of {label}"
    report = evaluate(folder.path, samples, title=title, on_image=on_image)
    report.save(folder.path, name=name)
    _draw_panel(folder, samples, report, folder.path / f"{name}.png")
    return report


def _mask_paths(samples: Samples) -> list[Path]:
    paths = [sample.mask for sample in samples if sample.mask is not None]
    if len(paths) < len(samples) or not paths:
        without = [sample.id for sample in samples if sample.mask is None]
        raise DataError(
            f"{samples.source or 'samples'}: {len(without)} of {len(samples)} samples have no mask "
            f"({', '.join(without[:3])}). Evaluate samples.with_masks()."
        )
    return paths


def _by_subgroup(
    samples: Samples, groupings: Sequence[str], figures: Callable[[np.ndarray], dict[str, Interval]]
) -> dict[str, dict[str, dict[str, Interval]]]:
    found: dict[str, dict[str, dict[str, Interval]]] = {}
    for grouping in groupings:
        values = [_subgroup(samples, index, grouping) for index in range(len(samples))]
        named = sorted({value for value in values if value})
        if named:
            found[grouping] = {}
            for value in [*named, ""] if "" in values else named:
                chosen = np.array([index for index, own in enumerate(values) if own == value])
                scores = figures(chosen)
                found[grouping][value or "not known"] = {name: scores[name] for name in SUBGROUP_FIGURES}
    return found


def _subgroup(samples: Samples, index: int, grouping: str) -> str:
    sample = samples[index]
    if grouping == "class":
        return "" if sample.label is None else samples.class_names[sample.label]
    value = sample.metadata.get(grouping, "")
    if grouping != "age" or not value:
        return value
    try:
        age = float(value)
    except ValueError:
        return ""
    return "" if math.isnan(age) else f"{int(age) // 20 * 20:02d}-{int(age) // 20 * 20 + 19}"


def _draw_panel(folder: RunFolder, samples: Samples, report: Report, path: Path) -> None:
    """Show the four worst, four middling and four best photographs, so that nobody sees only the good ones."""
    mask_paths = _mask_paths(samples)
    order = sorted(range(len(samples)), key=lambda index: report.rows[index]["jaccard"])
    middle = len(order) // 2
    chosen = list(dict.fromkeys([*order[:4], *order[middle : middle + 4], *order[-4:]]))
    predictor = Predictor(folder.path)
    predictions = list(predictor.predict([samples[index].image for index in chosen]))
    figure = panel(
        [read_image(samples[index].image) for index in chosen],
        predicted=[prediction.mask for prediction in predictions],
        true=[read_mask(mask_paths[index]) for index in chosen],
        titles=[f"{samples[index].id}\nJaccard {report.rows[index]['jaccard']:.2f}" for index in chosen],
    )
    save_figure(figure, path)
