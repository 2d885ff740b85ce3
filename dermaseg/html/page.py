"""A page, from top to bottom."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from dermaseg.html.cards import Card, card_element
from dermaseg.html.elements import Tone, cell_text, check_tone, escape, facts_element, is_numeric, optional, safe_address
from dermaseg.html.pictures import figure_element
from dermaseg.runs import stream_text, write_atomically

if TYPE_CHECKING:
    from dermaseg.html.pictures import Picture

__all__ = ["Page", "Tile"]

_PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
_STYLE = Path(__file__).with_name("style.css").read_text(encoding="utf-8")
_END = "\n</main>"  # of the page: cards that come one by one go before it


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One headline figure.

    Args:
        name: What it is: "Jaccard index (IoU)".
        value: As it shall stand there: "0.893".
        detail: Below it, smaller: "95 % interval 0.881 to 0.905".
        meaning: What it says, for a reader who does not know it.
    """

    name: str
    value: str
    detail: str = ""
    meaning: str = ""


class Page:
    """Build a page from top to bottom, then write it.

    Args:
        title: Heading, and name of the browser's tab.
        subtitle: One line below it.
        language: Code of the language of the texts, for screen readers.

    Examples:
        >>> import numpy as np
        >>> page = Page("Report <1>", subtitle="40 photographs")
        >>> page.section("Figures")
        >>> page.tiles([Tile(name="Jaccard index", value="0.893", detail="95 % interval 0.881 to 0.905")])
        >>> page.table([{"sex": "female", "photos": 20}, {"sex": "male", "photos": 20}])
        >>> page.figure(np.zeros((4, 6, 3), "uint8"), caption="A black picture")
        >>> "<h1>Report &lt;1&gt;</h1>" in page.to_html()
        True
    """

    def __init__(self, title: str, *, subtitle: str = "", language: str = "en") -> None:
        self.title = title
        self.subtitle = subtitle
        self.language = language
        self._parts: list[str] = []
        self._sections: list[str] = []

    def section(self, title: str) -> None:
        """Begin a section; from four on, the page gets a list of them at its top."""
        self._sections.append(title)
        self._parts.append(f'<h2 id="section-{len(self._sections)}">{escape(title)}</h2>')

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._parts.append(f"<p>{escape(text)}</p>")

    def note(self, text: str, *, tone: Tone = "neutral") -> None:
        """Add a box that can't be overlooked: what the reader must not conclude.

        Raises:
            ValueError: If the tone is unknown.
        """
        self._parts.append(f'<p class="note {check_tone(tone)}" role="note">{escape(text)}</p>')

    def links(self, links: Mapping[str, str]) -> None:
        """Add a line of links.

        Args:
            links: Address by text: `https:`, `http:`, `mailto:`, or a path relative to the page, as of a file beside it.

        Raises:
            ValueError: If an address is of another kind, which a browser might run.
        """
        items = [f'<a href="{escape(safe_address(address))}">{escape(text)}</a>' for text, address in links.items()]
        self._parts.append(f"<p>{' · '.join(items)}</p>")

    def tiles(self, tiles: Iterable[Tile]) -> None:
        """Add headline figures, side by side where there is room."""
        items = [
            f'<div class="tile"><dt>{escape(tile.name)}</dt><dd class="value">{escape(tile.value)}</dd>'
            f"{optional('dd', tile.detail, 'detail')}{optional('dd', tile.meaning, 'meaning')}</div>"
            for tile in tiles
        ]
        self._parts.append(f'<dl class="tiles">{"".join(items)}</dl>')

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Add names and values: where the data came from, the seed, the versions."""
        self._parts.append(facts_element(facts))

    def table(self, rows: Sequence[Mapping[str, Any]], *, caption: str = "") -> None:
        """Add a table; a wide one scrolls within itself.

        Args:
            rows: One mapping a row. The columns are the union of their keys, first seen first; the first names the row. Numbers
                are set to the right, floats with four significant digits; None and NaN become a dash.
            caption: Above the table.

        Raises:
            ValueError: If there is no row.
        """
        if not rows:
            raise ValueError("rows is empty: leave the table out, or say in a paragraph that there is nothing.")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        kinds = {name: ' class="number"' if is_numeric([row.get(name) for row in rows]) else "" for name in columns}
        head = "".join(f'<th scope="col"{kinds[name]}>{escape(name)}</th>' for name in columns)
        body = []
        for row in rows:
            first, *rest = (escape(cell_text(row.get(name))) for name in columns)
            cells = "".join(f"<td{kinds[name]}>{cell}</td>" for name, cell in zip(columns[1:], rest, strict=True))
            body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
        label = f' aria-label="{escape(caption)}"' if caption else ' aria-label="table"'
        self._parts.append(
            f'<div class="scroll" role="region" tabindex="0"{label}><table>{optional("caption", caption)}'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )

    def figure(self, picture: Picture, *, caption: str = "", alt: str = "", max_px: int | None = None) -> None:
        """Add a picture.

        Args:
            picture: A Matplotlib figure, a PIL image, an array, `(height, width, 3)` or `(height, width)`, uint8, or the path
                of a figure that was saved as a PNG and is not drawn again.
            caption: Below the picture.
            alt: What it shows, for who can't see it; the caption if left out.
            max_px: Longest side in pixels to which a photograph is shrunk; None keeps it.

        Raises:
            TypeError: If it is no picture.
            ValueError: If an array has another shape or type, or a path is not that of a PNG.
        """
        self._parts.append(figure_element(picture, caption, alt or caption, max_px))

    def cards(self, cards: Iterable[Card], *, max_px: int = 640) -> None:
        """Add a grid of cards, one a photograph.

        Args:
            cards: Taken one after the other: a generator holds one photograph at a time.
            max_px: Longest side in pixels to which pictures are shrunk: a hundred photographs still make a page that opens.

        Raises:
            TypeError: As for `figure`.
            ValueError: As for `figure`, or if captions do not fit the pictures, a share is outside 0 to 1, or a tone unknown.
        """
        self._parts.append(f'<div class="cards">{"".join(card_element(card, max_px) for card in cards)}</div>')

    def to_html(self) -> str:
        """Return the whole page."""
        contents = ""
        if len(self._sections) > 3:
            items = [f'<li><a href="#section-{n}">{escape(title)}</a></li>' for n, title in enumerate(self._sections, start=1)]
            contents = f'<nav aria-label="Sections"><ul>{"".join(items)}</ul></nav>'
        return _PAGE.substitute(
            language=escape(self.language),
            title=escape(self.title),
            subtitle=optional("p", self.subtitle, "subtitle"),
            style=_STYLE,
            contents=contents,
            body="\n".join(self._parts),
        )

    def save(self, path: str | Path) -> None:
        """Write the page as UTF-8; a file that is there is replaced whole or not at all."""
        text = self.to_html()
        # A file name that is no UTF-8 reaches Python with surrogates, which can't be written.
        write_atomically(Path(path), lambda unfinished: unfinished.write_text(text, encoding="utf-8", errors="replace"))

    @contextlib.contextmanager
    def stream_cards(self, path: str | Path, *, max_px: int = 640) -> Iterator[Callable[[Card], None]]:
        """Write the page with a grid of cards at its end, each as it comes, so that none stays in memory.

        The page is closed and takes its name when the block ends, also by an error or an interrupt.

        Args:
            path: The file to make or replace.
            max_px: As for `cards`.

        Yields:
            A function that adds a card; it raises what `cards` raises.
        """
        head, tail = self.to_html().split(_END)
        with stream_text(Path(path)) as file:
            file.write(f'{head}<div class="cards">')
            try:
                yield lambda card: print(card_element(card, max_px), file=file)
            finally:
                file.write(f"</div>{_END}{tail}")
