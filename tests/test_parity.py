"""What an exported model may differ by, judged on functions that differ as told."""

import types
import warnings

import numpy as np
import pytest
from PIL import Image

from dermaseg.data import Sample, Samples, make_synthetic
from dermaseg.errors import DataError, DermasegError
from dermaseg.export import calibration_photographs
from dermaseg.parity import Limits, Probe, compare

WIDE = np.zeros((1, 4, 4, 1), np.float32)
WIDE[:, :2] = 1.0  # eight pixels of sixteen
NARROW = np.zeros((1, 4, 4, 1), np.float32)
NARROW[:, :1] = 1.0  # four of them
IMAGES = np.zeros((1, 4, 4, 3), np.float32)


def judge(expected, found, *, masks=None, **limits):
    source = types.SimpleNamespace(predict=lambda images: expected)
    probe = Probe(IMAGES, None if masks is None else masks > 0)
    return compare(source, lambda images: found, [probe], Limits(**{"tolerance": 0.1, **limits}), "file.onnx")


def test_a_mask_may_change_where_it_is_no_worse():
    facts = judge({"mask": WIDE}, {"mask": NARROW}, masks=NARROW, jaccard_tolerance=0.005)
    assert facts["jaccard_agreement"] == facts["jaccard_keras"] == 0.5
    assert facts["jaccard_exported"] == facts["largest_difference"] == 1.0
    with pytest.raises(DermasegError, match=r"have a Jaccard index of 0\.5000, the Keras model's have 1\.0000: 0\.5000 less"):
        judge({"mask": WIDE}, {"mask": NARROW}, masks=WIDE, jaccard_tolerance=0.005)
    with pytest.raises(DermasegError, match=r"overlap the Keras model's by a Jaccard index of 0\.5000"):
        judge({"mask": WIDE}, {"mask": NARROW}, jaccard_tolerance=0.005)
    assert judge({"mask": WIDE}, {"mask": NARROW}, jaccard_tolerance=0.5)["jaccard_agreement"] == 0.5


def test_masks_are_cut_where_prediction_cuts_them():
    assert judge({"mask": 0.4 * WIDE}, {"mask": 0.35 * WIDE}, jaccard_tolerance=0.005)["jaccard_agreement"] == 1.0  # both empty


def test_everything_else_is_held_to_the_tolerance():
    label = np.full((1, 3), 0.3, np.float32)
    outputs = {"mask": WIDE, "label": label}
    assert judge(outputs, {"mask": WIDE, "label": label + 0.05}, jaccard_tolerance=0.005)["largest_difference"] > 0.04
    with pytest.raises(DermasegError, match=r"Its outputs \(label\) differ .* by up to 0\.2, 0\.2 on average.*tolerance=0\.1"):
        judge(outputs, {"mask": WIDE, "label": label + 0.2}, jaccard_tolerance=0.005)
    with pytest.raises(DermasegError, match=r"Its outputs \(mask\) differ"):  # in full precision a mask too
        judge({"mask": WIDE}, {"mask": NARROW}, masks=NARROW)
    several = np.zeros((1, 4, 4, 2), np.float32)
    with pytest.raises(DermasegError, match=r"Its outputs \(mask\) differ"):  # of several classes
        judge({"mask": several}, {"mask": several + 1}, jaccard_tolerance=0.5)


@pytest.mark.parametrize("jaccard_tolerance", [None, 0.9])
def test_not_a_number_is_a_difference(jaccard_tolerance):
    with pytest.raises(DermasegError, match="by up to nan"):
        judge({"mask": WIDE}, {"mask": WIDE * np.nan}, jaccard_tolerance=jaccard_tolerance)


def test_photographs_are_read_at_one_size_half_of_each_kind_first(tmp_path):
    samples = make_synthetic(tmp_path / "data", count=9, size=(48, 64))
    images, masks = calibration_photographs(tmp_path / "data", size=32, count=5)
    assert images.shape == (5, 28, 37, 3)
    assert masks.shape == (5, 28, 37, 1)
    assert set(np.unique(masks)) == {0, 1}
    chosen, _ = calibration_photographs(samples.select([0, 4, 8, 2, 6]), size=32)
    assert np.array_equal(images[0], chosen[0])
    assert np.array_equal(images[3], calibration_photographs(samples.select([2, 6]), size=32)[0][0])
    images, masks = calibration_photographs(samples, size=(20, 24), count=2)
    assert images.shape == (2, 20, 24, 3)


def test_photographs_beside_a_folder_are_taken_and_a_data_set_is_read_whole(tmp_path):
    make_synthetic(tmp_path, count=3, size=(48, 64))
    photographs = tmp_path / "images"
    (photographs / "older").mkdir()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        images, masks = calibration_photographs(photographs, size=32)
    messages = " ".join(str(warning.message) for warning in told)
    assert "left out what lies in older" in messages
    assert "is read as photographs alone, since it is no data set" in messages
    assert len(images) == 3
    assert masks is None
    (photographs / "older").rmdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "logo.png")
    assert calibration_photographs(tmp_path, size=32)[1].shape == (3, 28, 37, 1)


def test_without_masks_there_are_none(tmp_path):
    samples = make_synthetic(tmp_path, count=3, size=(48, 64))
    bare = Samples([Sample(id=sample.id, image=sample.image) for sample in samples])
    images, masks = calibration_photographs(bare, size=32)
    assert len(images) == 3
    assert masks is None
    with pytest.raises(DataError, match="two photographs at least"):
        calibration_photographs(bare.select([0]), size=32)
    with pytest.raises(ValueError, match="count=1"):
        calibration_photographs(bare, size=32, count=1)
