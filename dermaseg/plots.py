"""Pictures: outlines on photographs, panels of predictions, training curves. One colour-blind-safe style.

matplotlib is loaded when a chart is drawn, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "overlay", "panel", "save_figure", "training_curves"]

# Okabe and Ito, 2008: told apart with any colour vision.
COLOURS: Mapping[str, str] = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "yellow": "#F0E442",
    "black": "#000000",
}

_TRUTH, _PREDICTION = COLOURS["sky"], COLOURS["yellow"]


def overlay(image: np.ndarray, mask: np.ndarray, *, colour: str = _PREDICTION, width_px: int | None = None) -> np.ndarray:
    """Draw a mask's outline on a photograph, with a dark rim that shows on pale and dark skin alike.

    Args:
        image: `(height, width, 3)`, uint8 RGB.
        mask: `(height, width)`, 0 or 1.
        colour: Of the outline, as `"#RRGGBB"`.
        width_px: Of the outline, in pixels; None takes one for each 200 pixels of the picture's side, at least 1.

    Returns:
        A new picture, `(height, width, 3)`, uint8 RGB.

    Raises:
        ValueError: If the mask is not of the image's size.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"mask is {mask.shape}, the image {image.shape[:2]} (height, width): they must agree.")
    width = width_px or max(1, round(max(mask.shape) / 200))
    inside = mask.astype(bool)
    line = ndimage.binary_dilation(inside, iterations=width) & ~ndimage.binary_erosion(inside, iterations=width)
    rim = ndimage.binary_dilation(line, iterations=max(1, width // 2)) & ~line
    picture = image.copy()
    picture[rim] //= 3
    picture[line] = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return picture


def panel(
    images: Sequence[np.ndarray],
    *,
    predicted: Sequence[np.ndarray],
    true: Sequence[np.ndarray] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 4,
) -> Figure:
    """Show photographs with the predicted outline (yellow) and, where it is known, the true one (blue).

    Args:
        images: `(height, width, 3)`, uint8 RGB each.
        predicted: `(height, width)`, 0 or 1 each.
        true: The same, or None.
        titles: One for each photograph.
        columns: Pictures side by side.
    """
    with _style() as plt:
        rows = -(-len(images) // columns)
        figure, axes = plt.subplots(rows, columns, figsize=(2.6 * columns, 2.8 * rows), squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for index, (image, axis) in enumerate(zip(images, axes.flat, strict=False)):
            picture = overlay(image, true[index], colour=_TRUTH) if true is not None else image
            axis.imshow(overlay(picture, predicted[index]))
            if titles is not None:
                axis.set_title(titles[index])
        handles = [plt.Line2D([], [], color=_PREDICTION, linewidth=3, label="predicted")]
        if true is not None:
            handles.append(plt.Line2D([], [], color=_TRUTH, linewidth=3, label="true"))
        legend = figure.legend(handles=handles, loc="lower center", ncols=2, frameon=True)
        legend.get_frame().set_facecolor("#DDDDDD")
        figure.tight_layout(rect=(0, 0.06 if rows > 1 else 0.1, 1, 1))
        return figure


def training_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw each figure of a training over its epochs, training and validation together.

    Args:
        history: One row an epoch, as `history.csv` holds them; empty cells are skipped.

    Raises:
        ValueError: If the history is empty.
    """
    if not history:
        raise ValueError("history is empty: there is no epoch to draw.")
    names = [name for name in dict.fromkeys(key for row in history for key in row) if name not in ("epoch", "learning_rate")]
    measures = [name for name in names if not name.startswith("val_")]
    with _style() as plt:
        figure, axes = plt.subplots(1, len(measures), figsize=(4.5 * len(measures), 3.2), squeeze=False)
        for measure, axis in zip(measures, axes.flat, strict=True):
            series = ((measure, "training", "blue"), (f"val_{measure}", "validation", "vermilion"))
            for name, label, colour in series:
                points = [(float(row["epoch"]), float(row[name])) for row in history if row.get(name) not in (None, "")]
                if points:
                    epochs, values = zip(*points, strict=True)
                    axis.plot(epochs, values, label=label, color=COLOURS[colour], marker="o", markersize=3)
            axis.set_xlabel("epoch")
            axis.set_ylabel(measure)
            axis.legend()
        figure.tight_layout()
        return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG and let go of it."""
    import matplotlib.pyplot as plt

    figure.savefig(path, dpi=150)
    plt.close(figure)


@contextmanager
def _style() -> Iterator[Any]:
    """Lend pyplot with the library's style; the caller's own settings come back afterwards."""
    import matplotlib.pyplot as plt

    settings: dict[Any, Any] = {
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.3,
        "axes.titlesize": 9,
        "legend.frameon": False,
        "font.size": 9,
    }
    with plt.rc_context(settings):
        yield plt
