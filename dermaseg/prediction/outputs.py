"""Which output is the mask and which the label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["class_probabilities", "named_outputs", "output_name"]

_SHAPES = {"mask": ("batch", "height", "width", "channels"), "label": ("batch", "classes")}
_ROUNDING = 0.01  # how far half precision may take a probability beyond 0 or 1


def named_outputs(outputs: Any) -> dict[str, np.ndarray]:
    """Return the mask and the label of what a model returned.

    Args:
        outputs: A dict with `mask`, `(batch, height, width, channels)`, or `label`, `(batch, classes)`, or both; or a list of
            these, or one alone, which are told apart by their axes.

    Returns:
        Probabilities, 0 to 1, float32, by `mask` and `label`. What else a dict holds is left out.

    Raises:
        ValueError: If there is neither of them, two of a kind in a list, another shape, or a value that is no probability.
    """
    if not isinstance(outputs, Mapping):
        outputs = _by_axes(outputs if isinstance(outputs, (list, tuple)) else [outputs])
    found = {name: _probabilities(name, outputs[name]) for name in _SHAPES if name in outputs}
    if not found:
        raise ValueError(
            f"the model's outputs are named {', '.join(map(str, outputs))}; predicting needs `mask` or `label`. Build the "
            "model with a dict of outputs under these names."
        )
    return found


def output_name(output: Any) -> str:
    """Name an output by its axes: four are a `mask`, two a `label`.

    Raises:
        ValueError: If it has another number of axes.
    """
    for name, axes in _SHAPES.items():
        if np.ndim(output) == len(axes):
            return name
    raise ValueError(
        f"the model has an output of shape {np.shape(output)}. A mask is {_shape('mask')}, a label {_shape('label')}: build "
        "it with one or both of them."
    )


def class_probabilities(label: np.ndarray) -> np.ndarray:
    """Return one probability a class: of a single sigmoid, `(batch, 1)`, the chance of the second of two classes."""
    return np.concatenate([1 - label, label], axis=1) if label.shape[1] == 1 else label


def _by_axes(outputs: Sequence[Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for output in outputs:
        name = output_name(output)
        if name in named:
            raise ValueError(
                f"the model returns a list with two outputs of the axes of a {name}, {_shape(name)}. Build it with a dict of "
                "outputs that names one of them so."
            )
        named[name] = output
    return named


def _probabilities(name: str, output: Any) -> np.ndarray:
    values = np.asarray(output, np.float32)
    if values.ndim != len(_SHAPES[name]):
        raise ValueError(f"the model's {name} has the shape {values.shape}, not {_shape(name)}.")
    low, high = values.min(), values.max()
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # a NaN fails both comparisons
        raise ValueError(
            f"the model's {name} holds values from {low:g} to {high:g}, which are no probabilities. End it in a sigmoid or a "
            "softmax, as classifier_activation='auto' does."
        )
    return np.clip(values, 0, 1)


def _shape(name: str) -> str:
    return f"({', '.join(_SHAPES[name])})"
