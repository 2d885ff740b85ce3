"""Start contestants' processes, ask them, and keep the reason when one fails."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.peers.contestants import Contestant
from benchmarks.peers.machine import Device, thread_environment

__all__ = ["Failed", "Process", "reason", "run_module"]

ROOT = Path(__file__).resolve().parents[2]


class Failed(Exception):
    """A contestant cannot go on; the message is its last words."""


class Process:
    """One contestant's process; use it as a context.

    Args:
        contestant: Whom it runs.
        size: Height and width of the pictures.
        threads: Cores it may use.
        limit_s: Seconds that it may take to start, and to answer one command.
        device: Where it computes.

    Raises:
        Failed: If it does not start.
    """

    def __init__(
        self, contestant: Contestant, size: tuple[int, int], *, threads: int, limit_s: float, device: Device = "cpu"
    ) -> None:
        self._limit_s = limit_s
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - lives as long as the process
        command = ["benchmarks.peers.worker", json.dumps(contestant.to_json()), "--size", *map(str, size)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command, "--threads", str(threads), "--device", device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            cwd=ROOT,
            env={**os.environ, **thread_environment(threads, device)},
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        try:
            self.facts = self._answer()
        except Failed:
            self.stop()
            raise

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one command and wait for its answer.

        Raises:
            Failed: If the process ends or takes too long.
        """
        if self._process.stdin is None or self._process.stdin.closed:
            raise Failed("its process has been stopped")
        with suppress(BrokenPipeError):  # then the answer says why it has ended
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """End the process; again is no harm."""
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for stream in (self._process.stdin, self._process.stdout, self._said):
            with suppress(BrokenPipeError):  # what was not sent to it any more
                if stream is not None:
                    stream.close()

    def __enter__(self) -> Process:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def _listen(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                self._answers.put(line)
        self._answers.put("")

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self._limit_s)
        except queue.Empty:
            self.stop()
            raise Failed(f"no answer within {self._limit_s:g} s") from None
        if not line:
            self._said.seek(0)
            raise Failed(reason(self._said.read(), self._process.wait()))
        return json.loads(line)


def reason(said: str, returncode: int) -> str:
    """Return the last line that a process said, where an exception has its message, cut to one table cell."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    words = lines[-1] if lines else f"ended with code {returncode}"
    return words if len(words) <= 160 else f"{words[:159]}…"


def run_module(module: str, arguments: Sequence[str], *, threads: int, log: Path) -> None:
    """Run a module of this repository to its end, what it prints going to a log file.

    Raises:
        Failed: If it fails.
    """
    with log.open("w+", encoding="utf-8", errors="replace") as file:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, **thread_environment(threads)},
            check=False,
        )
        if done.returncode:
            file.seek(0)
            raise Failed(reason(file.read(), done.returncode))
