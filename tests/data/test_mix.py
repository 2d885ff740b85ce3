"""Mixed photographs: classes have the shares of their pixels, masks go with their pictures, and nothing else is mixed."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaseg.data import make_synthetic
from dermaseg.data.mix import MIXES, Mix
from dermaseg.data.pipeline import make_dataset

CLASSES = 5


def batch(count, size=(12, 16)):
    """Photographs of one grey each, so that every pixel tells whose it is; masks of the left or the right half."""
    greys = np.arange(count, dtype=np.uint8) * (255 // max(1, count - 1) if count > 1 else 1)
    images = np.broadcast_to(greys[:, None, None, None], (count, *size, 3)).copy()
    masks = np.zeros((count, *size, 1), np.uint8)
    masks[::2, :, : size[1] // 2] = 1
    masks[1::2, :, size[1] // 2 :] = 1
    return images, masks, np.eye(CLASSES, dtype=np.float32)[np.arange(count) % CLASSES]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(MIXES[1:]), st.integers(1, 9), st.floats(0.05, 5), st.integers(0, 2**31))
def test_shares_add_to_one_and_the_batch_as_a_whole_keeps_its_classes(kind, count, alpha, seed):
    images, masks, labels = batch(count)
    kept = [array.copy() for array in (images, masks, labels)]
    mixed, mixed_masks, shares = Mix(kind=kind, alpha=alpha)(images, masks, labels, rng=np.random.default_rng(seed))
    for before, after in zip(kept, (images, masks, labels), strict=True):
        np.testing.assert_array_equal(before, after)
    assert (mixed.shape, mixed.dtype, mixed_masks.shape) == (images.shape, np.uint8, masks.shape)
    assert shares.dtype == np.float32
    assert shares.min() >= 0
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-6)
    assert mixed_masks.min() >= 0
    assert mixed_masks.max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_gives_each_class_the_share_of_its_pixels_and_the_mask_of_each_pixel(seed):
    images, masks, labels = batch(CLASSES)
    greys = images[:, 0, 0, 0].tolist()
    mixed, mixed_masks, shares = Mix(kind="cutmix", alpha=1.0)(images, masks, labels, rng=np.random.default_rng(seed))
    owners = np.vectorize(greys.index)(mixed[..., 0])
    for row in range(CLASSES):
        found = np.bincount(owners[row].ravel(), minlength=CLASSES) / owners[row].size
        np.testing.assert_allclose(shares[row], found, atol=1e-6)  # one photograph a class: class and position are one
        at = np.indices(owners[row].shape)
        np.testing.assert_array_equal(mixed_masks[row, ..., 0], masks[owners[row], at[0], at[1], 0])
        rows, columns = np.nonzero(owners[row] != row)
        if len(rows):  # one rectangle, whole
            assert (np.ptp(rows) + 1) * (np.ptp(columns) + 1) == len(rows)
    assert mixed_masks.dtype == masks.dtype
    assert (shares.max(axis=1) < 1).any()


def test_mixup_blends_picture_mask_and_class_by_one_share():
    images, masks, labels = batch(CLASSES)
    mixed, mixed_masks, shares = Mix(kind="mixup", alpha=1.0)(images, masks, labels, rng=np.random.default_rng(1))
    np.testing.assert_allclose(mixed[:, 0, 0, 0], shares @ images[:, 0, 0, 0].astype(float), atol=0.51)  # rounded to 8 bits
    np.testing.assert_allclose(mixed_masks, np.einsum("ij,jhwc->ihwc", shares, masks), atol=1e-6)
    assert (shares.max(axis=1) < 1).sum() >= 2


@pytest.mark.parametrize("kind", MIXES[1:])
def test_half_of_all_is_the_partner_s_on_average(kind):
    images, _, _ = batch(2, size=(32, 32))
    mix = Mix(kind=kind, alpha=1.0)
    kept = []
    for seed in range(400):
        _, _, shares = mix(np.repeat(images, 8, axis=0), labels=np.eye(16), rng=np.random.default_rng(seed))
        own = shares.diagonal()
        kept.append(own[own < 1].mean())
    # A rectangle that is cut off at the edges is smaller: (1 - a) of the picture becomes about 0.35 on average.
    assert np.mean(kept) == pytest.approx(0.5 if kind == "mixup" else 0.65, abs=0.03)


def test_only_photographs_of_one_kind_are_mixed():
    images, masks, _ = batch(8)
    kinds = np.array([0, 1, 2, 0, 1, 2, 0, 1])
    for seed in range(10):
        _, _, shares = Mix(kind="mixup", alpha=1.0)(images, masks, np.eye(8), kinds=kinds, rng=np.random.default_rng(seed))
        rows, partners = np.nonzero(shares)
        assert (kinds[rows] == kinds[partners]).all()


def test_presets_and_mistakes():
    assert Mix.preset("none") is None
    assert (Mix.preset("mixup").alpha, Mix.preset("cutmix").alpha) == (0.2, 1.0)
    with pytest.raises(ValueError, match="mix must be one of none, mixup, cutmix, got 'cut'"):
        Mix.preset("cut")
    with pytest.raises(ValueError, match="kind must be one of mixup, cutmix"):
        Mix(kind="none", alpha=1.0)
    with pytest.raises(ValueError, match="alpha must be above 0"):
        Mix(kind="mixup", alpha=0.0)


# In the pipeline


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return make_synthetic(tmp_path_factory.mktemp("skin"), count=11, size=(45, 60), num_classes=3, images_per_lesion=1)


def taken(samples, framework="pydataset", **options):
    import keras

    options = {"target": "both", "size": (24, 32), "batch_size": 4, "shuffle": True, "seed": 5, **options}
    return [[np.asarray(a) for a in keras.tree.flatten(b)] for b in make_dataset(samples, framework=framework, **options)]


@pytest.mark.slow  # imports TensorFlow
@pytest.mark.parametrize("name", MIXES[1:])
@pytest.mark.parametrize("target", ["label", "both", "mask"])
def test_both_frameworks_mix_alike_and_repeat(samples, name, target):
    pytest.importorskip("tensorflow")
    first, second, again = (
        taken(samples, framework, mix=Mix.preset(name), target=target) for framework in ("tensorflow", "pydataset", "pydataset")
    )
    assert len(first) == 3
    for batches in (second, again):
        for one, other in zip(first, batches, strict=True):
            for array, twin in zip(one, other, strict=True):
                assert array.dtype == twin.dtype
                np.testing.assert_array_equal(array, twin)


def test_mixing_leaves_order_and_augmentation_as_they_were(samples):
    from dermaseg.data.augment import Augment

    options = {"augment": Augment.light(), "one_hot": True}
    plain, mixed = taken(samples, **options), taken(samples, mix=Mix(kind="mixup", alpha=1e-6), **options)
    # So small an alpha draws shares of 0 or 1: every photograph of the mixed batch is one of the plain batch, augmented alike.
    for (images, labels, masks), (others, shares, soft) in zip(plain, mixed, strict=True):
        for other, share, mask in zip(others, shares, soft, strict=True):
            source = int((images == other).all(axis=(1, 2, 3)).argmax())
            np.testing.assert_array_equal(images[source], other)
            np.testing.assert_allclose(labels[source], share, atol=1e-6)
            np.testing.assert_allclose(masks[source], mask, atol=1e-6)


def test_one_hot_labels_of_a_part_that_is_not_mixed(samples):
    whole = taken(samples, target="label", one_hot=True, shuffle=False)
    np.testing.assert_array_equal(
        np.concatenate([b[1] for b in whole]), np.eye(samples.num_classes, dtype=np.float32)[samples.labels]
    )


def test_weights_of_missing_targets_stay_true(samples):
    """A photograph without a mask, weight 0 there, must not lend its empty mask to one that has one."""
    bare = {samples.ids[row] for row in range(0, 11, 2)}
    some = samples.map(lambda sample: dataclasses.replace(sample, mask=None) if sample.id in bare else sample)
    known = {}
    for images, *_ in taken(some, batch_size=11, shuffle=False):
        known = {image.tobytes(): row not in range(0, 11, 2) for row, image in enumerate(images)}
    mixed = taken(some, batch_size=11, mix=Mix(kind="mixup", alpha=1e-6))
    (images, _, masks, _, weights) = mixed[0]
    for image, mask, weight in zip(images, masks, weights, strict=True):
        assert known[image.tobytes()] == bool(weight)
        assert (mask.max() > 0) == bool(weight)


def test_nothing_is_mixed_without_a_target(samples):
    with pytest.raises(ValueError, match="target must not be None"):
        taken(samples, target=None, mix=Mix.preset("mixup"))
