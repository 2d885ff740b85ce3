"""Every example in a docstring runs; so does every Python block in README and docs."""

import doctest
import importlib
import importlib.util
import os
import pkgutil
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import dermaseg

ROOT = Path(__file__).parents[1]
MODULES = sorted(module.name for module in pkgutil.walk_packages(dermaseg.__path__, "dermaseg."))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r'^```python(?: title="([^"\n]*)")?\n(.*?)^```', re.DOTALL | re.MULTILINE)
NEW_PROCESS = "In a new process"  # the title of a block that must do without what the blocks above it have imported


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_docstring_examples(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.slow
# Pages train for a few steps only, to be quick.
@pytest.mark.filterwarnings("ignore:the model names the class right:UserWarning")
@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.name)
def test_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    if page.name == "export.md" and os.environ["KERAS_BACKEND"] != "tensorflow":
        pytest.skip("export goes through TensorFlow")
    if page.name == "export.md" and importlib.util.find_spec("tf2onnx") is None:
        pytest.skip('the extra "export" is not installed')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    names = {"__name__": "page"}
    for number, (title, block) in enumerate(BLOCK.findall(page.read_text()), start=1):
        if title == NEW_PROCESS:
            done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, done.stderr[-3000:]
        else:
            exec(compile(block, f"{page.name}, block {number}", "exec"), names)


def test_a_page_shows_a_saved_model_loaded_in_a_new_process():
    titles = [title for title, _ in BLOCK.findall((ROOT / "docs" / "howto" / "import-a-builder.md").read_text())]
    assert NEW_PROCESS in titles


def test_every_python_block_of_a_page_is_found():
    # A fence that the expression above does not know would silently not be run; what is only to be read says `py`.
    for page in PAGES:
        text = page.read_text()
        assert len(re.findall(r"^```\s*\{?\.?python", text, re.MULTILINE)) == len(BLOCK.findall(text)), page.name
