"""Which output is the mask and which the label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["by_name", "class_probabilities", "named_outputs"]


def named_outputs(outputs: Any) -> dict[str, np.ndarray]:
    """Name what a model returned: a dict stays, four axes are a `mask`, two a `label`; float32."""
    if not isinstance(outputs, Mapping):
        outputs = by_name(outputs, outputs)
    return {name: np.asarray(values, np.float32) for name, values in outputs.items()}


def by_name(output: Any, probabilities: np.ndarray) -> dict[str, Any]:
    """Name the only output of a model by the axes of its probabilities."""
    return {"mask" if np.ndim(probabilities) == 4 else "label": output}


def class_probabilities(label: np.ndarray) -> np.ndarray:
    """Return one probability a class: of a single sigmoid, `(batch, 1)`, the chance of the second of two classes."""
    return np.concatenate([1 - label, label], axis=1) if label.shape[1] == 1 else label
