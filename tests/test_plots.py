import numpy as np
import pytest

from dermaseg.plots import overlay, panel, save_figure, training_curves


def disc():
    rows, columns = np.mgrid[:60, :80]
    return ((rows - 30) ** 2 + (columns - 40) ** 2 < 400).astype("uint8")


def test_an_outline_is_drawn_on_the_border_and_nowhere_else():
    image = np.full((60, 80, 3), 128, "uint8")
    drawn = overlay(image, disc(), colour="#F0E442")
    assert (image == 128).all()
    changed = (drawn != 128).any(-1)
    rows, columns = np.mgrid[:60, :80]
    distance = np.abs(np.hypot(rows - 30, columns - 40) - 20)
    assert changed[distance < 1].all()
    assert not changed[distance > 4].any()
    assert [0xF0, 0xE4, 0x42] in drawn[changed].tolist()


def test_an_empty_mask_changes_nothing():
    image = np.full((10, 10, 3), 99, "uint8")
    assert (overlay(image, np.zeros((10, 10), "uint8")) == 99).all()


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="they must agree"):
        overlay(np.zeros((4, 4, 3), "uint8"), np.zeros((5, 4), "uint8"))


def test_panel_and_curves_are_written(tmp_path):
    images = [np.full((60, 80, 3), 150, "uint8")] * 5
    figure = panel(images, predicted=[disc()] * 5, true=[disc()] * 5, titles=list("abcde"))
    assert sum(bool(axis.images) for axis in figure.axes) == 5
    save_figure(figure, tmp_path / "panel.png")
    history = [{"epoch": "1", "loss": "0.5", "val_loss": ""}, {"epoch": "2", "loss": "0.4", "val_loss": "0.6"}]
    curves = training_curves(history)
    lines = {line.get_label(): list(line.get_ydata()) for line in curves.axes[0].lines}
    assert lines == {"training": [0.5, 0.4], "validation": [0.6]}
    save_figure(curves, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="no epoch to draw"):
        training_curves([])
