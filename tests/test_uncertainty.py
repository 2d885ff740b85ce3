"""`python tests/test_uncertainty.py` measures which figure ranks the errors of small networks best (some minutes)."""

import itertools
import sys

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from dermaseg.metrics import area_under_risk_coverage
from dermaseg.models import build_cnn, build_unet
from dermaseg.monte_carlo import activate_dropout, monte_carlo_dropout
from dermaseg.uncertainty import (
    TRANSFORMS,
    Spread,
    dihedral_average,
    entropy_bits,
    expected_jaccard,
    lesion_entropy,
)

DIHEDRAL = TRANSFORMS["dihedral"]


def noise(count=3, height=8, width=12, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (count, height, width, 3)).astype("float32")


def red(images):
    """A predictor that commutes with every transform."""
    return np.asarray(images[..., :1], dtype="float64") / 255


def variables(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.variables]


# Transforms


@pytest.mark.parametrize("transform", DIHEDRAL)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_mask_is_turned_back_to_where_it_was(transform, dtype):
    images = noise().astype(dtype)
    spread = dihedral_average(red, images, transforms=[transform])
    np.testing.assert_allclose(spread.probability, red(images), atol=1e-7)


def test_the_names_say_what_the_predictor_sees():
    image = np.arange(6.0).reshape(1, 2, 3, 1).repeat(3, axis=-1)
    seen = {}
    for name in DIHEDRAL:
        dihedral_average(lambda x, name=name: seen.setdefault(name, x)[..., :1] / 255, image, transforms=[name])
    flat = {name: value[0, :, :, 0].astype(int).tolist() for name, value in seen.items()}
    assert flat == {
        "identity": [[0, 1, 2], [3, 4, 5]],
        "flip_horizontal": [[2, 1, 0], [5, 4, 3]],
        "flip_vertical": [[3, 4, 5], [0, 1, 2]],
        "rotate_180": [[5, 4, 3], [2, 1, 0]],
        "rotate_90": [[2, 5], [1, 4], [0, 3]],
        "rotate_270": [[3, 0], [4, 1], [5, 2]],
        "transpose": [[0, 3], [1, 4], [2, 5]],
        "anti_transpose": [[5, 2], [4, 1], [3, 0]],
    }


def test_flips_keep_the_shape_and_quarter_turns_exchange_it():
    shapes = []

    def predict(images):
        shapes.append(images.shape[1:3])
        return red(images)

    dihedral_average(predict, noise(), transforms="dihedral")
    assert shapes == [(8, 12)] * 4 + [(12, 8)] * 4
    shapes.clear()
    assert dihedral_average(predict, noise()).members == 4
    assert shapes == [(8, 12)] * 4


def test_the_average_and_the_spread_are_those_of_the_members():
    images = noise()
    ramp = np.linspace(0.1, 0.9, 12)[None, None, :, None]

    def predict(x):  # where a pixel lies in the frame matters: members disagree
        return {"mask": 0.5 * red(x) + 0.5 * ramp, "label": np.full((3, 2), 0.5)}

    found = dihedral_average(predict, images, transforms="flips")
    mirrored = 0.5 * red(images) + 0.5 * ramp[:, :, ::-1]
    members = np.stack([0.5 * red(images) + 0.5 * ramp, mirrored] * 2)
    mean = members.mean(axis=0)
    np.testing.assert_allclose(found["mask"].probability, mean, atol=1e-6)
    np.testing.assert_allclose(found["mask"].entropy, entropy_bits(mean), atol=1e-6)
    expected = entropy_bits(mean) - np.mean([entropy_bits(member) for member in members], axis=0)
    np.testing.assert_allclose(found["mask"].mutual_information, expected, atol=1e-6)
    assert found["mask"].mutual_information.max() > 0.1
    np.testing.assert_allclose(found["mask"].image_entropy, lesion_entropy(mean), rtol=1e-5)
    np.testing.assert_array_equal(found["label"].entropy, np.ones(3))
    np.testing.assert_array_equal(found["label"].image_mutual_information, np.zeros(3))


def test_the_predictor_s_output_is_not_written_to():
    constant = np.full((3, 8, 12, 1), 0.3)
    dihedral_average(lambda images: constant, noise(), transforms="flips")
    assert (constant == 0.3).all()


def test_a_network_takes_part():
    keras.utils.set_random_seed(0)
    spread = dihedral_average(build_unet(filters=(4, 8)).predict_on_batch, noise(2, 20, 28), transforms="dihedral")
    assert spread.probability.shape == (2, 20, 28, 1)
    assert spread.probability.dtype == np.float32
    assert (spread.mutual_information <= spread.entropy).all()


@pytest.mark.parametrize("transforms", ["turns", [], ["identity", "identity"], ["identity", "rotate_45"]])
def test_unknown_transforms(transforms):
    with pytest.raises(ValueError, match="transforms must be 'flips', 'dihedral'"):
        dihedral_average(red, noise(), transforms=transforms)


def test_a_single_name_is_a_transform():
    assert dihedral_average(red, noise(), transforms="transpose").members == 1


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        (lambda images: images[..., :1], "between 0 and 1"),
        (lambda images: np.full((3, 1), np.nan), "between 0 and 1"),
        (lambda images: np.zeros((3, 4, 6, 1)), "predict must give"),
        (lambda images: np.zeros((2, 4)), "predict must give"),
        (lambda images: np.full((3, 4), 0.1), "sum to 1"),
    ],
)
def test_what_a_predictor_may_not_give(predict, message):
    with pytest.raises(ValueError, match=message):
        dihedral_average(predict, noise())
    with pytest.raises(ValueError, match="images must be"):
        dihedral_average(predict, noise()[0])


def test_the_mean_over_pixels_for_several_channels():
    spread = Spread(np.full((2, 3, 3, 4), 0.25), np.full((2, 3, 3), 2.0), np.full((2, 3, 3), 0.5), 2)
    assert spread.image_entropy.tolist() == [2, 2]
    assert spread.image_mutual_information.tolist() == [0.5, 0.5]


# Dropout


def small_net(*, rate=0.5, nested=False, kind=layers.Dropout):
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, padding="same", name="conv")(layers.Rescaling(1 / 255)(inputs))
    x = layers.BatchNormalization(name="norm")(x)
    drop = kind(rate, name="drop")
    x = keras.Sequential([keras.Input((None, None, 8)), drop], name="nest")(x) if nested else drop(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, activation="softmax", name="label")(x))


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kind", [layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout])
def test_dropout_is_on_and_the_model_untouched(nested, kind):
    keras.utils.set_random_seed(0)
    model = small_net(nested=nested, kind=kind)
    before, outputs = variables(model), model.predict_on_batch(noise())
    spread = monte_carlo_dropout(model, noise(), samples=4)
    assert spread.members == 4
    assert spread.probability.shape == (3, 3)
    assert (spread.mutual_information > 0).all()
    # Statistics of batch normalisation among them, and the random state of the model's own dropout.
    for old, new in zip(before, variables(model), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(model.predict_on_batch(noise()), outputs)


def test_batch_normalisation_stays_in_inference_mode():
    keras.utils.set_random_seed(0)
    model = small_net(rate=1e-6)  # next to nothing is dropped: what differs is batch normalisation
    norm = model.get_layer("norm")
    norm.moving_mean.assign(np.linspace(-1, 1, 8))
    norm.moving_variance.assign(np.linspace(0.5, 2, 8))
    spread = monte_carlo_dropout(model, noise(), samples=2)
    np.testing.assert_allclose(spread.probability, model.predict_on_batch(noise()), atol=1e-5)
    by_the_batch = keras.ops.convert_to_numpy(model(noise(), training=True))
    assert np.abs(by_the_batch - spread.probability).max() > 1e-3


def test_seeds_repeat_and_differ():
    model = activate_dropout(small_net())
    first, again, other = (monte_carlo_dropout(model, noise(), samples=3, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.probability, again.probability)
    assert not np.array_equal(first.probability, other.probability)


def test_the_mean_goes_to_the_prediction_where_dropout_is_linear():
    inputs = keras.Input((2, 2, 3))
    x = layers.Flatten()(layers.Dropout(0.5)(inputs))
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer=keras.initializers.Constant(1 / 12))(x))
    images = np.full((1, 2, 2, 3), 0.4, "float32")
    spread = monte_carlo_dropout(activate_dropout(model), images, samples=400)
    assert spread.probability[0, 0] == pytest.approx(0.4, abs=0.03)  # deviation of the mean: 0.4 / sqrt(12 * 400) = 0.006


def test_batches_and_two_outputs():
    inputs = keras.Input((None, None, 3))
    x = layers.SpatialDropout2D(0.5)(layers.Conv2D(4, 1)(layers.Rescaling(1 / 255)(inputs)))
    mask = layers.Conv2D(1, 1, activation="sigmoid", name="mask")(x)
    label = layers.Dense(2, activation="softmax", name="label")(layers.GlobalAveragePooling2D()(x))
    model = activate_dropout(keras.Model(inputs, {"mask": mask, "label": label}))
    found = monte_carlo_dropout(model, noise(5), samples=2, batch_size=2)
    assert set(found) == {"mask", "label"}
    assert found["mask"].probability.shape == (5, 8, 12, 1)
    assert found["mask"].image_mutual_information.shape == (5,)
    assert found["label"].entropy.shape == (5,)
    assert found["label"].members == 2


def test_an_active_model_shares_weights_and_can_be_saved(tmp_path):
    model = small_net()
    active = activate_dropout(model)
    model.get_layer("conv").kernel.assign_add(np.ones((3, 3, 3, 8), "float32"))
    np.testing.assert_array_equal(active.get_layer("conv").kernel, model.get_layer("conv").kernel)
    for one in (model, active):
        one.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.get_layer("conv").kernel, model.get_layer("conv").kernel)
    assert monte_carlo_dropout(loaded, noise(), samples=2).mutual_information.max() > 0


def test_compiled_models_with_a_loss_of_one_s_own():
    model = small_net(nested=True)
    for one in (model, model.get_layer("nest")):
        one.compile("sgd", lambda true, predicted: keras.ops.mean(predicted))
    assert not activate_dropout(model).compiled
    sequential = keras.Sequential([keras.Input((8, 12, 3)), layers.Dropout(0.5), layers.Flatten(), layers.Dense(1, "sigmoid")])
    sequential.compile("sgd", lambda true, predicted: keras.ops.mean(predicted))
    assert monte_carlo_dropout(sequential, noise() / 255, samples=2).mutual_information.max() > 0


@pytest.mark.parametrize("model", [lambda: build_cnn(num_classes=3, filters=(4, 8)), lambda: small_net(rate=0.0)])
def test_a_model_without_dropout(model):
    with pytest.raises(ValueError, match="model has no dropout layer with a rate above 0"):
        monte_carlo_dropout(model(), noise())


def test_what_dropout_does_not_take():
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    for model in (Own(), keras.Sequential([layers.Dropout(0.5)])):
        with pytest.raises(ValueError, match=f"model must be functional.*got {type(model).__name__}"):
            activate_dropout(model)
    with pytest.raises(ValueError, match="samples must be at least 2"):
        monte_carlo_dropout(small_net(), noise(), samples=1)
    for images in (noise()[0], noise()[:0]):
        with pytest.raises(ValueError, match="images must be"):
            monte_carlo_dropout(small_net(), images)


# Figures of one prediction


def test_entropy_by_hand():
    np.testing.assert_allclose(entropy_bits([[0.25], [0.0]]), [0.25 * 2 + 0.75 * np.log2(4 / 3), 0])
    np.testing.assert_allclose(entropy_bits([[0.5, 0.25, 0.25]]), [1.5])
    assert lesion_entropy([[[0.5, 1.0, 0.0]], [[0.0, 0.0, 0.0]]]).tolist() == [1 / 1.5, 0]


def test_lesion_entropy_does_not_depend_on_the_skin_around():
    mask = np.random.default_rng(0).uniform(size=(1, 6, 6, 1))
    wide = np.pad(mask, ((0, 0), (5, 5), (5, 5), (0, 0)))
    np.testing.assert_allclose(lesion_entropy(wide), lesion_entropy(mask))


def test_expected_jaccard_by_hand():
    masks = np.array([[[1.0, 0.8, 0.2]], [[0.0, 0.0, 0.0]], [[0.5, 0.5, 0.0]], [[1.0, 1.0, 0.0]]])
    np.testing.assert_allclose(expected_jaccard(masks), [1.8 / 2.2, 1, 0.25, 1])
    np.testing.assert_allclose(expected_jaccard(masks[..., None], threshold=0.1), [2 / 3, 1, 0.5, 1])


def test_at_a_threshold_of_one_a_sure_pixel_makes_an_empty_mask_wrong():
    np.testing.assert_array_equal(expected_jaccard([[[1.0, 0.0]], [[0.5, 0.0]]], threshold=1.0), [0.0, 0.5])


def test_expected_jaccard_is_the_mean_over_outcomes():
    random = np.random.default_rng(0)
    masks = random.beta(0.4, 0.6, (4, 12, 12))
    inside = masks > 0.5
    outcomes = random.uniform(size=(4000, 4, 12, 12)) < masks
    realised = (outcomes & inside).sum((2, 3)) / (outcomes | inside).sum((2, 3))
    np.testing.assert_allclose(expected_jaccard(masks), realised.mean(axis=0), atol=0.003)


def test_an_empty_mask_expects_what_no_lesion_at_all_would_score():
    masks = np.array([[[0.3, 0.1]]])
    outcomes = [(a, b) for a, b in itertools.product([0, 1], repeat=2)]
    chances = [np.prod([p if o else 1 - p for p, o in zip((0.3, 0.1), outcome, strict=True)]) for outcome in outcomes]
    assert expected_jaccard(masks)[0] == pytest.approx(sum(c for c, o in zip(chances, outcomes, strict=True) if not any(o)))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_ranges(seed, threshold):
    masks = np.random.default_rng(seed).beta(0.3, 0.5, (3, 5, 4, 1))
    assert ((entropy_bits(masks) >= 0) & (entropy_bits(masks) <= 1 + 1e-12)).all()
    found = expected_jaccard(masks, threshold=threshold)
    assert found.shape == (3,)
    assert ((found >= 0) & (found <= 1)).all()
    crisp = masks > 0.5
    assert (expected_jaccard(crisp) == 1).all()
    assert (lesion_entropy(crisp) == 0).all()


@pytest.mark.parametrize("figure", [expected_jaccard, lesion_entropy])
@pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4, 2), (2, 0, 4)])
def test_masks_of_another_shape(figure, shape):
    with pytest.raises(ValueError, match="probabilities must be"):
        figure(np.zeros(shape))


def test_values_out_of_range():
    with pytest.raises(ValueError, match="between 0 and 1"):
        lesion_entropy(np.full((1, 2, 2), 1.5))
    with pytest.raises(ValueError, match="threshold must lie"):
        expected_jaccard(np.zeros((1, 2, 2)), threshold=2)
    with pytest.raises(ValueError, match="sum to 1"):
        entropy_bits([0.2, 0.2])
    with pytest.raises(ValueError, match="last axis"):
        entropy_bits(0.5)


# Which figure ranks best


def measure(seed, *, size=48, train=160, test=200, steps=150):
    """Train a small U-Net on synthetic photographs; return its errors on others, and the figures of each."""
    from dermaseg.data import synthetic_batch
    from dermaseg.losses import jaccard_loss

    keras.utils.set_random_seed(seed)
    images, masks, *_ = synthetic_batch(train, size=size, seed=2 * seed, images_per_lesion=1)
    model = build_unet(filters=(8, 16, 24), dropout=0.3)

    def loss(true, predicted):
        crossentropy = keras.ops.mean(keras.losses.binary_crossentropy(true, predicted), axis=(1, 2))
        return 0.5 * crossentropy + 0.5 * jaccard_loss(true, predicted)

    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(images, masks.astype("float32"), batch_size=16, epochs=steps * 16 // train, verbose=0)
    images, masks, *_ = synthetic_batch(test, size=size, seed=2 * seed + 1, images_per_lesion=1)
    once = dihedral_average(model.predict_on_batch, images, transforms="identity")
    spreads = {
        "flips": dihedral_average(model.predict_on_batch, images),
        "dropout": monte_carlo_dropout(model, images, samples=20, batch_size=test),
    }
    figures = {
        "mean entropy": once.entropy.mean(axis=(1, 2)),
        "lesion_entropy": once.image_entropy,
        "1 - expected_jaccard": 1 - expected_jaccard(once.probability),
    }
    for name, spread in spreads.items():
        figures[f"{name}: lesion_entropy"] = spread.image_entropy
        figures[f"{name}: mutual information"] = spread.image_mutual_information
        figures[f"{name}: 1 - expected_jaccard"] = 1 - expected_jaccard(spread.probability)
    predicted = once.probability > 0.5
    union = np.maximum((predicted | (masks > 0)).sum((1, 2, 3)), 1)
    return 1 - (predicted & (masks > 0)).sum((1, 2, 3)) / union, figures


def main(seeds=3):
    table = {}
    for seed in range(seeds):
        errors, figures = measure(seed)
        sys.stdout.write(f"network {seed}: mean of 1 - Jaccard {errors.mean():.4f}\n")
        figures = {"no ranking": np.zeros(len(errors)), **figures, "the error itself": errors}
        for name, values in figures.items():
            table.setdefault(name, []).append(area_under_risk_coverage(errors, -values))
        sys.stdout.flush()
    lines = ["AURC of 1 - Jaccard, mean and each network; lower is better"]
    for name, values in table.items():
        lines.append(f"{name:34} {np.mean(values):.4f}  " + " ".join(f"{value:.4f}" for value in values))
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
