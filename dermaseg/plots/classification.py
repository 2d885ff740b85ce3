"""What a classifier confuses, and what each threshold would cost."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.plots.style import FEW, GREY, legend_name, line_looks, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["confusion_matrix_plot", "roc_curves"]

_NAME_WIDTH = 22  # characters a line of a class name
_LEGEND_WIDTH = 32  # characters of a name in the legend
_LETTER = 0.078  # inches, about
_ROC_WIDTH, _ROC_HEIGHT = 4.9, 4.3  # inches, without the legend
_MARGIN = 0.1  # inches, above and below a legend that is higher than the axes


def confusion_matrix_plot(matrix: np.ndarray, class_names: Sequence[str]) -> Figure:
    r"""Show true classes (rows) against predicted ones (columns): the counts, and each as a share of its row.

    The colour follows the share, so that a rare class is seen as well as a common one; the diagonal holds the sensitivities.

    Args:
        matrix: Counts, `(classes, classes)`, as `dermaseg.metrics.confusion_matrix` returns them.
        class_names: One for each class; long ones are wrapped.

    Returns:
        A figure of its own, for `save_figure`; it grows with the classes and their names.

    Raises:
        ValueError: If the matrix is not square or holds a negative count, or there is not one name a class.

    Examples:
        >>> figure = confusion_matrix_plot(np.array([[90, 10], [5, 15]]), ["benign", "malignant"])
        >>> [text.get_text() for text in figure.axes[0].texts]
        ['90\n90 %', '10\n10 %', '5\n25 %', '15\n75 %']
    """
    counts = np.asarray(matrix)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size or counts.min() < 0:
        raise ValueError(f"matrix must hold counts, (classes, classes), 0 or more, got the shape {counts.shape}.")
    classes = len(counts)
    if len(class_names) != classes:
        raise ValueError(f"class_names has {len(class_names)} names for the {classes} classes of the matrix.")
    totals = counts.sum(axis=1)
    shares = np.divide(counts, totals[:, None], out=np.zeros(counts.shape), where=totals[:, None] > 0)
    names = [textwrap.fill(name, _NAME_WIDTH) for name in class_names]
    longest = max(len(line) for name in names for line in name.splitlines())
    cell, size = (1.1, 11) if classes <= 3 else (0.66, 8)
    level = longest * _LETTER < cell  # names that fit under their column need no turn
    below = 0.4 if level else 0.7 * _LETTER * longest + 0.3
    with new_figure(cell * classes + _LETTER * max(longest, 9) + 0.5, cell * classes + below + 0.55) as figure:
        axis = figure.subplots()
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.ndindex(counts.shape):
            share, count = shares[row, column], counts[row, column]
            # Zeros step back: what is confused with what shall be seen at a glance.
            text = f"{count:,}\n{100 * share:.0f} %" if count else "0"
            colour = "white" if share > 0.65 else "#222222" if count else "#9a9a9a"
            axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=size)
        turn: dict[str, Any] = {} if level else {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
        axis.set_xticks(range(classes), names, **turn)
        axis.set_yticks(range(classes), [f"{name}\nn = {total:,}" for name, total in zip(names, totals, strict=True)])
        axis.set_xticks(np.arange(-0.5, classes), minor=True)
        axis.set_yticks(np.arange(-0.5, classes), minor=True)
        axis.grid(False)
        axis.grid(which="minor", color="white", linewidth=1.5, alpha=1)
        axis.tick_params(which="both", length=0)
        axis.spines[:].set_visible(False)
        axis.set_xlabel("predicted class\n(colour: share of the row)")
        axis.set_ylabel("true class")
        return figure


def roc_curves(
    labels: Any,
    probabilities: Any,
    class_names: Sequence[str],
    *,
    operating_points: Mapping[str, float] | None = None,
) -> Figure:
    """Draw sensitivity against 1 - specificity over all thresholds, each class against the rest.

    Of two classes only the second is drawn, the positive one: the first has the same curve, turned over.

    Args:
        labels: Integers `(samples,)`.
        probabilities: `(samples, classes)`, two or more classes.
        class_names: One for each class.
        operating_points: For a class, the threshold t of `probability >= t` that is in use; its place on the curve is marked,
            and the legend says its sensitivity and specificity.

    Returns:
        A figure of its own, for `save_figure`. Its legend gives each class's AUC and number of samples; a class that all
        samples have, or none, has no curve.

    Raises:
        ValueError: As for `dermaseg.metrics.class_scores`, or if an operating point is of no class that is drawn.

    Examples:
        >>> figure = roc_curves([0, 0, 1], [[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]], ["benign", "malignant"])
        >>> figure.legends[0].get_texts()[0].get_text()
        'malignant  1.000 (n = 1)'

    References:
        Fawcett, 2006, "An introduction to ROC analysis".
    """
    from dermaseg.metrics import class_scores

    scores = class_scores(labels, probabilities, class_names)
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    drawn = list(enumerate(class_names))[1 if len(class_names) == 2 else 0 :]
    thresholds = dict(operating_points or {})
    unknown = set(thresholds) - {name for _, name in drawn}
    if unknown:
        raise ValueError(
            f"operating_points must be of {', '.join(name for _, name in drawn)}; there is no curve of {sorted(unknown)[0]!r}."
        )
    with new_figure(_ROC_WIDTH, _ROC_HEIGHT) as figure:
        axis = figure.subplots()
        axis.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":", label="_chance")
        for (index, name), look in zip(drawn, line_looks(len(drawn)), strict=True):
            _draw_roc(axis, labels == index, probabilities[:, index], name, scores[name], look, thresholds.get(name))
        axis.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), box_aspect=1, anchor="N")
        axis.set_xlabel("1 - specificity (others taken for the class)")
        axis.set_ylabel("sensitivity (of the class found)")
        legend = figure.legend(
            *axis.get_legend_handles_labels(), loc="outside right upper", title="AUC, class against the rest", alignment="left"
        )
        room = legend.get_window_extent()
        figure.set_figwidth(_ROC_WIDTH + room.width / figure.dpi)
        figure.set_figheight(max(_ROC_HEIGHT, room.height / figure.dpi + 2 * _MARGIN))
        return figure


def _draw_roc(
    axis: Any,
    positive: np.ndarray,
    score: np.ndarray,
    name: str,
    figures: Mapping[str, float],
    look: Mapping[str, Any],
    threshold: float | None,
) -> None:
    from dermaseg.metrics import roc_curve

    name, count = legend_name(shorten(name, _LEGEND_WIDTH)), int(positive.sum())
    if count in (0, len(positive)):
        axis.plot([], [], label=f"{name}  not defined (n = {count:,})", **look)
        return
    false_positives, true_positives = roc_curve(positive, score)
    # A few positives make a staircase of which little can be said: thin.
    width = 1.0 if count < FEW else 1.8
    axis.plot(false_positives, true_positives, label=f"{name}  {figures['auc']:.3f} (n = {count:,})", linewidth=width, **look)
    if threshold is not None:
        found = score >= threshold
        sensitivity, specificity = found[positive].mean(), 1 - found[~positive].mean()
        label = f"{name} at p ≥ {threshold:.2g}:\nsensitivity {sensitivity:.2f}, specificity {specificity:.2f}"
        mark = {"marker": "o", "markersize": 8, "linestyle": "", "markeredgecolor": "white", "color": look["color"]}
        axis.plot([1 - specificity], [sensitivity], label=label, zorder=5, **mark)
