import keras
import numpy as np
import pytest
from PIL import Image

from dermaseg.errors import DataError
from dermaseg.models import build_unet
from dermaseg.prediction import Predictor


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return build_unet(filters=(8, 16))


@pytest.fixture
def predictor(model):
    return Predictor(model, size=32)


def photo(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype("uint8")


@pytest.mark.parametrize("shape", [(32, 32), (45, 60), (101, 97), (8, 300), (1, 1)])
def test_masks_have_the_photographs_own_size(predictor, shape):
    prediction = predictor(photo(*shape))
    assert prediction.mask.shape == prediction.probability.shape == shape
    assert set(np.unique(prediction.mask)) <= {0, 1}
    assert 0 <= prediction.probability.min() <= prediction.probability.max() <= 1


def test_a_batch_of_mixed_shapes_keeps_its_order(predictor):
    photos = [photo(40, 50, seed) if seed % 3 else photo(64, 64, seed) for seed in range(7)]
    together = list(predictor.predict(photos, batch_size=4))
    for one, prediction in zip(photos, together, strict=True):
        assert prediction.image is one or (prediction.image == one).all()
        np.testing.assert_allclose(predictor(one).probability, prediction.probability, atol=1e-5)


def test_files_and_pil_images_and_arrays_agree(predictor, tmp_path):
    pixels = photo(40, 50)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    expected = predictor(pixels).probability
    for same in (path, str(path), Image.fromarray(pixels)):
        np.testing.assert_array_equal(predictor(same).probability, expected)
    assert predictor(path).photo == path


def test_saved_pictures_and_figures(predictor, tmp_path):
    prediction = predictor(photo(40, 50))
    files = prediction.save(tmp_path / "new" / "folder", "lesion")
    with Image.open(files["mask"]) as written:
        mask = np.array(written)
    assert mask.shape == (40, 50)
    assert set(np.unique(mask)) <= {0, 255}
    with Image.open(files["overlay"]) as written:
        assert written.size == (50, 40)
    summary = prediction.summary()
    assert summary["lesion_px"] == (mask > 0).sum()
    assert (summary["width_px"], summary["height_px"]) == (50, 40)
    assert "not a medical device" in summary["note"]


def test_the_threshold_moves_the_mask(model):
    low, high = Predictor(model, size=32, threshold=0.05), Predictor(model, size=32, threshold=0.95)
    assert low(photo(32, 32)).mask.sum() > high(photo(32, 32)).mask.sum()


def test_a_saved_file_needs_its_size_and_keeps_its_output(model, tmp_path):
    path = tmp_path / "own.keras"
    model.save(path)
    with pytest.raises(ValueError, match="size is not known"):
        Predictor(path)
    np.testing.assert_allclose(
        Predictor(path, size=32)(photo(30, 40)).probability, Predictor(model, size=32)(photo(30, 40)).probability, atol=1e-6
    )


def test_mistakes_are_named(predictor, model, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("not a picture")
    with pytest.raises(DataError, match=r"broken\.jpg"):
        predictor(broken)
    with pytest.raises(ValueError, match=r"\(height, width, 3\), uint8"):
        predictor(np.zeros((4, 4, 3)))
    with pytest.raises(DataError, match="no model here"):
        Predictor(tmp_path, size=32)
    not_a_model = tmp_path / "model.keras"
    not_a_model.write_text("x")
    with pytest.raises(DataError, match="cannot be read as a Keras model"):
        Predictor(not_a_model, size=32)
    with pytest.raises(ValueError, match="threshold must lie between 0 and 1"):
        Predictor(model, size=32, threshold=1.5)
