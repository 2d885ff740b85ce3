"""How a training went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dermaseg.plots.style import COLOURS, GREY, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["training_curves"]

_NO_MEASURE = ("epoch", "learning_rate")
_COLUMNS = 3
_MARKED = 40  # more points than this hide each other's marks
_LOG_FROM = 10.0  # a loss that falls to less than a tenth shows its end only on a logarithmic axis


def training_curves(history: Sequence[Mapping[str, Any]], *, monitor: str | None = None) -> Figure:
    """Draw each figure of a training over its epochs, training and validation together.

    Losses that fall to less than a tenth get a logarithmic axis, everything else a linear one. Validation is drawn where it
    was measured, however seldom.

    Args:
        history: One row an epoch, as `history.csv` holds them; empty cells are skipped.
        monitor: The figure that chose the best epoch; its epoch is marked: the highest value, the lowest where the figure is a
            loss, and the earliest of equals.

    Returns:
        A figure of its own, for `save_figure`: a chart for each measure, in the order in which the rows name them.

    Raises:
        ValueError: If the history is empty, a row has no epoch, or no row holds a finite value of the figure to monitor.

    Examples:
        >>> rows = [{"epoch": 1, "loss": 0.9, "val_loss": ""}, {"epoch": 2, "loss": 0.5, "val_loss": 0.6}]
        >>> [line.get_label() for line in training_curves(rows).axes[0].lines]
        ['training', 'validation']
    """
    if not history:
        raise ValueError("history is empty: there is no epoch to draw.")
    if not all("epoch" in row for row in history):
        raise ValueError("every row of history must have an 'epoch', as the rows of history.csv do.")
    names = [key.removeprefix("val_") for row in history for key in row if key not in _NO_MEASURE]
    measures = list(dict.fromkeys(names))
    best = None if monitor is None else _best(history, monitor)
    columns = 2 if len(measures) == 4 else max(1, min(_COLUMNS, len(measures)))
    rows = max(1, -(-len(measures) // columns))
    with new_figure(4.0 * columns, 2.9 * rows + 0.3) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat[len(measures) :]:
            axis.axis("off")
        for measure, axis in zip(measures, axes.flat, strict=False):
            _draw(axis, history, measure)
            if best is not None:
                # Not a line of the data: it must not widen the axis.
                axis.axvline(best[0], color=GREY, linewidth=0.8, linestyle="--", zorder=0, label="_best")
            if best is not None and monitor is not None and measure == monitor.removeprefix("val_"):
                axis.set_title(f"best: {best[1]:.3f} in epoch {best[0]:g}", color=GREY)
        return figure


def _draw(axis: Axes, history: Sequence[Mapping[str, Any]], measure: str) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    drawn: list[float] = []
    for name, label, colour, marker in (
        (measure, "training", "blue", "."),
        (f"val_{measure}", "validation", "vermilion", "o"),
    ):
        points = _points(history, name)
        if points:
            epochs, values = zip(*points, strict=True)
            marked = marker if len(points) <= _MARKED else ""
            axis.plot(epochs, values, label=label, color=COLOURS[colour], marker=marked, markersize=4, linewidth=1.4)
            drawn += values
    finite = [value for value in drawn if math.isfinite(value)]
    if measure.endswith("loss") and finite and min(finite) > 0 and max(finite) > _LOG_FROM * min(finite):
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.yaxis.set_minor_locator(NullLocator())
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axis.set_xlabel("epoch")
    axis.set_ylabel(measure.replace("_", " "))
    axis.legend()


def _points(history: Sequence[Mapping[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(row["epoch"]), float(row[name])) for row in history if row.get(name) not in (None, "")]


def _best(history: Sequence[Mapping[str, Any]], monitor: str) -> tuple[float, float]:
    points = [point for point in _points(history, monitor) if math.isfinite(point[1])]
    if not points:
        raise ValueError(f"monitor must name a figure of the history with a finite value, got {monitor!r}.")
    choose = min if monitor.endswith("loss") else max
    return choose(points, key=lambda point: point[1])
