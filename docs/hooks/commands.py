"""Put what `dermaseg COMMAND --help` says into a page, in place of `<!-- help: COMMAND -->`: it can't differ from the code."""

import contextlib
import io
import os
import re

from dermaseg import cli

MARK = re.compile(r"<!-- help: (\w+) -->")


def on_page_markdown(markdown, **_):
    """Replace the marks of a page."""
    return MARK.sub(lambda found: f"```text\n{_help(found[1])}\n```", markdown)


def _help(command):
    os.environ["COLUMNS"] = "80"  # argparse wraps at the width of the terminal; a page is as wide
    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):
        cli.run([command, "--help"])
    return shown.getvalue().rstrip()
