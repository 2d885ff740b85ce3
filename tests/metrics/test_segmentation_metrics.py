import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from isic_challenge_scoring.confusion import create_binary_confusion_matrix
from isic_challenge_scoring.metrics import (
    binary_accuracy,
    binary_dice,
    binary_jaccard,
    binary_sensitivity,
    binary_specificity,
    binary_threshold_jaccard,
)
from keras import ops
from sklearn import metrics as sklearn_metrics

from dermaseg import metrics

CASES = [
    (metrics.JaccardIndex, "jaccard"),
    (metrics.DiceScore, "dice"),
    (metrics.PixelSensitivity, "sensitivity"),
    (metrics.PixelSpecificity, "specificity"),
    (metrics.ThresholdedJaccard, "thresholded_jaccard"),
]


def pictures(count=7, size=9, seed=0):
    rng = np.random.default_rng(seed)
    true = (rng.random((count, size, size, 1)) > 0.5).astype("float32")
    flip = rng.random(true.shape) < rng.uniform(0, 0.4, (count, 1, 1, 1))
    return true, np.where(flip, 1 - true, true).astype("float32")


def scores(true, pred):
    return [metrics.segmentation_scores(t[..., 0], p[..., 0]) for t, p in zip(true, pred, strict=True)]


def test_numpy_scores_agree_with_the_challenge_and_with_sklearn():
    for true, pred in zip(*pictures(), strict=True):
        found = metrics.segmentation_scores(true[..., 0], pred[..., 0])
        confusion = create_binary_confusion_matrix(true.astype(bool).ravel(), pred.astype(bool).ravel())
        assert found["jaccard"] == pytest.approx(binary_jaccard(confusion))
        assert found["thresholded_jaccard"] == pytest.approx(binary_threshold_jaccard(confusion, threshold=0.65))
        assert found["dice"] == pytest.approx(binary_dice(confusion))
        assert found["sensitivity"] == pytest.approx(binary_sensitivity(confusion))
        assert found["specificity"] == pytest.approx(binary_specificity(confusion))
        assert found["accuracy"] == pytest.approx(binary_accuracy(confusion))
        assert found["jaccard"] == pytest.approx(sklearn_metrics.jaccard_score(true.ravel(), pred.ravel()))
        assert found["dice"] == pytest.approx(sklearn_metrics.f1_score(true.ravel(), pred.ravel()))


@pytest.mark.parametrize(("metric", "name"), CASES)
@settings(deadline=None, max_examples=10)
@given(cuts=st.sets(st.integers(1, 6)))
def test_streaming_is_the_mean_over_pictures_however_batches_are_cut(metric, name, cuts):
    true, pred = pictures()
    streaming = metric()
    for t, p in zip(np.split(true, sorted(cuts)), np.split(pred, sorted(cuts)), strict=True):
        streaming.update_state(t, p)
    expected = np.mean([score[name] for score in scores(true, pred)])
    assert float(streaming.result()) == pytest.approx(expected, abs=1e-6)


def test_the_dataset_average_pools_pixels():
    true, pred = pictures()
    streaming = metrics.JaccardIndex(average="dataset")
    streaming.update_state(true[:3], pred[:3])
    streaming.update_state(true[3:], pred[3:])
    pooled = sklearn_metrics.jaccard_score(true.ravel(), pred.ravel())
    assert float(streaming.result()) == pytest.approx(pooled, abs=1e-6)
    per_image = np.mean([score["jaccard"] for score in scores(true, pred)])
    assert abs(pooled - per_image) > 1e-3


def test_sample_weights_choose_pictures():
    true, pred = pictures()
    weights = np.array([1, 0, 0, 1, 0, 0, 0], "float32")
    streaming = metrics.JaccardIndex()
    streaming.update_state(true, pred, sample_weight=weights)
    kept = [score["jaccard"] for score in scores(true[[0, 3]], pred[[0, 3]])]
    assert float(streaming.result()) == pytest.approx(np.mean(kept), abs=1e-6)


def test_channels_are_masks_of_their_own():
    true, pred = pictures(8)
    pairs = true.reshape(4, 2, 9, 9).transpose(0, 2, 3, 1), pred.reshape(4, 2, 9, 9).transpose(0, 2, 3, 1)
    for average in ("per_image", "dataset"):
        one, two = metrics.DiceScore(average=average), metrics.DiceScore(average=average)
        one.update_state(true, pred)
        two.update_state(*pairs)
        assert float(one.result()) == pytest.approx(float(two.result()), abs=1e-6)


def test_weights_below_one_pixel_still_count():
    true, pred = pictures(1)
    streaming = metrics.JaccardIndex(average="dataset")
    streaming.update_state(true, pred, sample_weight=np.array([1e-4], "float32"))
    assert float(streaming.result()) == pytest.approx(scores(true, pred)[0]["jaccard"], rel=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_counts_every_pixel(dtype):
    true = np.ones((2, 300, 300, 1), "float32")  # 90,000 pixels: float16 overflows, bfloat16 stops counting at 256
    true[:, :100] = 0
    pred = np.roll(true, 50, axis=1)
    streaming = metrics.JaccardIndex()
    streaming.update_state(ops.cast(true, dtype), ops.cast(pred, dtype))
    assert float(streaming.result()) == pytest.approx(150 / 250)


def test_empty_masks_score_what_was_asked():
    empty = np.zeros((1, 4, 4, 1), "float32")
    for empty_score in (1.0, 0.0):
        streaming = metrics.JaccardIndex(empty_score=empty_score)
        streaming.update_state(empty, empty)
        assert float(streaming.result()) == empty_score
    found = metrics.segmentation_scores(empty[0, ..., 0], empty[0, ..., 0])
    assert all(found[name] == 1 for name in ("jaccard", "dice", "sensitivity", "specificity", "boundary_jaccard"))
    assert found["hausdorff95_px"] == 0
    missed = metrics.segmentation_scores(np.ones((4, 4)), np.zeros((4, 4)))
    assert missed["jaccard"] == 0
    assert np.isnan(missed["hausdorff95_px"])


def test_integer_masks_and_threshold():
    true = np.array([[0, 1], [1, 1]], "uint8").reshape(1, 2, 2, 1)
    pred = np.array([[0.1, 0.35], [0.6, 0.9]], "float32").reshape(1, 2, 2, 1)
    for threshold, expected in ((0.5, 2 / 3), (0.3, 1.0)):
        streaming = metrics.JaccardIndex(threshold=threshold)
        streaming.update_state(true, pred)
        assert float(streaming.result()) == pytest.approx(expected)


@pytest.mark.parametrize(("metric", "name"), CASES)
def test_logits_are_cut_where_their_probabilities_are(metric, name):
    true, _ = pictures()
    logits = np.random.default_rng(1).normal(0, 2, true.shape).astype("float32")
    streaming = metric(threshold=0.7, from_logits=True)
    streaming.update_state(true, logits)
    expected = np.mean([score[name] for score in scores(true, 1 / (1 + np.exp(-logits)) > 0.7)])
    assert float(streaming.result()) == pytest.approx(expected, abs=1e-6)


def test_logits_of_several_classes_go_through_a_softmax():
    rng = np.random.default_rng(0)
    true, logits = np.eye(3, dtype="float32")[rng.integers(0, 3, (4, 9, 9))], rng.normal(size=(4, 9, 9, 3)).astype("float32")
    softmax = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    found, expected = metrics.JaccardIndex(from_logits=True), metrics.JaccardIndex()
    found.update_state(true, logits)
    expected.update_state(true, softmax)
    assert float(found.result()) == pytest.approx(float(expected.result()), abs=1e-6)


@pytest.mark.parametrize(("metric", "name"), CASES)
def test_config_round_trip(metric, name):
    first = metric(threshold=0.4, empty_score=0.0, from_logits=True)
    again = keras.metrics.deserialize(keras.metrics.serialize(first))
    assert again.get_config() == first.get_config()


def test_keras_watches_it_under_xla():
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(1, 1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=[metrics.JaccardIndex(name="jaccard")], jit_compile=True)
    history = model.fit(pictures(4, 8)[0].repeat(3, -1), pictures(4, 8)[0], batch_size=2, verbose=0)
    assert 0 <= history.history["jaccard"][0] <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.JaccardIndex(average="batch"), "average must be"),
        (lambda: metrics.DiceScore(threshold=1.0), "threshold must lie"),
        (lambda: metrics.JaccardIndex().update_state(np.zeros((2, 4, 4)), np.zeros((2, 4, 4))), r"\(batch, height, width, ch"),
        (lambda: metrics.DiceScore().update_state(np.zeros((2, 4, 4, 1)), np.zeros((2, 4, 1, 1))), "and agree"),
        (lambda: metrics.DiceScore().update_state(*np.zeros((2, 2, 4, 4, 1)), np.ones((2, 4, 4))), "one weight per picture"),
        (lambda: metrics.ThresholdedJaccard(cutoff=65), "cutoff must lie"),
        (lambda: metrics.segmentation_scores(np.zeros((4, 4)), np.zeros((4, 5))), "must be \\(height, width\\) and agree"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_mask_is_refused():
    mask = np.eye(4)
    for wrong in (0.6 * mask, np.full((4, 4), np.nan), 255 * mask):
        with pytest.raises(ValueError, match="0 and 1 only"):
            metrics.segmentation_scores(mask, wrong)
        with pytest.raises(ValueError, match="0 and 1 only"):
            metrics.jaccard_index(wrong, mask)


@settings(deadline=None, max_examples=30)
@given(hnp.arrays(bool, (5, 7)), hnp.arrays(bool, (5, 7)))
def test_the_jaccard_index_alone_is_that_of_all_scores(true, pred):
    assert metrics.jaccard_index(true, pred) == metrics.segmentation_scores(true, pred)["jaccard"]
