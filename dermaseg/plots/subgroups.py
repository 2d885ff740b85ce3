"""A figure for each group of patients, with its interval: where a model is good, and where nobody knows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dermaseg.plots.style import COLOURS, FEW, GREY, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from dermaseg.metrics import Interval

__all__ = ["forest_plot"]

# In inches.
_LINE, _LETTER = 0.24, 0.075
_PLOT_WIDTH, _NUMBERS_WIDTH = 3.6, 2.8


def forest_plot(
    subgroups: Mapping[str, Mapping[str, Interval]], *, label: str = "Jaccard index", overall: Interval | None = None
) -> Figure:
    """Draw a figure and its interval for each subgroup, one below the other, with the counts behind them.

    A mark's area grows with the group's lesions. Fewer than 30 make it hollow and pale: such an interval is itself a guess,
    and that of a single lesion does not exist.

    Args:
        subgroups: For each grouping ("sex"), for each of its groups ("female"), the figure with its interval.
        label: What the figure is.
        overall: The figure on all samples, as a line to compare with.

    Returns:
        A figure of its own, for `save_figure`; it grows with the groups.

    Raises:
        ValueError: If there is no group.

    Examples:
        >>> from dermaseg.metrics import Interval
        >>> groups = {"sex": {"female": Interval(0.88, 0.86, 0.9, 0.95, 210, 180), "male": Interval(0.9, 0.7, 1.0, 0.95, 9, 7)}}
        >>> figure = forest_plot(groups)
        >>> [text.get_text() for text in figure.axes[0].get_yticklabels()]
        ['sex', 'female', 'male']

    References:
        Lewis and Clarke, 2001, "Forest plots: trying to see the wood and the trees", for marks by weight.
    """
    if not any(subgroups.values()):
        raise ValueError("subgroups is empty: there is no group to draw.")
    rows: list[tuple[str, Interval | None]] = [] if overall is None else [("all", overall)]
    for grouping, groups in subgroups.items():
        rows += [(grouping, None), *groups.items()]
    largest = max(interval.groups for _, interval in rows if interval is not None)
    names = [shorten(name, 34) for name, _ in rows]
    width = _PLOT_WIDTH + _NUMBERS_WIDTH + _LETTER * max(map(len, names))
    with new_figure(width, _LINE * len(rows) + 0.9) as figure:
        axis, numbers = figure.subplots(1, 2, sharey=True, width_ratios=[_PLOT_WIDTH, _NUMBERS_WIDTH])
        if overall is not None:
            if math.isfinite(overall.low):
                axis.axvspan(overall.low, overall.high, color=COLOURS["sky"], alpha=0.18, linewidth=0, label="_overall")
            axis.axvline(overall.value, color=COLOURS["blue"], linewidth=0.8, linestyle=":", label="_overall")
        for place, (_, interval) in enumerate(rows):
            if interval is None:
                axis.axhline(place - 0.55, color="#dddddd", linewidth=0.8)
                continue
            few = interval.groups < FEW
            colour = GREY if few else COLOURS["blue"]
            if interval.groups > 1:
                axis.plot([interval.low, interval.high], [place] * 2, color=colour, linewidth=1 if few else 1.8)
            size = 14 + 90 * interval.groups / largest
            axis.scatter(interval.value, place, s=size, color="white" if few else colour, edgecolors=colour, zorder=3)
        _write_numbers(numbers, rows)
        axis.set_ylim(len(rows) - 0.4, -1.4)
        axis.set_yticks(range(len(rows)), names)
        for text, (_, interval) in zip(axis.get_yticklabels(), rows, strict=True):
            text.set_fontweight("bold" if interval is None else "normal")
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="y", visible=False)
        axis.spines["left"].set_visible(False)
        level = next(interval.level for _, interval in rows if interval is not None)
        axis.set_xlabel(f"{label}, with its {100 * level:g} % interval")
        return figure


def _write_numbers(axis: Axes, rows: Sequence[tuple[str, Interval | None]]) -> None:
    """Write what was drawn as numbers, each beside its mark."""
    axis.axis("off")
    axis.set_xlim(0, 1)
    columns = ((0.0, "left", "value and interval"), (0.78, "right", "photos"), (1.0, "right", "lesions"))
    for x, alignment, title in columns:
        axis.text(x, -1.0, title, ha=alignment, va="center", color=GREY)
    for place, (_, interval) in enumerate(rows):
        if interval is not None:
            value = str(interval) if interval.groups > 1 else f"{interval.value:.3f} (one lesion)"
            texts = (value, f"{interval.count:,}", f"{interval.groups:,}")
            for (x, alignment, _), text in zip(columns, texts, strict=True):
                axis.text(x, place, text, ha=alignment, va="center", color=GREY if interval.groups < FEW else "#222222")
