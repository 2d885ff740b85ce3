"""Texts, values and addresses, made safe to stand in a page."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

__all__ = ["Tone", "cell_text", "check_tone", "escape", "facts_element", "is_numeric", "optional", "safe_address"]

Tone = Literal["neutral", "good", "warning"]


def escape(value: Any) -> str:
    """Return a text that a browser shows as it is, also within an attribute."""
    return html.escape(str(value), quote=True)


def optional(tag: str, text: str, kind: str = "") -> str:
    """Return an element of a class with that text; nothing for an empty one."""
    if not text:
        return ""
    return f'<{tag} class="{kind}">{escape(text)}</{tag}>' if kind else f"<{tag}>{escape(text)}</{tag}>"


def facts_element(facts: Mapping[str, Any]) -> str:
    """Return names and values as a list of definitions."""
    items = [f"<div><dt>{escape(name)}</dt><dd>{escape(cell_text(value))}</dd></div>" for name, value in facts.items()]
    return f'<dl class="facts">{"".join(items)}</dl>'


def check_tone(tone: str) -> str:
    """Return a tone that is known.

    Raises:
        ValueError: If it is not.
    """
    if tone not in ("neutral", "good", "warning"):
        raise ValueError(f"tone must be neutral, good or warning, got {tone!r}.")
    return tone


def safe_address(address: str) -> str:
    """Return an address that no browser runs.

    Raises:
        ValueError: If it is neither `http:`, `https:`, `mailto:` nor a relative path.
    """
    # A browser drops blanks and control characters: "java\nscript:" is "javascript:" to it.
    plain = re.sub(r"[\x00-\x20]", "", address)
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", plain)
    if scheme is not None and scheme.group().lower() not in ("http:", "https:", "mailto:"):
        raise ValueError(f"links must be http:, https:, mailto: or a relative path, got {address!r}.")
    return address


def cell_text(value: Any) -> str:
    """Return a value as a table shows it: a dash for None and NaN, floats with four significant digits."""
    if value is None or (isinstance(value, (float, np.floating)) and math.isnan(value)):
        return "\N{EN DASH}"
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.4g}"
    return str(value)


def is_numeric(values: Sequence[Any]) -> bool:
    """Say whether a column holds numbers, with or without an interval."""
    known = [value for value in values if value is not None and not isinstance(value, (bool, np.bool_))]
    return bool(known) and all(re.match(r"[+-]?[\d.,]+\s*(%|$|\[|±)|nan$", str(value).strip()) for value in known)
