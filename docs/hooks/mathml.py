"""Render formulas to MathML while pages are built: browsers show it without a script, and nothing is loaded at view time."""

import html
import re

import latex2mathml.converter

BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)


def on_page_content(content, **_):
    """Replace what pymdownx.arithmatex has marked; a block gets a frame of its own, to scroll in where the screen is narrow."""
    content = BLOCK.sub(lambda found: f'<div class="formula" tabindex="0">{_mathml(found[1], "block")}</div>', content)
    return INLINE.sub(lambda found: _mathml(found[1], "inline"), content)


def _mathml(escaped, display):
    return latex2mathml.converter.convert(html.unescape(escaped).strip(), display=display)
