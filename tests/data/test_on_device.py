"""Photographs varied on the accelerator change as those that the processor varies."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest

from dermaseg.data import augment as augment_module
from dermaseg.data import on_device
from dermaseg.data.augment import AUGMENTATIONS, Augment
from dermaseg.data.hair import draw_hair
from dermaseg.data.light import aperture_light, draw_frame
from dermaseg.data.mix import Mix
from dermaseg.data.movement import draw_displacements, draw_matrices, move
from dermaseg.data.on_device import OnDevice, choose_device
from dermaseg.data.pipeline import make_dataset
from dermaseg.data.synthetic import make_synthetic, synthetic_batch

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="the accelerator is JAX's")


@pytest.fixture(scope="module")
def batch():
    images, masks, _, _ = synthetic_batch(12, size=48, seed=1)
    return images, masks


def rng(seed=0):
    return np.random.default_rng(seed)


def arrays(varied):
    return [None if values is None else np.asarray(values) for values in varied]


def test_auto_is_the_processor_where_jax_has_no_accelerator(monkeypatch):
    assert choose_device() == choose_device("processor") == "processor"
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
    assert (choose_device(), choose_device("processor")) == ("accelerator", "processor")
    with monkeypatch.context() as several:
        several.setattr(keras.distribution, "distribution", lambda: "of batches")
        assert (choose_device(), choose_device("accelerator")) == ("processor", "accelerator")
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    assert choose_device() == "processor"
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax"):
        choose_device("accelerator")
    with pytest.raises(ValueError, match="augment_on must be one of auto, processor, accelerator, got 'gpu'"):
        choose_device("gpu")


def vary(*arguments):
    from dermaseg.data.device_pixels import vary  # needs JAX

    return vary(*arguments)


@on_jax
class TestOnJax:
    def test_no_field_changes_nothing(self, batch):
        images, masks = batch
        varied, same, labels = OnDevice(None)(images, masks, np.eye(12), rng=rng())
        np.testing.assert_array_equal(varied, images)
        np.testing.assert_array_equal(same, masks)
        np.testing.assert_array_equal(labels, np.eye(12))

    @pytest.mark.parametrize("name", AUGMENTATIONS[1:])
    def test_presets_keep_shapes_and_types_and_repeat(self, batch, name):
        images, masks = batch
        vary = OnDevice(Augment.preset(name))
        varied, moved, _ = arrays(vary(images, masks, rng=rng(3)))
        assert (varied.shape, varied.dtype) == (images.shape, np.uint8)
        assert (moved.shape, moved.dtype) == (masks.shape, masks.dtype)
        assert set(np.unique(moved)) == {0, 1}
        assert (varied != images).any(axis=(1, 2, 3)).all()
        again = arrays(vary(images, masks, rng=rng(3)))
        np.testing.assert_array_equal(varied, again[0])
        np.testing.assert_array_equal(moved, again[1])
        assert (varied != np.asarray(vary(images, masks, rng=rng(4))[0])).any()
        alone, none, _ = vary(images, rng=rng(3))
        assert none is None
        np.testing.assert_array_equal(varied, alone)

    @pytest.mark.parametrize("elastic_px", [0.0, 3.0])
    @pytest.mark.parametrize("width", [48, 37])
    def test_pixels_come_from_where_pillow_takes_them(self, batch, width, elastic_px):
        images, masks = (values[:, :, :width] for values in batch)
        size = {"count": len(images), "square": width == 48}
        matrices = draw_matrices(**size, dihedral=True, rotate_deg=180, scale=0.5, shear_deg=8, rng=rng(5))
        shifts = rng(6).uniform(-9, 9, (len(images), 2))
        expected, outlines = move(images, masks, matrices, shifts, elastic_px=elastic_px, rng=rng(7))
        drawn = {"matrices": matrices, "shifts": shifts, **colours_as_they_are(len(images))}
        if elastic_px:
            drawn["elastic"] = draw_displacements(len(images), (width, 48), elastic_px, rng(7))
        moved, covered = arrays(vary(images, masks, {name: np.float32(values) for name, values in drawn.items()}))
        difference = np.abs(moved.astype(int) - expected)
        # Pillow rounds weights and places; a place on the edge of two pixels may fall to either.
        assert difference.mean() < 0.6
        assert (difference > 3).mean() < 2e-3
        assert (covered != outlines).mean() < 2e-3

    def test_colours_are_those_of_the_processor(self, batch):
        images, _ = batch
        # Without movement, hair, blur and chances both draw the same numbers in the same order.
        varying = Augment(saturation=0.3, hue_deg=6, brightness=0.2, channel_gain=0.1, contrast=0.3)
        expected, _ = varying(images, rng=rng(8))
        varied = np.asarray(OnDevice(varying)(images, rng=rng(8))[0])
        assert np.abs(varied.astype(int) - expected).max() <= 1

    def test_gamma_is_that_of_the_processor(self, batch):
        images, _ = batch
        varied = np.asarray(OnDevice(Augment(gamma=0.5))(images, rng=rng(2))[0])
        drawn = OnDevice(Augment(gamma=0.5)).draw(len(images), images.shape[1:3], rng(2))
        expected = np.floor(255 * (images / 255) ** drawn["exponents"][:, None, None, None] + 0.5)
        assert np.abs(varied - expected).max() <= 1
        assert drawn["exponents"].min() < 0.85
        assert drawn["exponents"].max() > 1.2

    def test_contrast_after_gamma_is_that_of_the_processor(self):
        images = rng().integers(90, 160, (12, 32, 32, 3), dtype=np.uint8)
        varying = Augment(gamma=0.8, contrast=0.6)
        drawn = OnDevice(varying).draw(12, (32, 32), rng(1))
        # The processor draws the contrasts first.
        draws = iter([drawn["contrasts"], drawn["exponents"][:, None]])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(augment_module, "draw_factors", lambda *_: next(draws))
            expected, _ = varying(images, rng=rng(1))
        varied = np.asarray(OnDevice(varying)(images, rng=rng(1))[0])
        assert np.abs(varied.astype(int) - expected).max() <= 1

    def test_frames_and_dark_corners_are_those_of_the_processor(self):
        images, masks = np.full((16, 40, 48, 3), 200, np.uint8), np.ones((16, 40, 48, 1), np.uint8)
        drawn = OnDevice(Augment(frame=1.0, vignette=1.0)).draw(16, (40, 48), rng(9))
        varied, moved = arrays(vary(images, masks, drawn))
        generator = rng(9)
        generator.random(16)
        frames = []
        for _ in range(16):
            zoom = generator.uniform(1, augment_module.FARTHEST)
            frames.append(draw_frame(40, 48, zoom, generator))
        for row, frame in enumerate(frames):
            light = frame.light(40, 48)
            aperture = aperture_light(40, 48, *drawn["apertures"][row])
            expected = frame.around + (200 * aperture - frame.around) * light
            assert np.abs(varied[row] - np.floor(expected.clip(0, 255) + 0.5)).max() <= 1
            # Rounding may turn a pixel at half light to either side.
            assert (moved[row] != (light >= 0.5)).mean() < 0.01
        assert (moved.mean(axis=(1, 2, 3)) < 1).mean() > 0.8

    def test_chances_are_as_asked(self):
        images = np.full((200, 24, 24, 3), 180, np.uint8)

        def changed(**fields):
            varied = np.asarray(OnDevice(Augment(**fields))(images, rng=rng(1))[0])
            return (varied != 180).any(axis=(1, 2, 3)).mean()

        assert abs(changed(hair=0.3) - 0.3) < 0.12
        assert abs(changed(vignette=0.4) - 0.4) < 0.12
        assert abs(changed(noise=20) - 0.25) < 0.1
        assert changed(blur_px=2) == 0  # of one colour there is nothing to blur
        grain = np.asarray(OnDevice(Augment(noise=20))(images, rng=rng(1))[0]).astype(float) - 180
        deviations = grain.std(axis=(1, 2, 3))
        assert 12 < deviations.max() <= 21
        assert abs(grain.mean()) < 0.2

    def test_hairs_are_drawn_once_and_lie_over_photographs(self, batch, monkeypatch):
        images, masks = batch
        drawings = []

        def draw(*arguments, **how):
            drawings.append(draw_hair(*arguments, **how))
            return drawings[-1]

        monkeypatch.setattr(on_device, "draw_hair", draw)
        augment = OnDevice(Augment(hair=0.7))
        with ThreadPoolExecutor(4) as pool:  # as batches are read
            (varied, same), *_ = pool.map(lambda seed: arrays(augment(images, masks, rng=rng(seed))[:2]), (3, 4, 5, 6))
        assert len(drawings) == on_device._HAIRS
        np.testing.assert_array_equal(same, masks)
        drawn = augment.draw(len(images), images.shape[1:3], rng(3))
        bare = drawn["hair_density"] == 0
        assert 0 < bare.sum() < len(images)
        np.testing.assert_array_equal(varied[bare], images[bare])
        for row in np.flatnonzero(~bare):
            coverage = drawings[drawn["hair_numbers"][row]]
            upside_down, mirrored = drawn["hair_mirrored"][row]
            coverage = coverage[:: -1 if upside_down else 1, :: -1 if mirrored else 1, None] * drawn["hair_density"][row]
            expected = images[row] + (drawn["hair_colours"][row] - images[row]) * coverage
            assert np.abs(varied[row] - expected).max() < 1.6  # drawings are kept in 8 bits
        red, green, blue = drawn["hair_colours"].T
        assert (red > green).all()
        assert (green > blue).all()
        assert red.max() <= 70

    def test_what_cannot_be_varied_is_refused_as_on_the_processor(self, batch):
        images, masks = batch
        for wrong, error in (((images / 255, masks), TypeError), ((images, masks[:, :9]), ValueError)):
            for augment in (Augment.light(), OnDevice(Augment.light())):
                with pytest.raises(error):
                    augment(*wrong, rng=rng())

    def test_blur_is_gaussian(self):
        from scipy import ndimage

        images = rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8)
        one = OnDevice(Augment(blur_px=1.5))
        kernels = one.draw(40, (24, 24), rng(4))["kernels"]
        varied = np.asarray(one(images, rng=rng(4))[0])
        sharp = kernels.max(axis=1) > 0.999
        assert 0.6 < sharp.mean() < 0.9
        np.testing.assert_array_equal(varied[sharp], images[sharp])
        steps = np.arange(kernels.shape[1]) - kernels.shape[1] // 2
        row = int(np.argmin(kernels.max(axis=1)))
        deviation = float(np.sqrt((kernels[row] * steps**2).sum()))
        expected = ndimage.gaussian_filter(images[row].astype(float), (deviation, deviation, 0), mode="nearest", truncate=4)
        assert 1 < deviation < 1.5
        assert np.abs(varied[row] - expected).mean() < 1

    @pytest.mark.parametrize("name", ["mixup", "cutmix"])
    def test_mixing_is_that_of_the_processor(self, batch, name):
        images, masks = batch
        labels, kinds = np.eye(12, dtype=np.float32), np.arange(12) % 2
        mix = Mix.preset(name)
        draws = rng(3)
        OnDevice(None).draw(12, (48, 48), draws)
        expected = mix(images, masks, labels, kinds=kinds, rng=draws)
        mixed = OnDevice(None, mix)(images, masks, labels, kinds=kinds, rng=rng(3))
        assert np.abs(np.asarray(mixed[0]).astype(int) - expected[0]).max() <= 1
        assert mixed[1].dtype == expected[1].dtype
        np.testing.assert_allclose(mixed[1], expected[1], atol=1e-6)
        np.testing.assert_array_equal(mixed[2], expected[2])

    def test_a_data_set_of_jax_repeats(self, tmp_path):
        import jax

        samples = make_synthetic(tmp_path, count=10, size=(40, 40))
        how = {"size": 32, "batch_size": 4, "shuffle": True, "seed": 1, "mix": Mix.preset("mixup")}

        def batches(**more):
            return list(make_dataset(samples, augment=Augment.frames(), augment_on="accelerator", **how, **more))

        first, again = batches(), batches()
        assert all(isinstance(images, jax.Array) for images, _ in first)
        for (images, masks), (same, alike) in zip(first, again, strict=True):
            np.testing.assert_array_equal(images, same)
            np.testing.assert_array_equal(masks, alike)
        assert (np.asarray(first[0][0]) != np.asarray(batches(initial_epoch=1)[0][0])).any()

    def test_only_augment_with_targets_goes_to_the_accelerator(self, tmp_path, monkeypatch):
        samples = make_synthetic(tmp_path, count=4, size=(40, 40))

        def same(images, masks, rng):
            return images, masks

        others = ({"augment": same}, {"augment": Augment.light(), "target": None, "framework": "pydataset"})
        for other in others:
            with pytest.raises(ValueError, match="needs an Augment, a target, and a framework"):
                make_dataset(samples, size=32, batch_size=4, augment_on="accelerator", **other)
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
        for other in others:
            (batch,) = make_dataset(samples, size=32, batch_size=4, augment_on="auto", **other)
            assert isinstance(batch if "target" in other else batch[0], np.ndarray)


def colours_as_they_are(count):
    return {
        "colours": np.tile(np.eye(3), (count, 1, 1)),
        "greys": np.ones((count, 3)),
        "contrasts": np.ones(count),
    }
