"""The command line: which commands there are, and how one ends. `dermaseg.commands` does the work, `options` tells it how."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from dermaseg._version import __version__
from dermaseg.console import USER_ERROR, complain, discard_output, examples, say, warnings_in_one_line
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.errors import DermasegError

__all__ = ["INTERRUPTED", "TERMINATED", "USER_ERROR", "run"]

INTERRUPTED = 130
TERMINATED = 143

COMMANDS = {
    "demo": "Make a synthetic data set, train, evaluate and predict: no download.",
    "train": "Train a task on a folder of photographs, then evaluate it on the held-out test part.",
    "evaluate": "Score a run on its test part or on another folder.",
    "predict": "Outline and name the lesion in photographs of any size.",
    "audit": "Report what is wrong with a data set.",
    "tasks": "List the tasks.",
    "presets": "List the trained networks in this installation, or show the card of one.",
    "export": "Write a model for use without Keras, checked against it first.",
}


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code.

    It is 0, 1 for errors that `audit` found, 2 for a mistake that the user can mend, 130 for Ctrl-C, 143 for SIGTERM.
    """
    with _output_somewhere(), _Termination() as termination:
        code = _run(arguments)
    return TERMINATED if code == INTERRUPTED and termination.asked else code


def _run(arguments: Sequence[str]) -> int:
    options = argparse.Namespace(name=None)  # until they are read
    try:
        with warnings_in_one_line():
            parser = _parser(next((word for word in arguments if not word.startswith("-")), None))
            if not arguments:
                parser.print_help()
                return USER_ERROR
            options, unknown = parser.parse_known_args(arguments)
            if unknown:  # the parser of all commands would show its own usage, not that of the command
                options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
            return options.command(options) or 0
    except BrokenPipeError:
        discard_output()
        return 0
    except (DermasegError, ValueError) as error:
        complain(error)
        return USER_ERROR
    except OSError as error:
        complain(DermasegError(_refusal(error, options)))
        return USER_ERROR
    except KeyboardInterrupt:
        say(f"Interrupted.{_way_on(options)}")
        return INTERRUPTED


class _Termination:
    """While it lasts, a SIGTERM ends the command as Ctrl-C does, so that what was done is written. `asked` tells of one."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self.before = signal.getsignal(signal.SIGTERM)
        # Another handler than the system's, or none, has reasons of its own. Other threads may set none.
        self.listens = self.before is signal.SIG_DFL and threading.current_thread() is threading.main_thread()
        if self.listens:
            signal.signal(signal.SIGTERM, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        if self.listens:
            signal.signal(signal.SIGTERM, self.before)

    def _interrupt(self, number: int, frame: Any) -> None:
        self.asked = True
        handler = signal.getsignal(signal.SIGINT)  # a training has one of its own; a command in the background may have none
        (handler if callable(handler) else signal.default_int_handler)(signal.SIGINT, frame)


@contextlib.contextmanager
def _output_somewhere() -> Iterator[None]:
    """Let results go nowhere where standard output is closed, as by `>&-`: Python has None in its place."""
    if sys.stdout is not None:
        yield
        return
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _way_on(options: argparse.Namespace) -> str:
    """Say what an interrupt has left, if anything."""
    if options.name == "predict":
        return f" What was done is in {options.output}." if options.output.is_dir() else ""
    run = _begun_run(options)
    return f" Go on with: dermaseg train --resume {run}" if run else ""


def _refusal(error: OSError, options: argparse.Namespace) -> str:
    """Say what the system refused, of which file, and what to do where there is no more room."""
    if error.errno is None:
        return str(error)
    said = f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return said
    run = _begun_run(options)
    again = f"go on with: dermaseg train --resume {run}" if run else "give the command again."
    return f"{said} The files written before it are whole. Make room, then {again}"


def _begun_run(options: argparse.Namespace) -> Path | None:
    """Return the run folder that a training can go on in, if there is one."""
    run: Path | None = options.resume or options.output if options.name == "train" else None
    if options.name == "demo":
        run = options.output / "run"
    return run if run is not None and (run / "settings.json").is_file() else None


def _parser(named: str | None) -> argparse.ArgumentParser:
    """Know all commands, and the options of the one that is named."""
    parser = argparse.ArgumentParser(
        prog="dermaseg",
        description=f"Segment and classify skin lesions in dermoscopic photographs.\n{NOT_A_DIAGNOSIS}",
        epilog=examples(
            "dermaseg demo",
            "dermaseg predict photo.jpg --output masks",
            "dermaseg train segment --data ham10000 --output run",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"dermaseg {__version__}")
    subparsers = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        sub = subparsers.add_parser(
            name, help=summary, description=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name == named:  # loading what these need takes far longer than --help of all
            from dermaseg import commands
            from dermaseg.options import add_options

            add_options(name, sub)
            sub.set_defaults(command=getattr(commands, name), parser=sub)
    return parser
