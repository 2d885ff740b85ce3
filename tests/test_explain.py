from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

from dermaseg.explain import GradCAM, overlay_heatmap
from dermaseg.layers import PadToStride
from dermaseg.models.cnn import build_cnn
from dermaseg.models.hybrid import build_hybrid


def spots(count=2, size=32):
    """Black pictures with one bright spot: red at the top left in even pictures, green at the bottom right in odd ones."""
    images = np.zeros((count, size, size, 3), "float32")
    for index, image in enumerate(images):
        place = slice(4, 12) if index % 2 == 0 else slice(size - 12, size - 4)
        image[place, place, index % 2] = 255
    return images


def colour_model(*, nested=False, activation="softmax", inside=False):
    """Two classes, red and green, from the mean of a map of two channels that are those colours."""
    images = keras.Input((None, None, 3), name="images")
    kernel = np.array([[1, 0], [0, 1], [0, 0]], "float32").reshape(1, 1, 3, 2)
    convolution = layers.Conv2D(2, 1, use_bias=False, name="colours")
    convolution.build((None, None, None, 3))
    convolution.kernel.assign(kernel)
    x = keras.Model(images, convolution(images), name="base")(images) if nested else convolution(images)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    dense = layers.Dense(2, kernel_initializer="identity", activation=activation if inside else None, name="logits")
    x = dense(x)
    return keras.Model(images, x if inside else layers.Activation(activation, name="label")(x))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("inside", [False, True])
def test_the_heat_is_where_the_class_is(nested, inside):
    images = spots()
    heat = GradCAM(colour_model(nested=nested, inside=inside))(images / 255)
    assert heat.shape == (2, 32, 32)
    np.testing.assert_allclose(heat, (images.max(-1) > 0).astype("float32"), atol=1e-5)


def test_nothing_speaks_for_a_class_that_is_not_there():
    heat = GradCAM(colour_model())(spots() / 255, class_index=[1, 0])
    np.testing.assert_array_equal(heat, np.zeros((2, 32, 32)))


def green_model(*, inside=False):
    """One sigmoid, the chance of green rather than red: the second class of `colour_model`, by the same map."""
    images = keras.Input((None, None, 3), name="images")
    convolution = layers.Conv2D(2, 1, use_bias=False, name="colours")
    pooled = layers.GlobalAveragePooling2D()(convolution(images))
    convolution.kernel.assign(np.array([[1, 0], [0, 1], [0, 0]], "float32").reshape(1, 1, 3, 2))
    dense = layers.Dense(1, activation="sigmoid" if inside else None, name="logits")
    label = dense(pooled)
    dense.kernel.assign([[-1.0], [1.0]])
    return keras.Model(images, label if inside else layers.Activation("sigmoid", name="label")(label))


@pytest.mark.parametrize("inside", [False, True])
def test_one_sigmoid_has_two_classes(inside):
    images = spots()
    bright = (images.max(-1) > 0).astype("float32")
    explain = GradCAM(green_model(inside=inside))
    np.testing.assert_allclose(explain(images / 255), bright, atol=1e-5)  # red of the first, green of the second
    for class_index in (0, 1):
        speaks = (np.arange(2) == class_index)[:, None, None]
        np.testing.assert_allclose(explain(images / 255, class_index), bright * speaks, atol=1e-5)
    with pytest.raises(ValueError, match="class_index must be from 0 to 1, got 2 to 2"):
        explain(images, 2)


def test_threads_wait_for_each_other():
    explain, images = GradCAM(colour_model()), spots(8) / 255
    with ThreadPoolExecutor(4) as pool:
        heatmaps = list(pool.map(lambda image: explain(image[None])[0], images))
    np.testing.assert_allclose(heatmaps, (images.max(-1) > 0).astype("float32"), atol=1e-5)


def test_it_is_the_published_formula():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    features = layers.Conv2D(5, 3, padding="same", activation="relu", name="features")(inputs)
    pooled = layers.GlobalAveragePooling2D()(features)
    dense = layers.Dense(4, name="logits")
    model = keras.Model(inputs, layers.Softmax()(dense(pooled)))
    images = np.random.default_rng(0).uniform(-1, 1, (3, 8, 8, 3)).astype("float32")
    maps = ops.convert_to_numpy(keras.Model(inputs, features)(images))
    for class_index in range(4):
        # With average pooling and one dense layer, alpha is that class's dense weights.
        expected = np.maximum(maps @ ops.convert_to_numpy(dense.kernel)[:, class_index], 0)
        expected /= expected.max((1, 2), keepdims=True)
        np.testing.assert_allclose(GradCAM(model)(images, class_index), expected, atol=1e-4)


@pytest.mark.parametrize("build", [build_cnn, build_hybrid])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_the_library_s_classifiers_are_explained_at_any_size(build, num_classes):
    keras.utils.set_random_seed(0)
    model = build(num_classes=num_classes, filters=(8, 16, 24))
    weights = model.get_weights()
    images = np.random.default_rng(0).integers(0, 256, (3, 37, 50, 3), dtype="uint8")
    heat = GradCAM(model)(images, batch_size=2)
    assert heat.shape == (3, 37, 50)
    assert heat.dtype == np.float32
    assert ((heat >= 0) & (heat <= 1)).all()
    np.testing.assert_allclose(GradCAM(model)(images[2:]), heat[2:], atol=1e-4)
    for before, after in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_finest_pooled_map_is_taken_and_another_can_be_named():
    model = build_hybrid(num_classes=3, filters=(4, 4, 4, 4, 4, 4))
    assert GradCAM(model).layer == "encoder_3_0_out"
    assert GradCAM(model, layer="encoder_1_0_out").layer == "encoder_1_0_out"


def test_a_layer_inside_a_nested_network_can_be_named():
    heat = GradCAM(colour_model(nested=True), layer="colours")(spots() / 255)
    np.testing.assert_allclose(heat, GradCAM(colour_model())(spots() / 255), atol=1e-5)


def test_heat_of_a_padded_model_lies_where_the_picture_is():
    """Mirrored out by the model or beforehand, a picture is as hot at the same places."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((None, None, 3))
    features = layers.Conv2D(5, 4, strides=4, activation="relu")(PadToStride(4)(inputs))
    heads = layers.Dense(1, kernel_initializer="ones")(layers.GlobalAveragePooling2D()(features))
    model = keras.Model(inputs, heads)
    images = np.random.default_rng(0).integers(0, 256, (1, 33, 34, 3)).astype("float32")
    padded = np.pad(images, ((0, 0), (0, 3), (0, 2), (0, 0)), mode="reflect")
    cam = GradCAM(model)
    whole = cam(padded)[:, :33, :34]
    part = cam(images)
    np.testing.assert_allclose(part, whole * (part.max() / whole.max()), atol=1e-3)


def test_mixed_precision_gives_the_same_picture(keras_policy):
    keras.utils.set_random_seed(0)
    exact = build_cnn(num_classes=3, filters=(8, 16))
    keras_policy("mixed_bfloat16")
    mixed = build_cnn(num_classes=3, filters=(8, 16))
    mixed.set_weights(exact.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    heat, reference = GradCAM(mixed)(images, 1), GradCAM(exact)(images, 1)
    assert heat.dtype == np.float32
    assert np.abs(heat - reference).mean() < 0.02


def test_a_model_that_was_explained_still_saves(tmp_path):
    model = build_cnn(num_classes=3, filters=(8, 16))
    GradCAM(model)(np.zeros((1, 16, 16, 3)))
    model.save(tmp_path / "model.keras")
    assert [layer.name for layer in keras.saving.load_model(tmp_path / "model.keras").layers] == [
        layer.name for layer in model.layers
    ]


def test_a_sequential_model_is_explained():
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.GlobalMaxPooling2D(), layers.Dense(2)])
    assert GradCAM(model)(np.ones((1, 8, 8, 3))).shape == (1, 8, 8)


def test_wrong_arguments_are_named():
    model = colour_model()
    with pytest.raises(ValueError, match="layer must name a layer"):
        GradCAM(model, layer="nowhere")
    with pytest.raises(ValueError, match="layer must give"):
        GradCAM(model, layer="logits")
    with pytest.raises(ValueError, match="class_index must be from 0 to 1"):
        GradCAM(model)(spots(), 2)
    with pytest.raises(ValueError, match="images must be"):
        GradCAM(model)(spots()[0])
    images = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="model must have an output"):
        GradCAM(keras.Model(images, layers.Conv2D(1, 1)(images)))
    vector = keras.Input((4,))
    with pytest.raises(ValueError, match="no pooled map"):
        GradCAM(keras.Model(vector, layers.Dense(2)(vector)))


@given(seed=st.integers(0, 2**16), opacity=st.floats(0, 1))
@settings(deadline=None, max_examples=20)
def test_an_overlay_keeps_cold_places(seed, opacity):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (2, 5, 7, 3), dtype="uint8")
    heat = rng.random((2, 5, 7))
    heat[:, :2] = 0
    painted = overlay_heatmap(images, heat, opacity=opacity)
    assert painted.dtype == np.uint8
    np.testing.assert_array_equal(painted[:, :2], images[:, :2])
    np.testing.assert_array_equal(overlay_heatmap(images, heat, opacity=0.0), images)


def test_an_overlay_wants_fitting_shapes():
    with pytest.raises(ValueError, match="images must have the shape"):
        overlay_heatmap(np.zeros((4, 4, 3)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="opacity must be"):
        overlay_heatmap(np.zeros((4, 4, 3)), np.zeros((4, 4)), opacity=2)
