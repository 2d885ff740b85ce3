"""The run folder: what a training leaves behind, and how each file is written without ever losing the last good one."""

from __future__ import annotations

import contextlib
import csv
import functools
import importlib.metadata
import json
import os
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dermaseg._version import __version__
from dermaseg.errors import DataError

__all__ = ["RunFolder", "read_json", "stream_text", "versions", "write_atomically", "write_csv", "write_json"]


_SAVED_MODEL = "saved_model.pb"  # in an exported folder


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where each file of a run stands.

    Args:
        path: The folder; `create` makes it.
    """

    path: Path

    @classmethod
    def create(cls, path: str | Path) -> RunFolder:
        """Make the folder and its parents."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open an existing run.

        Raises:
            DataError: If the folder holds no run.
        """
        run = cls(Path(path))
        if not run.settings.is_file():
            raise DataError(f"{path}: not a run folder, it has no settings.json. Give the folder that `train` wrote.")
        return run

    def check_unused(self) -> None:
        """Refuse a folder with a run, or with what is left of one: a new run would take that for its own.

        Raises:
            DataError: If there is one.
        """
        if self.settings.exists():
            raise DataError(
                f"{self.path}: holds a run already. Give another folder, or go on with that run: "
                f"dermaseg train --resume {self.path}"
            )
        left = [path for path in (self.model, self.checkpoints, self.history) if path.exists()]
        if left:
            raise DataError(f"{self.path}: holds {left[0].name} of another run. Give another folder.")

    def read_settings(self) -> dict[str, Any]:
        """Return what `settings.json` holds.

        Raises:
            DataError: If the file is missing, damaged, or lacks what each run has.
        """
        saved = read_json(self.settings)
        for name in ("task", "settings", "canvas", "precision", "class_names"):
            if name not in saved:
                raise DataError(f"{self.settings}: lacks {name!r}; it was written by another dermaseg.")
        return saved

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in the folder. The system lets go of it by itself when a process dies.

        Raises:
            DataError: If another process has it.
        """
        with locked_folder(self.path, f"{self.path}: another process is training here. Wait for it, or stop it first."):
            yield

    @property
    def settings(self) -> Path:
        """Settings, versions and seed."""
        return self.path / "settings.json"

    @property
    def samples(self) -> Path:
        """The table of samples that the run was given."""
        return self.path / "samples.json"

    @property
    def split(self) -> Path:
        """The ids of the training, validation and test parts, with their hash."""
        return self.path / "split.json"

    @property
    def model(self) -> Path:
        """The best model by validation, float32."""
        return self.path / "model.keras"

    @property
    def model_card(self) -> Path:
        """What a caller of the model has to know: task, training size, class names, decisions."""
        return self.path / "model.json"

    @property
    def history(self) -> Path:
        """One row an epoch."""
        return self.path / "history.csv"

    @property
    def head_history(self) -> Path:
        """One row an epoch of the head alone, where it was trained first."""
        return self.path / "head.csv"

    @property
    def checkpoints(self) -> Path:
        """The state from which an interrupted run goes on."""
        return self.path / "checkpoints"

    @property
    def cache(self) -> Path:
        """Decoded pixels at the training size; safe to delete."""
        return self.path / "cache"


@contextlib.contextmanager
def locked_folder(folder: Path, refusal: str) -> Iterator[None]:
    """Keep other processes that lock it too out of a folder. The system lets go of it by itself when a process dies.

    Args:
        folder: It must be there; its `.lock` stays. Where the disk or the system knows no locks, nobody is kept out.
        refusal: What to say where another process has it.

    Raises:
        DataError: If another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows has none
        yield
        return
    # A file of its own: one that is replaced while it is held, as the settings are, is another file to the next process.
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(refusal) from None
        except OSError:  # disks of some networks know no locks
            pass
        yield


def check_saved_model(file: Path) -> None:
    """Refuse what is no saved Keras model by its place alone: loading Keras to find out takes seconds.

    Args:
        file: A `.keras` file, as `dermaseg.pretrained.model_file` returns it.

    Raises:
        DataError: If the file is missing, stands for an unfinished run, or is an export.
    """
    folder = RunFolder(file.parent)
    in_folder = file == folder.model
    if (file.is_file() and file.suffix.lower() in (".onnx", ".tflite")) or (
        in_folder and (file.parent / _SAVED_MODEL).is_file()
    ):
        raise DataError(
            f"{folder.path if in_folder else file}: is exported already, and no Keras model any more. Give the run folder or "
            "the .keras file that it was made of."
        )
    if file.is_file():
        return
    if in_folder and folder.settings.is_file():
        raise DataError(
            f"{folder.path}: its training is not finished, so there is no model yet. Go on with it: "
            f"dermaseg train --resume {folder.path}"
        )
    raise DataError(f"{file}: no model here. Give a run folder with a finished training, or a .keras file.")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Write beside the target, then rename: a full disk or an interrupt leaves the old file as it was.

    Args:
        path: The file to make or replace.
        write: Writes the whole content to the path it is given, which ends like `path`.

    Raises:
        OSError: If the system refuses; its `filename` is `path`.
    """
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = _unfinished(path)
        try:
            write(unfinished)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    """Name what is not whole yet, beside the target: each process by itself, so that none moves another's file away."""
    return path.with_name(f".unfinished-{os.getpid()}-{path.name}")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let a refusal of the system name the file that was wanted: a full disk names none, and Keras writes in its own ways."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def stream_text(path: Path) -> Iterator[TextIO]:
    """Open a text file to be written bit by bit, which takes its name once the block ends, also by an error or an interrupt.

    Args:
        path: The file to make or replace.

    Raises:
        OSError: If the system refuses to make it; its `filename` is `path`.
    """
    unfinished = _unfinished(path)
    with _naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file name that is no UTF-8 reaches Python with surrogates, which can't be written.
        file = unfinished.open("w", newline="", encoding="utf-8", errors="replace")
    try:
        with file:
            yield file
    finally:
        os.replace(unfinished, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically, keys in the order given."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        DataError: If the file is missing or is no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: the file is missing.") from None
    except ValueError as error:
        raise DataError(f"{path}: not a JSON file ({error}).") from None
    if not isinstance(content, dict):
        raise DataError(f"{path}: expected a JSON object, found {type(content).__name__}.")
    return content


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write dictionaries as a CSV table atomically; the columns are the union of their keys, first seen first."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def write(unfinished: Path) -> None:
        # replace: the name of a file may be no UTF-8
        with unfinished.open("w", newline="", encoding="utf-8", errors="replace") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)

    write_atomically(path, write)


def versions() -> dict[str, str]:
    """Return the versions that decide a result: dermaseg, Python, the backend and the libraries under it."""
    return {
        "dermaseg": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **_installed_versions(),
    }


@functools.cache
def _installed_versions() -> dict[str, str]:
    # Each is read out of a page of metadata, readme and all: once a process.
    found = {}
    for name in ("keras", "tensorflow", "jax", "torch", "numpy", "pillow", "scikit-image"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
