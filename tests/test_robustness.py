"""The packaged network on what its training crops were not: whole frames, black rims, phones' sizes, turns and colour modes.

Each level lies a little below what was measured, so that another preset which is worse there does not pass unseen.
"""

import numpy as np
import pytest
from PIL import Image

from dermaseg.data import resize_image, resize_mask
from dermaseg.data.synthetic import synthetic_batch
from dermaseg.prediction import Predictor

FRAME = (450, 600)


def jaccard(first, second):
    first, second = first > 0, second > 0
    return float((first & second).sum() / (first | second).sum())


@pytest.fixture(scope="module")
def predictor():
    pytest.importorskip("onnxruntime")
    return Predictor()


@pytest.fixture(scope="module")
def frames():
    """Whole 4:3 frames of six lesions with their true masks."""
    images, masks, _, _ = synthetic_batch(6, size=FRAME, seed=3, images_per_lesion=1)
    return images, masks[..., 0]


@pytest.fixture(scope="module")
def outlined(predictor, frames):
    return [prediction.mask for prediction in predictor.predict(frames[0])]


def test_whole_frames_are_outlined(frames, outlined):
    found = [jaccard(mask, true) for mask, true in zip(outlined, frames[1], strict=True)]
    assert min(found) > 0.75
    assert np.mean(found) > 0.83


# The last two are a phone's 3 and 12 megapixels.
@pytest.mark.parametrize(
    ("size", "least"), [((113, 150), 0.95), ((225, 300), 0.97), ((1536, 2048), 0.98), ((3000, 4000), 0.98)]
)
def test_one_photograph_has_one_outline_at_every_size(predictor, frames, outlined, size, least):
    for image, mask in zip(frames[0][:3], outlined, strict=False):
        resized = predictor(resize_image(image, size)).mask
        assert resized.shape == size
        assert jaccard(resize_mask(resized, FRAME), mask) > least


@pytest.mark.parametrize("radius", [280, 300, 330])
def test_dark_corners_are_no_lesion(predictor, frames, outlined, radius):
    y, x = np.mgrid[: FRAME[0], : FRAME[1]]
    rim = np.hypot(y - FRAME[0] / 2, x - FRAME[1] / 2) > radius
    rimmed = frames[0].copy()
    rimmed[:, rim] = 8
    for prediction, before, true in zip(predictor.predict(rimmed), outlined, frames[1], strict=True):
        assert not prediction.mask[rim].any()
        assert jaccard(prediction.mask, true) > jaccard(before, true) - 0.06


def test_a_crop_of_the_frame_has_the_same_outline(predictor, frames, outlined):
    for prediction, mask in zip(predictor.predict(frames[0][:, :, 75:525]), outlined, strict=True):
        assert jaccard(prediction.mask, mask[:, 75:525]) > 0.95


# How the sensor's pixels lie when the phone was held otherwise, by EXIF orientation.
HELD = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: np.rot90(upright, 2),
    6: lambda upright: np.rot90(upright, 1),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", HELD)
def test_exif_turns_photograph_and_mask_alike(predictor, frames, outlined, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(np.ascontiguousarray(HELD[orientation](frames[0][0]))).save(path, exif=exif)
    np.testing.assert_array_equal(predictor(path).mask, predictor(frames[0][0]).mask)
    # Without the note the same lesion lies turned, and its outline with it.
    turned = predictor(np.ascontiguousarray(HELD[orientation](frames[0][0]))).mask
    assert jaccard(turned, HELD[orientation](outlined[0])) > 0.9


def test_colour_modes_of_one_photograph_agree(predictor, frames, tmp_path):
    upright = Image.fromarray(frames[0][0])
    grey = upright.convert("L")
    expected, expected_grey = predictor(upright).mask, predictor(grey).mask
    opaque, deep = tmp_path / "opaque.png", tmp_path / "deep.png"
    upright.convert("RGBA").save(opaque)
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(deep)
    np.testing.assert_array_equal(predictor(opaque).mask, expected)
    np.testing.assert_array_equal(predictor(deep).mask, expected_grey)
    assert jaccard(expected_grey, frames[1][0]) > 0.8
