"""Whatever a file is called, the terminal shows its name and obeys none of it."""

import warnings

import pytest

from dermaseg.console import complain, say, visible, warnings_in_one_line
from dermaseg.errors import DataError

pytestmark = pytest.mark.filterwarnings("always::UserWarning")


def test_a_name_with_colons_is_no_emoji(capsys):
    say("Look at :cat:.png.")
    complain(DataError(":cat:.png does not exist."))
    with warnings_in_one_line():
        warnings.warn(":cat:.png is left out.", stacklevel=1)
    assert capsys.readouterr().err.splitlines() == [
        "Look at :cat:.png.",
        "dermaseg: :cat:.png does not exist.",
        "dermaseg: warning: :cat:.png is left out.",
    ]


def test_control_characters_are_written_out(capsys):
    name = "\x1b[2J\x9b2J\u202egpj.png"  # clear the screen, twice, and write from right to left
    shown = r"\x1b[2J\x9b2J\u202egpj.png"
    say(name)
    complain(DataError(name))
    with warnings_in_one_line():
        warnings.warn(name, stacklevel=1)
    assert capsys.readouterr().err.splitlines() == [shown, f"dermaseg: {shown}", f"dermaseg: warning: {shown}"]


def test_names_that_are_no_text_can_be_printed():
    assert visible(b"M\xfcller.jpg".decode("utf-8", "surrogateescape")) == r"M\udcfcller.jpg"
    assert visible("M\xfcller \u76ae\u819a [red].jpg") == "M\xfcller \u76ae\u819a [red].jpg"
