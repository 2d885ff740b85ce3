import io
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from scipy import ndimage

from dermaseg.conformal import ConformalClassifier, Rejection
from dermaseg.decisions import Decisions
from dermaseg.errors import DataError
from dermaseg.models import build_unet
from dermaseg.prediction import Prediction, Predictor, clean_mask, photos
from dermaseg.prediction.outputs import named_outputs
from dermaseg.pretrained import DEFAULT_PRESET, find_preset
from dermaseg.runtime import OnnxModel
from dermaseg.saving import load_model


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


def test_pil_images_are_read_as_their_files_are(predictor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # as a phone held upright writes it
    turned = tmp_path / "turned.jpg"
    Image.fromarray(photo(40, 50)).save(turned, exif=exif)
    deep = tmp_path / "deep.png"
    Image.fromarray(np.linspace(0, 65535, 2000).astype(np.uint16).reshape(40, 50)).save(deep)
    for path in (turned, deep):
        with Image.open(path) as picture:
            prediction = predictor(picture)
        np.testing.assert_array_equal(prediction.image, predictor(path).image)
    assert predictor(turned).mask.shape == (50, 40)
    assert len(np.unique(prediction.image)) > 200  # clipped at 255, nearly all would be white


@pytest.mark.parametrize("kind", ["mask", "label"])
def test_an_empty_mask_is_referred_however_sure(kind):
    level = Rejection(threshold=0.9, coverage=0.9, risk=0.1, samples=100)
    known = Decisions(**{f"{kind}_rejection": level})
    probability = np.zeros((4, 5), np.float32)
    classes = {"a": 0.99, "b": 0.01}
    empty = Prediction(None, photo(4, 5), probability, classes=classes, decisions=known)
    assert empty.refer is True
    assert empty.summary()["lesion_px"] == 0
    found = Prediction(None, photo(4, 5), probability + 0.999, classes=classes, decisions=known)
    assert found.refer is False
    assert Prediction(None, photo(4, 5), probability).refer is None


@pytest.mark.parametrize(
    ("sure", "classes", "refer"),
    [(0.99, {"a": 0.99, "b": 0.01}, False), (0.55, {"a": 0.99, "b": 0.01}, True), (0.99, {"a": 0.5, "b": 0.5}, True)],
)
def test_doubt_of_either_output_above_its_level_is_referred(sure, classes, refer):
    level = Rejection(threshold=0.3, coverage=0.9, risk=0.1, samples=100)
    probability = np.zeros((4, 5), np.float32)
    probability[1:3, 1:4] = sure
    known = Decisions(mask_rejection=level, label_rejection=level)
    assert Prediction(None, photo(4, 5), probability, classes=classes, decisions=known).refer is refer


def test_a_model_file_in_capitals_is_one_too(model, predictor, tmp_path):
    model.save(tmp_path / "model.keras")
    (tmp_path / "model.keras").rename(tmp_path / "MODEL.KERAS")
    (tmp_path / "MODEL.json").write_text('{"size": 32}')
    image = photo(40, 50)
    np.testing.assert_array_equal(Predictor(tmp_path / "MODEL.KERAS")(image).probability, predictor(image).probability)


def test_a_true_mask_is_not_replaced_by_a_predicted_one(predictor, tmp_path):
    prediction = predictor(photo(40, 50))
    for kind in ("mask", "overlay"):
        true = tmp_path / f"a_{kind}.png"
        Image.new("L", (50, 40), 255).save(true)
        before = true.read_bytes()
        with pytest.raises(DataError, match=rf"holds a_{kind}\.png, which predict did not write\. Give another"):
            prediction.save(tmp_path, "a")
        assert [path.name for path in tmp_path.iterdir()] == [true.name]
        assert true.read_bytes() == before
        true.unlink()
    for _ in range(2):  # its own are
        assert set(prediction.save(tmp_path, "a")) == {"mask", "overlay"}


def test_photographs_that_cannot_be_read_are_left_to_the_caller(predictor, tmp_path):
    broken = [tmp_path / "broken.jpg", tmp_path / "missing.jpg"]
    broken[0].write_text("not a picture")
    photos = [photo(40, 50, 0), broken[0], photo(40, 50, 1), broken[1], photo(40, 50, 2)]
    failures = []
    kept = list(predictor.predict(photos, batch_size=2, on_error=lambda *failure: failures.append(failure)))
    for prediction, image in zip(kept, photos[::2], strict=True):
        np.testing.assert_array_equal(prediction.image, image)
    assert [path for path, _ in failures] == broken
    assert "is not an image" in str(failures[0][1])
    with pytest.raises(DataError, match=r"broken\.jpg"):
        list(predictor.predict(photos, batch_size=2))


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
    with pytest.raises(ValueError, match="size must be a positive number"):
        Predictor(path, size=0)
    path.rename(tmp_path / "model.keras")  # as a run folder holds it
    path = tmp_path / "model.keras"
    assert load_model(tmp_path).count_params() == model.count_params()
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


def test_the_most_probable_class_is_always_possible():
    decisions = Decisions(conformal=ConformalClassifier((0.1, 0.1, 0.1), counts=(5, 5, 5)))
    image = np.zeros((4, 4, 3), np.uint8)
    prediction = Prediction(None, image, classes={"a": 0.3, "b": 0.5, "c": 0.2}, decisions=decisions)
    assert prediction.possible == ("b",)


def test_dropout_left_on_gives_a_mean_and_a_disagreement(tmp_path):
    keras.utils.set_random_seed(0)
    dropping = build_unet(filters=(8, 16), dropout=0.5)
    repeated = Predictor(dropping, size=32, dropout_samples=4)
    prediction = repeated(photo(40, 50))
    assert prediction.disagreement["mask"] > 0
    assert prediction.summary()["mask_disagreement"] == round(prediction.disagreement["mask"], 6)
    np.testing.assert_array_equal(repeated(photo(40, 50)).probability, prediction.probability)
    single = Predictor(dropping, size=32)(photo(40, 50))
    assert single.disagreement == {}
    assert np.abs(single.probability - prediction.probability).max() > 0
    assert Predictor(dropping, size=32, tta="flips")(photo(40, 50)).disagreement["mask"] > 0


def test_a_mask_of_several_channels_is_not_read_as_one():
    skin_and_lesion = build_unet(num_classes=2, filters=(4, 8))
    with pytest.raises(ValueError, match="masks have 2 channels; Predictor reads one"):
        list(Predictor(skin_and_lesion, size=32).predict([np.zeros((32, 32, 3), np.uint8)]))


def test_dropout_that_cannot_be_is_named(model):
    with pytest.raises(ValueError, match="model has no dropout layer"):
        Predictor(model, size=32, dropout_samples=4)
    with pytest.raises(ValueError, match="at least 2"):
        Predictor(model, size=32, dropout_samples=1)
    with pytest.raises(ValueError, match="cannot be combined"):
        Predictor(model, size=32, dropout_samples=4, tta="flips")
    exported = OnnxModel.from_preset(find_preset(DEFAULT_PRESET))
    with pytest.raises(ValueError, match="needs a Keras model"):
        Predictor(exported, size=192, dropout_samples=4)


def test_a_model_of_one_height_and_width_reads_photographs_of_any(model):
    fixed = build_unet(filters=(8, 16), input_shape=(24, 40, 3))
    fixed.set_weights(model.get_weights())
    predictor = Predictor(fixed)
    assert predictor.size == 31  # the side of a square as large
    image = photo(60, 52)
    probability = predictor(image).probability
    assert probability.shape == (60, 52)
    # The same pixels that the open model sees in a photograph of that shape.
    stretched = np.asarray(Image.fromarray(image).resize((40, 24), Image.Resampling.BOX))
    np.testing.assert_array_equal(predictor(stretched).probability, Predictor(model, size=31)(stretched).probability)
    assert Predictor(fixed, tta="flips")(image).disagreement["mask"] >= 0
    with pytest.raises(ValueError, match="24 by 40 pixels alone, which tta='dihedral' turns"):
        Predictor(fixed, tta="dihedral")
    with pytest.raises(ValueError, match=r"size=128: the model takes 24 by 40 pixels alone\. Leave size out"):
        Predictor(fixed, size=128)


def test_a_scale_gives_millimetres(model):
    scaled = Predictor(model, size=32, threshold=0.05, mm_per_px=0.1)(photo(40, 50)).measure()
    assert scaled.diameter_mm == pytest.approx(0.1 * scaled.diameter_px)
    with pytest.raises(ValueError, match="mm_per_px must be"):
        Predictor(model, size=32, mm_per_px=0)


def test_a_size_far_from_the_training_earns_a_warning():
    preset = find_preset(DEFAULT_PRESET)
    model = OnnxModel.from_preset(preset)
    for size in (95, 385):
        with pytest.warns(UserWarning, match=f"size={size}: the model was trained at 192"):
            Predictor(model, size=size)
    for size in (96, 384, None):
        Predictor(model, size=size)


class Dotted:
    """A network that outlines a square with a hole, and a speck beside it."""

    def predict_on_batch(self, batch):
        masks = np.zeros((len(batch), 32, 32, 1), "float32")
        masks[:, 8:24, 8:24] = 1
        masks[:, 15, 15] = 0
        masks[:, 2, 2] = 1
        return masks


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 1)))
def test_holes_are_filled_within_the_lesions_box_as_in_the_whole_mask(mask):
    before = mask.copy()
    np.testing.assert_array_equal(clean_mask(mask, fill_holes=True), ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("asked", [None, True, False])
@pytest.mark.parametrize("decided", [True, False])
def test_masks_are_tidied_as_asked_or_as_the_model_has_decided(asked, decided):
    predictor = Predictor(Dotted(), size=32, largest_component=asked, fill_holes=asked)
    predictor.decisions = Decisions(tidy_masks=decided)
    mask = predictor(photo(32, 32)).mask
    tidy = decided if asked is None else asked
    assert (mask[2, 2], mask[15, 15]) == ((0, 1) if tidy else (1, 0))
    assert mask[8:24, 8:24].sum() >= 255


def test_masks_are_tidied_whatever_their_type_and_probabilities_are_not():
    mask = np.zeros((6, 6, 1))
    mask[1:4, 1:4], mask[5, 5] = 1, 1
    assert clean_mask(mask, largest_component=True).sum() == 9
    with pytest.raises(ValueError, match=r"Cut it at 0\.5"):
        clean_mask(np.array([[0.9, 0.2], [0.8, 0.7]]), largest_component=True)


def test_names_must_be_as_many_as_the_models_classes():
    from dermaseg.models import build_cnn

    predictor = Predictor(build_cnn(num_classes=3, filters=(8, 16)), size=32)
    predictor.class_names = ("a", "b")
    with pytest.raises(ValueError, match="gives 3 classes, and class_names has 2: a, b"):
        predictor(np.zeros((32, 32, 3), np.uint8))


class Returning:
    """A network that returns what it is told, as often as there are photographs."""

    def __init__(self, outputs):
        self.outputs = outputs
        self.batches = []

    def predict_on_batch(self, batch):
        self.batches.append(len(batch))
        return keras.tree.map_structure(lambda output: np.repeat(output, len(batch), axis=0), self.outputs)


MASK, LABEL = np.full((1, 32, 32, 1), 0.8, "float32"), np.array([[0.3, 0.7]], "float32")


@pytest.mark.parametrize("tta", ["none", "flips"])
@pytest.mark.parametrize("outputs", [[MASK, LABEL], (LABEL, MASK), {"label": LABEL, "mask": MASK, "mask_coarse": MASK[:, ::2]}])
def test_a_list_of_outputs_goes_by_its_axes_and_a_dict_by_its_names(outputs, tta):
    prediction = Predictor(Returning(outputs), size=32, tta=tta)(photo(32, 32))
    np.testing.assert_allclose(prediction.probability, 0.8, rtol=1e-6)
    assert prediction.classes == pytest.approx({"class_0": 0.3, "class_1": 0.7})
    assert set(prediction.disagreement) == ({"mask", "label"} if tta == "flips" else set())


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ({"seg": MASK}, "outputs are named seg; predicting needs `mask` or `label`"),
        ([MASK, MASK], "two outputs of the axes of a mask"),
        (MASK[..., 0], r"an output of shape \(2, 32, 32\)"),
        ({"mask": MASK[..., 0]}, r"mask has the shape \(2, 32, 32\), not \(batch, height, width, channels\)"),
        (8 * MASK, "mask holds values from 6.4 to 6.4, which are no probabilities"),
        (np.nan * MASK, "mask holds values from nan to nan"),
        ({"mask": MASK, "label": -LABEL}, "label holds values from -0.7 to -0.3"),
    ],
)
def test_outputs_that_are_not_understood_are_named(outputs, said):
    with pytest.raises(ValueError, match=said):
        list(Predictor(Returning(outputs), size=32).predict([photo(32, 32)] * 2))


def test_a_mask_of_logits_is_not_read_as_probabilities():
    logits = build_unet(filters=(4, 8), classifier_activation="linear")
    logits.get_layer("mask_logits").bias.assign([-9.0])
    with pytest.raises(ValueError, match=r"no probabilities.*classifier_activation='auto'"):
        Predictor(logits, size=32)(photo(32, 32))


def test_dropout_needs_the_names_of_outputs_too():
    images = keras.Input((None, None, 3))
    mask = keras.layers.Conv2D(1, 1, activation="sigmoid")(keras.layers.Dropout(0.5)(keras.layers.Rescaling(1 / 255)(images)))
    with pytest.raises(ValueError, match="named seg"):
        Predictor(keras.Model(images, {"seg": mask}), size=32, dropout_samples=2)(photo(32, 32))


@given(arrays(np.float16, (2, 3), elements=st.floats(-0.0078125, 1.0078125, width=16)))
def test_rounding_of_half_precision_is_cut_off(label):
    found = named_outputs(label)["label"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.clip(label.astype("float32"), 0, 1))


@given(
    arrays(np.float32, (2, 3), elements=st.floats(0, 1, width=32)),
    st.floats(allow_nan=True, width=32).filter(lambda value: not -0.01 <= value <= 1.01),
)
def test_one_value_that_is_no_probability_is_enough(label, wrong):
    label[1, 2] = wrong
    with pytest.raises(ValueError, match="no probabilities"):
        named_outputs({"label": label})


@pytest.mark.parametrize("one", ["photo.jpg", Path("photo.jpg"), photo(4, 4), Image.new("RGB", (4, 4)), b"jpeg", None])
def test_one_photograph_is_not_taken_for_several(predictor, one):
    with pytest.raises(TypeError, match=f"photos must be a list of photographs.*{type(one).__name__}.*predictor\\(photo\\)"):
        predictor.predict(one)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_a_photograph_at_least(predictor, batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        predictor.predict([photo(4, 4)], batch_size=batch_size)


@pytest.mark.parametrize("given", [b"jpeg", io.BytesIO(b"jpeg"), None, 5])
def test_what_is_no_photograph_says_what_is(predictor, given):
    with pytest.raises(
        TypeError, match=rf"a path, a PIL image or an RGB array, got {type(given).__name__}.*io\.BytesIO\(data\)"
    ):
        predictor(given)


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0, 3)])
def test_an_array_without_pixels_is_named(predictor, shape):
    with pytest.raises(ValueError, match="hold a pixel at least"):
        predictor(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("wrong", ["missing.jpg", b"jpeg", np.zeros((4, 4, 3))])
def test_photographs_before_one_that_cannot_be_read_are_predicted(predictor, wrong):
    good = [photo(40, 50, 0), photo(40, 50, 1)]
    predictions = predictor.predict([*good, wrong, photo(40, 50, 2)])
    for image in good:
        assert next(predictions).image is image
    with pytest.raises((TypeError, ValueError)):
        next(predictions)


@given(st.lists(st.sampled_from([(8, 8), (16, 8), (40, 40)]), max_size=12), st.integers(1, 5), st.sampled_from([1, 200, 10**6]))
def test_a_batch_ends_at_its_size_or_with_too_many_pixels(shapes, batch_size, most):
    images = [photo(*shape, seed) for seed, shape in enumerate(shapes)]
    model = Returning(LABEL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "_MOST_PIXELS", most)
        found = list(Predictor(model, size=8).predict(images, batch_size=batch_size))
    assert [prediction.image.tobytes() for prediction in found] == [image.tobytes() for image in images]
    assert sum(model.batches) == len(images)
    assert max(model.batches, default=0) <= min(batch_size, 1 + most // 64)


def test_large_photographs_are_not_held_all_at_once(monkeypatch):
    monkeypatch.setattr(photos, "_MOST_PIXELS", 5 * 64)
    taken = 0

    def camera():
        nonlocal taken
        for seed in range(16):
            taken += 1
            yield photo(8, 8, seed)

    next(Predictor(Returning(LABEL), size=8).predict(camera()))
    assert taken <= 5 + photos._AHEAD


def test_predictions_can_be_compared_and_put_in_a_set(predictor):
    first, second = predictor.predict([photo(8, 8)] * 2)
    assert first == first
    assert first != second
    assert len({first, second, first}) == 2
