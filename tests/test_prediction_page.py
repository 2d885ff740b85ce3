import numpy as np
import pytest

from dermaseg.conformal import Rejection
from dermaseg.decisions import Decisions
from dermaseg.prediction import Prediction
from dermaseg.prediction_page import save_predictions

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
    for folder, count in ((tmp_path / "a", 3), (tmp_path / "b", 1)):
        assert len((folder / "predictions.csv").read_text().splitlines()) == 1 + count
        assert f"{count} photographs" in (folder / "predictions.html").read_text()


def test_nothing_predicted_writes_nothing(tmp_path):
    assert list(save_predictions(iter(()), tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()


def test_an_empty_mask_stands_out_on_the_page(tmp_path):
    rows = list(save_predictions(predictions(lesion=False), tmp_path))
    assert [row["refer"] for row in rows] == [True] * 3
    page = (tmp_path / "predictions.html").read_text()
    assert page.count("The network found no lesion") == 3
    assert "The network is unsure" not in page
