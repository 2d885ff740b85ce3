"""One way to drive every framework: uint8 pictures in, one training step, or masks out.

The timed call begins and ends with NumPy arrays, as a user's does: scaling, padding and the way to a tensor and back count.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.machine import Device

__all__ = ["CLIP_NORM", "Learner", "build_learner", "labels_of"]

CLIP_NORM = 1.0
"""Of all gradients together, for everyone, as `dermaseg.train` has it."""


def labels_of(masks: np.ndarray) -> np.ndarray:
    """Return a class for each picture, int64, for networks that name the lesion: the first pixel of its random mask."""
    return masks[:, 0, 0, 0].astype(np.int64)


class Learner(Protocol):
    """A network with its optimizer: AdamW, half cross-entropy and half soft Jaccard, gradients clipped to `CLIP_NORM`.

    A diagnosis is learned by cross-entropy, from `labels_of` the masks.
    """

    parameters: int
    forward_flops: float | None
    """Floating-point operations of one picture's way through the convolutions, a multiplication and an addition being two."""
    versions: dict[str, str]

    def train(self, images: np.ndarray, masks: np.ndarray) -> float:
        """Make one step on `(batch, height, width, 3)` and `(batch, height, width, 1)`, uint8; return the loss."""

    def train_steps(self, images: np.ndarray, masks: np.ndarray, steps: int) -> None:
        """Make several steps on the same pictures, as the framework's users make many."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return probabilities, `(batch, height, width, 1)`, float32."""

    def set_learning_rate(self, rate: float) -> None:
        """Set the rate of the steps to come."""

    def multiply(self, size: int) -> Any:
        """Return a function that multiplies two `size` by `size` matrices in the contestant's number format, and waits."""

    def card_memory_mb(self) -> float | None:
        """Return the most memory of an accelerator that was in use so far, None on a processor."""


def build_learner(
    contestant: Contestant,
    size: tuple[int, int],
    *,
    seed: int = 0,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-3,
    device: Device = "cpu",
) -> Learner:
    """Load the contestant's framework and build its network with new weights.

    Args:
        contestant: Whom to build.
        size: Height and width of the pictures to come.
        seed: Of the first weights.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        device: Where PyTorch computes; Keras's backends take what the process's environment shows them.

    Raises:
        ImportError: If a library is missing.
    """
    settings: dict[str, Any] = {"seed": seed, "learning_rate": learning_rate, "weight_decay": weight_decay}
    if contestant.framework == "torch":
        from benchmarks.peers.torch_learner import TorchLearner

        return TorchLearner(contestant, size, device=device, **settings)
    if contestant.framework == "onnxruntime":
        from benchmarks.peers.onnx_learner import OnnxLearner

        return OnnxLearner(contestant, size, seed=seed)
    os.environ["KERAS_BACKEND"] = contestant.framework
    from benchmarks.peers.keras_learner import KerasLearner

    return KerasLearner(contestant, size, **settings)
