"""One HTML file that holds a whole report: pictures inside, no script, nothing fetched from anywhere.

Such a file can be mailed, archived beside the run and opened in ten years, on a computer that is allowed no network. It
follows the reader's light or dark scheme, and a narrow screen.

Every text is escaped: a photograph named `<script>.jpg` is shown with that name. The page also forbids itself all loading
by a content security policy, so that a slip in here could still not reach out.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from dermaseg.runs import stream_text, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Picture = Figure | Image.Image | np.ndarray

__all__ = ["Card", "Page", "Tile"]

Tone = Literal["neutral", "good", "warning"]

_FIGURE_DPI = 160  # sharp on screens of two dots a CSS pixel
_JPEG_QUALITY = 88
_LEAST_SCALE = 0.75  # smaller, the letters in a drawing can't be read: on a narrow screen it scrolls instead


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One photograph among many: its pictures side by side, what was found, and whether to look again.

    Args:
        title: Usually the file name.
        pictures: `(height, width, 3)` or `(height, width)` arrays, uint8, PIL images, or Matplotlib figures.
        captions: One for each picture, also read aloud in its place; none leaves the pictures without.
        shares: Probabilities, 0 to 1, drawn as bars in this order: the classes, the likeliest first.
        facts: Further figures by name.
        badge: A word at the title: "refer".
        tone: Of the badge; the word says it too, for eyes that don't tell colours apart.
        text: A sentence below: why it should be referred.
    """

    title: str
    pictures: Sequence[Picture] = ()
    captions: Sequence[str] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    badge: str = ""
    tone: Tone = "neutral"
    text: str = ""


class Page:
    """Build a page from top to bottom, then write it.

    Args:
        title: Heading, and name of the browser's tab.
        subtitle: One line below it.
        language: Code of the language of the texts, for screen readers.

    Examples:
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
        self._parts.append(f'<h2 id="section-{len(self._sections)}">{_text(title)}</h2>')

    def paragraph(self, text: str) -> None:
        """Add a paragraph of plain text."""
        self._parts.append(f"<p>{_text(text)}</p>")

    def note(self, text: str, *, tone: Tone = "neutral") -> None:
        """Add a box that can't be overlooked: what the reader must not conclude.

        Raises:
            ValueError: If the tone is unknown.
        """
        self._parts.append(f'<p class="note {_tone(tone)}" role="note">{_text(text)}</p>')

    def links(self, links: Mapping[str, str]) -> None:
        """Add a line of links.

        Args:
            links: Address by text: `https:`, `http:`, `mailto:`, or a path relative to the page, as of a file beside it.

        Raises:
            ValueError: If an address is of another kind, which a browser might run.
        """
        items = [f'<a href="{_text(_address(address))}">{_text(text)}</a>' for text, address in links.items()]
        self._parts.append(f"<p>{' · '.join(items)}</p>")

    def tiles(self, tiles: Iterable[Tile]) -> None:
        """Add headline figures, side by side where there is room."""
        items = [
            f'<div class="tile"><dt>{_text(tile.name)}</dt><dd class="value">{_text(tile.value)}</dd>'
            f"{_optional('dd', tile.detail, 'detail')}{_optional('dd', tile.meaning, 'meaning')}</div>"
            for tile in tiles
        ]
        self._parts.append(f'<dl class="tiles">{"".join(items)}</dl>')

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Add names and values: where the data came from, the seed, the versions."""
        items = [f"<div><dt>{_text(name)}</dt><dd>{_text(_cell(value))}</dd></div>" for name, value in facts.items()]
        self._parts.append(f'<dl class="facts">{"".join(items)}</dl>')

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
        kinds = {name: ' class="number"' if _is_numeric([row.get(name) for row in rows]) else "" for name in columns}
        head = "".join(f'<th scope="col"{kinds[name]}>{_text(name)}</th>' for name in columns)
        body = []
        for row in rows:
            first, *rest = (_text(_cell(row.get(name))) for name in columns)
            cells = "".join(f"<td{kinds[name]}>{cell}</td>" for name, cell in zip(columns[1:], rest, strict=True))
            body.append(f'<tr><th scope="row">{first}</th>{cells}</tr>')
        label = f' aria-label="{_text(caption)}"' if caption else ' aria-label="table"'
        self._parts.append(
            f'<div class="scroll" role="region" tabindex="0"{label}><table>{_optional("caption", caption)}'
            f"<thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
        )

    def figure(self, picture: Picture, *, caption: str = "", alt: str = "", max_px: int | None = None) -> None:
        """Add a picture.

        Args:
            picture: A Matplotlib figure, a PIL image, or an array, `(height, width, 3)` or `(height, width)`, uint8.
            caption: Below the picture.
            alt: What it shows, for who can't see it; the caption if left out.
            max_px: Longest side in pixels to which a photograph is shrunk; None keeps it.

        Raises:
            TypeError: If it is no picture.
            ValueError: If an array has another shape or type.
        """
        self._parts.append(_figure(picture, caption, alt or caption, max_px))

    def cards(self, cards: Iterable[Card], *, max_px: int = 640) -> None:
        """Add a grid of cards, one a photograph.

        Args:
            cards: Taken one after the other: a generator holds one photograph at a time.
            max_px: Longest side in pixels to which pictures are shrunk: a hundred photographs still make a page that opens.

        Raises:
            TypeError: As for `figure`.
            ValueError: As for `figure`, or if captions do not fit the pictures, a share is outside 0 to 1, or a tone unknown.
        """
        self._parts.append(f'<div class="cards">{"".join(_card(card, max_px) for card in cards)}</div>')

    def to_html(self) -> str:
        """Return the whole page."""
        contents = ""
        if len(self._sections) > 3:
            items = [f'<li><a href="#section-{n}">{_text(title)}</a></li>' for n, title in enumerate(self._sections, start=1)]
            contents = f'<nav aria-label="Sections"><ul>{"".join(items)}</ul></nav>'
        return _PAGE.substitute(
            language=_text(self.language),
            title=_text(self.title),
            subtitle=_optional("p", self.subtitle, "subtitle"),
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
                yield lambda card: print(_card(card, max_px), file=file)
            finally:
                file.write(f"</div>{_END}{tail}")


def _card(card: Card, max_px: int) -> str:
    if card.captions and len(card.captions) != len(card.pictures):
        raise ValueError(
            f"captions must be none or one for each of the {len(card.pictures)} pictures, got {len(card.captions)}."
        )
    captions = card.captions or [""] * len(card.pictures)
    badge = f'<span class="badge {_tone(card.tone)}">{_text(card.badge)}</span>' if card.badge else ""
    pictures = "".join(
        _figure(picture, caption, f"{caption}: {card.title}" if caption else card.title, max_px)
        for picture, caption in zip(card.pictures, captions, strict=True)
    )
    facts = "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(_cell(value))}</dd></div>" for name, value in card.facts.items())
    return (
        f'<article class="card"><h3><span>{_text(card.title)}</span>{badge}</h3>'
        f'<div class="pictures">{pictures}</div>{_shares(card.shares)}'
        f"{f'<dl class={chr(34)}facts{chr(34)}>{facts}</dl>' if facts else ''}{_optional('p', card.text)}</article>"
    )


def _shares(shares: Mapping[str, float]) -> str:
    """Draw probabilities as bars; the number beside each bar says the same."""
    rows = []
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"shares must be from 0 to 1, got {share!r} for {name!r}.")
        percent = f"{100 * share:.1f}"
        rows.append(
            f'<li><span class="name">{_text(name)}</span><span class="bar"><span style="width:{percent}%"></span></span>'
            f'<span class="percent">{percent} %</span></li>'
        )
    return f'<ul class="shares">{"".join(rows)}</ul>' if rows else ""


def _figure(picture: Picture, caption: str, alt: str, max_px: int | None) -> str:
    source, width, height, paper = _encode(picture, max_px)
    look = f' class="paper" style="min-width:{round(_LEAST_SCALE * width)}px"' if paper else ""
    image = f'<img src="{source}" alt="{_text(alt)}" width="{width}" height="{height}"{look}>'
    if paper:
        image = f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(alt or "figure")}">{image}</div>'
    # As wide as the picture, so that small ones stand side by side and a caption stays below its own.
    return f'<figure style="--width:{width}px">{image}{_optional("figcaption", caption)}</figure>'


def _encode(picture: Picture, max_px: int | None) -> tuple[str, int, int, bool]:
    """Return a data address, width and height in CSS pixels, and whether it is a drawing on white paper."""
    buffer = io.BytesIO()
    if not isinstance(picture, (Image.Image, np.ndarray)):
        if not hasattr(picture, "savefig"):
            raise TypeError(f"a picture must be a Matplotlib figure, a PIL image or an array, got {type(picture).__name__}.")
        width, height = (round(inches * 96) for inches in picture.get_size_inches())
        picture.savefig(buffer, format="png", dpi=_FIGURE_DPI)
        return _data("png", buffer), width, height, True
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.shape[2:] not in ((), (3,)) or picture.ndim < 2:
            raise ValueError(
                "an array must be (height, width, 3) or (height, width), uint8, 0 to 255; "
                f"got shape {picture.shape}, {picture.dtype}."
            )
        picture = Image.fromarray(picture)
    grey = picture.mode in ("1", "L")
    # Converted and copied pixel by pixel, so that what a camera wrote beside them (place, time, owner) stays behind.
    plain = Image.fromarray(np.asarray(picture.convert("L" if grey else "RGB")))
    if max_px is not None:
        plain.thumbnail((max_px, max_px))
    if grey:
        plain.save(buffer, "PNG", optimize=True)
    else:
        plain.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return _data("png" if grey else "jpeg", buffer), *plain.size, False


def _data(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _optional(tag: str, text: str, kind: str = "") -> str:
    if not text:
        return ""
    return f'<{tag} class="{kind}">{_text(text)}</{tag}>' if kind else f"<{tag}>{_text(text)}</{tag}>"


def _tone(tone: str) -> str:
    if tone not in ("neutral", "good", "warning"):
        raise ValueError(f"tone must be neutral, good or warning, got {tone!r}.")
    return tone


def _address(address: str) -> str:
    # A browser drops blanks and control characters: "java\nscript:" is "javascript:" to it.
    plain = re.sub(r"[\x00-\x20]", "", address)
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", plain)
    if scheme is not None and scheme.group().lower() not in ("http:", "https:", "mailto:"):
        raise ValueError(f"links must be http:, https:, mailto: or a relative path, got {address!r}.")
    return address


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.4g}"
    return str(value)


def _is_numeric(values: Sequence[Any]) -> bool:
    """Say whether a column holds numbers, with or without an interval."""
    known = [value for value in values if value is not None and not isinstance(value, (bool, np.bool_))]
    return bool(known) and all(re.match(r"[+-]?[\d.,]+\s*(%|$|\[|±)|nan$", str(value).strip()) for value in known)


_END = "\n</main>"
_PAGE = Template("""<!DOCTYPE html>
<html lang="$language">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header><h1>$title</h1>$subtitle</header>
$contents
<main>
$body
</main>
</body>
</html>
""")

# Text and badges keep a contrast of 4.5 to 1 or more in both schemes. A figure has a margin to its right, for a neighbour, only
# as far as there is room beside it: a fixed one would make it wider than a narrow screen, and the page would scroll sideways.
_STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --raised: #f5f6f7; --text: #1c2126; --quiet: #57606a; --line: #d5dade;
  --accent: #00598c; --bar: #0072b2; --good: #00664a; --good-ground: #e0f3ec; --warn: #8f3e00; --warn-ground: #fdeadb; }
@media (prefers-color-scheme: dark) { :root { --ground: #14181c; --raised: #1f252b; --text: #e4e8ec; --quiet: #a3adb7;
  --line: #39424b; --accent: #7cc4f0; --bar: #56b4e9; --good: #6fd6b3; --good-ground: #12342a; --warn: #ffb27a;
  --warn-ground: #40240e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 82rem; padding: 1.5rem clamp(1rem, 3vw, 2.5rem) 4rem; background: var(--ground);
  color: var(--text); font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: clamp(1.4rem, 1.1rem + 1.5vw, 2rem); line-height: 1.2; margin: 0; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 0.75rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0; }
p { max-width: 48rem; margin: 0.6rem 0; }
a { color: var(--accent); }
.subtitle { color: var(--quiet); margin-top: 0.3rem; }
nav ul { display: flex; flex-wrap: wrap; gap: 0.25rem 1.25rem; list-style: none; padding: 0; margin: 1rem 0 0; }
.note { border-left: 4px solid var(--accent); background: var(--raised); padding: 0.7rem 1rem; border-radius: 0 6px 6px 0; }
.note.warning { border-color: var(--warn); background: var(--warn-ground); }
.note.good { border-color: var(--good); background: var(--good-ground); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(15rem, 100%), 1fr)); gap: 0.9rem; margin: 1rem 0; }
.tile { background: var(--raised); border: 1px solid var(--line); border-radius: 8px; padding: 0.8rem 1rem; }
.tile dt { font-weight: 600; }
dd { margin: 0; }
.value { font-size: 1.9rem; font-weight: 650; line-height: 1.3; font-variant-numeric: tabular-nums; }
.detail { font-variant-numeric: tabular-nums; }
.meaning { color: var(--quiet); font-size: 0.875rem; margin-top: 0.35rem; }
.facts { margin: 0.75rem 0; }
.facts > div { display: grid; grid-template-columns: minmax(8rem, 14rem) 1fr; gap: 0.2rem 1rem; padding: 0.25rem 0;
  border-bottom: 1px solid var(--line); }
.facts dt { color: var(--quiet); }
.facts dd { font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: 0.925rem; overflow-wrap: normal; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.4rem; max-width: 90vw; }
th, td { padding: 0.35rem 0.9rem 0.35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 600; vertical-align: bottom; white-space: nowrap; }
tbody th { font-weight: 500; }
.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
tbody tr:hover { background: var(--raised); }
figure { display: inline-block; vertical-align: top; width: var(--width); max-width: 100%;
  margin: 1rem clamp(0px, 100% - var(--width), 2rem) 1rem 0; }
figure .scroll { margin: 0; }
img { display: block; max-width: 100%; height: auto; border-radius: 6px; }
img.paper { background: #ffffff; padding: 0.5rem; border: 1px solid var(--line); }
figcaption { color: var(--quiet); font-size: 0.9rem; max-width: 48rem; margin-top: 0.4rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); gap: 1.1rem; margin: 1rem 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 0.9rem; background: var(--raised); }
.card h3 { display: flex; justify-content: space-between; align-items: start; gap: 0.75rem; margin-bottom: 0.6rem; }
.card .pictures { display: grid; grid-auto-flow: column; grid-auto-columns: 1fr; gap: 0.6rem; }
.card figure { display: block; margin: 0; width: auto; max-width: none; }
.card img { width: 100%; }
.card .facts { font-size: 0.9rem; }
.card .facts > div { grid-template-columns: 1fr auto; }
.card p { font-size: 0.9rem; margin-bottom: 0; }
.badge { flex: none; border-radius: 99px; padding: 0.1rem 0.7rem; font-size: 0.85rem; font-weight: 650; color: var(--text);
  border: 1px solid var(--line); }
.badge.warning { color: var(--warn); background: var(--warn-ground); border-color: currentColor; }
.badge.good { color: var(--good); background: var(--good-ground); border-color: currentColor; }
.shares { list-style: none; padding: 0; margin: 0.75rem 0; font-size: 0.9rem; }
.shares li { display: grid; grid-template-columns: 44% 1fr 3.6rem; gap: 0.6rem; align-items: center; }
.bar { height: 0.6rem; border-radius: 3px; background: var(--line); overflow: hidden; }
.bar span { display: block; height: 100%; background: var(--bar); }
.percent { text-align: right; font-variant-numeric: tabular-nums; }
@media (max-width: 30rem) { main > .facts > div { grid-template-columns: 1fr; } }
@media print { :root { --ground: #ffffff; --text: #000000; } body { max-width: none; padding: 0; }
  .card, .tile, figure, tr { break-inside: avoid; } .scroll { overflow: visible; } nav { display: none; } }
"""
