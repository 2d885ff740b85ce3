"""The pictures of a report, and the one page that shows them all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dermaseg.data import Samples
from dermaseg.data.images import read_image, read_mask_at
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.html import Page, Tile
from dermaseg.metrics import reliability
from dermaseg.plots import cases, choose_cases, confusion_matrix_plot, reliability_diagram, roc_curves, save_figure
from dermaseg.prediction import Predictor
from dermaseg.report import Diagnoses, Report
from dermaseg.run_data import settings_taken
from dermaseg.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["write_pictures_and_page"]

# What must not be taken for the photographs that are scored, where these are none of the run's.
_OF_TRAINING = {"data": "data of the training", "split": "split of the training"}
DPI = 160  # sharp on screens of two dots a CSS pixel


def write_pictures_and_page(
    folder: RunFolder, predictor: Predictor, samples: Samples, report: Report, *, name: str, own: bool
) -> None:
    """Write `<name>.html`, one page with everything, and its pictures: `<name>.png`, outlines, and `<name>-*.png`, classes.

    Args:
        folder: Where to write; also where the page finds curves and provenance.
        predictor: What was evaluated.
        samples: The photographs of the report, in its order.
        report: The report.
        name: Name of the report's files, without a suffix.
        own: Whether the photographs are of the run's own data.
    """
    pictures: dict[str, tuple[str, Figure]] = {}
    outlines = _cases(predictor, samples, report)
    if outlines is not None:
        pictures[name] = ("Worst, middling and best outlines: predicted in yellow, true in blue.", outlines)
    if report.diagnoses is not None:
        for kind, (caption, figure) in _class_pictures(report.diagnoses, predictor).items():
            pictures[f"{name}-{kind}"] = (caption, figure)
    saved = [(caption, folder.path / f"{file}.png") for file, (caption, _) in pictures.items()]
    for (_, path), (_, figure) in zip(saved, pictures.values(), strict=True):
        save_figure(figure, path, dpi=DPI)
    scored = None if own else report.data or samples.source or "a table"
    _page(folder, report, saved, scored=scored).save(folder.path / f"{name}.html")


def _page(folder: RunFolder, report: Report, pictures: Sequence[tuple[str, Path]], *, scored: str | None) -> Page:
    page = Page(
        report.title, subtitle=f"{len(report.rows)} photographs in {report.groups} independent groups (lesions, where known)"
    )
    page.note(NOT_A_DIAGNOSIS, tone="warning")
    page.section("Figures")
    page.tiles(
        Tile(
            name=name.replace("_", " "),
            value=f"{interval.value:.3f}",
            detail="" if math.isnan(interval.low) else f"95 % interval {interval.low:.3f} to {interval.high:.3f}",
            meaning=meaning,
        )
        for (name, interval), (_, _, meaning) in zip(report.figures.items(), report.figure_rows(), strict=True)
    )
    page.section("Pictures")
    for caption, picture in pictures:
        page.figure(picture, caption=caption)
    curves = folder.path / "curves.png"
    if curves.is_file():
        page.figure(curves, caption="The training, epoch by epoch.")
    if report.diagnoses is not None:
        page.section("Diagnoses by class")
        page.table(_records(*report.class_table()))
    for grouping in report.subgroups:
        page.section(f"By {grouping.replace('_', ' ')}")
        page.table(
            _records(*report.subgroup_table(grouping)), caption="Brackets hold 95 % bootstrap intervals over the groups."
        )
    page.section("Where it comes from")
    saved = folder.read_settings()
    facts = {name: saved.get(name) for name in ("task", "data", "split", "precision", "start") if saved.get(name)}
    if scored is not None:
        facts = {"photographs": scored, **{_OF_TRAINING.get(name, name): value for name, value in facts.items()}}
    asked = {**settings_taken(folder), **saved.get("versions", {})}
    page.facts({**facts, **asked, **facts})  # first in order, and the precision that was taken where "auto" was asked for
    return page


def _records(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    return [dict(zip(heads, row, strict=True)) for row in rows]


def _cases(predictor: Predictor, samples: Samples, report: Report) -> Figure | None:
    """Show the worst, middling and best photographs, so that nobody sees only the good ones."""
    scored = [index for index, row in enumerate(report.rows) if "jaccard" in row]
    if not scored:
        return None
    scores = [report.rows[index]["jaccard"] for index in scored]
    chosen = [scored[position] for kind in choose_cases(scores).values() for position in kind]
    photographs = [read_image(samples[index].image) for index in chosen]
    true = []
    for index, photograph in zip(chosen, photographs, strict=True):
        path = samples[index].mask
        assert path is not None  # without one there is no score
        true.append(read_mask_at(path, photograph.shape[:2]))
    return cases(
        photographs,
        predicted=[prediction.mask for prediction in predictor.predict(photographs)],
        true=true,
        scores=[report.rows[index]["jaccard"] for index in chosen],
        names=[samples[index].id for index in chosen],
    )


def _class_pictures(diagnoses: Diagnoses, predictor: Predictor) -> dict[str, tuple[str, Figure]]:
    labels, probabilities, names = diagnoses.labels, diagnoses.probabilities, diagnoses.class_names
    most = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    return {
        "confusion": (
            "True classes in rows, the most probable class in columns; shares of the row.",
            confusion_matrix_plot(diagnoses.confusion(), names),
        ),
        "roc": (
            "Each class against the rest. Marks: thresholds chosen on the validation part.",
            roc_curves(labels, probabilities, names, operating_points=_operating_points(names, predictor)),
        ),
        "reliability": (
            "How often the most probable class is right, by the probability it was given.",
            reliability_diagram(reliability(right, most)),
        ),
    }


def _operating_points(names: tuple[str, ...], predictor: Predictor) -> dict[str, float]:
    # Of two classes one curve is drawn, that of the second.
    return {name: value for name, value in predictor.decisions.thresholds.items() if len(names) > 2 or name == names[1]}
