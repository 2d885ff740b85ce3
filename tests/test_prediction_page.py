import contextlib
import csv
import dataclasses
import errno
import os
import re
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dermaseg import prediction_page, runs
from dermaseg.conformal import Rejection
from dermaseg.decisions import Decisions
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.errors import DataError
from dermaseg.prediction import Prediction
from dermaseg.prediction_page import save_predictions
from dermaseg.runs import stream_text, write_atomically, write_csv

DECISIONS = Decisions(mask_rejection=Rejection(threshold=0.5, coverage=0.9, risk=0.1, samples=100))


def predictions(*, lesion=True):
    image, probability = np.full((12, 16, 3), 150, np.uint8), np.zeros((12, 16), np.float32)
    if lesion:
        probability[3:9, 4:12] = 1
    for index in range(3):
        yield f"photo_{index}", Prediction(None, image, probability, decisions=DECISIONS)


def test_what_was_done_is_written_when_predicting_breaks_off(tmp_path):
    def broken():
        yield from predictions()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(save_predictions(broken(), tmp_path / "a", measure=False))
    rows = save_predictions(predictions(), tmp_path / "b", measure=False)
    next(rows)
    rows.close()
    saved = len(list((tmp_path / "b").glob("*_mask.png")))  # some are saved ahead of what the caller has seen
    for folder, count in ((tmp_path / "a", 3), (tmp_path / "b", saved)):
        assert len((folder / "predictions.csv").read_text().splitlines()) == 1 + count
        page = (folder / "predictions.html").read_text()
        assert page.count('<article class="card">') == count
        assert page.endswith("</div>\n</main>\n</body>\n</html>\n")
        assert not list(folder.glob(".unfinished-*"))


def test_rows_come_in_order_however_long_a_photograph_takes(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_page, "_SAVERS", 3)
    save, threads = Prediction.save, set()

    def slow_at_first(self, folder, name):
        threads.add(threading.get_ident())
        if name == "photo_0":
            deadline = time.monotonic() + 60
            while len(threads) < 2:  # another photograph is saved meanwhile
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(0.1)
        return save(self, folder, name)

    monkeypatch.setattr(Prediction, "save", slow_at_first)
    rows = list(save_predictions(predictions(), tmp_path, measure=False))
    assert [Path(row["mask"]).name for row in rows] == [f"photo_{n}_mask.png" for n in range(3)]
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert [row["mask"] for row in csv.DictReader(file)] == [row["mask"] for row in rows]


def test_a_photograph_that_cannot_be_saved_says_so_and_the_others_are_written(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction_page, "_SAVERS", 3)
    save = Prediction.save

    def full_once(self, folder, name):
        if name == "photo_1":
            raise OSError(errno.ENOSPC, "No space left on device", name)
        return save(self, folder, name)

    monkeypatch.setattr(Prediction, "save", full_once)
    with pytest.raises(OSError, match="photo_1"):
        list(save_predictions(predictions(), tmp_path, measure=False))
    assert len((tmp_path / "predictions.csv").read_text().splitlines()) == 1 + 2


def test_an_interrupt_while_a_card_is_written_doubles_no_row(tmp_path, monkeypatch):
    @contextlib.contextmanager
    def cards(page, path, **_):
        def add(card):
            if card.title == "photo_1":
                raise KeyboardInterrupt

        yield add

    monkeypatch.setattr(prediction_page.Page, "stream_cards", cards)
    monkeypatch.setattr(prediction_page, "_SAVERS", 2)
    with pytest.raises(KeyboardInterrupt):
        list(save_predictions(predictions(), tmp_path, measure=False))
    with (tmp_path / "predictions.csv").open(newline="") as file:
        assert [Path(row["mask"]).name for row in csv.DictReader(file)] == [f"photo_{n}_mask.png" for n in range(3)]


def test_a_table_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError, match=r"/predictions\.csv"), stream_text(tmp_path / "predictions.csv"):
        pass


def test_the_page_and_the_table_do_not_stay_in_memory(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3)).astype(np.uint8)
    rows = save_predictions(((f"photo_{n}", Prediction(None, noise)) for n in range(40)), tmp_path, measure=False)
    next(rows)
    tracemalloc.start()
    for _ in rows:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (tmp_path / "predictions.html").stat().st_size > 4_000_000
    assert peak < 2_500_000


def test_pictures_and_rows_say_that_they_are_no_diagnosis(tmp_path):
    row, *_ = save_predictions(predictions(), tmp_path)
    with Image.open(row["overlay"]) as picture:
        assert picture.text["Disclaimer"] == row["note"] == NOT_A_DIAGNOSIS
    assert (tmp_path / "predictions.csv").read_text().count(NOT_A_DIAGNOSIS) == 3
    assert NOT_A_DIAGNOSIS in (tmp_path / "predictions.html").read_text()


def test_a_scale_gives_millimetres(tmp_path):
    scaled = (dataclasses.replace(prediction, mm_per_px=0.5) for _, prediction in predictions())
    found = next(save_predictions(zip("abc", scaled, strict=True), tmp_path))["measurements"]
    assert found["diameter_mm"] == pytest.approx(0.5 * found["diameter_px"])
    assert found["area_mm2"] == pytest.approx(48 * 0.25)


def test_nothing_predicted_writes_nothing(tmp_path):
    assert list(save_predictions(iter(()), tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()


def test_an_empty_mask_stands_out_on_the_page(tmp_path):
    rows = list(save_predictions(predictions(lesion=False), tmp_path))
    assert [row["refer"] for row in rows] == [True] * 3
    page = (tmp_path / "predictions.html").read_text()
    assert page.count("The network found no lesion") == 3
    assert "The network is unsure" not in page


def test_names_of_several_words_can_be_told_apart_in_the_table(tmp_path):
    classes = {"basal cell carcinoma": 0.5, "squamous cell carcinoma": 0.4, "nevus": 0.1}
    decisions = Decisions(thresholds=dict.fromkeys(list(classes)[:2], 0.3))
    named = [("photo", Prediction(None, np.zeros((8, 8, 3), np.uint8), classes=classes, decisions=decisions))]
    list(save_predictions(named, tmp_path, measure=False))
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["above_threshold"].split("; ") == ["basal cell carcinoma", "squamous cell carcinoma"]


def test_the_page_says_what_was_done_and_what_the_codes_mean(tmp_path):
    image, probability = np.full((12, 16, 3), 150, np.uint8), np.zeros((12, 16), np.float32)
    probability[3:, 4:12] = 1
    named = [("photo", Prediction(None, image, probability, classes={"mel": 0.9, "warts": 0.1}))]
    list(save_predictions(named, tmp_path, about={"model": "<mine>", "photographs given": 1}))
    page = (tmp_path / "predictions.html").read_text()
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page))
    assert (facts["model"], facts["photographs given"], facts["classes"]) == ("&lt;mine&gt;", "1", "mel = melanoma")
    assert (facts["area, px"], facts["touches edge"]) == ("72", "yes")
    assert "skin tone, mm" not in facts


def test_columns_are_plain_names_and_figures_of_six_digits(tmp_path):
    row, *_ = save_predictions(predictions(), tmp_path)
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        written = next(csv.DictReader(file))
    assert not [name for name in written if " " in name]
    figures = row["measurements"]
    assert written["colour_shares_light_brown"] == f"{figures['colour_shares']['light brown']}"
    assert written["diameter_px"] == f"{figures['diameter_px']:.6g}" != f"{figures['diameter_px']}"
    assert written["diameter_mm"] == written["skin_tone_deg"] == ""  # no scale, and grey skin
    assert written["area_px"] == "48"


def test_a_table_without_a_page_leaves_no_older_page(tmp_path):
    list(save_predictions(predictions(), tmp_path, measure=False))
    list(save_predictions(predictions(), tmp_path, measure=False, page=False))
    assert not (tmp_path / "predictions.html").exists()
    assert (tmp_path / "predictions.csv").exists()


def test_a_name_that_is_no_utf_8_does_not_stop_the_table(tmp_path):
    write_csv(tmp_path / "table.csv", [{"photo": "l\udce9sion.jpg", "lesion_px": 5}])
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()[1] == "l?sion.jpg,5"


def test_two_processes_do_not_predict_into_one_folder(tmp_path):
    rows = save_predictions(predictions(), tmp_path, measure=False)
    next(rows)
    before = {path for path in tmp_path.iterdir() if not path.name.startswith(".unfinished")}  # threads write the rest
    with pytest.raises(DataError, match=rf"{tmp_path}: another process is predicting into it.*another --output"):
        next(save_predictions([("other", next(predictions())[1])], tmp_path, measure=False))
    assert not (tmp_path / "other_mask.png").exists()
    assert before <= set(tmp_path.iterdir())
    assert len(list(rows)) == 2
    assert len(list(save_predictions(predictions(), tmp_path, measure=False))) == 3  # again, once the other has ended


def test_a_disk_that_knows_no_locks_is_used_without(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert len(list(save_predictions(predictions(), tmp_path, measure=False))) == 3


def test_two_processes_that_write_one_file_lose_none(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"

    def as_another_process(write):
        with monkeypatch.context() as patch:
            patch.setattr(runs.os, "getpid", lambda: os.getppid())
            write()

    def streamed(text):
        with stream_text(path) as file:
            file.write(text)

    with stream_text(path) as file:
        as_another_process(lambda: streamed("theirs"))
        assert path.read_text() == "theirs"
        file.write("ours")
    assert path.read_text() == "ours"

    def slowly(unfinished):
        unfinished.write_text("ours, again")
        as_another_process(lambda: write_atomically(path, lambda other: other.write_text("theirs, again")))

    write_atomically(path, slowly)
    assert path.read_text() == "ours, again"
    assert os.listdir(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("name", ["=HYPERLINK(1).jpg", "+1.jpg", "-1.jpg", "@a.jpg", "a=1.jpg"])
def test_a_photographs_name_is_no_formula_in_the_table(tmp_path, name):
    prediction = Prediction(Path(name), np.zeros((8, 8, 3), np.uint8))
    (row,) = save_predictions([("photo", prediction)], tmp_path, measure=False)
    assert row["photo"] == name
    with (tmp_path / "predictions.csv").open(encoding="utf-8", newline="") as file:
        (written,) = csv.DictReader(file)
    assert written["photo"] == (name if name[0] == "a" else f"'{name}")
