import keras
import numpy as np
import pytest
from keras import layers, ops
from PIL import Image

from dermaseg.explain import GradCAM, overlay_heatmap
from dermaseg.models.inception_resnet import (
    build_inception_resnet,
    cache_features,
    fine_tune,
    set_trainable,
    split_head,
)


def pictures(count, size=24, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    shade = 60 + 60 * labels[:, None, None, None] + rng.normal(0, 10, (count, size, size, 3))
    return shade.clip(0, 255).astype("uint8"), labels


def build(**arguments):
    return build_inception_resnet(**{"num_classes": 3, "weights": None, "dropout": 0.0, **arguments})


def size_of(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def trained(model):
    return {variable.path.split("/")[-2] for variable in model.trainable_variables}


HEAD = {"label_logits"}
TOP = HEAD | {"conv_7b_conv"}
EVERYTHING = TOP | {"mixed_7a_conv", "stem_conv"}


@pytest.mark.parametrize(("part", "expected"), [("head", HEAD), ("top", TOP), ("all", EVERYTHING)])
def test_the_part_asked_for_learns(small_base, part, expected):
    assert trained(build(trainable=part)) == expected
    model = build()
    set_trainable(model, "all")
    set_trainable(model, part)
    assert trained(model) == expected


def test_batch_normalisation_of_an_unfrozen_base_does_not_move(small_base):
    keras.utils.set_random_seed(0)
    model = build(trainable="all")
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    images, labels = pictures(12)
    before = {weight.path: ops.convert_to_numpy(weight) for weight in model.weights}
    model.fit(images, labels, verbose=0)
    moved = {weight.path for weight in model.weights if not np.array_equal(ops.convert_to_numpy(weight), before[weight.path])}
    assert not {path for path in moved if "_bn/" in path}
    assert {path.split("/")[-2] for path in moved} == EVERYTHING
    # In inference mode one image's prediction does not depend on the others in its batch.
    together, alone = model(images.astype("float32"), training=True), model(images[:1].astype("float32"), training=True)
    np.testing.assert_allclose(ops.convert_to_numpy(together[:1]), ops.convert_to_numpy(alone), atol=1e-5)


def test_the_frozen_parts_outlive_saving(small_base, tmp_path):
    model = build(trainable="top")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert trained(loaded) == TOP
    set_trainable(loaded, "all")
    assert trained(loaded) == EVERYTHING


def test_head_and_base_make_the_model(small_base):
    model = build()
    extractor, head = split_head(model)
    images, _ = pictures(5)
    features = extractor.predict(images, verbose=0)
    assert features.shape == (5, 8)
    np.testing.assert_allclose(head.predict(features, verbose=0), model.predict(images, verbose=0), atol=1e-6)


def test_features_are_computed_once_for_the_same_images_and_weights(small_base, tmp_path, monkeypatch):
    model = build()
    images, _ = pictures(5)
    expected = split_head(model)[0].predict(images, verbose=0)
    np.testing.assert_allclose(cache_features(model, images, tmp_path, batch_size=2), expected, atol=1e-6)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "predict", lambda *_args, **_kwargs: pytest.fail("computed again"))
        np.testing.assert_allclose(cache_features(model, images, tmp_path), expected, atol=1e-6)

    other = images.copy()
    other[0, 0, 0, 0] ^= 255
    cache_features(model, other, tmp_path)
    model.get_layer("inception_resnet_v2").layers[1].kernel.assign_add(ops.ones((3, 3, 3, 4)))
    cache_features(model, images, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3


def test_features_of_another_precision_are_computed_anew(small_base, tmp_path):
    model = build()
    images, _ = pictures(5)
    exact = cache_features(model, images, tmp_path)
    for layer in model.get_layer("inception_resnet_v2").layers[1:]:
        layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    assert not np.array_equal(cache_features(model, images, tmp_path), exact)
    assert len(list(tmp_path.iterdir())) == 2


def test_an_interrupted_computation_leaves_no_cache(small_base, tmp_path, monkeypatch):
    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    model = build()
    images, _ = pictures(4)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cache_features(model, images, tmp_path)
    assert not list(tmp_path.iterdir())
    assert cache_features(model, images, tmp_path).shape == (4, 8)


@pytest.mark.slow
def test_two_phases_lower_the_loss_with_or_without_a_cache(small_base, tmp_path):
    images, labels = pictures(12)
    weights = {}
    for cache in (None, tmp_path):
        keras.utils.set_random_seed(0)
        model = build()
        first, second = fine_tune(
            model,
            (images, labels),
            (images, labels),
            loss="sparse_categorical_crossentropy",
            part="all",
            head_epochs=8,
            epochs=4,
            head_learning_rate=0.1,
            learning_rate=0.01,
            cache=cache,
        )
        assert (len(first.history["val_loss"]), len(second.history["val_loss"])) == (8, 4)
        assert second.history["val_loss"][-1] < first.history["val_loss"][-1] < first.history["val_loss"][0]
        weights[cache] = model.get_weights()
    # Stored features train the head as computing them does.
    for computed, cached in zip(*weights.values(), strict=True):
        np.testing.assert_allclose(cached, computed, atol=0.05)


def test_caching_needs_arrays(small_base, tmp_path):
    with pytest.raises(TypeError, match="cache needs"):
        fine_tune(build(), iter(()), loss="mse", cache=tmp_path)


def test_a_local_weights_file_is_loaded(small_base, tmp_path):
    path = tmp_path / "base.weights.h5"
    model = build()
    model.get_layer("inception_resnet_v2").save_weights(path)
    loaded = build(weights=path)
    for one, other in zip(split_head(model)[0].get_weights(), split_head(loaded)[0].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_weights_that_cannot_be_downloaded_are_named_with_their_place(monkeypatch, tmp_path):
    def offline(**_arguments):
        raise OSError("URL fetch failure")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.applications, "InceptionResNetV2", offline)
    with pytest.raises(ValueError, match="URL fetch failure") as error:
        build_inception_resnet(num_classes=3)
    file = "inception_resnet_v2_weights_tf_dim_ordering_tf_kernels_notop.h5"
    assert str(tmp_path / "models" / file) in str(error.value)


def test_a_file_of_other_weights_is_named(small_base, tmp_path):
    path = tmp_path / "other.weights.h5"
    keras.Sequential([keras.Input((2,)), layers.Dense(1)]).save_weights(path)
    with pytest.raises(ValueError, match=r"other\.weights\.h5 does not hold weights"):
        build(weights=path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "no/such.h5"}, "there is no file 'no/such.h5'"),
        ({"trainable": "tail"}, "trainable must be 'head', 'top' or 'all'"),
        ({"dropout": 1.0}, "dropout must be at least 0"),
    ],
)
def test_wrong_arguments_are_named(small_base, arguments, message):
    with pytest.raises(ValueError, match=message):
        build(**arguments)


def test_another_model_is_refused():
    images = keras.Input((8, 8, 3))
    with pytest.raises(ValueError, match="has no layer 'inception_resnet_v2'"):
        set_trainable(keras.Model(images, layers.Flatten()(images)), "head")


@pytest.mark.slow
@pytest.mark.parametrize("policy", [pytest.param("float32", marks=pytest.mark.thorough), "mixed_bfloat16"])
def test_xla_trains_and_predicts_in_float32_probabilities(small_base, policy, keras_policy, adamw):
    keras_policy(policy)
    model = build(trainable="all", dropout=0.2)
    model.compile(adamw(model), "sparse_categorical_crossentropy", jit_compile=True)
    images, labels = pictures(4, 30)
    assert np.isfinite(model.train_on_batch(images, labels))
    predicted = model.predict_on_batch(images)
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(clone.predict_on_batch(images), predicted, atol=1e-5)


@pytest.fixture(scope="module")
def real():
    """The 54 million parameters, built once."""
    keras.utils.set_random_seed(0)
    return build_inception_resnet(num_classes=9, weights=None)


@pytest.mark.thorough
def test_the_real_base_reads_pixels_and_saves_and_loads(real, tmp_path):
    """Preprocessing, shape, parameters, a local weights file, saving."""
    assert real.count_params() == 54_350_569
    assert size_of(real.trainable_weights) == 1536 * 9 + 9
    path = tmp_path / "base.weights.h5"
    base = real.get_layer("inception_resnet_v2")
    base.save_weights(path)
    other = build_inception_resnet(num_classes=9, weights=path)
    images = np.random.default_rng(0).integers(0, 256, (1, 75, 97, 3)).astype("float32")
    scaled = keras.applications.inception_resnet_v2.preprocess_input(images.copy())
    expected = ops.mean(base(scaled, training=False), axis=(1, 2))
    extractor, _ = split_head(other)
    np.testing.assert_allclose(ops.convert_to_numpy(extractor(images)), ops.convert_to_numpy(expected), rtol=1e-3, atol=1e-4)
    set_trainable(other, "top")
    assert size_of(other.trainable_weights) == 23_545_673


@pytest.mark.thorough
def test_inception_resnet_is_explained_with_an_overlay(real, tmp_path):
    """The map is the output of a nested network, which pooling follows."""
    images = np.random.default_rng(0).integers(0, 256, (1, 139, 171, 3), dtype="uint8")
    explain = GradCAM(real)
    assert explain.layer == "inception_resnet_v2"
    # With average pooling and one dense layer, alpha is that class's dense weights.
    scaled = images.astype("float32") / 127.5 - 1
    maps = ops.convert_to_numpy(real.get_layer("inception_resnet_v2")(scaled, training=False))
    scores = maps @ ops.convert_to_numpy(real.get_layer("label_logits").kernel)
    assert scores.shape == (1, 3, 4, 9)
    chosen = int(scores.max(axis=(0, 1, 2)).argmax())
    expected = np.maximum(scores[..., chosen : chosen + 1], 0)
    expected = ops.convert_to_numpy(ops.image.resize(expected, (139, 171), interpolation="bilinear"))[..., 0]
    heat = explain(images, chosen)
    np.testing.assert_allclose(heat, expected / expected.max(), atol=1e-3)
    Image.fromarray(overlay_heatmap(images[0], heat[0])).save(tmp_path / "overlay.png")
    painted = np.asarray(Image.open(tmp_path / "overlay.png"))
    assert painted.shape == (139, 171, 3)
    assert (painted != images[0]).any(axis=-1)[heat[0] > 0.2].mean() > 0.9
