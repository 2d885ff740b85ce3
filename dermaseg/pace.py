"""How fast a network trains on this machine, and how much of a training fits into the time that there is."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

__all__ = ["LOOKS", "SAVE_EVERY_S", "Pace", "measure_pace"]

LOOKS = 20
"""About so many times a training looks at the validation part, each a pass over it."""
SAVE_EVERY_S = 20.0
"""Seconds after which an epoch writes its state though it was not validated."""

_WARM_UP, _TIMED = 16, 24  # batches; the first compile, and others come from a queue that was filled meanwhile
_FEWEST = 8  # batches, half of them timed, where more would take too much of the time that there is


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What the parts of a training take, in seconds.

    Args:
        step_s: A training step, with the waiting for its batch.
        look_s: A pass over the validation part.
        save_s: Writing a checkpoint.
        first_s: What the first epoch takes longer than later ones.
    """

    step_s: float
    look_s: float
    save_s: float
    first_s: float = 0.0

    def seconds(self, epochs: int, *, steps_per_epoch: int) -> float:
        """Return how long so many epochs take."""
        training = epochs * steps_per_epoch * self.step_s
        looks = min(epochs, LOOKS)
        saves = min(epochs, looks + training / SAVE_EVERY_S)
        return self.first_s + training + looks * self.look_s + saves * self.save_s

    def epochs_within(self, seconds: float, *, steps_per_epoch: int, most: int) -> int:
        """Return the most epochs, up to `most`, that take no longer than `seconds`; 0 where not even one does."""
        epochs = most
        while epochs and self.seconds(epochs, steps_per_epoch=steps_per_epoch) > seconds:
            epochs -= 1
        return epochs


class _Clock(keras.callbacks.Callback):
    """Note when batches end.

    Args:
        most_s: Stop after so many seconds beyond the first batch, though not before a few more.
    """

    def __init__(self, most_s: float) -> None:
        super().__init__()
        self.most_s = most_s
        self.ends: list[float] = []  # the start before them

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Wait for the step, for an accelerator may be behind, and note its end."""
        float((logs or {}).get("loss", 0.0))
        self.ends.append(time.perf_counter())
        if len(self.ends) > _FEWEST and self.ends[-1] - self.ends[1] > self.most_s:
            self.model.stop_training = self.model.stop_evaluating = True

    on_test_batch_end = on_train_batch_end

    @property
    def batch_s(self) -> float:
        """The mean of the batches after the warm-up; of fewer, of the last half. The first, which compiles, never counts."""
        first = min(_WARM_UP, (len(self.ends) - 1) // 2)
        return (self.ends[-1] - self.ends[first]) / (len(self.ends) - 1 - first)

    @property
    def first_s(self) -> float:
        """What the first batch took longer than the others."""
        return max(0.0, self.ends[1] - self.ends[0] - self.batch_s)


def measure_pace(
    model: keras.Model, training: Any, validation: Any, *, validation_batches: int, most_s: float = math.inf
) -> Pace:
    """Rehearse a few steps and a few batches of a validation with a compiled model, which is spoiled by it.

    Args:
        model: A model like the one to train, compiled like it.
        training: What `fit` takes.
        validation: What `evaluate` takes.
        validation_batches: How many batches it has.
        most_s: Seconds after which each of the two rehearsals may end, beside compiling.

    Returns:
        The pace; `first_s` is what compiling takes.
    """
    steps = _rehearse(lambda clock: model.fit(_some(training), shuffle=False, callbacks=[clock], verbose=0), most_s)
    # Saved before it is evaluated: at the end of `fit` Keras gives averaged weights to the model without copying them, and on
    # JAX an evaluation deletes what it is given.
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        model.save(Path(folder) / "state.keras")
        save_s = time.perf_counter() - began
    looks = _rehearse(lambda clock: model.evaluate(_some(validation), callbacks=[clock], verbose=0), most_s)
    return Pace(
        step_s=steps.batch_s,
        look_s=validation_batches * looks.batch_s,
        save_s=save_s,
        first_s=steps.first_s + looks.first_s,
    )


def _some(batches: Any) -> Any:
    """Return the first few batches of a data set, again and again where it has fewer: the first alone tells no pace."""
    if not isinstance(batches, keras.utils.PyDataset):
        return batches.repeat().take(_WARM_UP + _TIMED)

    class Some(keras.utils.PyDataset):
        num_batches = _WARM_UP + _TIMED

        def __getitem__(self, index: int) -> Any:
            return batches[index % batches.num_batches]

    return Some()


def _rehearse(act: Callable[[_Clock], Any], most_s: float) -> _Clock:
    clock = _Clock(most_s)
    clock.ends.append(time.perf_counter())
    act(clock)
    return clock
