"""What an evaluation found: figures with intervals, subgroups and one row a photograph, as JSON, CSV, Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.metrics import Interval, class_scores, confusion_matrix
from dermaseg.runs import write_atomically, write_csv, write_json

__all__ = ["MEANINGS", "Diagnoses", "Report"]

# What a report says of the figures, in the order it shows them: those of the outline, then those of the classes.
MEANINGS: Mapping[str, str] = {
    "jaccard": "mean hard Jaccard index (IoU) over images, at each image's own size",
    "thresholded_jaccard": "the same, an image below 0.65 counting 0 (ISIC 2018)",
    "dice": "mean Dice score over images",
    "sensitivity": "lesion pixels found, mean over images",
    "specificity": "skin pixels left alone, mean over images",
    "boundary_jaccard": "Jaccard index of the bands along the two outlines",
    "hausdorff95_px": "95 % Hausdorff distance of the outlines, in pixels",
    "boundary_distance_px": "average distance of the outlines, in pixels",
    "accuracy": "share of images whose most probable class is right",
    "majority_share": "accuracy of always naming the commonest class, to read accuracy beside",
    "balanced_accuracy": "mean sensitivity over the classes (ISIC 2018 Task 3)",
    "macro_auc": "area under the ROC curve, one class against the rest, mean over the classes",
    "calibration_error": "expected calibration error of the most probable class, 15 bins",
    "brier_score": "squared error of the probabilities, summed over the classes",
    "conformal_coverage": "share of images whose set of possible classes holds the true one; 90 % were asked for",
    "conformal_size": "mean number of classes in that set",
    "alarm_sensitivity": "sensitivity for the class to be missed least (melanoma, malignant) at 90 % specificity",
    "alarm_specificity": "specificity for that class at 90 % sensitivity",
    "referred_share": "share of images that the model would refer to a person; each output's limit was set to refer a tenth of "
    "the validation part",
}


@dataclass(frozen=True, slots=True)
class Diagnoses:
    """True classes and predicted probabilities of the photographs that have a class.

    Args:
        class_names: One name a class.
        labels: `(samples,)`, integers.
        probabilities: `(samples, classes)`, calibrated where the model is.
    """

    class_names: tuple[str, ...]
    labels: np.ndarray = field(repr=False)
    probabilities: np.ndarray = field(repr=False)

    def scores(self) -> dict[str, dict[str, float]]:
        """Return each class's `count`, `sensitivity`, `specificity` and `auc` against all others."""
        return class_scores(self.labels, self.probabilities, self.class_names)

    def confusion(self) -> np.ndarray:
        """Return counts of true class (rows) against most probable class (columns)."""
        return confusion_matrix(self.labels, self.probabilities)


@dataclass(frozen=True, slots=True)
class Report:
    """Figures of one model on one set of photographs.

    Args:
        title: What was evaluated on what.
        figures: Each figure's value and interval.
        subgroups: For each grouping (`sex`, `age` ...), for each of its values, the figures of that group.
        rows: One dictionary a photograph: its id and its scores.
        groups: Independent groups (lesions) that were resampled for the intervals.
        diagnoses: Classes and probabilities, where the model names classes.
        data: The folder that the photographs lie in, where they are none of the run's own.
    """

    title: str
    figures: Mapping[str, Interval]
    subgroups: Mapping[str, Mapping[str, Mapping[str, Interval]]]
    rows: Sequence[Mapping[str, Any]] = field(repr=False)
    groups: int
    diagnoses: Diagnoses | None = None
    data: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all but the rows, ready for JSON; a figure that is not defined, and an end of no interval, is None."""
        content: dict[str, Any] = {
            "title": self.title,
            **({} if self.data is None else {"data": self.data}),
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
        }
        if self.diagnoses is not None:
            content["classes"] = self.diagnoses.scores()
            content["confusion"] = self.diagnoses.confusion().tolist()
        return {**_without_nan(content), "note": NOT_A_DIAGNOSIS}

    def to_markdown(self) -> str:
        """Return the report as a Markdown page."""
        lines = [
            f"# {self.title}",
            "",
            f"{len(self.rows)} photographs in {self.groups} independent groups (lesions, where they are known). "
            "Brackets hold 95 % bootstrap intervals over the groups.",
            "",
            *_table(["figure", "value", "meaning"], [[name, *cells] for name, *cells in self.figure_rows()]),
        ]
        if self.diagnoses is not None:
            lines += ["", "## Diagnoses by class", "", *_table(*self.class_table())]
            names = self.diagnoses.class_names
            rows = [[name, *row] for name, row in zip(names, self.diagnoses.confusion().tolist(), strict=True)]
            lines += ["", "## Confusion: true classes in rows", "", *_table(["true", *names], rows)]
        for grouping in self.subgroups:
            lines += ["", f"## By {grouping.replace('_', ' ')}", "", *_table(*self.subgroup_table(grouping))]
        return "\n".join([*lines, "", f"*{NOT_A_DIAGNOSIS}*", ""])

    def figure_rows(self) -> list[tuple[str, str, str]]:
        """Return name, value with interval, and meaning of each figure."""
        return [(name, str(interval), self._meaning(name)) for name, interval in self.figures.items()]

    def class_table(self) -> tuple[list[str], list[list[str]]]:
        """Return heads and rows of the table of classes.

        Raises:
            ValueError: If the model names no classes.
        """
        if self.diagnoses is None:
            raise ValueError("this report is of a model that names no classes.")
        heads = ["class", "images", "sensitivity", "specificity", "AUC"]
        rows = [
            [name, str(scores["count"]), *(_known(scores[key]) for key in ("sensitivity", "specificity", "auc"))]
            for name, scores in self.diagnoses.scores().items()
        ]
        return heads, rows

    def subgroup_table(self, grouping: str) -> tuple[list[str], list[list[str]]]:
        """Return heads and rows of the table of one grouping."""
        values = self.subgroups[grouping]
        names = list(dict.fromkeys(name for figures in values.values() for name in figures))
        rows = []
        for value, figures in values.items():
            count = max((interval.count for interval in figures.values()), default=0)
            rows.append([value, str(count), *(str(figures.get(name, "")) for name in names)])
        return [grouping.replace("_", " "), "images", *names], rows

    def _meaning(self, name: str) -> str:
        missing = len(self.rows) - self.figures[name].count
        return MEANINGS[name] + (f"; {missing} photographs for which it is not defined are left out" if missing else "")

    def save(self, folder: str | Path, *, name: str = "report") -> None:
        """Write `<name>.json`, `<name>.md` and, one row a photograph, `<name>.csv`."""
        target = Path(folder)
        text = self.to_markdown()
        write_json(target / f"{name}.json", self.to_dict())
        write_atomically(target / f"{name}.md", lambda path: path.write_text(text, encoding="utf-8"))
        write_csv(target / f"{name}.csv", self.rows)


def _table(heads: Sequence[Any], rows: Sequence[Sequence[Any]]) -> list[str]:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return [f"| {' | '.join(map(str, heads))} |", f"|{' --- |' * len(heads)}", *(f"| {' | '.join(row)} |" for row in cells)]


def _known(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "not defined"


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _without_nan(value) for name, value in content.items()}
    return None if isinstance(content, float) and not np.isfinite(content) else content
