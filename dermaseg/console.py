"""What a person reads goes to standard error, a line at a time; standard output carries only results, to be piped."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape

from dermaseg.errors import DermasegError

__all__ = [
    "USER_ERROR",
    "complain",
    "console",
    "discard_output",
    "examples",
    "load_backend_quietly",
    "say",
    "visible",
    "warnings_in_one_line",
]

USER_ERROR = 2
"""The exit code of a mistake that the user can mend."""

console = Console(stderr=True, emoji=False)  # a file may be called :cat:


def say(text: str) -> None:
    """Tell a person something."""
    console.print(escape(visible(text)), highlight=False, soft_wrap=True)


def complain(error: BaseException) -> None:
    """Say in one line what went wrong."""
    console.print(f"[bold red]dermaseg:[/] {escape(_one_line(error))}", highlight=False, soft_wrap=True)


def discard_output() -> None:
    """Let further results go nowhere: who read them, as `head`, has had enough, and Python would complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def visible(text: str) -> str:
    """Write out control characters, as `ESC` in the name of a file, which would command the terminal."""
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each).startswith("C") else each for each in text
    )


def examples(*lines: str) -> str:
    """Show commands below the help of others."""
    return "\n  ".join(["Examples:", *lines])


@contextlib.contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Show Python's warnings without the file and the line of code that they come from."""

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        console.print(f"[bold yellow]dermaseg: warning:[/] {escape(_one_line(message))}", highlight=False, soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def load_backend_quietly() -> None:
    """Import Keras with standard error put aside: TensorFlow greets there from C++, whatever its log level says.

    Raises:
        DermasegError: If Keras or its backend is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow turns oneDNN on by itself on newer Intel processors alone; on an AMD Zen 3 a training step took less than half
    # the time with it.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
            import keras  # noqa: F401

            # Photographs of several sizes are each a function of their own: TensorFlow's advice against it is no use here.
            logging.getLogger("tensorflow").addFilter(lambda record: "retracing" not in record.getMessage())
    except ImportError as error:
        raise DermasegError(
            f"{error.name or error} cannot be imported, and this command needs it: pip install dermaseg. Where JAX is there, "
            "set KERAS_BACKEND=jax to do without TensorFlow; to predict, a preset or an .onnx file does without either."
        ) from error
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _one_line(message: object) -> str:
    return visible(" ".join(str(message).split()))
