"""Fuzzy U-Net: a U-Net whose skips pass through trainable fuzzy rules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from dermaseg.layers.fuzzy import FuzzySkipGate
from dermaseg.layers.gates import AttentionSkipGate
from dermaseg.models.blocks import decode, to_pixels
from dermaseg.models.unet import build_masks, build_pyramid
from dermaseg.pretrained import with_weights

__all__ = ["build_fuzzy_unet"]

_GATES = ("fuzzy", "linear", "attention")


def build_fuzzy_unet(
    *,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    num_classes: int = 1,
    filters: Sequence[int] | None = None,
    rules: int = 8,
    gate_channels: int | None = None,
    gate: str = "fuzzy",
    gate_stride: int = 2,
    gate_gain: float = 1.0,
    bottleneck_gate: bool = False,
    uncertainty: bool = False,
    stem_stride: int = 2,
    encoder: str | None = None,
    encoder_weights: str | None = None,
    deep_supervision: bool = False,
    dropout: float = 0.0,
    classifier_activation: str | None = "auto",
    weights: str | None = None,
    name: str | None = None,
) -> keras.Model:
    """Build a U-Net with a `FuzzySkipGate` on each skip.

    Everything but the gates is `build_unet`, layer names too; and each gate starts as the identity. So the two networks,
    given the same weights by name, start as the same function, and a difference after training is the gates' doing.

    Args:
        input_shape: As for `build_unet`.
        num_classes: As for `build_unet`.
        filters: As for `build_unet`.
        rules: Fuzzy rules a gate.
        gate_channels: Channels in which a rule looks at a place; None takes a quarter of the skip's, at least 8.
        gate: `"fuzzy"`; or a control of the same place and width: `"linear"` (the rules without their quadratic terms) or
            `"attention"` (`AttentionSkipGate`, which has no rules).
        gate_stride: The gates' grid, in pixels of their skip. 2 is the decoder's own grid before it is upsampled, as in
            attention U-Net, and costs a training step about a tenth more; 1 decides for each pixel.
        gate_gain: How fast gates leave the identity, `gain` of `FuzzySkipGate`.
        bottleneck_gate: Also gate the coarsest map, by itself, pixel by pixel.
        uncertainty: Also return two maps of where not to trust the mask. They add no weights: build with False to train,
            with True and the same weights to predict.
        stem_stride: As for `build_unet`.
        encoder: As for `build_unet`.
        encoder_weights: As for `build_unet`.
        deep_supervision: As for `build_unet`.
        dropout: As for `build_unet`.
        classifier_activation: As for `build_unet`.
        weights: None, or the name of a preset, `dermaseg.list_presets()`, whose weights to start from; a head with
            another number of classes keeps its random weights; one with the same number takes the preset's, even if the classes
            differ.
        name: Name of the model.

    Returns:
        An uncompiled model with the output of `build_unet`; with `uncertainty` a dict of `mask` and, each
        `(batch, height, width, 1)`, float32, 0 to 1, `uncertainty` (how near the membership is to undecided: 1 - |2 p - 1|,
        for several classes C (1 - max p) / (C - 1)) and `rule_entropy` (how undecided the finest gate's rules are,
        -sum_j w_j ln w_j / ln J).

    Raises:
        ValueError: If an argument is outside its range, or `uncertainty` is asked of logits or of a gate without rules.

    Examples:
        >>> model = build_fuzzy_unet(filters=(8, 16), uncertainty=True)
        >>> sorted(model(ops.zeros((1, 45, 60, 3))))
        ['mask', 'rule_entropy', 'uncertainty']

    References:
        As `FuzzySkipGate` and `build_unet`.
    """
    if gate not in _GATES:
        raise ValueError(f"gate must be one of {', '.join(_GATES)}, got {gate!r}.")
    if gate_stride not in (1, 2):
        raise ValueError(f"gate_stride must be 1 or 2, got {gate_stride!r}.")
    if uncertainty and (gate == "attention" or classifier_activation is None):
        raise ValueError(
            f"uncertainty needs probabilities and rules, got classifier_activation={classifier_activation!r}, gate={gate!r}."
        )
    strengths: dict[str, Any] = {}

    def skip_gate(skip: Any, decoded: Any, name: str, stride: int = gate_stride, decoder_stride: int = 2) -> Any:
        common: dict[str, Any] = {
            "channels": gate_channels,
            "stride": stride,
            "decoder_stride": decoder_stride,
            "gain": gate_gain,
            "name": name,
        }
        if gate == "attention":
            return AttentionSkipGate(**common)(skip, decoded)
        layer = FuzzySkipGate(rules, quadratic=gate == "fuzzy", return_firing_strengths=True, **common)
        gated, strengths[name] = layer(skip, decoded)
        return gated

    inputs = keras.Input(input_shape, name="images")
    pyramid = build_pyramid(
        inputs, filters=filters, stem_stride=stem_stride, encoder=encoder, encoder_weights=encoder_weights, dropout=dropout
    )
    if bottleneck_gate:
        coarsest = pyramid.features[-1]
        # The coarsest map may be a single pixel.
        pyramid.features[-1] = skip_gate(coarsest, coarsest, "gate_bottleneck", stride=1, decoder_stride=1)
    outputs = build_masks(
        decode(pyramid.features, pyramid.decoder_filters, skip_gate=skip_gate),
        inputs,
        stride=pyramid.stride,
        num_classes=num_classes,
        deep_supervision=deep_supervision,
        classifier_activation=classifier_activation,
    )
    if uncertainty:
        masks = outputs if deep_supervision else {"mask": outputs}
        rule_entropy = _rule_entropy(strengths["gate_0"], inputs, stride=pyramid.stride * gate_stride)
        outputs = {**masks, "uncertainty": _undecided(masks["mask"]), "rule_entropy": rule_entropy}
    return with_weights(keras.Model(inputs, outputs, name=name or "fuzzy_unet"), weights)


def _undecided(mask: Any) -> Any:
    classes = mask.shape[-1]
    if classes == 1:
        return 1.0 - ops.absolute(2.0 * mask - 1.0)
    return (1.0 - ops.max(mask, axis=-1, keepdims=True)) * (classes / (classes - 1))


def _rule_entropy(strengths: Any, like: Any, *, stride: int) -> Any:
    nats = -ops.sum(strengths * ops.log(ops.maximum(strengths, 1e-7)), axis=-1, keepdims=True)
    entropy = nats / math.log(strengths.shape[-1])
    return to_pixels(entropy, like, stride=stride, name="rule_entropy")
