"""Render formulas to MathML while pages are built: browsers show it without a script, and nothing is loaded at view time."""

import html
import re

import latex2mathml.converter

BLOCK = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)


def on_page_content(content, **_):
    """Replace what pymdownx.arithmatex has marked."""
    content = BLOCK.sub(lambda found: latex2mathml.converter.convert(html.unescape(found[1]).strip(), display="block"), content)
    return INLINE.sub(lambda found: latex2mathml.converter.convert(html.unescape(found[1]).strip()), content)
