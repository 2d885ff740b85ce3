import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaseg.layers import CropLike, PadToStride


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 2, 8, 32]))
def test_padding_then_cropping_is_the_identity(height, width, stride):
    images = np.random.default_rng(0).random((1, height, width, 2), dtype=np.float32)
    padded = PadToStride(stride)(images)
    assert all(side % stride == 0 for side in padded.shape[1:3])
    back = keras.ops.convert_to_numpy(CropLike()([padded, images]))
    np.testing.assert_array_equal(back, images)


def test_padding_mirrors_as_numpy_does():
    images = np.random.default_rng(0).random((2, 10, 13, 3), dtype=np.float32)
    padded = keras.ops.convert_to_numpy(PadToStride(8)(images))
    expected = np.pad(images, ((0, 0), (3, 3), (1, 2), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(padded, expected)


def test_padding_goes_on_mirroring_where_the_picture_is_smaller_than_the_pad():
    images = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1)
    padded = keras.ops.convert_to_numpy(PadToStride(8)(images))[0, :, 0, 0]
    np.testing.assert_array_equal(padded, np.pad([0, 1, 2], (2, 3), mode="reflect"))


def test_static_shapes_are_known_before_any_pixel():
    padded = PadToStride(32)(keras.Input((101, None, 3)))
    assert padded.shape == (None, 128, None, 3)


def test_config_round_trip():
    assert PadToStride.from_config(PadToStride(16).get_config()).stride == 16


@pytest.mark.parametrize("stride", [0, -2, 1.5])
def test_wrong_stride_is_refused(stride):
    with pytest.raises(ValueError, match="stride must be a positive integer"):
        PadToStride(stride)
