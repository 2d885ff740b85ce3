"""Cards, one a photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dermaseg.html.elements import Tone, check_tone, escape, facts_element, optional
from dermaseg.html.pictures import figure_element

if TYPE_CHECKING:
    from dermaseg.html.pictures import Picture

__all__ = ["Card", "card_element"]


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


def card_element(card: Card, max_px: int) -> str:
    """Return a card as HTML, its pictures no longer than `max_px` along their longest side.

    Raises:
        TypeError: As for `Page.figure`.
        ValueError: As for `Page.cards`.
    """
    if card.captions and len(card.captions) != len(card.pictures):
        raise ValueError(
            f"captions must be none or one for each of the {len(card.pictures)} pictures, got {len(card.captions)}."
        )
    captions = card.captions or [""] * len(card.pictures)
    badge = f'<span class="badge {check_tone(card.tone)}">{escape(card.badge)}</span>' if card.badge else ""
    pictures = "".join(
        figure_element(picture, caption, f"{caption}: {card.title}" if caption else card.title, max_px)
        for picture, caption in zip(card.pictures, captions, strict=True)
    )
    return (
        f'<article class="card"><h3><span>{escape(card.title)}</span>{badge}</h3>'
        f'<div class="pictures">{pictures}</div>{_shares(card.shares)}'
        f"{facts_element(card.facts) if card.facts else ''}{optional('p', card.text)}</article>"
    )


def _shares(shares: Mapping[str, float]) -> str:
    """Draw probabilities as bars; the number beside each bar says the same."""
    rows = []
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"shares must be from 0 to 1, got {share!r} for {name!r}.")
        percent = f"{100 * share:.1f}"
        rows.append(
            f'<li><span class="name">{escape(name)}</span><span class="bar"><span style="width:{percent}%"></span></span>'
            f'<span class="percent">{percent} %</span></li>'
        )
    return f'<ul class="shares">{"".join(rows)}</ul>' if rows else ""
