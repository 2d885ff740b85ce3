"""`python -m dermaseg` and the `dermaseg` command."""

from __future__ import annotations

import sys

from dermaseg.cli import run

__all__ = ["main"]


def main() -> int:
    """Run the command line and return its exit code."""
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
