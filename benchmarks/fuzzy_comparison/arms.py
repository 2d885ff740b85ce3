"""The arms of the comparison: each a network and a loss, all of one seed from the same first weights.

A Fuzzy U-Net that beats a U-Net may do so because it is larger, because any gate helps, or because any cut through the
features helps; a fuzzy loss, because its target is soft or because it has no overlap term. There is a control for each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import keras
import numpy as np

from dermaseg.fuzzy import soften_mask
from dermaseg.losses import Dice, FuzzySegmentation, OverlapCrossentropy, fuzzy_crossentropy_loss
from dermaseg.models import build_fuzzy_unet, build_unet

__all__ = [
    "ARMS",
    "LOSSES",
    "NETWORKS",
    "WITH_RULES",
    "Arm",
    "build_loss",
    "build_network",
    "initial_network",
    "matched_filters",
]

NETWORKS: Mapping[str, str] = {
    "unet": "U-Net",
    "fuzzy": "Fuzzy U-Net",
    "wide": "U-Net, widened to the Fuzzy U-Net's parameters",
    "attention": "U-Net with additive attention gates (Oktay et al., 2018) in the fuzzy gates' places, as wide inside",
    "linear": "Fuzzy U-Net whose rules have no quadratic terms: hyperplanes in the Gaussian sets' place",
    "eager": "Fuzzy U-Net whose gates leave the identity ten times as fast (gate_gain 10)",
    "pixel": "Fuzzy U-Net whose gates decide for each pixel of their skip, where the default has one decision for four",
    "bottleneck": "Fuzzy U-Net with a gate on the coarsest map as well",
    "rules": "Fuzzy U-Net with 24 rules a gate, where the default has 8",
}
LOSSES: Mapping[str, str] = {
    "overlap": "half cross-entropy, half soft Jaccard, crisp target",
    "fuzzy": "half fuzzy cross-entropy, half Gödel Jaccard, fuzzified target",
    "soft": "cross-entropy alone, fuzzified target",
    "crossentropy": "cross-entropy alone, crisp target",
    "dice": "soft Dice alone, crisp target",
}
_GATED: Mapping[str, Mapping[str, Any]] = {
    "fuzzy": {},
    "attention": {"gate": "attention"},
    "linear": {"gate": "linear"},
    "eager": {"gate_gain": 10.0},
    "pixel": {"gate_stride": 1},
    "bottleneck": {"bottleneck_gate": True},
    "rules": {"rules": 24},
}
WITH_RULES = tuple(name for name in _GATED if name != "attention")


@dataclass(frozen=True, slots=True)
class Arm:
    """One network trained by one loss.

    Args:
        network: A key of `NETWORKS`.
        loss: A key of `LOSSES`.

    Raises:
        ValueError: If one of them is unknown.
    """

    network: str
    loss: str

    def __post_init__(self) -> None:
        if self.network not in NETWORKS or self.loss not in LOSSES:
            raise ValueError(
                f"there is no arm {self}: give <network>-<loss>, a network of {', '.join(NETWORKS)} "
                f"and a loss of {', '.join(LOSSES)}."
            )

    def __str__(self) -> str:
        return f"{self.network}-{self.loss}"

    @classmethod
    def parse(cls, name: str) -> Arm:
        """Read `"<network>-<loss>"`."""
        network, _, loss = name.partition("-")
        return cls(network, loss)


# In the order of what they tell: a comparison that is cut short still has its centre.
ARMS = tuple(
    Arm.parse(name)
    for name in (
        "unet-overlap",
        "unet-fuzzy",
        "fuzzy-overlap",
        "fuzzy-fuzzy",
        "unet-dice",
        "wide-overlap",
        "attention-overlap",
        "linear-overlap",
        "unet-soft",
        "unet-crossentropy",
    )
)


class _Crossentropy(keras.losses.Loss):
    """Cross-entropy towards a mask softened by `tau_px`, less the target's own entropy, which has no gradient."""

    def __init__(self, tau_px: float) -> None:
        super().__init__(name="crossentropy")
        self.tau_px = tau_px

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return fuzzy_crossentropy_loss(soften_mask(y_true, self.tau_px), y_pred)


def build_loss(name: str, *, tau_px: float) -> keras.losses.Loss:
    """Return the loss of that name; `tau_px` is the softness of the fuzzified targets, in pixels of the training size."""
    if name == "overlap":
        return OverlapCrossentropy(overlap="jaccard")
    if name == "fuzzy":
        return FuzzySegmentation(tau_px=tau_px)
    if name == "dice":
        return Dice()
    return _Crossentropy(tau_px if name == "soft" else 0.0)


def build_network(name: str, *, filters: Sequence[int], **options: Any) -> keras.Model:
    """Return the network of that name with new weights.

    Args:
        name: A key of `NETWORKS`.
        filters: Channels a stage of the plain U-Net, from which `"wide"` takes its own.
        **options: Of `build_fuzzy_unet`, for the networks with gates.
    """
    if name in _GATED:
        return build_fuzzy_unet(filters=filters, **_GATED[name], **options)
    return build_unet(filters=matched_filters(tuple(filters)) if name == "wide" else filters, **options)


def initial_network(name: str, *, filters: Sequence[int], seed: int) -> tuple[keras.Model, list[str]]:
    """Return a network that starts where the plain U-Net of this seed starts, and the layers that could not.

    Layers that bear a name and have the shapes of the plain U-Net get its weights. Gates have none to get, but start as the
    identity: a gated network starts as the same function. In the widened network, layers of another width draw their own.
    """
    if name == "wide":
        matched_filters(tuple(filters))  # it builds networks: before the seed, not after
    keras.utils.set_random_seed(seed)
    shared = {layer.name: layer.get_weights() for layer in build_unet(filters=filters).layers}
    keras.utils.set_random_seed(seed)
    model = build_network(name, filters=filters)
    own = []
    for layer in model.layers:
        weights = shared.get(layer.name)
        if weights is not None and [weight.shape for weight in layer.get_weights()] == [weight.shape for weight in weights]:
            layer.set_weights(weights)
        elif layer.weights:
            own.append(layer.name)
    keras.utils.set_random_seed(seed)
    return model, own


@lru_cache
def matched_filters(filters: tuple[int, ...]) -> tuple[int, ...]:
    """Widen all stages alike until a plain U-Net has as nearly the Fuzzy U-Net's parameters as whole channels allow."""
    target = build_fuzzy_unet(filters=filters).count_params()

    def parameters(widths: tuple[int, ...]) -> int:
        return build_unet(filters=widths).count_params()

    scales = np.linspace(1.0, 1.5, 501)
    candidates = list(dict.fromkeys(tuple(round(width * scale) for width in filters) for scale in scales))
    above = min(bisect_left(candidates, target, key=parameters), len(candidates) - 1)
    return min(candidates[max(0, above - 1) : above + 1], key=lambda widths: abs(parameters(widths) - target))
