"""Progress on a terminal: one bar for photographs, one for training. Elsewhere a training says one line at its end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    import keras

__all__ = ["counting", "training_progress"]


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
        # Results in a pipe stay there; lines on a terminal go above the bar.
        redirect_stdout=sys.stdout.isatty(),
    )


@contextmanager
def counting(console: Console, description: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar that `progress(done, all)` moves; the bar appears with the first call."""
    with _bar(console) as progress:
        bar: Any = None

        def move(done: int, total: int) -> None:
            nonlocal bar
            if bar is None:
                bar = progress.add_task(description, total=total, note="")
            progress.update(bar, completed=done, total=total)

        yield move


@contextmanager
def training_progress(console: Console) -> Iterator[keras.callbacks.Callback]:
    """Show a bar over all steps of a training and a line for each validated epoch; elsewhere one line, of the last of them."""
    import keras

    with _bar(console) as progress:

        class Show(keras.callbacks.Callback):
            def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
                self.bar = progress.add_task("train", total=None, note="")
                self.epoch = 0
                self.line = ""

            def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
                self.epoch = epoch

            def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
                steps, epochs = self.params.get("steps"), self.params.get("epochs")
                if steps:
                    progress.update(self.bar, total=steps * epochs, completed=self.epoch * steps + batch + 1)

            def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
                if any(name.startswith("val_") for name in logs or {}):
                    figures = "  ".join(
                        f"{name} {value:.4f}" for name, value in (logs or {}).items() if name != "learning_rate"
                    )
                    self.line = f"epoch {epoch + 1}/{self.params['epochs']}  {figures}"
                    if console.is_terminal:
                        console.print(self.line, highlight=False)

            def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
                if self.line and not console.is_terminal:
                    console.print(self.line, highlight=False, soft_wrap=True)

        yield Show()
