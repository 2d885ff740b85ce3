import keras
import numpy as np
import pytest
from keras import ops

from dermaseg.models import build_unet
from dermaseg.models.cnn import build_cnn

SMALL = {"num_classes": 3, "filters": (8, 16, 24)}
TINY = {"num_classes": 3, "filters": (8, 8)}
PLAIN = {"num_classes": 3, "filters": (8, 16), "variant": "plain", "input_shape": (32, 32, 3)}


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype("float32")


@pytest.mark.parametrize("shape", [(2, 64, 64), (1, 45, 61), (1, 1, 1), (1, 450, 600)])
def test_any_size_gives_probabilities(shape):
    labels = ops.convert_to_numpy(build_cnn(**SMALL)(pictures(*shape)))
    assert labels.shape == (shape[0], 3)
    np.testing.assert_allclose(labels.sum(-1), 1, atol=1e-5)


def test_one_class_is_a_sigmoid():
    labels = ops.convert_to_numpy(build_cnn(num_classes=1, filters=(8, 16))(pictures(3, 20, 24)))
    assert labels.shape == (3, 1)
    assert ((labels > 0) & (labels < 1)).all()


def test_parameters_are_pinned():
    assert build_cnn(num_classes=7).count_params() == 2_708_983
    assert build_cnn(**SMALL).count_params() == 14_627
    assert build_cnn(num_classes=7, variant="plain", input_shape=(128, 128, 3)).count_params() == 4_288_583


def test_a_segmentation_network_lends_its_encoder():
    unet, cnn = build_unet(filters=SMALL["filters"]), build_cnn(**SMALL)
    shared = {layer.name: layer for layer in unet.layers if layer.weights}
    lent = [layer for layer in cnn.layers if layer.weights and layer.name in shared]
    assert [layer.name for layer in cnn.layers if layer.weights and layer not in lent] == ["label_logits"]
    for layer in lent:
        layer.set_weights(shared[layer.name].get_weights())


def test_blocks_deepen_a_stage():
    names = {layer.name for layer in build_cnn(**SMALL, blocks=(1, 2, 1)).layers}
    assert "encoder_1_1_out" in names
    assert "encoder_2_1_out" not in names


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [SMALL, PLAIN], ids=["residual", "plain"])
def test_one_batch_is_learned_by_heart(arguments, adamw):
    keras.utils.set_random_seed(0)
    images, labels = pictures(12, 32, 32), np.arange(12) % 3
    model = build_cnn(**arguments)
    model.compile(adamw(model, 1e-2), "sparse_categorical_crossentropy")
    for _ in range(30):
        model.train_on_batch(images, labels)
    assert (model.predict_on_batch(images).argmax(-1) == labels).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "policy"),
    [
        pytest.param(TINY, "float32", marks=pytest.mark.thorough),
        (TINY, "mixed_bfloat16"),
        pytest.param(PLAIN, "mixed_bfloat16", marks=pytest.mark.thorough),
    ],
)
def test_xla_trains_and_predicts_in_float32_probabilities(arguments, policy, keras_policy, adamw):
    keras_policy(policy)
    model = build_cnn(**arguments, dropout=0.1)
    model.compile(adamw(model), "sparse_categorical_crossentropy", jit_compile=True)
    images = pictures(4, 32, 32)
    assert np.isfinite(model.train_on_batch(images, np.arange(4) % 3))
    predicted = model.predict_on_batch(images)
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("arguments", [SMALL, PLAIN], ids=["residual", "plain"])
def test_a_clone_with_the_same_weights_is_the_same_function(arguments):
    model = build_cnn(**arguments, dropout=0.2)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    images = pictures(2, 32, 32)
    np.testing.assert_allclose(ops.convert_to_numpy(clone(images)), ops.convert_to_numpy(model(images)), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": (16,)}, "filters must hold two or more"),
        ({"blocks": (1, 1)}, "blocks must hold 3 positive integers"),
        ({"blocks": (1, 0, 1)}, "blocks must hold 3 positive integers"),
        ({"stem_stride": 4}, "stem_stride must be 1 or 2"),
        ({"dropout": 1.5}, "dropout must be at least 0"),
        ({"variant": "vgg"}, "variant must be 'residual' or 'plain'"),
        ({"variant": "plain"}, "input_shape must give height and width"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_cnn(**{**SMALL, **arguments})
