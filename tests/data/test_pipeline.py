"""Pipelines: the same batches in every framework, decoded once, and no bad file passed over."""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from dermaseg.data.augment import Augment
from dermaseg.data.batches import AHEAD, Ahead
from dermaseg.data.cache import PixelCache, decode, decode_all
from dermaseg.data.images import read_image, read_mask, resize_image, resize_mask
from dermaseg.data.pipeline import load_arrays, make_dataset
from dermaseg.data.samples import Sample, Samples
from dermaseg.data.synthetic import make_synthetic
from dermaseg.errors import DataError

COUNT, SIZE = 11, (24, 32)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    return make_synthetic(tmp_path_factory.mktemp("skin"), count=COUNT, size=(45, 60), num_classes=3, images_per_lesion=1)


def make(samples, framework="pydataset", **options):
    return make_dataset(samples, framework=framework, **({"size": SIZE, "batch_size": 4} | options))


def epochs(dataset, count=1):
    """All batches of some epochs, each as a flat list of arrays."""
    import keras

    return [[np.asarray(array) for array in keras.tree.flatten(batch)] for _ in range(count) for batch in dataset]


def assert_same(first, second):
    assert len(first) == len(second)
    for batch, other in zip(first, second, strict=True):
        for array, twin in zip(batch, other, strict=True):
            assert array.dtype == twin.dtype
            np.testing.assert_array_equal(array, twin)


@pytest.mark.slow  # imports TensorFlow
@pytest.mark.parametrize("target", ["mask", "label", "both", None])
def test_both_frameworks_give_the_same_two_epochs(samples, target):
    options = {"target": target, "augment": Augment.strong(), "shuffle": True, "seed": 5}
    first = epochs(make(samples, "tensorflow", **options), 2)
    assert_same(first, epochs(make(samples, "pydataset", **options), 2))
    assert any((a[0] != b[0]).any() for a, b in zip(first[:2], first[3:5], strict=True))  # the epochs differ


def test_batches_hold_what_the_files_hold(samples):
    (batch,) = make(samples, batch_size=COUNT, target="both")
    images, targets = batch
    assert (images.shape, images.dtype) == ((COUNT, *SIZE, 3), np.uint8)
    assert (targets["mask"].shape, targets["mask"].dtype) == ((COUNT, *SIZE, 1), np.uint8)
    assert targets["label"].dtype == np.int64
    np.testing.assert_array_equal(targets["label"], samples.labels)
    for row, sample in enumerate(samples):
        np.testing.assert_array_equal(images[row], resize_image(read_image(sample.image), SIZE))
        np.testing.assert_array_equal(targets["mask"][row, ..., 0], resize_mask(read_mask(sample.mask), SIZE))


@pytest.mark.parametrize("target", ["mask", "label", "both", None])
def test_load_arrays_is_one_batch(samples, target):
    import keras

    (batch,) = epochs(make(samples, batch_size=COUNT, target=target))
    loaded = keras.tree.flatten(load_arrays(samples, size=SIZE, target=target))
    assert_same([batch], [loaded])


@pytest.mark.parametrize("framework", ["tensorflow", "pydataset"])
def test_the_last_batch_is_whole_or_left_out(samples, framework):
    assert [len(batch[0]) for batch in epochs(make(samples, framework))] == [4, 4, 3]
    assert [len(batch[0]) for batch in epochs(make(samples, framework, drop_remainder=True))] == [4, 4]


@pytest.mark.parametrize("framework", ["tensorflow", "pydataset"])
def test_the_last_batch_is_filled_up_for_several_devices(samples, framework):
    plain, filled = (epochs(make(samples, framework, **options)) for options in ({}, {"multiple": 2}))
    assert [len(batch[0]) for batch in filled] == [4, 4, 4]
    for batch, other in zip(plain, filled, strict=True):
        assert_same([[array[: len(batch[0])] for array in other[:2]]], [batch])
    weights = np.concatenate([batch[2] for batch in filled])
    np.testing.assert_allclose(weights, [12 / 11] * 11 + [0], rtol=1e-6)
    assert weights.mean() == pytest.approx(1)  # a mean over all places is the mean over the true samples
    assert_same(epochs(make(samples, framework, multiple=2, drop_remainder=True)), plain[:2])
    assert len(epochs(make(samples.select(range(8)), framework, multiple=2))[0]) == 2  # none is needed: no weights


def test_what_fills_up_weighs_nothing_beside_missing_targets(samples):
    table = samples.select([0, 1, 2]).map(lambda sample: replace(sample, mask=None) if sample.id == samples[1].id else sample)
    ((images, targets, weights),) = make(table, target="both", multiple=4)
    assert len(images) == len(targets["mask"]) == 4
    np.testing.assert_allclose(weights["mask"], [4 / 3, 0, 4 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(weights["label"], [4 / 3, 4 / 3, 4 / 3, 0], rtol=1e-6)
    assert [len(batch) for batch in make(table, target=None, multiple=4)] == [4]


def test_tensorflow_knows_shapes_and_length(samples):
    images, masks = make(samples, "tensorflow").element_spec
    assert (images.shape.as_list(), masks.shape.as_list()) == ([None, *SIZE, 3], [None, *SIZE, 1])
    full = make(samples, "tensorflow", drop_remainder=True)
    assert full.element_spec[0].shape.as_list() == [4, *SIZE, 3]
    assert full.cardinality().numpy() == 2


def test_the_end_of_an_epoch_waits_for_no_tuner(samples):
    # The end of the pipeline would wait for a thread that sleeps ever longer, nearly as long as a short epoch lasts.
    assert make(samples, "tensorflow").options().autotune.enabled is False


@pytest.mark.parametrize("framework", ["tensorflow", "pydataset"])
def test_a_resumed_run_sees_what_the_interrupted_one_would_have_seen(samples, framework):
    options = {"augment": Augment.light(), "shuffle": True}
    whole = epochs(make(samples, framework, **options), 3)
    assert_same(whole[6:], epochs(make(samples, framework, initial_epoch=2, **options), 1))


def test_without_shuffle_and_augment_every_epoch_is_the_table(samples):
    two = epochs(make(samples, target="label"), 2)
    assert_same(two[:3], two[3:])
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in two[:3]]), samples.labels)


def test_shuffling_takes_every_sample_once(samples):
    orders = [np.concatenate([b[1] for b in epochs(make(samples, target="label", shuffle=True, seed=s))]) for s in (0, 1)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.sort(samples.labels))
    assert (orders[0] != orders[1]).any()


def test_weights_balance_the_draw(samples):
    weights = (samples.labels == 2) * 3.0 + (samples.labels == 0)
    dataset = make(samples, target="label", shuffle=True, weights=weights)
    drawn = np.concatenate([batch[1] for batch in epochs(dataset, 60)])
    expected = weights[samples.labels == 2].sum() / weights.sum()
    assert (drawn == 1).sum() == 0
    assert (drawn == 2).mean() == pytest.approx(expected, abs=0.06)


class Recorder:
    """An augmentation that changes nothing and notes which generator states it was given."""

    def __init__(self):
        self.seen = []

    def __call__(self, images, masks, *, rng):
        self.seen.append(int(rng.integers(2**62)))
        return images, masks


@pytest.mark.parametrize("framework", ["auto", "pydataset"])
def test_fit_counts_epochs_in_spite_of_the_batches_it_peeks_at(samples, framework):
    import keras

    def trained(epochs, initial_epoch=0):
        recorder = Recorder()
        dataset = make(
            samples, framework, target="label", augment=recorder, shuffle=True, initial_epoch=initial_epoch, batch_size=3
        )
        model = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        model.fit(dataset, epochs=epochs, initial_epoch=initial_epoch, shuffle=False, verbose=0)
        return set(recorder.seen)

    all_three = trained(3)
    assert len(all_three) == 3 * 4
    assert len(trained(3, initial_epoch=2) & all_three) == 4


def test_told_how_many_steps_an_epoch_has_passes_differ_all_the_same(samples):
    dataset = make(samples, shuffle=True, seed=3)
    whole = epochs(make(samples, shuffle=True, seed=3), 2)
    dataset.on_epoch_begin()
    dataset[0]  # a look, to build a model
    dataset.on_epoch_end()
    seen = []
    for first in (0, 2, 4):  # Keras goes on in the midst of a pass
        dataset.on_epoch_begin()
        seen += [[np.asarray(array) for array in dataset[batch % 3]] for batch in (first, first + 1)]
        dataset.on_epoch_end()
    assert_same(whole, seen)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_other_users_can_read_a_shared_cache(samples, tmp_path):
    mask = os.umask(0o022)
    try:
        cache = PixelCache(samples, size=SIZE, masks=True, folder=tmp_path)
    finally:
        os.umask(mask)
    assert cache.path.stat().st_mode & 0o777 == 0o644


@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are Unicode")
def test_a_name_that_is_no_utf_8_is_decoded(samples, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/l\xe9sion.jpg"))
    shutil.copy(samples[0].image, odd)
    row = replace(samples[0], image=odd, label=None)
    odd_name, plain_name = (
        PixelCache(Samples([one]), size=SIZE, masks=True) for one in (row, replace(row, image=samples[0].image))
    )
    np.testing.assert_array_equal(odd_name.read(np.array([0]))[0], plain_name.read(np.array([0]))[0])


def test_a_cache_is_decoded_once_and_a_changed_file_again(samples, tmp_path, monkeypatch):
    copies = copied(samples, tmp_path / "copies")
    calls = []
    progress = lambda done, total: calls.append((done, total))  # noqa: E731
    first = PixelCache(copies, size=SIZE, masks=True, folder=tmp_path / "cache", progress=progress)
    assert calls == [(done, COUNT) for done in range(1, COUNT + 1)]
    again = PixelCache(copies, size=SIZE, masks=True, folder=tmp_path / "cache", progress=progress)
    assert len(calls) == COUNT
    assert again.path == first.path
    os.utime(copies[3].image, ns=(1, 1))
    changed = PixelCache(copies, size=SIZE, masks=True, folder=tmp_path / "cache", progress=progress)
    assert len(calls) == 2 * COUNT
    assert changed.path != first.path


@pytest.mark.parametrize("change", [{"size": (24, 24)}, {"masks": False}])
def test_other_pixels_go_to_another_file(samples, tmp_path, change):
    options = {"size": SIZE, "masks": True, "folder": tmp_path}
    assert PixelCache(samples, **options).path != PixelCache(samples, **(options | change)).path


@pytest.mark.parametrize("stop", [KeyboardInterrupt, RuntimeError])
def test_an_interrupt_leaves_no_half_cache(samples, tmp_path, stop):
    def progress(done, total):
        if done == 3:
            raise stop

    with pytest.raises(stop):
        PixelCache(samples, size=SIZE, folder=tmp_path, progress=progress)
    assert list(tmp_path.iterdir()) == []


def test_masks_that_were_not_known_are_not_taken_for_empty_ones(samples, tmp_path):
    some = samples.map(lambda sample: replace(sample, mask=None) if sample.id == samples[1].id else sample)
    PixelCache(some, size=SIZE, masks="where known", folder=tmp_path)
    with pytest.raises(DataError, match=f"Sample '{samples[1].id}' has no mask"):
        PixelCache(some, size=SIZE, masks=True, folder=tmp_path)


def test_a_shortened_cache_is_written_again_and_told_when_it_happens_later(samples, tmp_path):
    cache = PixelCache(samples, size=SIZE, folder=tmp_path)
    whole = cache.path.read_bytes()
    cache.path.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="is damaged"):
        cache.read(np.array([COUNT - 1]))
    assert PixelCache(samples, size=SIZE, folder=tmp_path).path.read_bytes() == whole


def test_a_full_disk_is_said_before_decoding(samples, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(OSError, match=r"need 0 MB and 0 MB are free.*smaller size"):
        PixelCache(samples, size=SIZE, folder=tmp_path, progress=lambda *_: pytest.fail("decoded"))


def test_temporary_pixels_go_with_the_cache(samples):
    cache = PixelCache(samples, size=SIZE)
    folder = cache.path.parent
    assert folder.is_dir()
    del cache
    assert not folder.exists()


@pytest.mark.parametrize("broken", ["image", "mask"])
def test_a_bad_file_is_named(samples, tmp_path, broken):
    copies = copied(samples, tmp_path / "copies")
    path = getattr(copies[7], broken)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=path.name):
        make(copies, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_missing_file_is_named(samples, tmp_path):
    gone = samples.map(lambda sample: replace(sample, mask=tmp_path / "gone.png") if sample is samples[5] else sample)
    with pytest.raises(DataError, match=r"gone\.png, a file of sample 'SYN_0000005'"):
        make(gone)
    make(gone, target="label")  # which reads no mask


def test_a_mask_of_other_proportions_is_named(samples, tmp_path):
    other = make_synthetic(tmp_path, count=1, size=(60, 45))
    with pytest.raises(DataError, match="does not have the proportions"):
        decode(replace(samples[0], mask=other[0].mask), size=SIZE, masks=True)


def test_a_mask_fits_a_photograph_that_is_decoded_at_an_eighth(tmp_path):
    photo, mask = tmp_path / "photo.jpg", tmp_path / "mask.png"
    Image.new("RGB", (100, 75), (200, 150, 140)).save(photo)  # an eighth of it is 13 by 10
    Image.new("L", (100, 75), 255).save(mask)
    image, lesion = decode(Sample("p", photo, mask=mask), size=(9, 12), masks=True)
    assert image.shape == (9, 12, 3)
    assert lesion.all()


def test_numpys_integers_are_a_size(samples, tmp_path):
    images = [load_arrays(samples, size=size)[0] for size in (np.int64(12), (np.int32(12), 12), 12)]
    assert images[0].shape == images[1].shape == images[2].shape == (COUNT, 12, 12, 3)
    for size in (12, np.int64(12)):
        make(samples, size=size, cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*.pixels"))) == 1


def test_what_a_target_lacks_is_named(samples):
    bare = samples.map(lambda sample: replace(sample, mask=None, label=None))
    with pytest.raises(DataError, match="'SYN_0000000' has no mask"):
        make(bare)
    with pytest.raises(DataError, match="'SYN_0000000' has no label"):
        make(bare, target="label")
    with pytest.raises(DataError, match="no samples"):
        make(Samples([]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"size": 0}, "size=0"),
        ({"size": (12.0, 16)}, r"size=\(12.0, 16\): one positive number"),
        ({"multiple": 3}, "batch_size=4 is no multiple of multiple=3"),
        ({"multiple": 0}, "multiple=0"),
        ({"target": "masks"}, "target='masks'"),
        ({"framework": "torch"}, "framework='torch'"),
        ({"batch_size": 12, "drop_remainder": True}, "drop_remainder"),
        ({"weights": np.ones(COUNT)}, "shuffle=True"),
        ({"weights": np.ones(3), "shuffle": True}, "weights need 11"),
        ({"weights": -np.ones(COUNT), "shuffle": True}, "weights need 11"),
    ],
)
def test_impossible_arguments_are_named(samples, options, words):
    with pytest.raises(ValueError, match=words):
        make(samples, **options)


def test_decoding_holds_few_pictures_at_a_time(samples):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield samples[0]

    stream = decode_all(endless(), size=SIZE, masks=False)
    for _ in range(3):
        next(stream)
    assert len(taken) <= 4 * 8 + 3
    stream.close()


def test_auto_follows_the_backend(samples):
    import keras

    tensors = keras.backend.backend() == "tensorflow"
    assert isinstance(make(samples, "auto"), keras.utils.PyDataset) is not tensors


def copied(samples, folder):
    """The same samples as files that a test may spoil."""
    folder.mkdir()
    return samples.map(
        lambda sample: replace(
            sample, image=Path(shutil.copy2(sample.image, folder)), mask=Path(shutil.copy2(sample.mask, folder))
        )
    )


class Read:
    """Batches that note when they are read; one of them cannot be."""

    def __init__(self, count=40, broken=None):
        self.count = count
        self.broken = broken
        self.seen = []

    def __len__(self):
        return self.count

    def read(self, epoch, batch):
        self.seen.append((epoch, batch))
        if batch == self.broken:
            raise DataError("a.jpg: damaged")
        return epoch, batch


def test_batches_in_order_are_read_once_each_and_ahead():
    batches = Read()
    ahead = Ahead(batches)
    assert ahead.take(0, 0) == (0, 0)
    ahead.pool.shutdown(wait=True)
    assert sorted(batches.seen) == [(0, number) for number in range(AHEAD + 1)]

    batches = Read()
    ahead = Ahead(batches)
    assert [ahead.take(*key) for key in np.ndindex(2, 40)] == list(np.ndindex(2, 40))
    assert sorted(batches.seen) == list(np.ndindex(2, 40))  # none beyond the end


def test_batches_out_of_order_are_read_alone():
    batches = Read()
    ahead = Ahead(batches)
    order = [(0, number) for number in (7, 3, 4, 9, 1)]
    assert [ahead.take(*key) for key in order] == order
    ahead.pool.shutdown(wait=True)
    assert batches.seen[:2] == order[:2]
    # After 3 comes 4, which looks like an order and reads ahead; nothing else does.
    assert len(batches.seen) <= len(order) + AHEAD


def test_an_epoch_that_is_cut_short_is_followed_by_a_whole_one():
    batches = Read()
    ahead = Ahead(batches)
    assert [ahead.take(0, number) for number in range(3)] == [(0, 0), (0, 1), (0, 2)]
    assert [ahead.take(1, number) for number in range(40)] == [(1, number) for number in range(40)]
    assert len(batches.seen) <= 40 + 3 + AHEAD


def test_what_cannot_be_read_is_said_where_it_is_asked_for():
    ahead = Ahead(Read(broken=2))
    assert [ahead.take(0, number) for number in (0, 1)] == [(0, 0), (0, 1)]
    with pytest.raises(DataError, match=r"a\.jpg: damaged"):
        ahead.take(0, 2)
    assert ahead.take(0, 3) == (0, 3)
