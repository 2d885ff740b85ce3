"""One door for pixels: every dialect of an image file, and every way in which a file can be broken."""

import io
import struct
from unittest import mock

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from dermaseg.data.images import convert_image, image_size, read_image, read_mask, read_mask_grey, resize_image, resize_mask
from dermaseg.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
LESION = np.zeros((20, 30), np.uint8)
LESION[5:15, 8:20] = 1


def save(folder, picture, name="x.png", **options):
    path = folder / name
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [("x.png", {}), ("x.bmp", {}), ("x.tif", {}), ("x.tif", {"compression": "tiff_lzw"}), ("x.webp", {"lossless": True})],
)
def test_lossless_formats_keep_every_pixel(tmp_path, name, options):
    path = save(tmp_path, RGB, name, **options)
    np.testing.assert_array_equal(read_image(path), RGB)
    assert image_size(path) == (20, 30)


def test_a_jpeg_comes_close(tmp_path):
    smooth = np.dstack([np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1))] * 3)
    assert np.abs(read_image(save(tmp_path, smooth, "x.jpg", quality=95)).astype(int) - smooth).max() <= 6


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I", "F", "I;16", "I;16B"])
@pytest.mark.parametrize("level", [0, 255])
def test_every_mode_becomes_rgb_and_keeps_black_and_white(tmp_path, mode, level):
    if mode == "PA":
        picture = Image.new("P", (3, 2), 7)
        picture.putpalette([level] * 768)
    elif mode in ("I", "F") or mode.startswith("I;16"):
        kind = {"I": np.int32, "F": np.float32, "I;16": np.dtype("<u2"), "I;16B": np.dtype(">u2")}[mode]
        picture = Image.fromarray(np.full((2, 3), level * (1 if mode == "F" else 257), kind))
    else:
        picture = Image.new("RGB", (3, 2), (level,) * 3).convert(mode)
    image = read_image(save(tmp_path, picture, "x.tif" if mode in ("F", "I", "I;16B") else "x.png"))
    assert image.dtype == np.uint8
    assert image.shape == (2, 3, 3)
    assert np.unique(image).tolist() == [level]


def test_cmyk_jpeg_is_not_inverted(tmp_path):
    path = save(tmp_path, Image.new("RGB", (16, 16), (200, 40, 40)).convert("CMYK"), "x.jpg", quality=95)
    red, green, blue = read_image(path)[8, 8].astype(int)
    assert red > 180
    assert green < 60
    assert blue < 60


def test_transparency_is_white_in_photographs_and_background_in_masks(tmp_path):
    pixels = np.full((2, 2, 4), 255, np.uint8)
    pixels[0, :, 3] = 0
    pixels[0, :, :3] = 90
    path = save(tmp_path, pixels)
    assert np.unique(read_image(path)).tolist() == [255]
    assert read_mask(path).tolist() == [[0, 0], [1, 1]]


def test_a_palette_with_a_transparent_entry_is_composited(tmp_path):
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([0, 0, 0] + [10, 20, 30] * 255)
    picture.putpixel((1, 0), 1)
    path = save(tmp_path, picture, transparency=0)
    assert read_image(path)[0].tolist() == [[255, 255, 255], [10, 20, 30]]


def test_sixteen_bits_are_scaled_by_their_full_range(tmp_path):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    assert read_image(save(tmp_path, values))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_floats_span_one_or_255(tmp_path):
    assert read_image(save(tmp_path, np.array([[0, 0.5, 1]], np.float32), "a.tif"))[0, :, 0].tolist() == [0, 128, 255]
    assert read_image(save(tmp_path, np.array([[0, 7, 255]], np.float32), "b.tif"))[0, :, 0].tolist() == [0, 7, 255]


@pytest.mark.parametrize("values", [[-1.0, 0.5], [0.0, 300.0], [0.0, np.nan]])
def test_floats_out_of_range_are_an_error(tmp_path, values):
    path = save(tmp_path, np.array([values], np.float32), "x.tif")
    with pytest.raises(DataError, match=r"x\.tif holds float32 values"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, RGB, f"turned.{suffix}", exif=exif)
    turned = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.swapaxes(0, 1),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(RGB),
    }[orientation]
    np.testing.assert_array_equal(read_image(path), turned)
    assert image_size(path) == turned.shape[:2] == read_mask(path).shape


def test_open_pictures_become_what_their_files_do(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    palette = Image.new("P", (2, 1), 0)
    palette.putpalette([0, 0, 0] + [10, 20, 30] * 255)
    paths = [
        save(tmp_path, RGB, "turned.png", exif=exif),
        save(tmp_path, np.array([[0, 257, 32768, 65535]], np.uint16), "deep.png"),
        save(tmp_path, np.array([[0, 0.5, 1]], np.float32), "float.tif"),
        save(tmp_path, palette, "palette.png", transparency=0),
    ]
    for path in paths:
        with Image.open(path) as picture:
            np.testing.assert_array_equal(convert_image(picture), read_image(path))
            np.testing.assert_array_equal(convert_image(picture), read_image(path))  # and stays as it is


def test_open_pictures_that_cannot_be_converted_are_named(tmp_path, monkeypatch):
    path = save(tmp_path, RGB, "cut.bmp")
    path.write_bytes(path.read_bytes()[:200])
    with Image.open(path) as picture, pytest.raises(DataError, match=r"cut\.bmp cannot be decoded"):
        convert_image(picture)
    with pytest.raises(DataError, match="the PIL image is an empty picture of 0 by 3"):
        convert_image(Image.new("RGB", (0, 3)))
    with pytest.raises(DataError, match="the PIL image holds float32 values"):
        convert_image(Image.fromarray(np.array([[-1.0, 2.0]], np.float32)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match="more pixels than Pillow's limit"):
        convert_image(Image.fromarray(RGB))


def test_several_jpegs_in_one_file_are_the_first(tmp_path):
    first, second = (Image.new("RGB", (30, 20), (level,) * 3) for level in (90, 200))
    first.save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[second])
    with Image.open(tmp_path / "phone.jpg") as picture:
        assert (picture.format, picture.n_frames) == ("MPO", 2)
    assert np.abs(read_image(tmp_path / "phone.jpg").astype(int) - 90).max() <= 1
    assert image_size(tmp_path / "phone.jpg") == (20, 30)


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_sixteen_bits_of_which_0_is_white_are_turned_over(tmp_path, compression):
    path = tmp_path / "x.tif"
    values = (1 - LESION).astype(np.uint16) * 65535
    tifffile.imwrite(path, values, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(read_mask(path), LESION)
    np.testing.assert_array_equal(read_image(path), np.dstack([LESION * 255] * 3))
    with Image.open(path) as picture:
        np.testing.assert_array_equal(convert_image(picture), read_image(path))


def test_packed_planes_of_sixteen_bits_are_read(tmp_path):
    planes = np.moveaxis(RGB, -1, 0).astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", planarconfig="separate", compression="zlib")
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), RGB)


@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
@pytest.mark.parametrize("kind", ["planes of 16 bits", "12 bits", "floats in colour", "floats of which 0 is white"])
def test_tiffs_that_pillow_does_not_read_or_misreads_are_refused(tmp_path, read, kind):
    path = tmp_path / "odd.tif"
    match kind:
        case "planes of 16 bits":
            planes = np.moveaxis(RGB, -1, 0).astype(np.uint16) * 257
            tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate")
        case "12 bits":
            sixteen = save(tmp_path, np.full((4, 4), 4095, np.uint16), "odd.tif").read_bytes()
            bits = struct.pack("<HHI", 258, 3, 1)
            path.write_bytes(sixteen.replace(bits + b"\x10", bits + b"\x0c"))
        case "floats in colour":
            tifffile.imwrite(path, (RGB / 255).astype(np.float32), photometric="rgb")
        case _:
            tifffile.imwrite(path, LESION.astype(np.float32), photometric="miniswhite")
    with pytest.raises(DataError, match=r"odd\.tif is a TIFF of a kind that cannot be read here: save it as PNG"):
        read(path)


@pytest.mark.parametrize(("min_size", "shape"), [(None, (450, 600)), ((256, 256), (450, 600)), ((128, 128), (225, 300))])
def test_jpeg_decodes_no_larger_than_needed(tmp_path, min_size, shape):
    path = save(tmp_path, Image.linear_gradient("L").resize((600, 450)).convert("RGB"), "x.jpg")
    image = read_image(path, min_size=min_size)
    assert image.shape[:2] == shape
    small = resize_image(image, (64, 64)).astype(int)
    assert np.abs(small - resize_image(read_image(path), (64, 64))).max() <= 3


def test_scaled_decoding_knows_of_orientation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path, Image.new("RGB", (600, 200)), "x.jpg", exif=exif)
    assert read_image(path, min_size=(300, 100)).shape[:2] == (300, 100)


@pytest.mark.parametrize("scale", [1, 255])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32])
def test_masks_of_ones_and_of_255(tmp_path, scale, dtype):
    path = save(tmp_path, (LESION * scale).astype(dtype), "x.tif")
    np.testing.assert_array_equal(read_mask(path), LESION)
    assert read_mask_grey(path).max() == scale


def test_sixteen_bit_masks_of_full_range(tmp_path):
    np.testing.assert_array_equal(read_mask(save(tmp_path, LESION.astype(np.uint16) * 65535)), LESION)


@pytest.mark.parametrize(("level", "full"), [(0, 0), (1, 1), (128, 1), (255, 1)])
def test_uniform_masks(tmp_path, level, full):
    assert np.unique(read_mask(save(tmp_path, np.full((4, 4), level, np.uint8)))).tolist() == [full]


@pytest.mark.parametrize("label", [2, 38, 127])
def test_one_label_everywhere_is_neither_empty_nor_full(tmp_path, label):
    path = save(tmp_path, np.full((4, 4), label, np.uint8))
    with pytest.raises(DataError, match=rf"{path.name}: its grey values are {label}, none above 127. Save the lesion as 255"):
        read_mask(path)


@pytest.mark.parametrize("label", [2, 7, 127])
def test_masks_of_a_class_number(tmp_path, label):
    np.testing.assert_array_equal(read_mask(save(tmp_path, LESION * np.uint8(label))), LESION)


@pytest.mark.parametrize("values", [(0, 1, 2), (1, 2), (0, 38, 75, 113)])
def test_labels_of_several_classes_are_no_mask(tmp_path, values):
    path = save(tmp_path, np.array([values], np.uint8))
    with pytest.raises(DataError, match=rf"{path.name}: its grey values are .*none above 127. Save the lesion as 255"):
        read_mask(path)


def test_an_inverted_palette_does_not_invert_the_mask(tmp_path):
    picture = Image.frombytes("P", (30, 20), (1 - LESION).tobytes())
    picture.putpalette([255, 255, 255, 0, 0, 0])  # index 0 is white: the lesion
    np.testing.assert_array_equal(read_mask(save(tmp_path, picture)), LESION)


def test_grey_seams_are_cut_at_half(tmp_path):
    soft = np.array([[0, 60, 127, 128, 200, 255]], np.uint8)
    assert read_mask(save(tmp_path, soft)).tolist() == [[0, 0, 0, 1, 1, 1]]
    jpeg = save(tmp_path, LESION * 255, "x.jpg", quality=80)
    assert (read_mask(jpeg) != LESION).mean() < 0.03


@pytest.mark.parametrize("read", [read_image, read_mask, read_mask_grey])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP"])
def test_truncated_files_are_errors_and_not_grey_bands(tmp_path, read, kind):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    path = tmp_path / "broken.img"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(DataError, match=r"broken\.img") as caught:
        read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_damaged_metadata_are_an_error_and_no_crash(tmp_path, read, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"  # which half of the globe
    path = save(tmp_path, RGB, "torn.img", format=kind, exif=exif)
    path.write_bytes(path.read_bytes().replace(b"\0\1\0\2\0\0\0\2N", b"\0\0\0\2\0\0\0\2N"))
    with Image.open(path) as picture, pytest.raises(TypeError):
        ImageOps.exif_transpose(picture)
    with pytest.raises(DataError, match=r"torn\.img cannot be decoded: .*Fetch the file again or remove it"):
        read(path)


def test_a_lack_of_memory_is_no_fault_of_the_file(tmp_path, monkeypatch):
    path = save(tmp_path, RGB)
    monkeypatch.setattr(ImageOps, "exif_transpose", mock.Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        read_image(path)


@pytest.mark.parametrize("kind", ["EPS", "GIF", "PPM"])
@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
def test_no_other_format_is_opened(tmp_path, read, kind):
    """Pillow would start Ghostscript for PostScript that is called a photograph."""
    path = save(tmp_path, RGB, "x.jpg", format=kind)
    with pytest.raises(DataError, match=r"x\.jpg is not an image of a format that can be read here. A PNG, JPEG, BMP, TIFF or"):
        read(path)


@pytest.mark.parametrize("read", [read_image, read_mask, image_size])
def test_missing_file_folder_and_text_are_told_apart(tmp_path, read):
    text = tmp_path / "notes.jpg"
    text.write_text("not pixels")
    empty = tmp_path / "empty.png"
    empty.touch()
    for path, words in [
        (tmp_path / "gone.png", "does not exist"),
        (tmp_path, "is a folder"),
        (text, "is not an image"),
        (empty, "is not an image"),
    ]:
        with pytest.raises(DataError, match=words) as caught:
            read(path)
        assert str(path) in str(caught.value)


def test_empty_pictures_are_errors(tmp_path):
    path = tmp_path / "x.bmp"
    Image.new("RGB", (1, 1)).save(path)
    data = bytearray(path.read_bytes())
    data[18:22] = bytes(4)  # the header's width
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.bmp"):
        read_image(path)


@pytest.mark.parametrize("limit", [599, 250])  # Pillow warns from its limit on, and raises from twice that
def test_pictures_beyond_pillows_limit_are_errors(tmp_path, monkeypatch, limit):
    path = save(tmp_path, RGB)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(DataError, match="more pixels than Pillow's limit"):
        read_image(path)


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40))
def test_resizing_keeps_types_and_uniform_pictures(height, width, new_height, new_width):
    image = resize_image(np.full((height, width, 3), 77, np.uint8), (new_height, new_width))
    assert image.shape == (new_height, new_width, 3)
    assert np.unique(image).tolist() == [77]
    for value in (0, 1):
        mask = resize_mask(np.full((height, width), value, np.uint8), (new_height, new_width))
        assert (mask.dtype, mask.shape) == (np.uint8, (new_height, new_width))
        assert np.unique(mask).tolist() == [value]


def test_resized_masks_keep_area_and_place():
    y, x = np.mgrid[:300, :400]
    disc = ((y - 140) ** 2 + (x - 210) ** 2 < 90**2).astype(np.uint8)
    small = resize_mask(disc, (75, 100))
    assert small.mean() == pytest.approx(disc.mean(), rel=0.01)
    centre = np.argwhere(small).mean(axis=0) + 0.5
    np.testing.assert_allclose(centre * 4, np.argwhere(disc).mean(axis=0) + 0.5, atol=0.3)
