"""Whether a model's probabilities can be believed, and what it costs to keep only its surest answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.plots.style import FEW, GREY, legend_name, line_looks, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dermaseg.metrics import Reliability

__all__ = ["reliability_diagram", "risk_coverage_plot"]


def reliability_diagram(curves: Reliability | Mapping[str, Reliability]) -> Figure:
    """Draw how often came true what was called so probable; below, how many outcomes stand behind each point.

    On the diagonal a model means what it says. Below it, it is too sure. Points of fewer than 30 outcomes are hollow: chance
    alone moves them far.

    Args:
        curves: From `dermaseg.metrics.reliability`, or several by name (models, classes, before and after a temperature), all
            over the same bins.

    Returns:
        A figure of its own, for `save_figure`: the curves above, the counts below.

    Raises:
        ValueError: If there is no curve, one counts nothing, or their bins differ.

    Examples:
        >>> from dermaseg.metrics import reliability
        >>> figure = reliability_diagram({"before": reliability([0, 1], [0.2, 0.8]), "after": reliability([0, 1], [0.1, 0.9])})
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['before: calibration error 0.200', 'after: calibration error 0.100']

    References:
        Murphy and Winkler, 1977, "Reliability of subjective probability forecasts of precipitation and temperature".
    """
    named: Mapping[str, Reliability] = curves if isinstance(curves, Mapping) else {"": curves}
    if not named or any(not curve.count.sum() for curve in named.values()):
        raise ValueError("curves must hold at least one Reliability, each with outcomes.")
    bins = {len(curve.count) for curve in named.values()}
    if len(bins) > 1:
        raise ValueError(f"curves must share their bins, got {', '.join(map(str, sorted(bins)))} of them.")
    edges = np.linspace(0.0, 1.0, bins.pop() + 1)
    width = (edges[1] - edges[0]) * 0.9 / len(named)
    with new_figure(4.4, 5.4) as figure:
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        top.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="_calibrated")
        for index, ((name, curve), look) in enumerate(zip(named.items(), line_looks(len(named)), strict=True)):
            _draw_reliability(top, curve, name, look)
            below.bar(edges[:-1] + 0.05 * edges[1] + (index + 0.5) * width, curve.count, width=width, color=look["color"])
        counts = np.concatenate([curve.count[curve.count > 0] for curve in named.values()])
        if counts.max() > 200 * counts.min():
            # Pixels gather at 0 and 1: on a linear axis the middle, which matters, would be flat.
            below.set_yscale("log")
            below.set_ylim(bottom=0.5)
        below.set(xlim=(-0.01, 1.01), xlabel="probability that the model gave", ylabel="outcomes")
        top.set(ylim=(-0.02, 1.02), ylabel="share that came true")
        figure.legend(*top.get_legend_handles_labels(), loc="outside upper left")
        return figure


def _draw_reliability(axis: Any, curve: Reliability, name: str, look: Mapping[str, Any]) -> None:
    error = f"calibration error {curve.calibration_error:.3f}"
    known = curve.count > 0
    x, y, few = curve.probability[known], curve.frequency[known], curve.count[known] < FEW
    axis.plot(x, y, label=f"{legend_name(name)}: {error}" if name else error, linewidth=1.4, marker="o", markersize=5, **look)
    axis.plot(x[few], y[few], "o", color="white", markersize=3, label="_few", zorder=3)


def risk_coverage_plot(curves: Mapping[str, tuple[np.ndarray, np.ndarray]], *, risk: str = "mean error") -> Figure:
    """Draw what the surest answers cost, over the share of the photographs that is answered.

    A curve that falls to the left belongs to a model that knows what it does not know; a flat one to a confidence that says
    nothing. The share not answered would be sent to a colleague. Fewer than 30 answers make a thin line: chance moves it far.

    Args:
        curves: For each model or kind of confidence, coverage and risk as `dermaseg.metrics.risk_coverage_curve` returns them.
        risk: What the risk is, to label its axis: "error rate", "1 - Jaccard".

    Returns:
        A figure of its own, for `save_figure`. The legend gives the area under each curve.

    Raises:
        ValueError: If there is no curve, or a coverage and its risk do not agree in shape.

    Examples:
        >>> from dermaseg.metrics import risk_coverage_curve
        >>> figure = risk_coverage_plot({"entropy": risk_coverage_curve([0, 0, 1], [0.9, 0.8, 0.4])})
        >>> figure.axes[0].get_legend().get_texts()[0].get_text()
        'entropy: 0.111'
    """
    if not curves:
        raise ValueError("curves is empty: there is nothing to draw.")
    with new_figure(4.8, 3.6) as figure:
        axis = figure.subplots()
        highest = 0.0
        for (name, (coverage, risks)), look in zip(curves.items(), line_looks(len(curves)), strict=True):
            coverage, risks = np.asarray(coverage, dtype=float), np.asarray(risks, dtype=float)
            if coverage.ndim != 1 or coverage.shape != risks.shape or not coverage.size:
                raise ValueError(
                    f"curves[{name!r}] must be (coverage, risk) of one length, got {coverage.shape}, {risks.shape}."
                )
            axis.plot(
                100 * coverage[FEW - 1 :],
                risks[FEW - 1 :],
                label=f"{legend_name(name)}: {risks.mean():.3f}",
                linewidth=1.6,
                **look,
            )
            axis.plot(100 * coverage[:FEW], risks[:FEW], label="_few", linewidth=0.6, alpha=0.6, **look)
            axis.plot(100 * coverage[-1], risks[-1], "o", color=look["color"], markersize=4, label="_all", clip_on=False)
            # The first few answers can be anything: they shall not set the scale.
            highest = max(highest, float(risks[coverage >= min(0.05, coverage[-1])].max()))
        axis.set(xlim=(0, 100), ylim=(0, 1.15 * highest or 1.0))
        axis.set_xlabel("share of photographs answered, the surest first (%)")
        axis.set_ylabel(f"{risk} among them")
        axis.legend(title="area under the curve (lower is better)", alignment="left")
        return figure
