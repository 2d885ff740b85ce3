"""What training does besides stepping: keep its state safe, and stop when it has gone wrong."""

from __future__ import annotations

import csv
import gc
import math
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

import keras
import numpy as np

from dermaseg.errors import DataError, DermasegError
from dermaseg.pace import SAVE_EVERY_S
from dermaseg.runs import RunFolder, write_atomically, write_csv
from dermaseg.saving import load_model

__all__ = ["Checkpoint", "SeedEpochs", "StopOnInterrupt", "StopOnNaN", "TrainingError"]


class TrainingError(DermasegError):
    """A training that cannot go on: the message says why and what to change."""


class StopOnNaN(keras.callbacks.Callback):
    """Stop at the first batch after which the loss is not finite, and say what usually helps.

    Args:
        best: Where the model of the best epoch is kept, if there is one.
    """

    def __init__(self, best: Path | None = None) -> None:
        super().__init__()
        self.best = best
        self.epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note which it is."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Look at the running loss.

        Raises:
            TrainingError: If it is not finite.
        """
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(float(loss)):
            return
        kept = self.best is not None and self.best.is_file()
        start = f", and start={str(self.best)!r} to begin with what the best epoch knew" if kept else ""
        raise TrainingError(
            f"the loss became {float(loss)} at step {batch + 1} of epoch {self.epoch + 1}. Train anew in another folder, with "
            f"a smaller learning_rate or precision='float32'{start}."
        )


class StopOnInterrupt(keras.callbacks.Callback):
    """Let no Ctrl-C be lost: while the context lasts, one that has been swallowed is raised again after the batch.

    Python raises `KeyboardInterrupt` wherever the main thread is. Where that is a function that a library's own code calls, the
    exception is reported and forgotten, and the training would go on. One that comes while garbage is collected, where JAX has
    such a function, waits for the end of the batch from the start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.asked = False

    def __enter__(self) -> Self:
        self.before = signal.getsignal(signal.SIGINT)
        # Only Python's own handler raises; another one, or none, has reasons of its own. Other threads may set none.
        self.listens = self.before is signal.default_int_handler and threading.current_thread() is threading.main_thread()
        if self.listens:
            signal.signal(signal.SIGINT, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        if self.listens:
            signal.signal(signal.SIGINT, self.before)

    def _remember(self, number: int, frame: Any) -> None:
        self.asked = True
        if not _collects_garbage(frame):
            signal.default_int_handler(number, frame)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Stop where an interrupt was asked for."""
        if self.asked:
            raise KeyboardInterrupt


def _collects_garbage(frame: FrameType | None) -> bool:
    codes = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in codes:
            return True
        frame = frame.f_back
    return False


class SeedEpochs(keras.callbacks.Callback):
    """Let what a network draws by chance, as dropout does, follow from the seed and the number of the epoch.

    Keras saves no state of its random generators with a model: without this, a resumed training would draw its first epoch's
    numbers again.

    Args:
        seed: Of the training.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Give each generator a state of its own; the second number counts its draws."""
        states = [variable for variable in self.model.variables if variable.name == "seed_generator_state"]
        for number, state in enumerate(states):
            (drawn,) = np.random.SeedSequence((self.seed, epoch, number)).generate_state(1) >> 1  # positive, whatever the type
            state.assign(np.array([drawn, 0]).astype(state.dtype))


class Checkpoint(keras.callbacks.Callback):
    """Write history, state and best model after epochs, so that an interrupt loses the epoch it fell in and little before.

    The state follows every epoch that was validated, and others if the last one has grown old: of a few photographs an epoch
    takes less time than writing the state does.

    Files are replaced whole or not at all. The order (history, state, best) lets `restore` mend whatever an interrupt
    between two of them left behind.

    Args:
        run: Where to write.
        monitor: The validation figures whose mean chooses the best epoch; higher is better. The first epoch that is validated
            must have them.
        every_s: Seconds of training that may be lost, beside the epoch that an interrupt fell in.
    """

    def __init__(self, run: RunFolder, *, monitor: Sequence[str], every_s: float = SAVE_EVERY_S) -> None:
        super().__init__()
        self.run = run
        self.monitor = tuple(monitor)
        self.every_s = every_s
        self.rows: list[dict[str, Any]] = []
        self._written = time.monotonic()

    @property
    def epochs_done(self) -> int:
        """Whole epochs behind the current state."""
        return len(self.rows)

    @property
    def best_path(self) -> Path:
        """The best epoch's model, in training precision."""
        return self.run.checkpoints / "best.keras"

    @property
    def best_row(self) -> dict[str, Any] | None:
        """The row of the history of the best epoch that has the validation figures; the earliest of equals."""
        validated = [row for row in self.rows if self._validated(row)]
        return max(validated, key=lambda row: sum(float(row[name]) for name in self.monitor), default=None)

    def restore(self) -> keras.Model | None:
        """Load the newest state that can be read, with its optimizer; None where none was saved.

        Raises:
            DataError: If none of those that were saved can be read: a training from the start would replace them.
        """
        errors: list[DataError] = []
        for path in sorted(self.run.checkpoints.glob("epoch-*.keras"), reverse=True):
            try:
                model = load_model(path, compiled=True)
            except DataError as error:
                errors.append(error)
                continue
            if errors:
                warnings.warn(f"{errors[0]} Going back to an earlier epoch.", stacklevel=2)
            done = int(path.stem.removeprefix("epoch-"))
            self.rows = _read_history(self.run.history)[:done]
            if self.best_row is not None and self.best_row is self.rows[-1]:
                self._keep_best(path)
            return model
        if errors:
            raise DataError(
                f"{self.run.checkpoints}: no saved epoch can be read ({errors[0]}). Import and register what the task defines "
                "itself, or train anew in another folder."
            )
        return None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Write what the epoch has brought.

        Raises:
            TrainingError: If the epoch was validated and has not the figures that choose the best.
        """
        self._check_monitor(logs or {})
        self.rows.append({"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}})
        write_csv(self.run.history, self.rows)
        if not self._validated(self.rows[-1]) and time.monotonic() - self._written < self.every_s:
            return
        state = self.run.checkpoints / f"epoch-{epoch + 1:04d}.keras"
        write_atomically(state, self.model.save)
        if self.best_row is self.rows[-1]:
            self._keep_best(state)
        for older in self.run.checkpoints.glob("epoch-*.keras"):
            if older != state:
                older.unlink()
        self._written = time.monotonic()

    def _check_monitor(self, figures: Mapping[str, Any]) -> None:
        validated = sorted(name for name in figures if name.startswith("val_"))
        missing = [name for name in self.monitor if name not in figures]
        if validated and missing:
            raise TrainingError(
                f"there is no figure {missing[0]!r} to choose the best epoch by; there are {', '.join(validated)}. "
                "Name some of them as the monitor of the task."
            )

    def _validated(self, row: Mapping[str, Any]) -> bool:
        """Tell whether an epoch can be the best: its figures are there, and numbers."""
        figures = [row.get(name) for name in self.monitor]
        return all(figure not in (None, "") and math.isfinite(float(figure)) for figure in figures)

    def _keep_best(self, state: Path) -> None:
        write_atomically(self.best_path, lambda unfinished: shutil.copyfile(state, unfinished))


def _read_history(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
