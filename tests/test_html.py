import base64
import functools
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from PIL.EpsImagePlugin import EpsImageFile

from dermaseg.html import Card, Page, Tile
from dermaseg.metrics import Interval
from dermaseg.plots import forest_plot, save_figure

EVIL = "<script>alert('1')</script>\"&.jpg"
DASH = "\N{EN DASH}"
VOID = {"meta", "img", "br", "hr", "link", "input"}


class Reader(HTMLParser):
    """Reads a page as a browser does, and refuses one whose tags do not match."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.attributes = [], [], [], []
        self.feed(page if isinstance(page, str) else page.to_html())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data.strip())

    def values(self, name, tag=None):
        return [value for own, key, value in self.attributes if key == name and tag in (None, own)]


def picture(source):
    head, content = source.split(",")
    return head, Image.open(io.BytesIO(base64.b64decode(content)))


@functools.cache
def full_page():
    page = Page(EVIL, subtitle=EVIL)
    page.note(EVIL, tone="warning")
    for name in ("Figures", "Pictures", "Tables", EVIL):
        page.section(name)
    page.paragraph(EVIL)
    page.tiles([Tile(name=EVIL, value=EVIL, detail=EVIL, meaning=EVIL)])
    page.facts({EVIL: EVIL, "seed": 0})
    page.table([{EVIL: EVIL, "value": 0.5}], caption=EVIL)
    page.links({EVIL: "report.csv"})
    interval = Interval(0.88, 0.86, 0.9, 0.95, 210, 180)
    page.figure(forest_plot({"sex": {EVIL: interval}}), caption=EVIL)
    photo = np.full((40, 60, 3), 200, "uint8")
    page.cards(
        [
            Card(title=EVIL, pictures=[photo, Image.fromarray(photo)], captions=[EVIL, EVIL], text=EVIL),
            Card(title="b", pictures=[photo], shares={EVIL: 0.75, "nevus": 0.25}, facts={EVIL: EVIL}, badge=EVIL, tone="good"),
        ]
    )
    return page


def test_a_page_is_well_formed_and_every_text_is_only_text():
    read = Reader(full_page())
    assert "script" not in read.tags
    assert set(read.text) >= {EVIL, "Figures", "Tables", "75.0 %"}
    assert sum(text == EVIL for text in read.text) == 26
    assert {EVIL, f"{EVIL}: {EVIL}"} <= set(read.values("alt"))
    assert read.tags.count("h1") == 1
    assert read.values("lang") == ["en"]


def test_a_page_fetches_nothing_and_allows_itself_nothing():
    text = full_page().to_html()
    read = Reader(text)
    assert all(source.startswith("data:image/") for source in read.values("src"))
    assert read.values("href") == [f"#section-{n}" for n in range(1, 5)] + ["report.csv"]
    assert not re.search(r"url\(|@import|https?://", text)
    assert "link" not in read.tags
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in read.values("content")
    assert not any(name.startswith("on") for _, name, _ in read.attributes)


def test_the_list_of_sections_leads_to_them():
    read = Reader(full_page())
    assert {target.removeprefix("#") for target in read.values("href", "a") if target.startswith("#")} == set(
        read.values("id", "h2")
    )
    short = Page("a")
    short.section("one")
    assert "nav" not in Reader(short).tags


def test_it_has_both_colour_schemes_and_fits_a_telephone():
    text = full_page().to_html()
    assert "prefers-color-scheme: dark" in text
    assert 'content="width=device-width, initial-scale=1"' in text
    assert 'class="scroll" role="region" tabindex="0"' in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_their_ground(scheme):
    text = Page("a").to_html()
    start = text.index("--ground") if scheme == "light" else text.index("--ground", text.index("prefers-color-scheme: dark"))
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", text[start : text.index("}", start)]))

    def luminance(colour):
        channels = np.array([int(colours[colour][k : k + 2], 16) / 255 for k in (1, 3, 5)])
        return np.where(channels > 0.04045, ((channels + 0.055) / 1.055) ** 2.4, channels / 12.92) @ [0.2126, 0.7152, 0.0722]

    pairs = [(front, back) for front in ("text", "quiet", "accent") for back in ("ground", "raised")]
    for front, back in [
        *pairs,
        ("warn", "warn-ground"),
        ("good", "good-ground"),
        ("text", "warn-ground"),
        ("text", "good-ground"),
    ]:
        low, high = sorted((luminance(front), luminance(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (front, back)


def test_pictures_keep_their_pixels_and_lose_what_the_camera_wrote():
    rng = np.random.default_rng(0)
    mask = (rng.random((20, 30)) > 0.5).astype("uint8") * 255
    photo = Image.fromarray(np.full((50, 100, 3), (180, 120, 90), "uint8"))
    exif = photo.getexif()
    exif[0x010F] = "Camera of Jane Doe"
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=exif)
    assert b"Jane Doe" in buffer.getvalue()
    page = Page("a")
    page.figure(mask, caption="mask")
    page.figure(Image.open(buffer), alt="photo", max_px=40)
    page.figure(Image.fromarray(mask).convert("1"))
    first, second, third = (picture(source) for source in Reader(page).values("src"))
    assert first[0] == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(first[1]), mask)
    assert second[0] == "data:image/jpeg;base64"
    assert second[1].size == (40, 20)
    assert not second[1].getexif()
    np.testing.assert_allclose(np.asarray(second[1])[10, 20], (180, 120, 90), atol=4)
    np.testing.assert_array_equal(np.asarray(third[1]), mask)
    assert Reader(page).values("alt") == ["mask", "photo", ""]


def test_a_drawing_is_sharp_on_white_and_stays_legible_on_a_narrow_screen():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    page = Page("a")
    page.figure(forest_plot({"sex": {"male": Interval(0.88, 0.86, 0.9, 0.95, 210, 180)}}), caption="forest")
    read = Reader(page)
    (source,), (width,), (style,) = read.values("src"), read.values("width"), read.values("style", "img")
    assert picture(source)[1].width == pytest.approx(int(width) * 160 / 96, abs=2)
    assert style == f"min-width:{round(0.75 * int(width))}px"
    assert "paper" in read.values("class", "img")
    assert plt.get_fignums() == before


def test_a_figure_and_its_margin_are_never_wider_than_the_screen():
    page = Page("a")
    page.figure(np.zeros((20, 30), "uint8"))
    page.cards([Card(title="photo", pictures=[np.zeros((20, 30), "uint8")])])
    assert Reader(page).values("style", "figure") == ["--width:30px"] * 2
    rules = dict(re.findall(r"^(\.?[a-z. ]+?) \{ ([^}]*)\}", page.to_html(), re.MULTILINE))
    assert "width: var(--width); max-width: 100%;" in rules["figure"]
    assert "margin: 1rem clamp(0px, 100% - var(--width), 2rem) 1rem 0;" in rules["figure"]
    assert "margin: 0; width: auto;" in rules[".card figure"]


def test_tables_write_numbers_as_a_reader_expects_them():
    page = Page("a")
    rows = [
        {"group": "one", "count": 12345, "AUC": 0.912345, "Jaccard": Interval(0.9, 0.8, 1.0, 0.95, 5, 5), "known": True},
        {"group": "two", "AUC": float("nan"), "count": np.int64(7), "other": "x"},
    ]
    page.table(rows, caption="by group")
    read = Reader(page)
    cells = [text for text in read.text if text]
    assert cells[-19:] == [
        "by group", "group", "count", "AUC", "Jaccard", "known", "other",
        "one", "12,345", "0.9123", "0.900 [0.800, 1.000]", "yes", DASH,
        "two", "7", DASH, DASH, DASH, "x",
    ]  # fmt: skip
    assert read.values("class", "th") == ["number"] * 3
    assert read.values("scope") == ["col"] * 6 + ["row"] * 2
    with pytest.raises(ValueError, match="rows is empty"):
        page.table([])


def test_bars_are_as_long_as_their_shares():
    page = Page("a")
    page.cards([Card(title="photo", shares={"mel": 0.625, "nv": 0.375})])
    assert Reader(page).values("style", "span") == ["width:62.5%", "width:37.5%"]
    with pytest.raises(ValueError, match="shares must be from 0 to 1, got 62 for 'mel'"):
        page.cards([Card(title="photo", shares={"mel": 62})])
    with pytest.raises(ValueError, match="shares must be from 0 to 1"):
        page.cards([Card(title="photo", shares={"mel": float("nan")})])


@pytest.mark.parametrize("address", ["javascript:alert(1)", "JaVa\nScript:alert(1)", " data:text/html,x", "vbscript:x"])
def test_no_link_runs_anything(address):
    with pytest.raises(ValueError, match="links must be http:"):
        Page("a").links({"x": address})


def test_links_that_are_given_are_kept():
    page = Page("a")
    page.links({"paper": "https://doi.org/10.1/x?a=1&b=2", "table": "report.csv", "odd": "folder/a:b.csv"})
    assert Reader(page).values("href") == ["https://doi.org/10.1/x?a=1&b=2", "report.csv", "folder/a:b.csv"]


def test_a_saved_drawing_stands_on_the_page_as_it_was_saved(tmp_path):
    figure = forest_plot({"sex": {"male": Interval(0.88, 0.86, 0.9, 0.95, 210, 180)}})
    drawn, saved = Page("a"), Page("a")
    save_figure(figure, tmp_path / "forest.png", dpi=160)
    drawn.figure(figure)
    saved.figure(tmp_path / "forest.png")
    pages = Reader(drawn), Reader(saved)
    for name in ("width", "height", "style", "class"):
        assert pages[0].values(name, "img") == pages[1].values(name, "img")
    (source,) = pages[1].values("src", "img")
    assert base64.b64decode(source.partition("base64,")[2]) == (tmp_path / "forest.png").read_bytes()
    Image.new("RGB", (4, 4)).save(tmp_path / "photo.jpg")
    with pytest.raises(ValueError, match=r"photo\.jpg: a saved drawing must be a PNG"):
        saved.figure(tmp_path / "photo.jpg")


def test_a_drawing_that_calls_itself_postscript_meets_no_reader_of_postscript(tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImageFile, "_open", lambda _: pytest.fail("read as PostScript"))
    (tmp_path / "drawing.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n")
    with pytest.raises(ValueError, match=r"drawing\.png: a saved drawing must be a PNG"):
        Page("a").figure(tmp_path / "drawing.png")


def test_wrong_arguments_are_named():
    page = Page("a")
    with pytest.raises(TypeError, match="a picture must be a Matplotlib figure, a PIL image, an array or the path of a PNG"):
        page.figure("photo.jpg")
    for array in (np.zeros((4, 4, 3)), np.zeros((4, 4, 4), "uint8"), np.zeros(4, "uint8"), np.zeros((1, 4, 4, 3), "uint8")):
        with pytest.raises(ValueError, match="an array must be"):
            page.figure(array)
    with pytest.raises(ValueError, match="tone must be neutral, good or warning, got 'red'"):
        page.note("x", tone="red")
    with pytest.raises(ValueError, match="captions must be none or one for each of the 1 pictures, got 2"):
        page.cards([Card(title="x", pictures=[np.zeros((4, 4), "uint8")], captions=["a", "b"])])


def test_a_page_is_written_whole(tmp_path):
    page = full_page()
    page.save(tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text(encoding="utf-8") == page.to_html()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_a_file_name_that_is_no_text_does_not_lose_the_page(tmp_path):
    page = Page("photo-\udcff.jpg")
    page.save(tmp_path / "page.html")
    assert "photo-?.jpg" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_cards_are_taken_one_by_one():
    def cards():
        for index in range(3):
            yield Card(title=f"photo {index}", pictures=[np.zeros((900, 300, 3), "uint8")])

    page = Page("a")
    page.cards(cards(), max_px=90)
    assert [picture(source)[1].size for source in Reader(page).values("src")] == [(30, 90)] * 3


def test_a_photograph_that_was_taken_sideways_stands_upright():
    photo = Image.fromarray(np.full((40, 60, 3), 200, "uint8"))
    exif = photo.getexif()
    exif[0x0112] = 6  # turn by a quarter to see it
    buffer = io.BytesIO()
    photo.save(buffer, "JPEG", exif=exif)
    page = Page("a")
    page.figure(Image.open(buffer), alt="photo")
    assert picture(Reader(page).values("src")[0])[1].size == (40, 60)
