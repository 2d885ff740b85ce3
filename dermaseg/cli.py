"""The command line: which commands there are, and how one ends. `dermaseg.commands` does the work, `options` tells it how."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dermaseg._version import __version__
from dermaseg.console import USER_ERROR, complain, examples, say, warnings_in_one_line
from dermaseg.disclaimer import NOT_A_DIAGNOSIS
from dermaseg.errors import DermasegError

__all__ = ["INTERRUPTED", "USER_ERROR", "run"]

INTERRUPTED = 130

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
    """Run one command and return its exit code: 0, 2 for a mistake that the user can mend, 130 for Ctrl-C."""
    parser = _parser(next((word for word in arguments if not word.startswith("-")), None))
    if not arguments:
        parser.print_help()
        return USER_ERROR
    options, unknown = parser.parse_known_args(arguments)
    if unknown:  # the parser of all commands would show its own usage, not that of the command
        options.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        with warnings_in_one_line():
            return options.command(options) or 0
    except BrokenPipeError:  # whoever read our output, as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
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


def _way_on(options: argparse.Namespace) -> str:
    """Say what an interrupt has left, if anything."""
    if options.name == "predict":
        return f" What was done is in {options.output}."
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
