"""Photographs packed for another machine: the same table and split, smaller pictures, everything in place."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from benchmarks.pack import pack, unpack
from benchmarks.robustness import CHANGES, changed
from dermaseg.data import image_size, make_synthetic, read_image, read_mask, read_samples, split_samples
from dermaseg.errors import DataError


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("originals")
    make_synthetic(folder / "ham", count=28, size=(48, 64), seed=1)
    for kind in ("images", "masks"):
        (folder / "isic" / kind).mkdir(parents=True)
    for sample in read_samples(folder / "ham")[:3]:
        (folder / "isic" / "images" / sample.image.name).write_bytes(sample.image.read_bytes())
        (folder / "isic" / "masks" / sample.mask.name).write_bytes(sample.mask.read_bytes())
    return {"ham10000": folder / "ham", "isic2018": folder / "isic"}


def test_what_comes_out_is_the_same_table_smaller(folders, tmp_path):
    pack(folders, tmp_path / "packed.zip", size=24)
    unpacked = unpack(tmp_path / "packed.zip", tmp_path / "data")
    ham, packed = (read_samples(place["ham10000"]) for place in (folders, unpacked))
    assert split_samples(packed, seed=0).fingerprint == split_samples(ham, seed=0).fingerprint
    for name, folder in folders.items():
        original, small = read_samples(folder), read_samples(unpacked[name])
        assert small.ids == original.ids
        assert small.class_names == original.class_names
        assert small.labels.tolist() == original.labels.tolist()
        for before, after in zip(original, small, strict=True):
            assert after.image.relative_to(unpacked[name]) == before.image.relative_to(folder)
            assert image_size(after.image) == read_mask(after.mask).shape == (21, 28)  # 3:4, of the area of 24 by 24
            shares = read_mask(before.mask).mean(), read_mask(after.mask).mean()
            assert shares[1] == pytest.approx(shares[0], abs=0.05)


def test_pictures_that_are_small_enough_keep_every_byte(folders, tmp_path):
    pack(folders, tmp_path / "packed.zip", size=256)
    with zipfile.ZipFile(tmp_path / "packed.zip") as packed:
        for sample in read_samples(folders["ham10000"]):
            name = f"ham10000/{sample.image.relative_to(folders['ham10000']).as_posix()}"
            assert packed.read(name) == sample.image.read_bytes()


def test_unpacking_again_keeps_what_is_there_and_another_file_replaces_it(folders, tmp_path):
    pack(folders, tmp_path / "a.zip", size=24)
    pack(folders, tmp_path / "b.zip", size=32)
    first = read_samples(unpack(tmp_path / "a.zip", tmp_path / "data")["ham10000"])[0].image
    before = first.stat().st_mtime_ns
    unpack(tmp_path / "a.zip", tmp_path / "data")
    assert first.stat().st_mtime_ns == before
    unpack(tmp_path / "b.zip", tmp_path / "data")
    assert image_size(first) == (28, 37)


def test_a_broken_photograph_leaves_no_packed_file(folders, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"no picture")
    (tmp_path / "masks").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match=r"a\.jpg"):
        pack({"ham10000": tmp_path}, tmp_path / "packed.zip", size=4)
    assert not (tmp_path / "packed.zip").exists()


@pytest.mark.parametrize("name", CHANGES)
def test_each_change_of_the_robustness_benchmark_is_drawn_again_alike(name, folders):
    samples = read_samples(folders["ham10000"])[:1]
    first, again = (list(changed(samples, CHANGES[name], seed=3)) for _ in range(2))
    for (image, mask), (other, other_mask), sample in zip(first, again, samples, strict=True):
        np.testing.assert_array_equal(image, other)
        np.testing.assert_array_equal(mask, other_mask)
        assert image.shape[:2] == mask.shape
        assert set(np.unique(mask)) <= {0, 1}
        original = read_image(sample.image)
        assert (image.shape == original.shape and np.array_equal(image, original)) == (name == "as it is")
