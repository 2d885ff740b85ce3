"""Predictions as files: masks, overlays, a table, and one page to look through."""

from __future__ import annotations

import collections
import contextlib
import csv
import os
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.html import Card, Page
from dermaseg.prediction.result import Prediction
from dermaseg.runs import locked_folder, stream_text

__all__ = ["save_predictions"]

PAGE_PHOTO_PX = 480
_SAVERS = min(4, os.cpu_count() or 1)  # threads: saving and measuring takes several times as long as predicting
_FORMULA_SIGNS = ("=", "+", "-", "@")  # with which a cell begins that spreadsheets compute
_CSV_DIGITS = 6  # significant ones, of what is measured on a photograph
_MEANINGS = {
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "bcc": "basal cell carcinoma",
    "akiec": "actinic keratosis or intraepithelial carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular lesion",
}
UNITS = {"px": "px", "mm": "mm", "mm2": "mm²", "deg": "degrees"}


def save_predictions(
    predictions: Iterable[tuple[str, Prediction]],
    folder: str | Path,
    *,
    measure: bool = True,
    page: bool = True,
    about: Mapping[str, Any] | None = None,
) -> Generator[dict[str, Any], None, None]:
    """Write each prediction's mask and overlay, its row of `predictions.csv` and its card of `predictions.html`, as it comes.

    Few photographs are held at a time: they are measured and saved on threads of their own while the next are predicted. The
    table and the page take their names at the end, also when predicting breaks off, by an error or an interrupt, or when the
    generator is closed: of all photographs that were predicted and could be saved. Without any, nothing is written. The folder
    is locked meanwhile, lest two processes mix their pictures there. Earlier predictions are replaced there, other pictures are
    not.

    Args:
        predictions: Names for the files, all different, with the predictions of one model; taken one at a time.
        folder: Where to write.
        measure: Add the measurements of `dermaseg.measurements.measure_lesion` to the table and the page, where the model
            outlines lesions.
        page: Write the page, with a small copy of every photograph; else remove that of earlier predictions.
        about: What the page says at its top, by name: which model, when, how. The class codes of HAM10000 are explained there.

    Yields:
        For each photograph its summary, the paths written, and its measurements: a row of the table. There an apostrophe stands
        before the name of a photograph that a spreadsheet would take for a formula.

    Raises:
        DataError: If another process is writing predictions to the folder, or a mask or an overlay would replace a picture that
            is no prediction's.
    """
    folder = Path(folder)
    with contextlib.ExitStack() as opened, ThreadPoolExecutor(_SAVERS) as savers:
        write = _open_files(opened, folder, page=page, about=about or {})
        pending: collections.deque[Future[tuple[dict[str, Any], Card | None]]] = collections.deque()

        def first() -> dict[str, Any]:
            done = pending[0].result()
            pending.popleft()  # not before: an interrupt that comes while waiting loses nothing
            return write(*done)

        try:
            for number, (name, prediction) in enumerate(predictions):
                if number == 0:
                    folder.mkdir(parents=True, exist_ok=True)
                    refusal = f"{folder}: another process is predicting into it. Wait for it, or give another --output."
                    opened.enter_context(locked_folder(folder, refusal))
                pending.append(savers.submit(_save, name, prediction, folder, measure=measure, page=page))
                if len(pending) > _SAVERS:
                    yield first()
            while pending:
                yield first()
        finally:
            for unseen in pending:  # after an error, an interrupt or `close`
                if unseen.exception() is None:
                    write(*unseen.result())


def _save(name: str, prediction: Prediction, folder: Path, *, measure: bool, page: bool) -> tuple[dict[str, Any], Card | None]:
    """Write one photograph's mask and overlay; return its row, and its card where there is a page."""
    row = {**prediction.summary(), **prediction.save(folder, name)}
    if measure and prediction.probability is not None:
        row["measurements"] = prediction.measure().to_dict()
    return row, _card(name, prediction, row) if page else None


def _open_files(
    opened: contextlib.ExitStack, folder: Path, *, page: bool, about: Mapping[str, Any]
) -> Callable[[dict[str, Any], Card | None], dict[str, Any]]:
    """Return a function that adds a photograph to the table and the page, which it opens at the first, and returns its row."""
    table: csv.DictWriter[str] | None = None
    add_card: Callable[[Card], None] | None = None

    def write(row: dict[str, Any], card: Card | None) -> dict[str, Any]:
        nonlocal table, add_card
        flat = _flat(row)
        if table is None:
            table = csv.DictWriter(opened.enter_context(stream_text(folder / "predictions.csv")), list(flat))
            table.writeheader()
            if not page:  # an earlier one would show other photographs than the table, or the same with other figures
                (folder / "predictions.html").unlink(missing_ok=True)
            else:
                add_card = opened.enter_context(
                    _page(about, row.get("classes", {})).stream_cards(folder / "predictions.html", max_px=PAGE_PHOTO_PX)
                )
        table.writerow(flat)
        if add_card is not None and card is not None:
            add_card(card)
        return row

    return write


def _page(about: Mapping[str, Any], class_names: Iterable[str]) -> Page:
    page = Page("Predictions")
    page.note(NOT_A_DIAGNOSIS, tone="warning")
    codes = [f"{name} = {_MEANINGS[name]}" for name in class_names if name in _MEANINGS]
    facts = {**about, **({"classes": "; ".join(codes)} if codes else {})}
    if facts:
        page.facts(facts)
    return page


def _card(name: str, prediction: Prediction, row: dict[str, Any]) -> Card:
    small = _shrunk(prediction)
    pictures, captions = [small], ["photograph"]
    if prediction.probability is not None:
        pictures.append(_shrunk(prediction, outlined=True))
        captions.append("outline")
    facts: dict[str, Any] = {"size": f"{row['width_px']} x {row['height_px']} px"}
    if row.get("possible"):
        facts["possible"] = ", ".join(row["possible"])
    if "lesion_share" in row:
        facts["lesion"] = f"{100 * row['lesion_share']:.1f} % of the picture"
    above = row.get("above_threshold")
    if above:
        facts["above threshold"] = ", ".join(above)
    for key, value in row.get("measurements", {}).items():
        if isinstance(value, (int, float)):  # bool too; None has no place on a card
            facts[_title(key)] = value
        elif key in ("colours", "skin_tone"):
            facts[_title(key)] = ", ".join(value) if isinstance(value, list) else value
    refer = row["refer"]
    return Card(
        title=name,
        pictures=pictures,
        captions=captions,
        shares=dict(sorted(prediction.classes.items(), key=lambda item: -item[1])),
        facts=facts,
        badge="refer" if refer else "",
        tone="warning" if refer else "neutral",
        text=_advice(row),
    )


def _title(key: str) -> str:
    """Write `area_mm2` as "area, mm²"."""
    name, _, unit = key.rpartition("_")
    return f"{name.replace('_', ' ')}, {UNITS[unit]}" if unit in UNITS else key.replace("_", " ")


def _advice(row: dict[str, Any]) -> str:
    if row.get("lesion_px") == 0:
        return "The network found no lesion: look at the photograph."
    return "The network is unsure: let a person decide." if row["refer"] else ""


def _shrunk(prediction: Prediction, *, outlined: bool = False) -> Any:
    from PIL import Image

    picture = Image.fromarray(prediction.overlay if outlined else prediction.image)
    picture.thumbnail((PAGE_PHOTO_PX, PAGE_PHOTO_PX))
    return picture


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Put nested figures into columns of their own, `p_nv`, `asymmetry` ...; names in one column stand apart by "; ".

    Figures are rounded: what digits beyond the sixth say is no property of the photograph.
    """
    flat = {key: value for key, value in row.items() if not isinstance(value, (dict, list))}
    if str(row["photo"]).startswith(_FORMULA_SIGNS):
        flat["photo"] = f"'{row['photo']}"
    flat |= {f"p_{name}": value for name, value in row.get("classes", {}).items()}
    flat |= {name: "; ".join(row[name]) for name in ("possible", "above_threshold") if name in row}
    for key, value in row.get("measurements", {}).items():
        if isinstance(value, dict):
            flat |= {f"{key}_{name}".replace(" ", "_"): share for name, share in value.items()}
        else:
            flat[key] = "; ".join(value) if isinstance(value, list) else value
    return {key: float(f"{value:.{_CSV_DIGITS}g}") if isinstance(value, float) else value for key, value in flat.items()}
