"""Fuzzy layers against the formulas written out in NumPy."""

import keras
import numpy as np
import pytest
from keras import ops

from dermaseg.layers import AttentionSkipGate, FuzzyMembership, FuzzySkipGate

GATES = [
    (FuzzySkipGate, {}),
    (FuzzySkipGate, {"rules": 3, "channels": 5, "stride": 2, "gain": 10.0}),
    (FuzzySkipGate, {"quadratic": False}),
    (FuzzySkipGate, {"stride": 2, "decoder_stride": 2}),
    (FuzzySkipGate, {"decoder_stride": 2}),
    (AttentionSkipGate, {"channels": 4, "stride": 2}),
]


@pytest.fixture
def tensors():
    generator = np.random.default_rng(0)
    return generator.normal(size=(2, 8, 6, 16)).astype("float32"), generator.normal(size=(2, 8, 6, 12)).astype("float32")


def on_own_grid(decoder, options):
    """The decoder's map as a gate of these options takes it."""
    stride = options.get("decoder_stride", 1)
    return decoder[:, ::stride, ::stride]


def randomise(layer, scale=1.0):
    """Take a layer away from its start, where its gate is the identity."""
    generator = np.random.default_rng(1)
    for weight in layer.trainable_weights:
        weight.assign(ops.convert_to_numpy(weight) + scale * generator.normal(size=weight.shape))
    return layer


def numpy(tensors):
    return keras.tree.map_structure(ops.convert_to_numpy, tensors)


def softplus(x):
    return np.log1p(np.exp(x))


def numpy_strengths(layer, encoder, decoder, *, quadratic=True):
    """Steps 1 to 4 of the layer's docstring, one rule and channel at a time."""
    weights = {weight.path.split("/", 1)[1]: ops.convert_to_numpy(weight).astype("float64") for weight in layer.weights}
    q = encoder @ weights["encoder_projection/kernel"][0, 0] + decoder @ weights["decoder_projection/kernel"][0, 0]
    q = (q - weights["norm/moving_mean"]) / np.sqrt(weights["norm/moving_variance"] + 1e-3)
    q = np.clip(q * weights["norm/gamma"] + weights["norm/beta"], -8, 8)
    inverse_width = softplus(weights["rho"]) + 1e-3
    log_strength = np.zeros((*q.shape[:-1], layer.rules))
    for rule in range(layer.rules):
        for channel in range(layer.width):
            s, c = inverse_width[channel, rule], weights["center"][channel, rule]
            square = q[..., channel] ** 2 if quadratic else 0.0
            log_strength[..., rule] -= 0.5 * s**2 * (square - 2 * q[..., channel] * c + c**2)
    log_strength *= np.exp(weights["log_t"]) / np.sqrt(layer.width)
    strength = np.exp(log_strength - log_strength.max(-1, keepdims=True))
    return strength / strength.sum(-1, keepdims=True), weights["theta"]


@pytest.mark.parametrize("quadratic", [True, False])
def test_fuzzy_gate_is_its_formula(tensors, quadratic):
    encoder, decoder = tensors
    gate = FuzzySkipGate(rules=5, quadratic=quadratic, return_firing_strengths=True)
    gate(encoder, decoder)
    assert gate.width == 8
    randomise(gate)
    gated, strengths = numpy(gate(encoder, decoder))
    expected, theta = numpy_strengths(gate, encoder, decoder, quadratic=quadratic)
    np.testing.assert_allclose(strengths, expected, atol=2e-5)
    np.testing.assert_allclose(gated, encoder * 2 / (1 + np.exp(-expected @ theta)), atol=2e-4)
    np.testing.assert_allclose(numpy(gate.firing_strengths(encoder, decoder)), strengths, atol=1e-6)


def test_stride_decides_on_averages(tensors):
    encoder, decoder = tensors
    gate = FuzzySkipGate(stride=2, return_firing_strengths=True)
    gate(encoder, decoder)
    randomise(gate)

    def pool(x):
        return x.reshape(2, 4, 2, 3, 2, -1).mean((2, 4))

    gated, strengths = numpy(gate(encoder, decoder))
    expected, theta = numpy_strengths(gate, pool(encoder), pool(decoder))
    np.testing.assert_allclose(strengths, expected, atol=2e-5)
    field = (2 / (1 + np.exp(-expected @ theta))).repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_allclose(gated, encoder * field, atol=2e-4)


@pytest.mark.parametrize("kind", [FuzzySkipGate, AttentionSkipGate])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_a_decoder_map_is_taken_before_it_is_upsampled(kind, stride):
    generator = np.random.default_rng(0)
    encoder = generator.normal(size=(2, 8, 4, 16)).astype("float32")
    coarse = generator.normal(size=(2, 4, 2, 16)).astype("float32")
    early, late = kind(stride=stride, decoder_stride=2), kind(stride=stride)
    fine = coarse.repeat(2, axis=1).repeat(2, axis=2)
    early(encoder, coarse), late(encoder, fine)
    randomise(early)
    late.set_weights(early.get_weights())
    for training in (False, True):
        gated = numpy(early(encoder, coarse, training=training))
        assert np.abs(gated - encoder).max() > 0.1
        np.testing.assert_allclose(gated, numpy(late(encoder, fine, training=training)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", [FuzzySkipGate, AttentionSkipGate])
def test_a_gain_multiplies_what_opens_the_gate(tensors, kind):
    encoder, decoder = tensors
    eager, plain = kind(gain=4.0), kind()
    eager(encoder, decoder), plain(encoder, decoder)
    randomise(eager, scale=0.3)
    plain.set_weights(eager.get_weights())
    for name in ("theta", "psi", "psi_bias"):
        if hasattr(plain, name):
            getattr(plain, name).assign(4.0 * getattr(eager, name))
    gated = numpy(eager(encoder, decoder))
    np.testing.assert_allclose(gated, numpy(plain(encoder, decoder)), rtol=1e-5, atol=1e-5)
    assert np.abs(gated - encoder).max() > 0.1


def test_attention_gate_is_its_formula(tensors):
    encoder, decoder = tensors
    gate = AttentionSkipGate()
    gate(encoder, decoder)
    randomise(gate)
    weights = {weight.path.split("/", 1)[1]: ops.convert_to_numpy(weight) for weight in gate.weights}
    q = encoder @ weights["encoder_projection/kernel"][0, 0] + decoder @ weights["decoder_projection/kernel"][0, 0]
    q = np.maximum(q / np.sqrt(1 + 1e-3) * weights["norm/gamma"] + weights["norm/beta"], 0)
    expected = encoder * 2 / (1 + np.exp(-(q @ weights["psi"] + weights["psi_bias"])))
    np.testing.assert_allclose(numpy(gate(encoder, decoder)), expected, atol=2e-4)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(("gate", "options"), GATES)
def test_gate_starts_as_the_identity(tensors, gate, options, policy):
    encoder, decoder = (ops.cast(x, keras.DTypePolicy(policy).compute_dtype) for x in tensors)
    for training in (False, True):
        gated = gate(**options, dtype=policy)(encoder, on_own_grid(decoder, options), training=training)
        assert gated.dtype == encoder.dtype
        np.testing.assert_array_equal(numpy(ops.cast(gated, "float32")), numpy(ops.cast(encoder, "float32")))


@pytest.mark.parametrize(("gate", "options"), GATES)
def test_gate_learns_from_its_start(tensors, gate, options, adamw):
    encoder, decoder = tensors[0], on_own_grid(tensors[1], options)
    inputs = [keras.Input(x.shape[1:]) for x in (encoder, decoder)]
    model = keras.Model(inputs, gate(**options)(*inputs))
    factor = encoder.shape[1] // decoder.shape[1]
    target = encoder * (1.5 + 0.4 * np.tanh(decoder[..., :1])).repeat(factor, axis=1).repeat(factor, axis=2)
    model.compile(adamw(model, 0.05), "mse", jit_compile=keras.backend.backend() != "torch")
    first = model.train_on_batch([encoder, decoder], target)
    before = [ops.convert_to_numpy(weight) for weight in model.trainable_weights]
    for _ in range(30):
        last = model.train_on_batch([encoder, decoder], target)
    assert last < 0.5 * first
    for weight, start in zip(model.trainable_weights, before, strict=True):
        assert np.any(ops.convert_to_numpy(weight) != start), weight.path


@pytest.mark.parametrize(("policy", "bound"), [("mixed_bfloat16", 0.06), ("mixed_float16", 0.01)])
def test_half_precision_stays_within_a_bound(tensors, policy, bound):
    encoder, decoder = tensors
    exact = FuzzySkipGate(return_firing_strengths=True)
    exact(encoder, decoder)
    randomise(exact, scale=0.5)
    half = FuzzySkipGate(return_firing_strengths=True, dtype=policy)
    half(encoder, decoder)
    half.set_weights(exact.get_weights())
    gated, strengths = exact(encoder, decoder)
    half_gated, half_strengths = half(encoder, decoder)
    assert keras.backend.standardize_dtype(half_strengths.dtype) == "float32"
    np.testing.assert_allclose(numpy(half_strengths), numpy(strengths), atol=bound)
    np.testing.assert_allclose(numpy(ops.sum(half_strengths, axis=-1)), 1.0, atol=1e-6)
    error = np.abs(numpy(ops.cast(half_gated, "float32")) - numpy(gated))
    assert np.all(error <= bound * (1 + np.abs(encoder)))


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_extreme_inputs_stay_finite(policy):
    # 128 channels at the far end of float16: the plain product of 128 memberships would be 0 / 0.
    encoder = np.full((1, 4, 4, 512), 3e4, "float32")
    gate = FuzzySkipGate(dtype=policy, return_firing_strengths=True)
    gate(encoder * 0, encoder * 0)
    assert gate.width == 128
    gate.encoder_projection.kernel.assign(np.full(gate.encoder_projection.kernel.shape, 1e-3))
    gated, strengths = gate(encoder, encoder * 0)
    assert np.all(np.isfinite(numpy(ops.cast(gated, "float32"))))
    np.testing.assert_allclose(numpy(ops.sum(strengths, axis=-1)), 1.0, atol=1e-5)


@pytest.mark.parametrize("layer", [FuzzyMembership(4, -2.0, 3.0), *(gate(**options) for gate, options in GATES)])
def test_config_round_trip(layer):
    again = keras.layers.deserialize(keras.layers.serialize(layer))
    assert again.get_config() == layer.get_config()


def test_numpys_integers_are_integers():
    layer = FuzzySkipGate(rules=np.int64(4), channels=np.int32(8), stride=np.int64(2))
    assert layer.get_config() == FuzzySkipGate(rules=4, channels=8, stride=2, name=layer.name).get_config()
    assert FuzzyMembership(np.int64(4)).terms == 4


def test_a_gate_saved_before_it_had_a_gain_is_as_it_was():
    config = FuzzySkipGate(stride=2).get_config()
    del config["gain"], config["decoder_stride"]
    assert FuzzySkipGate.from_config(config).get_config() == FuzzySkipGate(stride=2, name=config["name"]).get_config()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FuzzySkipGate(rules=1), "rules"),
        (lambda: FuzzySkipGate(rules=True), "rules"),
        (lambda: FuzzySkipGate(rules=4.0), "rules"),
        (lambda: FuzzySkipGate(channels=0), "channels"),
        (lambda: AttentionSkipGate(stride=0), "stride"),
        (lambda: AttentionSkipGate(decoder_stride=0), "decoder_stride"),
        (lambda: FuzzySkipGate(gain=0.0), "gain must be a positive number"),
        (lambda: FuzzySkipGate(stride=2, decoder_stride=3), "must divide the other"),
        (lambda: FuzzySkipGate()(np.zeros((1, 4, 4, 2)), np.zeros((1, 2, 2, 2))), "must be 1 times the decoder's"),
        (lambda: FuzzySkipGate(stride=2)(np.zeros((1, 5, 4, 2)), np.zeros((1, 5, 4, 2))), "multiples of the stride 2"),
        (lambda: FuzzyMembership(terms=1), "terms"),
        (lambda: FuzzyMembership(low=1.0, high=1.0), "low must be below high"),
        (lambda: FuzzyMembership(terms=3, low=0.0, high=0.004), "would be narrower than 0.001: take fewer"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_memberships_start_spread_and_crossing_at_half():
    layer = FuzzyMembership(terms=3, low=-1.0, high=1.0)
    x = np.array([[-1.0, 0.5], [0.0, -0.5]], "float32")
    memberships = ops.convert_to_numpy(layer(x)).reshape(2, 2, 3)
    np.testing.assert_allclose(memberships[0, 0], [1, 0.0625, 0.0625**4], atol=1e-5)
    np.testing.assert_allclose(memberships[0, 1], [0.5**9, 0.5, 0.5], atol=1e-5)
    np.testing.assert_allclose(memberships[1, 0], [0.0625, 1, 0.0625], atol=1e-5)


@pytest.mark.parametrize("high", [0.01, 5000.0])
def test_memberships_start_so_in_any_units(high):
    memberships = ops.convert_to_numpy(FuzzyMembership(terms=3, low=0.0, high=high)(np.array([[high / 4]], "float32")))
    np.testing.assert_allclose(memberships[0, :2], [0.5, 0.5], rtol=1e-3)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_memberships_stay_in_range_whatever_the_weights(policy):
    layer = FuzzyMembership(terms=2, dtype=policy)
    x = np.linspace(-50, 50, 40, dtype="float32").reshape(1, 4, 5, 2)
    layer(x)
    layer.rho.assign(np.array([-100.0, -3.0, 0.0, 100.0]))
    memberships = ops.convert_to_numpy(ops.cast(layer(x), "float32"))
    assert memberships.shape == (1, 4, 5, 4)
    assert np.all((memberships >= 0) & (memberships <= 1))


def test_memberships_learn_the_sets_that_made_the_data_under_xla(adamw):
    x = np.linspace(-3, 3, 64, dtype="float32")[:, np.newaxis]
    target = np.exp(-0.5 * ((x - [-1.5, 1.0]) / [0.5, 0.8]) ** 2).astype("float32")
    layer = FuzzyMembership(terms=2)
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(adamw(model, 0.1), "mse", jit_compile=True)
    for _ in range(150):
        error = model.train_on_batch(x, target)
    assert error < 1e-4
    np.testing.assert_allclose(layer.center, [-1.5, 1.0], atol=0.05)
    np.testing.assert_allclose(ops.softplus(layer.rho), [0.5, 0.8], atol=0.05)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="JAX alone lists the arrays of a computation")
def test_no_array_has_places_by_rules_by_channels():
    import jax

    rules, channels, side = 8, 16, 32
    gate = FuzzySkipGate(rules=rules, channels=channels)
    features = np.zeros((1, side, side, 16), "float32")
    gate(features, features)

    def mean(trained, x):
        outputs, _ = gate.stateless_call(trained, fixed, x, x)
        return outputs.mean()

    fixed = [variable.value for variable in gate.non_trainable_variables]
    trained = [variable.value for variable in gate.trainable_variables]
    made = jax.make_jaxpr(jax.grad(mean))(trained, features)
    sizes = [np.prod(variable.aval.shape) for equation in made.eqns for variable in equation.outvars]
    assert len(sizes) > 20
    assert max(sizes) < side * side * rules * channels
