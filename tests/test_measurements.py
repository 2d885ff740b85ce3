"""Shapes whose measures are known exactly, and what turning, mirroring, shifting and scaling must not change."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageDraw
from scipy import integrate
from skimage.color import rgb2lab
from skimage.measure import regionprops

from dermaseg.data.images import resize_mask
from dermaseg.data.synthetic import synthetic_batch
from dermaseg.measurements import (
    DERMOSCOPIC_COLOURS,
    MIN_SHAPE_AREA_PX,
    asymmetry,
    colour_shares,
    colour_spread,
    compactness,
    fractal_dimension,
    greatest_diameter,
    measure_lesion,
    solidity,
)

SKIN = (225, 185, 165)
BROWN = (95, 60, 40)


def ellipse(a, b, degrees=0.0, margin=6, shift=0.0):
    """Half axes in pixels; the long one is turned from the rows' direction."""
    side = 2 * math.ceil(a) + 2 * margin + 1
    y, x = np.mgrid[:side, :side] - (side - 1) / 2 + shift
    turn = math.radians(degrees)
    along, across = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


def square(side, margin=6):
    return np.pad(np.ones((side, side), bool), margin)


def half_disc(radius):
    y, x = np.mgrid[: radius + 12, : 2 * radius + 13]
    return (np.hypot(y - 6, x - radius - 6) <= radius) & (y >= 6)


def koch_snowflake(side, level=5):
    curve = np.exp(-2j * np.pi * np.arange(4) / 3)
    for _ in range(level):
        third = np.diff(curve) / 3
        start = curve[:-1]
        bump = [start, start + third, start + third * (1 + np.exp(1j * np.pi / 3)), start + 2 * third]
        curve = np.append(np.stack(bump, axis=1).ravel(), curve[-1])
    curve = (curve + 1.2 + 1.2j) * side / 2.4
    canvas = Image.new("1", (side, side))
    ImageDraw.Draw(canvas).polygon(list(zip(curve.real.tolist(), curve.imag.tolist(), strict=True)), fill=1)
    return np.asarray(canvas)


def star(radius):
    """A lobed outline without symmetry, about as irregular as a lesion's."""
    y, x = np.mgrid[-1.6 * radius : 1.6 * radius + 1, -1.6 * radius : 1.6 * radius + 1]
    angle = np.arctan2(y, x)
    return np.hypot(y, x) <= radius * (1 + 0.2 * np.cos(2 * angle + 1) + 0.15 * np.cos(3 * angle) + 0.08 * np.sin(7 * angle))


def blob(seed, side=96):
    """An irregular lesion of the synthetic kind."""
    return synthetic_batch(1, size=side, seed=seed, num_classes=1)[1][0, :, :, 0].astype(bool)


def painted(mask, colour=BROWN, skin=SKIN):
    image = np.empty((*mask.shape, 3), np.uint8)
    image[...] = skin
    image[mask] = colour
    return image


def shape_measures(mask):
    return np.array([*asymmetry(mask), compactness(mask), solidity(mask), fractal_dimension(mask), greatest_diameter(mask)])


@pytest.mark.parametrize("radius", [10, 20.5, 40, 90])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_disc(radius, shift):
    mask = ellipse(radius, radius, shift=shift)
    # A pixel is half a pixel thick on either side: errors fall with the radius.
    assert max(asymmetry(mask)) < 0.15 / radius + 0.005
    assert compactness(mask) == pytest.approx(1, abs=0.8 / radius)
    assert solidity(mask) == pytest.approx(1, abs=0.8 / radius)
    assert greatest_diameter(mask) == pytest.approx(2 * radius + 1, abs=1.2)
    if radius >= 20:
        assert fractal_dimension(mask) == pytest.approx(1, abs=0.06 if radius >= 40 else 0.1)


@pytest.mark.parametrize("degrees", [0, 10, 30, 45, 67, 90, 140])
def test_ellipse_at_any_angle(degrees):
    a, b = 60, 30
    mask = ellipse(a, b, degrees)
    h = ((a - b) / (a + b)) ** 2
    perimeter = math.pi * (a + b) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))  # Ramanujan
    assert max(asymmetry(mask)) < 0.01
    assert compactness(mask) == pytest.approx(perimeter**2 / (4 * math.pi * math.pi * a * b), rel=0.03)
    assert greatest_diameter(mask) == pytest.approx(2 * a + 1, abs=1.2)
    assert fractal_dimension(mask) == pytest.approx(1, abs=0.06)


@pytest.mark.parametrize("side", [24, 100])
def test_square(side):
    mask = square(side)
    assert asymmetry(mask) == (0, 0)
    assert solidity(mask) == 1
    assert greatest_diameter(mask) == pytest.approx(side * math.sqrt(2), abs=1)
    # Crofton's four directions fall short of a square's outline by 5 %.
    assert 0.86 * 4 / math.pi < compactness(mask) < 4 / math.pi


def test_half_disc_folds_onto_itself_on_one_axis_only():
    radius = 80
    centroid = 4 * radius / (3 * math.pi)  # above the straight side

    def width(y):
        return 2 * math.sqrt(radius**2 - y**2) if 0 <= y <= radius else 0.0

    overlap, _ = integrate.quad(lambda y: min(width(y), width(2 * centroid - y)), 0, 2 * centroid, points=[centroid])
    long, short = asymmetry(half_disc(radius))
    assert long == pytest.approx(1 - overlap / (math.pi * radius**2 / 2), abs=0.01)
    assert short == pytest.approx(0, abs=0.005)
    long, short = asymmetry(half_disc(radius).T)  # its long axis is now a column
    assert (long > 0.1, short < 0.005) == (True, True)


def test_notch_lowers_solidity_and_raises_compactness():
    whole, notched = square(60), square(60)
    notched[6:36, 31:41] = False
    assert solidity(notched) == pytest.approx(1 - 300 / 3600, abs=0.01)
    assert compactness(notched) > 1.5 * compactness(whole)
    assert asymmetry(notched)[0] > 0.05


def test_snowflake_has_kochs_dimension():
    mask = koch_snowflake(640)
    assert fractal_dimension(mask) == pytest.approx(math.log(4) / math.log(3), abs=0.06)
    assert fractal_dimension(mask) > fractal_dimension(ellipse(300, 300)) + 0.15


@pytest.mark.parametrize("seed", range(3))
def test_turning_and_mirroring_change_nothing(seed):
    mask = blob(seed)
    expected = shape_measures(mask)
    for turned in (mask[::-1], mask[:, ::-1], np.rot90(mask), np.rot90(mask, 2), mask.T):
        np.testing.assert_allclose(shape_measures(turned), expected, atol=1e-6)


@pytest.mark.parametrize("shift", [(0, 3), (5, 0), (4, 9)])
def test_shifting_changes_nothing(shift):
    mask = np.pad(blob(4), 10)
    np.testing.assert_allclose(shape_measures(np.roll(mask, shift, axis=(0, 1))), shape_measures(mask), atol=1e-6)


@pytest.mark.parametrize("factor", [0.5, 2, 4])
def test_scaling_changes_sizes_and_not_shapes(factor):
    one, other = shape_measures(star(50)), shape_measures(star(50 * factor))
    np.testing.assert_allclose(other[:2], one[:2], atol=0.02)
    assert other[2] == pytest.approx(one[2], rel=0.04)
    assert other[3] == pytest.approx(one[3], abs=0.02)
    assert other[4] == pytest.approx(one[4], abs=0.12)  # fewer box sides fit into a smaller lesion
    assert other[5] == pytest.approx(factor * one[5], rel=0.02)
    assert one[0] > 0.05


@settings(deadline=None, max_examples=40)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24)))
def test_any_mask_gives_values_in_range_or_nan(mask):
    found = measure_lesion(painted(mask), mask, mm_per_px=0.5)
    measured = mask.sum() >= MIN_SHAPE_AREA_PX
    for value in (found.asymmetry_major, found.asymmetry_minor, found.asymmetry):
        assert 0 <= value <= 1 if measured else math.isnan(value)
    assert 0 < found.solidity <= 1 if measured else math.isnan(found.solidity)
    assert found.compactness > 0.9 if measured else math.isnan(found.compactness)
    assert found.area_px == mask.sum()
    assert found.area_mm2 == pytest.approx(mask.sum() / 4)
    if mask.any():
        assert 1 <= found.diameter_px <= math.hypot(*mask.shape) + 1
        assert found.diameter_mm == found.diameter_px / 2
        assert sum(found.colour_shares.values()) == pytest.approx(1)
    json.dumps(found.to_dict(), allow_nan=False)


# The references in sRGB; red and blue-gray lie just outside it.
PATCHES = {
    "white": (255, 255, 255),
    "red": (255, 5, 0),
    "light brown": (207, 123, 70),
    "dark brown": (107, 62, 31),
    "blue-gray": (0, 134, 139),
    "black": (73, 39, 33),
}


@pytest.mark.parametrize("name", PATCHES)
def test_each_reference_colour_is_found_under_its_name(name):
    mask = square(40)
    found = measure_lesion(painted(mask, PATCHES[name], skin=(150, 110, 90)), mask)
    assert found.colours == (name,)
    assert found.colour_shares[name] == 1
    assert found.colour_spread == pytest.approx(0, abs=1e-9)


def test_patches_share_the_lesion_by_area():
    mask = square(60)
    image = painted(mask, PATCHES["dark brown"])
    image[6:66, 6:21] = PATCHES["black"]
    image[6:66, 21:24] = PATCHES["blue-gray"]
    image[6:66, 24:26] = PATCHES["red"]
    found = measure_lesion(image, mask)
    expected = {"white": 0, "red": 2 / 60, "light brown": 0, "dark brown": 40 / 60, "blue-gray": 3 / 60, "black": 15 / 60}
    assert colour_shares(image, mask) == pytest.approx(expected)
    assert found.colours == ("dark brown", "blue-gray", "black")  # 2 / 60 of red are below the share that counts


def test_white_is_lighter_than_the_skin_around():
    mask = square(40)
    patch = (250, 250, 245)
    assert colour_shares(painted(mask, patch, skin=SKIN), mask)["white"] == 1
    assert colour_shares(painted(mask, patch, skin=(255, 255, 250)), mask)["white"] == 1  # glare is no skin to compare with
    assert colour_shares(painted(mask, patch, skin=(253, 252, 249)), mask)["white"] == 0


def test_another_palette_has_its_own_names():
    mask = square(30)
    assert colour_shares(painted(mask), mask, palette={"dark": (0, 0, 0), "bright": (100, 0, 0)}) == {"dark": 1, "bright": 0}


def test_colour_spread_is_the_distance_from_the_mean_colour():
    mask = square(40)
    image = painted(mask)
    image[6:46, 6:26] = (160, 110, 80)
    first, second = rgb2lab(np.array([BROWN, (160, 110, 80)], np.uint8)[None])[0]
    assert colour_spread(image, mask) == pytest.approx(np.linalg.norm(first - second) / 2)


def test_a_hair_over_the_lesion_is_none_of_its_colours():
    mask = square(60)
    image = painted(mask, (207, 123, 70))
    image[30:32, 2:70] = (15, 10, 10)
    found = measure_lesion(image, mask)
    assert found.colours == ("light brown",)
    assert found.colour_spread == pytest.approx(0, abs=1e-9)


def test_sizes_need_a_scale():
    mask = square(50)
    found = measure_lesion(painted(mask), mask, mm_per_px=0.02)
    assert (found.area_px, found.area_mm2) == (2500, pytest.approx(1))
    assert found.diameter_mm == pytest.approx(0.02 * found.diameter_px)
    without = measure_lesion(painted(mask), mask)
    assert math.isnan(without.area_mm2)
    assert math.isnan(without.diameter_mm)
    assert without.diameter_px == found.diameter_px


def test_empty_mask_has_a_skin_tone_and_nothing_else():
    found = measure_lesion(painted(np.zeros((40, 50), bool)), np.zeros((40, 50)), mm_per_px=0.1)
    assert (found.area_px, found.area_mm2, found.colours, found.touches_edge) == (0, 0, (), False)
    assert found.skin_tone == "very light"
    values = dataclasses.asdict(found)
    names = ["diameter_px", "diameter_mm", "asymmetry", "asymmetry_major", "asymmetry_minor", "compactness", "solidity"]
    assert all(math.isnan(values[name]) for name in [*names, "fractal_dimension", "colour_spread"])
    assert all(math.isnan(share) for share in found.colour_shares.values())
    plain = found.to_dict()
    assert plain["asymmetry"] is None
    assert plain["colour_shares"] == dict.fromkeys(DERMOSCOPIC_COLOURS)


def test_full_mask_has_no_skin():
    found = measure_lesion(np.full((40, 50, 3), BROWN, np.uint8), np.ones((40, 50, 1)))
    assert (found.area_px, found.asymmetry, found.solidity, found.touches_edge) == (2000, 0, 1, True)
    assert found.colours == ("dark brown",)
    assert math.isnan(found.skin_tone_deg)
    assert found.skin_tone == "unknown"


def test_tiny_lesion_has_a_size_and_a_colour_but_no_shape():
    mask = np.zeros((40, 40), bool)
    mask[20, 20] = True
    found = measure_lesion(painted(mask), mask)
    assert (found.area_px, found.diameter_px, found.colours) == (1, 1, ("dark brown",))
    assert math.isnan(found.asymmetry)
    assert math.isnan(found.compactness)
    assert found.skin_tone == "very light"


def test_edge_cuts_a_lesion_off():
    mask = square(30)
    assert not measure_lesion(painted(mask), mask).touches_edge
    cut = mask[:, 8:]
    assert measure_lesion(painted(cut), cut).touches_edge
    assert compactness(cut) == pytest.approx(compactness(np.pad(cut, 5)))  # the edge closes the outline


def test_figures_are_the_single_functions():
    images, masks, _, _ = synthetic_batch(1, size=96, seed=1)
    found = measure_lesion(images[0], masks[0], mm_per_px=0.05)
    assert (found.asymmetry_major, found.asymmetry_minor) == asymmetry(masks[0])
    assert found.asymmetry == sum(asymmetry(masks[0])) / 2
    assert found.compactness == compactness(masks[0])
    assert found.solidity == solidity(masks[0])
    assert found.fractal_dimension == fractal_dimension(masks[0])
    assert found.diameter_px == greatest_diameter(masks[0])
    assert found.colour_shares == colour_shares(images[0], masks[0])
    assert found.colour_spread == colour_spread(images[0], masks[0])
    assert found == measure_lesion(images[0].astype("float32"), masks[0, :, :, 0].astype(bool), mm_per_px=0.05)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["area_px"] == masks[0].sum()


@pytest.mark.parametrize(
    ("image", "mask", "scale", "message"),
    [
        (np.zeros((8, 8)), np.zeros((8, 8)), None, "image has shape"),
        (np.full((8, 8, 3), -1), np.zeros((8, 8)), None, "image must hold"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 7)), None, "mask is"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((1, 8, 8)), None, "mask has shape"),
        (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 255), None, "0 and 1 only"),
        (np.zeros((8, 8, 3), np.uint8), np.full((8, 8), np.nan), None, "0 and 1 only"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), 0.0, "mm_per_px"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8)), math.nan, "mm_per_px"),
    ],
)
def test_wrong_arguments_are_named(image, mask, scale, message):
    with pytest.raises(ValueError, match=message):
        measure_lesion(image, mask, mm_per_px=scale)


@pytest.mark.parametrize("mask", [star(40), blob(3), blob(8), ellipse(50, 20, 30), square(30), half_disc(25)])
def test_the_hull_is_that_of_scikit_image(mask):
    region = regionprops(mask.astype(np.uint8))[0]
    assert solidity(mask) == pytest.approx(region.solidity, abs=0.003)
    assert greatest_diameter(mask) == pytest.approx(region.feret_diameter_max, abs=1)


def test_a_large_picture_has_the_colours_of_a_small_one():
    images, masks, _, _ = synthetic_batch(2, size=(450, 600), seed=4, images_per_lesion=1)
    for image, mask in zip(images, masks[..., 0], strict=True):
        small = measure_lesion(image, mask)
        large = measure_lesion(np.kron(image, np.ones((4, 4, 1), np.uint8)), np.kron(mask, np.ones((4, 4), np.uint8)))
        assert large.area_px == 16 * small.area_px
        assert large.diameter_px == pytest.approx(4 * small.diameter_px, abs=4)
        assert large.colour_spread == pytest.approx(small.colour_spread, abs=0.5)
        assert large.skin_tone_deg == pytest.approx(small.skin_tone_deg, abs=1)
        assert large.colours == small.colours


def test_a_large_lesion_folds_as_a_small_one():
    rows, columns = np.mgrid[-600:600, -800:800]
    lesion = np.hypot(columns / 1.4, rows) < 500 + 40 * np.sin(3 * np.arctan2(rows, columns))
    assert asymmetry(lesion) == pytest.approx(asymmetry(resize_mask(lesion, (600, 800))), abs=0.01)
