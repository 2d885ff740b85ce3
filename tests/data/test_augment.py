"""Augmentation: images and masks move together, and nothing happens that was not asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaseg.data.augment import Augment
from dermaseg.data.movement import draw_matrices
from dermaseg.data.synthetic import synthetic_batch


@pytest.fixture(scope="module")
def batch():
    images, masks, _, _ = synthetic_batch(12, size=48, seed=1)
    return images, masks


def rng(seed=0):
    return np.random.default_rng(seed)


def painted(masks):
    """Photographs whose pixels say what the mask says: red on the lesion, blue elsewhere."""
    return np.where(masks, np.uint8([200, 0, 0]), np.uint8([0, 0, 200]))


def test_no_field_changes_nothing_and_returns_new_arrays(batch):
    images, masks = batch
    varied, same = Augment()(images, masks, rng=rng())
    np.testing.assert_array_equal(varied, images)
    np.testing.assert_array_equal(same, masks)
    assert not np.shares_memory(varied, images)
    assert not np.shares_memory(same, masks)


@pytest.mark.parametrize("augment", [Augment.light(), Augment.strong(), Augment.frames()])
def test_presets_keep_shapes_and_inputs_and_repeat(batch, augment):
    images, masks = batch
    before = images.copy(), masks.copy()
    varied, moved = augment(images, masks, rng=rng(3))
    assert (varied.shape, varied.dtype) == (images.shape, np.uint8)
    assert (moved.shape, moved.dtype) == (masks.shape, masks.dtype)
    assert set(np.unique(moved)) == {0, 1}
    assert (varied != images).any(axis=(1, 2, 3)).all()
    np.testing.assert_array_equal(images, before[0])
    np.testing.assert_array_equal(masks, before[1])
    again = augment(images, masks, rng=rng(3))
    np.testing.assert_array_equal(varied, again[0])
    np.testing.assert_array_equal(moved, again[1])
    assert (varied != augment(images, masks, rng=rng(4))[0]).any()


def test_images_alone_move_as_with_masks(batch):
    images, masks = batch
    for augment in (Augment.strong(), Augment.frames()):
        alone, none = augment(images, rng=rng(5))
        assert none is None
        np.testing.assert_array_equal(alone, augment(images, masks, rng=rng(5))[0])


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32 - 1),
    rotate_deg=st.floats(0, 180),
    scale=st.floats(0, 0.5),
    shift=st.floats(0, 0.4),
    shear_deg=st.floats(0, 30),
    dihedral=st.booleans(),
    elastic_px=st.sampled_from([0.0, 1.5]),
    height=st.integers(8, 40),
)
def test_masks_follow_images_and_no_black_comes_in(seed, height, **fields):
    y, x = np.mgrid[:height, :24]
    masks = np.stack([(y + x) % 20 < 10, y < x]).astype(np.uint8)[..., None]
    varied, moved = Augment(**fields)(painted(masks), masks, rng=rng(seed))
    red, blue = varied[..., 0].astype(int), varied[..., 2].astype(int)
    assert (varied.max(axis=-1) >= 98).all()  # a seam is half red, half blue at the darkest
    clear = np.abs(red - blue) > 6
    np.testing.assert_array_equal(moved[..., 0][clear], (red > blue)[clear])


def test_dihedral_is_exact_and_reaches_all_eight(batch):
    images = np.repeat(batch[0][:1], 100, axis=0)
    masks = np.repeat(batch[1][:1], 100, axis=0)
    varied, moved = Augment(dihedral=True)(images, masks, rng=rng())
    turns = [np.rot90(flip, k) for flip in (np.arange(48 * 48).reshape(48, 48),) for k in range(4)]
    turns += [turn[::-1] for turn in turns]
    flat_image, flat_mask = images[0].reshape(-1, 3), masks[0].reshape(-1)
    seen = set()
    for image, mask in zip(varied, moved, strict=True):
        which = [k for k, turn in enumerate(turns) if np.array_equal(flat_image[turn], image)]
        assert len(which) == 1
        np.testing.assert_array_equal(flat_mask[turns[which[0]]], mask[..., 0])
        seen.update(which)
    assert seen == set(range(8))


def test_dihedral_keeps_the_shape_of_rectangles():
    images = rng().integers(0, 256, (40, 6, 9, 3), dtype=np.uint8)
    varied, _ = Augment(dihedral=True)(images, rng=rng())
    for before, after in zip(images, varied, strict=True):
        assert any(np.array_equal(after, turn) for turn in (before, before[::-1], before[:, ::-1], before[::-1, ::-1]))


def test_borders_reflect():
    image = np.tile(np.arange(16, dtype=np.uint8)[None, None, :, None] * 10, (1, 16, 1, 3))
    shifted, _ = Augment(shift=0.5)(np.repeat(image, 20, axis=0), rng=rng())
    steps = np.abs(np.diff(shifted[:, 8, :, 0].astype(int), axis=1))
    assert steps.max() <= 10  # a wedge would jump
    assert len(np.unique(shifted[:, 8, 0, 0])) > 10


def test_geometry_matches_scipy():
    from scipy import ndimage

    image = rng().integers(0, 256, (1, 20, 20, 3), dtype=np.uint8)
    varied, _ = Augment(rotate_deg=30, scale=0.2, shear_deg=10)(image, rng=rng(8))
    matrix = draw_matrices(1, dihedral=False, rotate_deg=30, scale=0.2, shear_deg=10, square=True, rng=rng(8))[0]
    matrix = matrix[::-1, ::-1]  # rows before columns
    centre = np.array([9.5, 9.5])
    expected = ndimage.affine_transform(
        image[0, ..., 0].astype(float), matrix, centre - matrix @ centre, order=1, mode="reflect"
    )
    assert np.abs(varied[0, ..., 0] - expected).max() <= 1.5


@pytest.mark.parametrize("field", ["brightness", "contrast", "saturation", "hue_deg", "channel_gain", "gamma"])
def test_colour_changes_leave_masks_and_move_pixels(batch, field):
    images, masks = batch
    varied, same = Augment(**{field: 10 if field == "hue_deg" else 0.3})(images, masks, rng=rng(1))
    np.testing.assert_array_equal(same, masks)
    change = np.abs(varied.astype(int) - images).mean()
    assert 1 < change < 60


def test_grey_stays_grey_under_saturation_and_hue():
    grey = np.repeat(rng().integers(0, 256, (4, 8, 8, 1), dtype=np.uint8), 3, axis=-1)
    varied, _ = Augment(saturation=0.5, hue_deg=90)(grey, rng=rng())
    assert np.abs(varied.astype(int) - grey).max() <= 1


def test_contrast_keeps_the_mean_grey():
    images = rng().integers(90, 160, (6, 32, 32, 3), dtype=np.uint8)
    varied, _ = Augment(contrast=0.4)(images, rng=rng())
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(varied.mean((1, 2)) @ luma, images.mean((1, 2)) @ luma, atol=3)
    assert np.ptp(varied.std(axis=(1, 2, 3))) > 3


def test_contrast_turns_about_the_mean_grey_after_gamma():
    images = rng().integers(90, 160, (12, 32, 32, 3), dtype=np.uint8)
    curved, _ = Augment(gamma=0.8)(images, rng=rng(1))
    varied, _ = Augment(gamma=0.8, contrast=0.6)(images, rng=rng(1))
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(varied.mean((1, 2)) @ luma, curved.mean((1, 2)) @ luma, atol=2)
    assert np.ptp(curved.mean(axis=(1, 2, 3))) > 40
    assert np.abs(varied.astype(int) - curved).max() > 10


def test_brightness_is_a_factor():
    images = np.full((500, 4, 4, 3), 100, np.uint8)
    levels = Augment(brightness=0.25)(images, rng=rng())[0][:, 0, 0, 0]
    assert levels.min() >= 80
    assert levels.max() <= 125
    assert levels.max() - levels.min() > 40
    assert abs((levels > 100).mean() - 0.5) < 0.08


def test_blur_and_noise_meet_a_quarter(batch):
    images = np.repeat(batch[0], 20, axis=0)
    for augment in (Augment(blur_px=3), Augment(noise=20)):
        varied, _ = augment(images, rng=rng())
        assert 0.12 < (varied != images).any(axis=(1, 2, 3)).mean() < 0.38


def test_noise_is_centred():
    varied, _ = Augment(noise=20)(np.full((200, 16, 16, 3), 128, np.uint8), rng=rng())
    assert abs(varied.mean() - 128) < 0.2


def test_hair_darkens_thin_lines_only():
    images = np.full((50, 64, 64, 3), 200, np.uint8)
    varied, _ = Augment(hair=0.5)(images, rng=rng())
    touched = (varied != images).any(axis=(1, 2, 3))
    assert 0.3 < touched.mean() < 0.7
    assert (varied <= images).all()
    assert (varied[touched].mean(axis=-1) < 150).mean() < 0.2


def test_vignette_darkens_corners_and_not_the_centre():
    images = np.full((10, 32, 32, 3), 200, np.uint8)
    varied, _ = Augment(vignette=1.0)(images, rng=rng())
    assert (varied[:, 16, 16] == 200).all()
    assert (varied[:, 0, 0] < 200).all()


def disc(size, radius):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return (np.hypot(y, x) < radius).astype(np.uint8)[..., None]


def test_a_frame_shrinks_picture_and_mask_alike_and_what_it_covers_is_no_lesion():
    masks = np.repeat(disc(64, 26)[None], 60, axis=0)
    varied, moved = Augment(frame=1.0)(painted(masks), masks, rng=rng(2))
    red, blue = varied[..., 0].astype(int), varied[..., 2].astype(int)
    assert set(np.unique(moved)) == {0, 1}
    inside, lit = moved[..., 0] == 1, varied.max(axis=-1) > 115
    assert (red > blue)[inside].mean() > 0.999
    assert (blue > red)[~inside & lit].mean() > 0.99
    assert not moved[varied.max(axis=-1) < 50].any()  # a seam, half red, where half the light comes through, is 50
    zooms = np.sqrt(masks.sum((1, 2, 3)) / moved.sum((1, 2, 3)))
    assert 1 <= zooms.min() < 1.2
    assert zooms.max() > 1.6
    dark = varied[:, [0, 0, -1, -1], [0, -1, 0, -1]].max(axis=(1, 2)) < 65
    assert dark.mean() > 0.5


def test_frames_meet_as_many_photographs_as_asked_for():
    images = np.full((300, 16, 16, 3), 200, np.uint8)
    varied, _ = Augment(frame=0.3)(images, rng=rng())
    assert 0.15 < (varied != 200).any(axis=(1, 2, 3)).mean() < 0.35


def test_frames_are_round_rounded_and_barred():
    varied, _ = Augment(frame=1.0)(np.full((200, 32, 48, 3), 200, np.uint8), rng=rng())
    lit = varied[..., 0] > 120
    whole_rows, whole_columns = lit.all(axis=2).any(axis=1), lit.all(axis=1).any(axis=1)
    corners = lit[:, [0, 0, -1, -1], [0, -1, 0, -1]].any(axis=1)
    assert (whole_rows & ~corners).any()  # bars above and below
    assert (whole_columns & ~corners).any()
    assert (~whole_rows & ~whole_columns & ~corners).any()


def test_elastic_skin_moves_picture_and_mask_by_so_much_at_most():
    masks = np.repeat(disc(64, 20)[None], 20, axis=0)
    varied, moved = Augment(elastic_px=6)(painted(masks), masks, rng=rng(1))
    red, blue = varied[..., 0].astype(int), varied[..., 2].astype(int)
    clear = np.abs(red - blue) > 6
    np.testing.assert_array_equal(moved[..., 0][clear], (red > blue)[clear])
    assert (moved != masks).any(axis=(1, 2, 3)).all()
    reach = np.hypot(6, 6) + 1
    assert (moved[:, disc(64, 20 - reach)[..., 0] == 1] == 1).all()
    assert (moved[:, disc(64, 20 + reach)[..., 0] == 0] == 0).all()
    assert len({mask.tobytes() for mask in moved}) == 20


def test_no_elasticity_is_the_affine_map(batch):
    images, masks = batch
    straight = Augment(rotate_deg=30, scale=0.2)(images, masks, rng=rng(4))
    meshed = Augment(rotate_deg=30, scale=0.2, elastic_px=1e-9)(images, masks, rng=rng(4))
    # The first image: later ones draw after its displacements.
    assert np.abs(straight[0][0].astype(int) - meshed[0][0]).max() <= 1
    np.testing.assert_array_equal(straight[1][0], meshed[1][0])


@pytest.mark.parametrize("fields", [{"scale": -0.1}, {"noise": -1}, {"hair": 1.5}, {"vignette": 2}, {"frame": 1.1}])
def test_impossible_fields_are_named(fields):
    with pytest.raises(ValueError, match=next(iter(fields))):
        Augment(**fields)


def test_wrong_arrays_are_named():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(TypeError, match="float64"):
        Augment.light()(images / 255, rng=rng())
    with pytest.raises(ValueError, match=r"images have shape \(8, 8, 3\)"):
        Augment.light()(images[0], rng=rng())
    with pytest.raises(ValueError, match=r"masks have shape \(2, 8, 8\)"):
        Augment.light()(images, images[..., 0], rng=rng())
