import keras
import numpy as np
import pytest
from PIL import Image

from dermaseg.layers import SmoothUpsampling


def test_doubling_is_pillows_bilinear_resize():
    maps = np.random.default_rng(0).random((6, 9), dtype=np.float32)
    found = keras.ops.convert_to_numpy(SmoothUpsampling(2)(maps[None, ..., None]))[0, ..., 0]
    expected = np.asarray(Image.fromarray(maps).resize((18, 12), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_larger_factors_keep_planes_and_ends():
    rows, columns = np.mgrid[:5, :7].astype("float32")
    found = keras.ops.convert_to_numpy(SmoothUpsampling(8)((rows + 10 * columns)[None, ..., None]))[0, ..., 0]
    assert found.shape == (40, 56)
    inner = found[8:-8, 8:-8]
    np.testing.assert_allclose(np.diff(inner, axis=0), 1 / 8, atol=1e-5)
    np.testing.assert_allclose(np.diff(inner, axis=1), 10 / 8, atol=1e-4)
    assert found.min() == 0
    assert found.max() == 64


def test_sizes_known_only_at_run_time_compile(keras_policy):
    keras_policy("mixed_bfloat16")
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, SmoothUpsampling(4, dtype="float32")(inputs))
    model.compile(jit_compile=True)
    for shape in ((1, 3, 4, 2), (1, 5, 7, 2), (1, 1, 1, 2)):
        assert model.predict_on_batch(np.zeros(shape, "float32")).shape == (1, 4 * shape[1], 4 * shape[2], 2)
    assert model.output_shape == (None, None, None, 2)


def test_config_round_trip_and_mistakes():
    assert SmoothUpsampling.from_config(SmoothUpsampling(4).get_config()).factor == 4
    for factor in (0, 3, 2.0):
        with pytest.raises(ValueError, match="power of two"):
            SmoothUpsampling(factor)
