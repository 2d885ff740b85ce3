"""Synthetic dermoscopy: exact masks, seven classes that can be told apart but not at a glance, seeded."""

import csv

import numpy as np
import pytest

from dermaseg.data.images import read_image, read_mask
from dermaseg.data.synthetic import make_synthetic, synthetic_batch


@pytest.fixture(scope="module")
def batch():
    return synthetic_batch(140, size=64, seed=2)


def test_shapes_types_and_ranges(batch):
    images, masks, labels, lesion_ids = batch
    assert (images.shape, images.dtype) == ((140, 64, 64, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((140, 64, 64, 1), np.uint8)
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [20] * 7
    assert lesion_ids.shape == (140,)
    assert set(np.unique(masks)) == {0, 1}


def test_every_photograph_has_one_lesion_of_sensible_size(batch):
    from scipy import ndimage

    areas = batch[1].mean(axis=(1, 2, 3))
    assert areas.min() > 0.005
    assert areas.max() < 0.9
    assert 0.1 < areas.mean() < 0.35
    parts = [ndimage.label(mask[..., 0])[0] for mask in batch[1]]
    main_share = [np.bincount(part.ravel())[1:].max() / (part > 0).sum() for part in parts]
    assert np.mean(np.array(main_share) > 0.97) > 0.95


def test_lesions_are_darker_or_redder_than_the_skin_around(batch):
    images, masks = batch[0].astype(float), batch[1][..., 0].astype(bool)
    difference = [image[mask].mean(axis=0) - image[~mask].mean(axis=0) for image, mask in zip(images, masks, strict=True)]
    assert np.mean(np.array(difference)[:, 1] < -5) > 0.8  # green is what both melanin and blood absorb


def test_seeds_and_counts():
    small, large = synthetic_batch(3, size=32, seed=7), synthetic_batch(5, size=32, seed=7)
    for first, second in zip(small, large, strict=True):
        np.testing.assert_array_equal(first, second[:3])
    assert (small[0] != synthetic_batch(3, size=32, seed=8)[0]).any()


def test_photographs_of_a_lesion_differ_but_show_the_same_one(batch):
    images, masks, labels, lesion_ids = batch
    assert lesion_ids[0] == lesion_ids[1] != lesion_ids[2]
    np.testing.assert_array_equal(labels[::2], labels[1::2])
    assert (images[::2] != images[1::2]).any(axis=(1, 2, 3)).all()
    area = np.log(masks.mean(axis=(1, 2, 3)))
    same, other = np.abs(area[::2] - area[1::2]).mean(), np.abs(area[1:-1:2] - area[2::2]).mean()
    assert same < 0.5 * other


def test_classes_differ_and_overlap(batch):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    images, masks, labels, _ = synthetic_batch(210, size=48, seed=4, images_per_lesion=1)
    features = []
    for image, mask in zip(images.astype(float), masks[..., 0].astype(bool), strict=True):
        inner, outer = image[mask], image[~mask]
        features.append(
            [mask.mean(), *(inner.mean(0) - outer.mean(0)), *inner.std(0), *np.percentile(inner, [2, 98], 0).ravel()]
        )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy = cross_val_score(model, np.array(features), labels, cv=5).mean()
    assert 0.4 < accuracy < 0.9  # chance is 0.14


def test_rectangles_and_few_classes():
    images, masks, labels, _ = synthetic_batch(4, size=(30, 50), num_classes=2, images_per_lesion=1)
    assert (images.shape[1:3], masks.shape[1:3]) == ((30, 50), (30, 50))
    assert labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("options", [{"count": 0}, {"num_classes": 8}, {"num_classes": 0}, {"images_per_lesion": 0}])
def test_impossible_arguments_are_named(options, tmp_path):
    with pytest.raises(ValueError, match=next(iter(options))):
        synthetic_batch(**({"count": 1} | options))
    with pytest.raises(ValueError, match=next(iter(options))):
        make_synthetic(tmp_path / "none", **({"count": 1} | options))
    assert not (tmp_path / "none").exists()


def test_files_read_back_as_ham10000(tmp_path):
    samples = make_synthetic(tmp_path, count=15, size=(45, 60), seed=3)
    images, masks, labels, lesion_ids = synthetic_batch(15, size=(45, 60), seed=3)
    np.testing.assert_array_equal(samples.labels, labels)
    assert [sample.lesion_id for sample in samples] == lesion_ids.tolist()
    assert samples.class_names == ("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(read_mask(sample.mask), masks[row, ..., 0])
        assert np.abs(read_image(sample.image).astype(int) - images[row]).mean() < 6
    with open(tmp_path / "HAM10000_metadata.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for first, second in zip(rows[::2], rows[1::2], strict=False):  # one lesion, one patient
        assert {**first, "image_id": ""} == {**second, "image_id": ""}


def test_figures_on_drawn_photographs_do_not_pass_for_those_of_ham10000(tmp_path):
    assert make_synthetic(tmp_path, count=2, size=(32, 32)).source == "synthetic photographs"
