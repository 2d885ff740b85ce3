"""What gates on a U-Net's skips have in common, and the one without rules."""

from __future__ import annotations

import operator
from typing import Any

import keras
from keras import ops

from dermaseg.layers.normalization import BatchNormalization

__all__ = ["AttentionSkipGate", "JointSkipGate", "check_integer"]


class JointSkipGate(keras.layers.Layer):
    """What gates have in common: one normalised map of what skip and decoder say about a place.

    Its arguments are those of `FuzzySkipGate`.
    """

    def __init__(
        self, channels: int | None = None, stride: int = 1, decoder_stride: int = 1, gain: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        channels = None if channels is None else check_integer("channels", channels, minimum=1)
        stride = check_integer("stride", stride, minimum=1)
        decoder_stride = check_integer("decoder_stride", decoder_stride, minimum=1)
        if stride % decoder_stride and decoder_stride % stride:
            raise ValueError(f"one of stride and decoder_stride must divide the other, got {stride} and {decoder_stride}.")
        if not 0 < gain < float("inf"):
            raise ValueError(f"gain must be a positive number, got {gain!r}.")
        self.channels = channels
        self.stride = stride
        self.decoder_stride = decoder_stride
        self.gain = float(gain)

    def build(self, encoder_shape: tuple[Any, ...], decoder_shape: tuple[Any, ...]) -> None:
        """Create the projections into R channels."""
        for skip, decoder in zip(encoder_shape[1:3], decoder_shape[1:3], strict=True):
            if None not in (skip, decoder) and (skip != self.decoder_stride * decoder or skip % self.stride):
                raise ValueError(
                    f"Skip and decoder must show one area: the skip's height and width must be {self.decoder_stride} times the "
                    f"decoder's (decoder_stride) and multiples of the stride {self.stride}, got {encoder_shape} and "
                    f"{decoder_shape}."
                )
        self.width = self.channels or max(8, encoder_shape[-1] // 4)
        self.pool = keras.layers.AveragePooling2D(self.stride, dtype=self.dtype_policy, name="pool")
        self.upsample = keras.layers.UpSampling2D(self.stride, dtype=self.dtype_policy, name="upsample")
        finer, coarser = max(1, self.stride // self.decoder_stride), max(1, self.decoder_stride // self.stride)
        self.decoder_pool = keras.layers.AveragePooling2D(finer, dtype=self.dtype_policy, name="decoder_pool")
        self.decoder_upsample = keras.layers.UpSampling2D(coarser, dtype=self.dtype_policy, name="decoder_upsample")
        self.encoder_projection = keras.layers.Conv2D(
            self.width, 1, use_bias=False, dtype=self.dtype_policy, name="encoder_projection"
        )
        self.decoder_projection = keras.layers.Conv2D(
            self.width, 1, use_bias=False, dtype=self.dtype_policy, name="decoder_projection"
        )
        self.norm = BatchNormalization(momentum=0.9, dtype="float32", name="norm")
        self.encoder_projection.build(encoder_shape)
        self.decoder_projection.build(decoder_shape)
        self.norm.build((*encoder_shape[:-1], self.width))

    def _joint(self, encoder: Any, decoder: Any, training: bool | None) -> Any:
        """Return q = norm(W_e e + W_d d), `(batch, height / stride, width / stride, R)`, float32."""
        if self.stride > 1:
            encoder = self.pool(encoder)
        if self.stride > self.decoder_stride:
            decoder = self.decoder_pool(decoder)
        projected = self.decoder_projection(decoder)
        if self.decoder_stride > self.stride:
            projected = self.decoder_upsample(projected)
        return self.norm(self.encoder_projection(encoder) + projected, training=training)

    def _apply_gate(self, encoder: Any, logits: Any) -> Any:
        """Return e 2 sigmoid(logits): exactly e where the logits are 0."""
        gate = ops.cast(2.0 * ops.sigmoid(logits), self.compute_dtype)
        return encoder * (self.upsample(gate) if self.stride > 1 else gate)

    def compute_output_spec(self, encoder: Any, decoder: Any, training: bool | None = None) -> Any:
        """Return shape and type without computing: tracing a dynamic size would not see that pooling is undone."""
        return keras.KerasTensor(encoder.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return what rebuilds the layer."""
        own = {"channels": self.channels, "stride": self.stride, "decoder_stride": self.decoder_stride, "gain": self.gain}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable(package="dermaseg")
class AttentionSkipGate(JointSkipGate):
    """Weigh a skip's places by additive attention: the control for `FuzzySkipGate`.

    q = norm(W_e e + W_d d), g = 2 sigmoid(gain psi . relu(q)), one value per place; the output is e g. psi starts at 0, so that
    this gate too starts as the identity.

    Args:
        channels: R; None takes a quarter of the skip's channels, at least 8, as `FuzzySkipGate` does.
        stride: As for `FuzzySkipGate`.
        decoder_stride: As for `FuzzySkipGate`.
        gain: As for `FuzzySkipGate`.

    Input: `gate(encoder, decoder)`, `(batch, height, width, channels)` each, the encoder's height and width `decoder_stride`
    times the decoder's, and multiples of `stride`.
    Output shape: that of `encoder`.

    Raises:
        ValueError: If an argument is outside its range, or the inputs' heights and widths do not fit.

    Examples:
        >>> skip = keras.random.normal((1, 8, 8, 16))
        >>> bool(ops.all(AttentionSkipGate()(skip, skip) == skip))
        True

    References:
        Oktay et al., 2018, "Attention U-Net", equations 1 and 2. Deviations: batch normalisation before the rectifier, as in
        the authors' later code; 2 sigmoid for sigmoid, and psi from 0; the decoder's features on a grid of their own.
    """

    def build(self, encoder_shape: tuple[Any, ...], decoder_shape: tuple[Any, ...]) -> None:
        """Create the projections and psi."""
        super().build(encoder_shape, decoder_shape)
        self.psi = self.add_weight(shape=(self.width, 1), initializer="zeros", autocast=False, name="psi")
        self.psi_bias = self.add_weight(shape=(1,), initializer="zeros", autocast=False, name="psi_bias")

    def call(self, encoder: Any, decoder: Any, training: bool | None = None) -> Any:
        """Return the gated skip."""
        q = ops.relu(self._joint(encoder, decoder, training))
        return self._apply_gate(encoder, ops.matmul(q, self.gain * self.psi) + self.gain * self.psi_bias)


def check_integer(name: str, value: Any, *, minimum: int) -> int:
    """Return an integer, NumPy's as Python's; raise ValueError, by the argument's name, unless it is at least `minimum`."""
    try:
        number = operator.index(value)
    except TypeError:
        number = minimum - 1
    if isinstance(value, bool) or number < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}, got {value!r}.")
    return number
