"""Scores that tell pictures with hairs, rulers and dark corners from those without, and the tone of the skin."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from skimage.color import rgb2lab
from sklearn.metrics import roc_auc_score

from dermaseg.artefacts import (
    DARK_CORNER_THRESHOLD,
    HAIR_THRESHOLD,
    RULER_THRESHOLD,
    SKIN_TONES,
    dark_corner_pixels,
    dark_corner_score,
    hair_score,
    image_attributes,
    ruler_score,
    skin_pixels,
    skin_tone_angle,
    skin_tone_group,
)
from dermaseg.artefacts.lab import lab_pixels
from dermaseg.data.images import resize_image, resize_mask
from dermaseg.data.photography import photograph

SIZE = 128
SKIN = (225, 185, 165)


class Asked:
    """A generator whose chances are asked for, one after the other; the rest is random."""

    def __init__(self, seed, *, random=(), triangular=None):
        self._rng, self._random, self._triangular = np.random.default_rng(seed), list(random), triangular

    def random(self):
        return self._random.pop(0)

    def triangular(self, *limits):
        return self._rng.triangular(*limits) if self._triangular is None else self._triangular

    def __getattr__(self, name):
        return getattr(self._rng, name)


def picture(seed, *, hair=False, ruler=False, dark_corners=False, tone_deg=None, size=(SIZE, SIZE)):
    """A synthetic photograph of a brown spot with the artefacts asked for, and its mask."""
    axis = np.linspace(-1.5, 1.5, size[0] // 2)
    inside = np.clip(1.5 - np.hypot(axis, axis[:, None]), 0, 1)
    passed = np.exp(-inside[..., None] * np.array([0.5, 0.9, 1.1])).astype(np.float32)
    # In the order in which a photograph is taken: hairs, dark ones, bubbles, ruler, dark corners.
    chances = [0.0, 0.0] if hair else [1.0]
    view = Asked(seed, random=[*chances, 1.0, 0.0 if ruler else 1.0, 0.0 if dark_corners else 1.0])
    return photograph(passed, inside, size=size, skin=Asked(seed, triangular=tone_deg), view=view)


def plain(height=128, width=128, colour=SKIN):
    return np.full((height, width, 3), colour, np.uint8)


# Lines of a ruler are as dark and thin as hairs, and count as hairs: only dark corners come and go there.
@pytest.mark.parametrize(
    ("artefact", "other", "score", "threshold", "bound"),
    [
        ("hair", "dark_corners", hair_score, HAIR_THRESHOLD, 0.93),
        ("ruler", "hair", lambda image, _: ruler_score(image), RULER_THRESHOLD, 0.97),
        ("dark_corners", "hair", dark_corner_score, DARK_CORNER_THRESHOLD, 0.99),
    ],
)
def test_score_separates_synthetic_photographs_with_and_without(artefact, other, score, threshold, bound):
    present = np.arange(60) % 2 == 0
    pictures = (picture(seed, **{artefact: bool(here), other: seed // 2 % 2 == 0}) for seed, here in enumerate(present))
    scores = np.array([score(*taken) for taken in pictures])
    assert roc_auc_score(present, scores) >= bound
    assert np.mean((scores >= threshold) == present) >= 0.8
    assert 0 <= scores.min() <= scores.max() <= 1


def test_rulers_along_rows_and_columns_count_alike():
    image, _ = picture(0, ruler=True)
    assert ruler_score(image) == pytest.approx(ruler_score(image.transpose(1, 0, 2)), abs=1e-6)
    assert ruler_score(image) == pytest.approx(ruler_score(image[::-1, ::-1]), abs=0.1)


@pytest.mark.parametrize("pitch", [7, 9.5, 13])
def test_evenly_spaced_ticks_are_a_ruler_and_uneven_ones_are_not(pitch):
    even, uneven = plain(), plain()
    rng = np.random.default_rng(0)
    for position in np.arange(4, 124, pitch):
        even[100:112, round(position) : round(position) + 2] = 40
        start = rng.integers(4, 122)
        uneven[100:112, start : start + 2] = 40
    assert ruler_score(even) > RULER_THRESHOLD + 0.2
    assert ruler_score(uneven) < RULER_THRESHOLD


def test_tone_orders_synthetic_skin_from_type_one_to_six():
    asked = [62.0, 48.0, 34.0, 19.0, -10.0, -38.0]  # one from each group
    found = np.array([[skin_tone_angle(*picture(seed, tone_deg=tone)) for seed in range(12)] for tone in asked])
    # One seed is one lamp and one camera. Some lamps are so blue that light skin has no angle.
    bluish = np.isnan(found).any(axis=0)
    assert (~bluish).sum() >= 5
    assert not np.any(np.diff(found, axis=0) > 0)
    assert np.all(np.diff(found[:, ~bluish], axis=0) < 0)
    # Lamps move the angle by more than a group, so across them the order is that of the medians only.
    assert np.all(np.diff(np.median(found[:, ~bluish], axis=1)) < 0)
    assert stats.spearmanr(np.repeat(asked, (~bluish).sum()), found[:, ~bluish].ravel()).statistic > 0.7


def test_tone_of_a_plain_patch_is_chardons_formula():
    from skimage.color import rgb2lab

    for colour in ((240, 210, 190), (180, 130, 100), (90, 60, 45)):
        lightness, _, yellow = rgb2lab(np.array(colour, np.uint8)[None, None])[0, 0]
        assert skin_tone_angle(plain(colour=colour)) == pytest.approx(math.degrees(math.atan((lightness - 50) / yellow)))


def test_bluish_cast_is_unknown_not_dark():
    for colour in ((190, 180, 210), (60, 55, 75), *((grey,) * 3 for grey in (60, 110, 150, 200))):
        assert math.isnan(skin_tone_angle(plain(colour=colour)))
    found = image_attributes(plain(colour=(190, 180, 210)))
    assert (found["tone"], math.isnan(found["tone_deg"])) == ("unknown", True)


def test_tone_looks_past_lesion_hair_glare_and_dark_corners():
    image, mask = plain(), np.zeros((128, 128), np.uint8)
    tone = skin_tone_angle(image)
    image[40:90, 40:90], mask[44:86, 44:86] = (60, 30, 20), 1  # the outline is drawn a little too tight
    image[20, 10:120] = 30
    image[:12, 60:70] = 255
    image[:18, :18] = 0
    assert skin_tone_angle(image, mask) == pytest.approx(tone)
    assert skin_tone_angle(image) == pytest.approx(tone)
    skin = skin_pixels(image, mask)
    assert not skin[[60, 41, 20, 5, 10], [60, 41, 60, 65, 10]].any()
    assert skin[30, 64]
    assert skin.mean() > 0.5


def test_tone_groups_have_their_thresholds():
    assert list(SKIN_TONES.values()) == [55, 41, 28, 10, -30, -90]
    for (lighter, threshold), (darker, _) in itertools.pairwise(SKIN_TONES.items()):
        assert skin_tone_group(threshold + 1e-6) == lighter
        assert skin_tone_group(threshold) == darker
    assert [skin_tone_group(angle) for angle in (89.9, -89.9, 90.0, -90.0, math.nan)] == [
        "very light", "dark", "unknown", "unknown", "unknown"
    ]  # fmt: skip


def test_dark_lesion_that_reaches_a_corner_is_no_dark_corner_with_its_mask():
    image, mask = plain(), np.zeros((128, 128), np.uint8)
    image[:40, :40], mask[:40, :40] = 30, 1
    assert dark_corner_score(image, mask) == 0
    assert dark_corner_score(image) == pytest.approx(40 * 40 / 128**2, abs=0.01)


def test_dark_corners_of_a_round_field_of_view():
    image = plain()
    y, x = np.mgrid[-63.5:64, -63.5:64]
    image[np.hypot(y, x) > 64] = 0
    assert dark_corner_score(image) == pytest.approx(1 - math.pi / 4, abs=0.01)
    np.testing.assert_array_equal(dark_corner_pixels(image)[::-1], dark_corner_pixels(image))


def test_network_within_the_lesion_is_no_hair():
    image, mask = plain(), np.zeros((128, 128), np.uint8)
    mask[20:108, 20:108] = 1
    image[24:104:8, 24:104] = image[24:104, 24:104:8] = (90, 60, 50)
    assert hair_score(image, mask) == 0
    assert hair_score(image, np.ones((128, 128))) > 0.05  # nothing around the lesion: all of it counts


def test_attributes_are_the_scores_and_their_labels():
    image, mask = picture(4, hair=True, ruler=True, dark_corners=True, tone_deg=48.0)
    found = image_attributes(image, mask)
    assert [found[name] for name in ("hair", "ruler", "dark_corners")] == ["yes"] * 3
    assert found["tone_deg"] == skin_tone_angle(image, mask)
    assert found["tone"] == skin_tone_group(found["tone_deg"])
    assert found["hair_score"] == hair_score(image, mask)
    assert found["ruler_score"] == ruler_score(image)
    assert found["dark_corner_score"] == dark_corner_score(image, mask)
    assert image_attributes(plain())["hair"] == "no"


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (16, 16), (37, 90)])
@pytest.mark.parametrize("value", [0, 1])
def test_any_size_with_an_empty_or_full_mask(shape, value):
    image, mask = plain(*shape), np.full(shape, value)
    found = image_attributes(image, mask)
    assert found["tone"] == ("unknown" if value else "very light")
    assert math.isnan(found["tone_deg"]) == bool(value)
    assert [found[name] for name in ("hair", "ruler", "dark_corners")] == ["no"] * 3


def test_black_picture_is_in_no_group():
    found = image_attributes(np.zeros((32, 32, 3), np.uint8))
    assert (found["tone"], found["hair"], found["ruler"], found["dark_corners"]) == ("unknown", "no", "no", "no")


def test_float_images_and_masks_with_a_channel_count_alike():
    image, mask = picture(1, hair=True)
    assert image_attributes(image, mask) == image_attributes(image.astype("float32"), mask[..., None].astype(bool))


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((8, 8)), None, "image has shape"),
        (np.zeros((8, 8, 4), np.uint8), None, "image has shape"),
        (np.full((8, 8, 3), 300.0), None, "0 to 255"),
        (np.full((8, 8, 3), np.nan), None, "0 to 255"),
        (plain(8, 8) / 255, None, "multiply it by 255"),
        (plain(8, 8), np.zeros((8, 9)), "mask is"),
        (plain(8, 8), np.zeros((8, 8, 2)), "mask has shape"),
        (plain(8, 8), np.full((8, 8), 255), "0 and 1 only"),
    ],
)
def test_wrong_arguments_are_named(image, mask, message):
    with pytest.raises(ValueError, match=message):
        image_attributes(image, mask)


def test_lab_is_that_of_scikit_image():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    image[0, :8] = np.arange(8)[:, np.newaxis]
    chosen = np.ones((64, 64), bool)
    np.testing.assert_allclose(lab_pixels(image, chosen), rgb2lab(image).reshape(-1, 3), atol=1e-3)
    assert lab_pixels(image, ~chosen).shape == (0, 3)


def test_a_large_photograph_is_in_the_groups_of_its_reduced_copy():
    noise = np.random.default_rng(0).normal(0, 8, (900, 1200, 3))
    large = (np.array([225, 185, 165]) + noise).clip(0, 255).astype(np.uint8)
    mask = np.zeros(large.shape[:2], bool)
    mask[300:600, 400:800] = True
    small = resize_image(large, (450, 600)), resize_mask(mask, (450, 600))
    assert image_attributes(large, mask) == image_attributes(*small)
    assert image_attributes(large, mask)["hair"] == "no"
