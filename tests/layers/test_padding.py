import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermaseg.layers import CropLike, PadToStride
from dermaseg.layers.padding import covered_size


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
    expected = np.pad(images, ((0, 0), (0, 6), (0, 3), (0, 0)), mode="reflect")
    np.testing.assert_array_equal(padded, expected)


@pytest.mark.parametrize("stride", [2, 8])
def test_a_size_of_run_time_is_padded_like_one_that_is_known(stride):
    for height, width in ((1, 1), (1, 2), (5, 4), (6, 7)):
        maps = np.random.default_rng(0).random((2, height, width, 3), dtype=np.float32)
        layer = PadToStride(stride)
        expected = np.pad(maps, ((0, 0), (0, -height % stride), (0, -width % stride), (0, 0)), mode="reflect")
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(layer(maps)), expected)
        if keras.backend.backend() == "tensorflow":  # JAX compiles anew for each size
            import tensorflow as tf

            signature = [tf.TensorSpec((None, None, None, 3))]
            there_and_back = tf.function(lambda x, pad=layer: (pad(x), CropLike()([pad(x), x])), input_signature=signature)
            padded, back = there_and_back(tf.constant(maps))
            np.testing.assert_array_equal(padded, expected)
            np.testing.assert_array_equal(back, maps)


def test_a_map_covers_its_picture_and_what_was_padded():
    for side in range(1, 200):
        for stride in (2, 4, 32):
            cells = -(-side // stride)
            assert covered_size((side, side), (cells, cells))[0] in (cells * stride, 1 << (side - 1).bit_length())
    assert covered_size((111, 148), (2, 3)) == (128, 192)
    assert covered_size((5, 300), (1, 10)) == (32, 320)  # a side of one cell goes by the other


def test_padding_goes_on_mirroring_where_the_picture_is_smaller_than_the_pad():
    images = np.arange(3, dtype=np.float32).reshape(1, 3, 1, 1)
    padded = keras.ops.convert_to_numpy(PadToStride(8)(images))[0, :, 0, 0]
    np.testing.assert_array_equal(padded, np.pad([0, 1, 2], (0, 5), mode="reflect"))


def test_static_shapes_are_known_before_any_pixel():
    padded = PadToStride(32)(keras.Input((101, None, 3)))
    assert padded.shape == (None, 128, None, 3)


def test_config_round_trip():
    assert PadToStride.from_config(PadToStride(16).get_config()).stride == 16


@pytest.mark.parametrize("stride", [0, -2, 1.5])
def test_wrong_stride_is_refused(stride):
    with pytest.raises(ValueError, match="stride must be a positive integer"):
        PadToStride(stride)
