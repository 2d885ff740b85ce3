"""Hairs: drawn thin, found where they are, painted over without harm to what lies beside them."""

import numpy as np
import pytest

from dermaseg.data.hair import draw_hair, remove_hair
from dermaseg.data.synthetic import synthetic_batch


def with_hair(image, coverage, colour=(40, 30, 25)):
    return (image * (1 - coverage[..., None]) + np.array(colour) * coverage[..., None]).astype(np.uint8)


def smooth_skin(height, width):
    y, x = np.mgrid[:height, :width]
    blob = np.exp(-(((y - height / 2) / (height / 5)) ** 2 + ((x - width / 2) / (width / 5)) ** 2))
    base = np.array([210, 160, 150]) - blob[..., None] * np.array([90, 100, 100])
    return (base + np.random.default_rng(0).normal(0, 2, (height, width, 1))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (45, 90), (90, 45)])
def test_drawn_hair_is_a_thin_coverage(size):
    coverage = draw_hair(size, count=6, rng=np.random.default_rng(0))
    assert (coverage.shape, coverage.dtype) == (size, np.float32)
    assert coverage.min() >= 0
    assert coverage.max() <= 1
    if min(size) > 1:
        assert coverage.max() > 0.5
        assert coverage.mean() < 0.25


def test_no_hair_is_no_coverage():
    assert draw_hair((8, 8), count=0, rng=np.random.default_rng(0)).max() == 0


@pytest.mark.parametrize("size", [(128, 128), (225, 300)])
def test_removal_brings_the_picture_back(size):
    clean = smooth_skin(*size)
    coverage = draw_hair(size, count=8, rng=np.random.default_rng(3))
    hairy = with_hair(clean, coverage)
    cleaned = remove_hair(hairy)
    covered = coverage > 0.1
    before, after = (np.abs(image.astype(int) - clean)[covered].mean() for image in (hairy, cleaned))
    assert after < 0.1 * before
    assert np.abs(cleaned.astype(int) - clean)[~covered].mean() < 1
    assert (hairy != clean).any()  # the input is left as it was


def test_removal_helps_on_structured_lesions():
    images, _, _, _ = synthetic_batch(14, size=256, seed=5, images_per_lesion=1)
    rng = np.random.default_rng(1)
    gains = []
    for clean in images:
        coverage = draw_hair((256, 256), count=8, rng=rng)
        hairy = with_hair(clean, coverage)
        error = [np.abs(image.astype(int) - clean)[coverage > 0.1].mean() for image in (hairy, remove_hair(hairy))]
        gains.append(error[1] / error[0])
    assert np.median(gains) < 0.15


def test_hairless_pictures_stay_as_they_are():
    skin = smooth_skin(200, 260)
    np.testing.assert_array_equal(remove_hair(skin), skin)


def test_globules_and_network_are_no_hairs():
    y, x = np.mgrid[:256, :256]
    skin = np.full((256, 256, 3), 180, np.uint8)
    skin[(np.hypot((y % 24) - 12, (x % 24) - 12) < 3)] = 90  # dots as wide as a hair
    np.testing.assert_array_equal(remove_hair(skin), skin)


@pytest.mark.parametrize("side", [1, 3, 9])
def test_tiny_and_black_pictures_do_not_fail(side):
    image = np.zeros((side, side, 3), np.uint8)
    np.testing.assert_array_equal(remove_hair(image), image)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((1, 8, 8, 3), np.uint8)]
)
def test_wrong_arrays_are_named(image):
    with pytest.raises(ValueError, match="image has shape"):
        remove_hair(image)
