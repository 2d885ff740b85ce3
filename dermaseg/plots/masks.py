"""Outlines on photographs: one, a panel of them, and the worst beside the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from dermaseg.data.images import resize_image, resize_mask
from dermaseg.plots.style import COLOURS, SMALL, disclaimer, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["cases", "choose_cases", "overlay", "panel"]

_TRUTH, _PREDICTION = COLOURS["sky"], COLOURS["yellow"]
# A panel shows a photograph about 400 pixels wide. Brought to one size first, all photographs get equally fine outlines.
_SHOWN_PX = 480


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

    Examples:
        >>> overlay(np.zeros((5, 5, 3), "uint8"), np.pad([[1]], 2), colour="#FFFFFF")[2, :, 0].tolist()
        [0, 255, 255, 255, 0]
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"mask is {mask.shape}, the image {image.shape[:2]} (height, width): they must agree.")
    width = width_px or max(1, round(max(mask.shape) / 200))
    inside = mask.astype(bool)
    # Beyond the picture's edge lies skin: a lesion that is cut off has its outline along the edge.
    skin = np.pad(~inside, 1, constant_values=True)
    line = _grown(inside, width) & _grown(skin, width)[1:-1, 1:-1]
    rim = _grown(line, max(1, width // 2)) & ~line
    picture = image.copy()
    picture[rim] //= 3
    picture[line] = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    return picture


def _grown(region: np.ndarray, steps: int) -> np.ndarray:
    """Add the four neighbours of every pixel, again and again; loading scipy.ndimage for it would slow a prediction's start."""
    for _ in range(steps):
        grown = region.copy()
        grown[1:] |= region[:-1]
        grown[:-1] |= region[1:]
        grown[:, 1:] |= region[:, :-1]
        grown[:, :-1] |= region[:, 1:]
        region = grown
    return region


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
        columns: Pictures side by side, at most.

    Returns:
        A figure of its own, for `save_figure`: a picture for each photograph, at most `columns` in a row.

    Raises:
        ValueError: If there is no photograph, or not one mask and title for each.

    Examples:
        >>> photos, masks = [np.zeros((9, 9, 3), "uint8")] * 2, [np.eye(9)] * 2
        >>> figure = panel(photos, predicted=masks, true=masks, titles=["ISIC_1", "ISIC_2"])
        >>> [text.get_text() for text in figure.legends[0].get_texts()]
        ['predicted', 'true']
    """
    _check_lengths(images, predicted=predicted, true=true, titles=titles)
    if columns < 1:
        raise ValueError(f"columns must be at least 1, got {columns!r}.")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    with new_figure(2.6 * columns, (2.6 * _aspect(images) + 0.4) * rows + 0.35) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for index, axis in zip(range(len(images)), axes.flat, strict=False):
            _show(axis, images[index], predicted[index], None if true is None else true[index])
            if titles is not None:
                axis.set_title(titles[index])
        _legend(figure, with_truth=true is not None)
        return figure


def choose_cases(scores: Sequence[float], *, each: int = 4, higher_is_better: bool = True) -> dict[str, list[int]]:
    """Choose the worst, middling and best photographs, so that nobody sees only the good ones.

    What was chosen can be chosen from again: the same photographs come out in the same places.

    Args:
        scores: One for each photograph, finite.
        each: How many of each kind, at least 1. No photograph is chosen twice: of fewer than 3 `each` all are taken, in
            thirds.
        higher_is_better: False for distances and errors.

    Returns:
        Positions in `scores`, by `worst`, `middling` and `best`, each from worse to better; of equals the first comes first.

    Raises:
        ValueError: If there is no score or one is not finite, or `each` is below 1.

    Examples:
        >>> choose_cases([0.9, 0.1, 0.7, 0.8, 0.3], each=1)
        {'worst': [1], 'middling': [2], 'best': [0]}
    """
    values = np.asarray(scores, dtype=float)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"scores must be finite, one for each of at least one photograph, got {scores!r}.")
    if each < 1:
        raise ValueError(f"each must be at least 1, got {each!r}.")
    order = np.argsort(values if higher_is_better else -values, kind="stable")
    if len(order) < 3 * each:
        parts = np.array_split(order, 3)
    else:
        middle = (len(order) - each) // 2
        parts = [order[:each], order[middle : middle + each], order[-each:]]
    return {name: part.tolist() for name, part in zip(("worst", "middling", "best"), parts, strict=True)}


def cases(
    images: Sequence[np.ndarray],
    *,
    predicted: Sequence[np.ndarray],
    true: Sequence[np.ndarray],
    scores: Sequence[float],
    names: Sequence[str] | None = None,
    score_name: str = "Jaccard",
    each: int = 4,
    higher_is_better: bool = True,
) -> Figure:
    """Show the worst, middling and best photographs, a row each, with both outlines and the score.

    Only the photographs that `choose_cases` takes are looked at, so the sequences may read them when asked; or choose first
    and give those alone.

    Args:
        images: `(height, width, 3)`, uint8 RGB each.
        predicted: `(height, width)`, 0 or 1 each.
        true: The same.
        scores: One for each photograph, finite.
        names: One for each photograph, for its caption.
        score_name: What the scores are.
        each: Photographs a row, at least 1.
        higher_is_better: False for distances and errors.

    Returns:
        A figure of its own, for `save_figure`: a row of pictures each for `worst`, `middling` and `best`, as far as there
        are any.

    Raises:
        ValueError: If there is no photograph, not one mask, score and name for each, or as for `choose_cases`.

    Examples:
        >>> photos, masks = [np.zeros((9, 9, 3), "uint8")] * 3, [np.eye(9)] * 3
        >>> figure = cases(photos, predicted=masks, true=masks, scores=[0.2, 0.9, 0.7], each=1)
        >>> [axis.get_title() for axis in figure.axes]
        ['Jaccard 0.20', 'Jaccard 0.70', 'Jaccard 0.90']
    """
    _check_lengths(images, predicted=predicted, true=true, scores=scores, names=names)
    chosen = {
        kind: where for kind, where in choose_cases(scores, each=each, higher_is_better=higher_is_better).items() if where
    }
    columns = max(map(len, chosen.values()))
    shown = [images[index] for where in chosen.values() for index in where]
    with new_figure(2.6 * columns + 0.3, (2.6 * _aspect(shown) + 0.45) * len(chosen) + 0.35) as figure:
        axes = figure.subplots(len(chosen), columns, squeeze=False)
        for row, (kind, where) in zip(axes, chosen.items(), strict=True):
            for axis in row:
                axis.set(xticks=[], yticks=[])
                axis.spines[:].set_visible(False)
            row[0].set_ylabel(kind, fontsize=11, fontweight="bold")
            for index, axis in zip(where, row, strict=False):
                _show(axis, images[index], predicted[index], true[index])
                caption = f"{score_name} {scores[index]:.2f}"
                axis.set_title(caption if names is None else f"{shorten(names[index], 30)}\n{caption}")
        _legend(figure, with_truth=True)
        return figure


def _show(axis: Axes, image: np.ndarray, predicted: np.ndarray, true: np.ndarray | None) -> None:
    factor = _SHOWN_PX / max(image.shape[:2])
    size = tuple(max(1, round(side * factor)) for side in image.shape[:2])

    def fitted(mask: np.ndarray) -> np.ndarray:
        if mask.shape != image.shape[:2]:
            raise ValueError(f"a mask is {mask.shape}, its image {image.shape[:2]} (height, width): they must agree.")
        return resize_mask(mask, size)

    picture = resize_image(image, size)
    if true is not None:
        picture = overlay(picture, fitted(true), colour=_TRUTH)
    axis.imshow(overlay(picture, fitted(predicted)))


def _legend(figure: Figure, *, with_truth: bool) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patheffects import withStroke

    # The rim of the outlines, which yellow needs on white paper.
    rim = [withStroke(linewidth=5, foreground="#333333")]
    looks: Mapping[str, Any] = {"linewidth": 3, "path_effects": rim, "solid_capstyle": "butt"}
    handles = [Line2D([], [], color=_PREDICTION, label="predicted", **looks)]
    if with_truth:
        handles.append(Line2D([], [], color=_TRUTH, label="true", **looks))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2, title=disclaimer(figure), title_fontproperties={"size": SMALL}
    )


def _aspect(images: Sequence[np.ndarray]) -> float:
    """Return height over width of the tallest picture, within what still makes a page."""
    return float(np.clip(max(image.shape[0] / image.shape[1] for image in images), 0.4, 1.6))


def _check_lengths(images: Sequence[np.ndarray], **others: Sequence[Any] | None) -> None:
    if not len(images):
        raise ValueError("images is empty: there is no photograph to show.")
    for name, values in others.items():
        if values is not None and len(values) != len(images):
            raise ValueError(f"{name} must have one entry for each of the {len(images)} images, got {len(values)}.")
