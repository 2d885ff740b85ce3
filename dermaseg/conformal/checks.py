"""Argument checks shared by the conformal methods."""

from __future__ import annotations

__all__ = ["check_share"]


def check_share(name: str, value: float) -> None:
    """Refuse a share that is not strictly between 0 and 1.

    Raises:
        ValueError: Naming the argument and its value.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}.")
