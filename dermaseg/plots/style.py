"""The look that all pictures share."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.runs import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FEW", "GREY", "SMALL", "disclaimer", "legend_name", "line_looks", "new_figure", "save_figure", "shorten"]

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

GREY = "#767676"  # of what is there for orientation: 4.5 to 1 on white, still readable as text

SMALL = 7  # points, of what must stand there and need not be looked at

# Below so many, a share can move by a tenth or more with one chance draw: the mark is hollow.
FEW = 30

# Yellow is for outlines on skin: on white paper it can't be read.
_ON_PAPER = ("blue", "vermilion", "green", "orange", "purple", "sky", "black")
_DASHES = ("-", "--", ":")

_SETTINGS: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.labelcolor": "#222222",
    "axes.edgecolor": "#555555",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "figure.facecolor": "white",
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.facecolor": "white",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    # Class and file names are text: a "$" in one starts no formula.
    "text.parse_math": False,
    "text.usetex": False,
}


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Lend a figure, in inches, to be drawn in the library's style; the caller's own settings come back afterwards."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_SETTINGS):
        yield Figure(figsize=(width, height), layout="constrained")


def disclaimer(figure: Figure) -> str:
    """Return, in lines that fit the figure, what a picture of a network's opinion must say: pictures are passed on alone."""
    return textwrap.fill(NOT_A_DIAGNOSIS, max(20, int(19 * figure.get_figwidth())))  # about 19 small letters an inch


def line_looks(count: int) -> list[dict[str, Any]]:
    """Return a colour and a dash for each of `count` lines; the dash changes when the colours start again."""
    return [
        {"color": COLOURS[_ON_PAPER[index % len(_ON_PAPER)]], "linestyle": _DASHES[index // len(_ON_PAPER) % len(_DASHES)]}
        for index in range(count)
    ]


def legend_name(text: str) -> str:
    """Return a name as a legend shows it: Matplotlib leaves out what begins with an underscore."""
    return f"\N{WORD JOINER}{text}" if text.startswith("_") else text


def shorten(text: str, length: int) -> str:
    """Cut the middle out of a long name: file names differ at their ends."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[-tail:]}"


def save_figure(figure: Figure, path: str | Path, *, dpi: int = 150) -> None:
    """Write a figure and let go of it.

    Args:
        figure: Any Matplotlib figure.
        path: Its ending chooses the format: `.png`, `.svg`, `.pdf`. A file that is there is replaced whole or not at all.
        dpi: Pixels an inch of a PNG.

    Raises:
        OSError: If the system refuses.
        ValueError: If Matplotlib writes no such format.

    Examples:
        >>> import tempfile
        >>> from dermaseg.plots import training_curves
        >>> path = Path(tempfile.mkdtemp()) / "history.png"
        >>> save_figure(training_curves([{"epoch": 1, "loss": 0.9}, {"epoch": 2, "loss": 0.5}]), path)
        >>> path.read_bytes()[1:4]
        b'PNG'
    """
    # Photographs keep their proportions, so that what is left for their titles is known only after they have been placed once.
    figure.draw_without_rendering()
    write_atomically(Path(path), lambda unfinished: figure.savefig(unfinished, dpi=dpi))
    # One that the caller made with pyplot stays open until pyplot is told.
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close(figure)
