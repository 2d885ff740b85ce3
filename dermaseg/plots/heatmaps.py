"""Where a classifier looked, beside the photograph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from dermaseg.plots.style import GREY, SMALL, disclaimer, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["heatmap_panel"]


def heatmap_panel(
    images: Sequence[np.ndarray],
    heatmaps: Sequence[np.ndarray],
    *,
    titles: Sequence[str] | None = None,
    opacity: float = 0.6,
    columns: int = 3,
) -> Figure:
    """Show each photograph beside itself under a heatmap.

    The colours are those of `dermaseg.explain.overlay_heatmap`: the heat covers a place by `opacity` times its value, so that
    the skin stays visible where nothing was found.

    Args:
        images: `(height, width, 3)` each, values 0 to 255.
        heatmaps: `(height, width)` each, values 0 to 1, as `dermaseg.explain.GradCAM` returns them.
        titles: One for each photograph, as the class that the heat speaks for, and its probability.
        opacity: 0 to 1, of the hottest place.
        columns: Pairs side by side, at most.

    Returns:
        A figure of its own, for `save_figure`: a pair of pictures for each photograph.

    Raises:
        ValueError: If there is no photograph, not one heatmap and title for each, sizes differ, or `opacity` or `columns` is
            outside its range.

    Examples:
        >>> from dermaseg.explain import GradCAM
        >>> from dermaseg.models import build_cnn
        >>> images = np.zeros((2, 32, 32, 3), "uint8")
        >>> figure = heatmap_panel(images, GradCAM(build_cnn(num_classes=2, filters=(4, 8)))(images), titles=["nevus", "nevus"])
    """
    if not len(images):
        raise ValueError("images is empty: there is no photograph to show.")
    for name, values in (("heatmaps", heatmaps), ("titles", titles)):
        if values is not None and len(values) != len(images):
            raise ValueError(f"{name} must have one entry for each of the {len(images)} images, got {len(values)}.")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be from 0 to 1, got {opacity!r}.")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns!r}.")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    aspect = float(np.clip(max(np.shape(image)[0] / np.shape(image)[1] for image in images), 0.4, 1.6))
    with new_figure(4.0 * columns + 0.6, (2.0 * aspect + 0.35) * rows + 0.1) as figure:
        frames = figure.subfigures(rows, columns, squeeze=False)
        for index, frame in zip(range(len(images)), frames.flat, strict=False):
            image = np.clip(np.asarray(images[index]), 0, 255).astype(np.uint8)
            heat = np.clip(np.asarray(heatmaps[index], dtype=np.float32), 0.0, 1.0)
            if heat.shape != image.shape[:2]:
                raise ValueError(f"heatmaps[{index}] is {heat.shape}, its image {image.shape[:2]}: they must agree.")
            left, right = frame.subplots(1, 2)
            for axis in (left, right):
                axis.imshow(image)
                axis.axis("off")
            right.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=opacity * heat)
            if titles is not None:
                frame.suptitle(titles[index], fontsize=9)
        figure.supxlabel(disclaimer(figure), fontsize=SMALL, color=GREY)
        return figure
