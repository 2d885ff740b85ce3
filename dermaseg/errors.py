"""Errors that a user can act on.

Everything that dermaseg raises on purpose about a user's *data* is a `DataError`; wrong *arguments* are the
built-in `ValueError` or `TypeError`. The command line turns these, and `OSError`, into one line and exit code 2.
"""

__all__ = ["DataError", "DermasegError"]


class DermasegError(Exception):
    """Base of the library's own errors."""


class DataError(DermasegError, ValueError):
    """Something is wrong with a file, a folder or a table: the message names it and says what would be right."""
