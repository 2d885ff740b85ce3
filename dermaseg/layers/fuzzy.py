"""Trainable fuzzy layers: Gaussian memberships, and gates on a U-Net's skips."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from dermaseg.fuzzy import gaussian_membership
from dermaseg.layers.gates import JointSkipGate, check_integer

__all__ = ["FuzzyMembership", "FuzzySkipGate"]

_MIN_WIDTH = 1e-3


def _positive(rho: Any) -> Any:
    """Map a free weight to a width that no training step can make negative, or zero."""
    return ops.softplus(rho) + _MIN_WIDTH


def _inverse_positive(width: float) -> float:
    wanted = width - _MIN_WIDTH
    return wanted + math.log(-math.expm1(-wanted))  # of softplus; expm1(wanted) itself would overflow for wide sets


def _crossing_at_half(low: float, high: float, terms: int) -> float:
    """Return the width of evenly spread sets of which each crosses its neighbour at 1/2."""
    return (high - low) / (terms - 1) / (2.0 * math.sqrt(2.0 * math.log(2.0)))


@keras.saving.register_keras_serializable(package="dermaseg")
class FuzzyMembership(keras.layers.Layer):
    """Describe each channel by its membership in a few trainable Gaussian sets ("low", "middle", "high" ...).

    mu_ck = exp(-1/2 ((x_c - center_ck) / width_ck)^2), width = softplus(rho) + 1e-3. The sets start evenly spread over
    [low, high], each crossing its neighbour at 1/2. Computed in float32, also under mixed precision.

    Args:
        terms: Fuzzy sets per channel, at least 2.
        low: Centre of the first set at the start, in units of the input.
        high: Centre of the last set at the start.

    Input shape: `(batch, ..., channels)`.
    Output shape: `(batch, ..., channels * terms)`, memberships in [0, 1], a channel's sets side by side.

    Raises:
        ValueError: If `terms` is not an integer of at least 2, `low` is not below `high`, or so many sets between them would
            be narrower than the least width.

    Examples:
        >>> FuzzyMembership(terms=3)(ops.zeros((1, 4, 4, 2))).shape == (1, 4, 4, 6)
        True

    References:
        Jang, 1993, "ANFIS: adaptive-network-based fuzzy inference system", layer 1. Deviation: Gaussian for bell sets, as
        Wang and Mendel, 1992, and widths that stay positive.
    """

    def __init__(self, terms: int = 3, low: float = -1.0, high: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        terms = check_integer("terms", terms, minimum=2)
        if not low < high:
            raise ValueError(f"low must be below high, got low={low!r} and high={high!r}.")
        if _crossing_at_half(low, high, terms) <= _MIN_WIDTH:
            raise ValueError(
                f"terms={terms!r} sets from low={low!r} to high={high!r} would be narrower than {_MIN_WIDTH}: take fewer, "
                "farther apart, or scale the input up."
            )
        self.terms = terms
        self.low = low
        self.high = high

    def build(self, input_shape: tuple[Any, ...]) -> None:
        """Create one centre and one width per channel and set."""
        spacing = (self.high - self.low) / (self.terms - 1)
        spread = [self.low + spacing * term for term in range(self.terms)] * input_shape[-1]
        shape = (len(spread),)
        self.center = self.add_weight(
            shape=shape,
            initializer=lambda *_args, **_kwargs: ops.convert_to_tensor(spread, "float32"),
            autocast=False,
            name="center",
        )
        self.rho = self.add_weight(
            shape=shape,
            initializer=keras.initializers.Constant(_inverse_positive(_crossing_at_half(self.low, self.high, self.terms))),
            autocast=False,
            name="rho",
        )

    def call(self, inputs: Any) -> Any:
        """Return the memberships."""
        repeated = ops.repeat(ops.cast(inputs, "float32"), self.terms, axis=-1)
        return ops.cast(gaussian_membership(repeated, self.center, _positive(self.rho)), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {**super().get_config(), "terms": self.terms, "low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="dermaseg")
class FuzzySkipGate(JointSkipGate):
    """Weigh a skip's channels by fuzzy rules over skip and decoder features.

    A rule says "where the features look like this, let these channels pass". With R = `channels` and J = `rules`:

    1. q = norm(W_e e + W_d d), R channels, clipped to +-8.
    2. Rule j has a Gaussian set in each channel, centre c_jr and inverse width s_jr = softplus(rho_jr) + 1e-3.
    3. The product t-norm over the channels, in log space: l_j = t / sqrt(R) sum_r -1/2 (s_jr (q_r - c_jr))^2. The temperature
       t is learned from 1; the plain product underflows in float16, and a mean over R leaves all rules alike. Multiplied out,
       l = q^2 W2 + q W1 + b: two 1x1 convolutions and no (height, width, rules, channels) tensor. float32 under any policy.
    4. Firing strengths w = softmax_j(l).
    5. Defuzzified, g_c = 2 sigmoid(gain sum_j w_j theta_jc), the output is e g. theta starts at 0, where g = 1 exactly: a
       network with this gate starts as the same network without.

    w is the responsibility of a diagonal Gaussian mixture whose components have equal peaks and precisions t s^2 / sqrt(R):
    the rules are soft clusters of (skip, decoder) features, which is what makes a map of w readable.

    Args:
        rules: J, at least 2.
        channels: R; None takes a quarter of the skip's channels, at least 8.
        stride: The rules look at averages over stride x stride pixels of the skip, and decide for as many. 2 is the grid that a
            decoder map has before it is upsampled to its skip, and costs a quarter.
        quadratic: False leaves out the quadratic term of the rules: a linear softmax gate, the control for the Gaussian sets.
        return_firing_strengths: Also return w.
        decoder_stride: The decoder map's own grid, in pixels of the skip. 2 takes it before it is upsampled: with a stride of 2
            the same figures as after nearest-neighbour upsampling, for less.
        gain: How fast the gate leaves the identity. Adam and its kin move every weight about as far in each step, whatever its
            gradient, and theta begins at 0. Weights handed to a gate of another gain open it otherwise.

    Input: `gate(encoder, decoder)`, `(batch, height, width, channels)` each, the encoder's height and width `decoder_stride`
    times the decoder's, and multiples of `stride`.
    Output shape: that of `encoder`; with `return_firing_strengths` also `(batch, height / stride, width / stride, rules)`,
    float32.

    Raises:
        ValueError: If an argument is outside its range, or the inputs' heights and widths do not fit.

    Examples:
        >>> skip = keras.random.normal((1, 8, 8, 16))
        >>> gated = FuzzySkipGate()(skip, keras.random.normal((1, 8, 8, 16)))
        >>> bool(ops.all(gated == skip))
        True

    References:
        Takagi and Sugeno, 1985, zero-order rules. Cui, Wu and Huang, 2021, "Curse of dimensionality for TSK fuzzy neural
        networks", for softmax firing strengths and their scale: 1 / sqrt(R) stands between their product and mean.
        Oktay et al., 2018, "Attention U-Net", for the gate's place.
    """

    def __init__(
        self,
        rules: int = 8,
        channels: int | None = None,
        stride: int = 1,
        quadratic: bool = True,
        return_firing_strengths: bool = False,
        decoder_stride: int = 1,
        gain: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(channels=channels, stride=stride, decoder_stride=decoder_stride, gain=gain, **kwargs)
        self.rules = check_integer("rules", rules, minimum=2)
        self.quadratic = quadratic
        self.return_firing_strengths = return_firing_strengths

    def build(self, encoder_shape: tuple[Any, ...], decoder_shape: tuple[Any, ...]) -> None:
        """Create the projections, the rules' sets and their consequents."""
        super().build(encoder_shape, decoder_shape)
        shape = (self.width, self.rules)
        # autocast=False: bfloat16 has three digits, too few for the difference that the expanded square is.
        self.center = self.add_weight(
            shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0), autocast=False, name="center"
        )
        self.rho = self.add_weight(
            shape=shape, initializer=keras.initializers.Constant(_inverse_positive(1.0)), autocast=False, name="rho"
        )
        self.log_t = self.add_weight(shape=(), initializer="zeros", autocast=False, name="log_t")
        self.theta = self.add_weight(shape=(self.rules, encoder_shape[-1]), initializer="zeros", name="theta")

    def firing_strengths(self, encoder: Any, decoder: Any, *, training: bool | None = False) -> Any:
        """Return w, `(batch, height / stride, width / stride, rules)`, float32, non-negative, sum 1 over the rules."""
        q = ops.clip(self._joint(encoder, decoder, training), -8.0, 8.0)
        scale = ops.exp(self.log_t) / math.sqrt(self.width)
        precision = scale * ops.square(_positive(self.rho))
        bias = -0.5 * ops.sum(precision * ops.square(self.center), axis=0)
        log_strength = ops.matmul(q, precision * self.center) + bias
        if self.quadratic:
            log_strength = log_strength + ops.matmul(ops.square(q), -0.5 * precision)
        return ops.softmax(log_strength)

    def call(self, encoder: Any, decoder: Any, training: bool | None = None) -> Any:
        """Return the gated skip, and the firing strengths where asked for."""
        strengths = self.firing_strengths(encoder, decoder, training=training)
        logits = ops.matmul(ops.cast(strengths, self.compute_dtype), self.gain * self.theta)
        gated = self._apply_gate(encoder, logits)
        return (gated, strengths) if self.return_firing_strengths else gated

    def compute_output_spec(self, encoder: Any, decoder: Any, training: bool | None = None) -> Any:
        """Return shapes and types without computing."""
        gated = super().compute_output_spec(encoder, decoder)
        if not self.return_firing_strengths:
            return gated
        batch, *sizes, _ = encoder.shape
        coarse = [size and size // self.stride for size in sizes]
        return gated, keras.KerasTensor((batch, *coarse, self.rules), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        return {
            **super().get_config(),
            "rules": self.rules,
            "quadratic": self.quadratic,
            "return_firing_strengths": self.return_firing_strengths,
        }
