"""The benchmark of padding: its two networks are one where nothing is padded, and its photographs are 4:3."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the installed package

from benchmarks import padding
from dermaseg.data import make_synthetic
from dermaseg.models import build_hybrid, build_unet
from dermaseg.pretrained import find_preset


def test_the_usual_way_is_the_same_network_where_nothing_is_padded():
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 128, 3)).astype("float32")
    network = build_hybrid(num_classes=3, filters=(4, 4, 4, 4, 4, 4))
    usual = padding.padded_to_total_stride(network)
    own, same = network.predict_on_batch(images), usual.predict_on_batch(images)
    for output in ("mask", "label"):
        np.testing.assert_allclose(same[output], own[output], atol=1e-6)
    odd = images[:, :33, :65]
    assert usual.predict_on_batch(odd)["mask"].shape == (1, 33, 65, 1)
    assert np.abs(usual.predict_on_batch(odd)["mask"] - network.predict_on_batch(odd)["mask"]).max() > 1e-6


def test_photographs_are_cut_to_four_by_three(tmp_path):
    for size, expected in (((40, 40), (30, 40)), ((30, 40), (30, 40)), ((20, 40), (20, 40))):
        samples = make_synthetic(tmp_path / str(size), count=1, size=size)
        assert [mask.shape for _, mask in padding.cut(samples)] == [expected]


@pytest.mark.slow
def test_the_command_prints_times_and_outlines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(padding, "build_unet", lambda: build_unet(filters=(4, 4, 4, 4, 4, 4)))
    monkeypatch.setattr(padding, "list_presets", lambda: [find_preset("unet-ham10000-128")])
    make_synthetic(tmp_path, count=30, size=(48, 48))
    padding.main(["--size", "32", "--batch", "2", "--rounds", "2", "--ham10000", str(tmp_path), "--images", "2"])
    out = capsys.readouterr().out
    assert "2 photographs of 28 by 37 pixels" in out
    for line in ("training step: ", "prediction: ", "unet-ham10000-128: Jaccard "):
        assert line in out
