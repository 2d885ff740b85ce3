"""Pictures as part of a page's text."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from dermaseg.html.elements import escape, optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Picture = Figure | Image.Image | np.ndarray | Path

__all__ = ["figure_element"]

_FIGURE_DPI = 160  # sharp on screens of two dots per CSS pixel
_JPEG_QUALITY = 88
_LEAST_SCALE = 0.75  # smaller, the letters in a drawing can't be read: on a narrow screen it scrolls instead


def figure_element(picture: Picture, caption: str, alt: str, max_px: int | None) -> str:
    """Return a picture as HTML, its pixels within the text.

    Raises:
        TypeError: As for `Page.figure`.
        ValueError: As for `Page.figure`.
    """
    source, width, height, paper = _encode(picture, max_px)
    look = f' class="paper" style="min-width:{round(_LEAST_SCALE * width)}px"' if paper else ""
    image = f'<img src="{source}" alt="{escape(alt)}" width="{width}" height="{height}"{look}>'
    if paper:
        image = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(alt or "figure")}">{image}</div>'
    # As wide as the picture, so that small ones stand side by side and a caption stays below its own.
    return f'<figure style="--width:{width}px">{image}{optional("figcaption", caption)}</figure>'


def _encode(picture: Picture, max_px: int | None) -> tuple[str, int, int, bool]:
    """Return a data address, width and height in CSS pixels, and whether it is a drawing on white paper."""
    buffer = io.BytesIO()
    if isinstance(picture, Path):
        try:  # as a PNG alone: Pillow would hand what calls itself PostScript to Ghostscript, whatever the file's name
            with Image.open(picture, formats=("PNG",)) as drawing:
                dots = drawing.info.get("dpi", (96, 96))[0]
                width, height = (round(pixels / dots * 96) for pixels in drawing.size)
        except UnidentifiedImageError:
            raise ValueError(f"{picture}: a saved drawing must be a PNG. Open a photograph with PIL.") from None
        buffer.write(picture.read_bytes())
        return _data("png", buffer), width, height, True
    if not isinstance(picture, (Image.Image, np.ndarray)):
        if not hasattr(picture, "savefig"):
            raise TypeError(
                "a picture must be a Matplotlib figure, a PIL image, an array or the path of a PNG, "
                f"got {type(picture).__name__}."
            )
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
    picture = ImageOps.exif_transpose(picture)  # upright, as every viewer shows it
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
