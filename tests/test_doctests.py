"""Every example in a docstring runs; so does every Python block in README and docs."""

import doctest
import importlib
import os
import pkgutil
import re
from pathlib import Path

import pytest

import dermaseg

ROOT = Path(__file__).parents[1]
MODULES = sorted(module.name for module in pkgutil.walk_packages(dermaseg.__path__, "dermaseg."))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_docstring_examples(name):
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.slow
# Pages train for a few steps only, to be quick.
@pytest.mark.filterwarnings("ignore:the model names the class right:UserWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if BLOCK.search(page.read_text())], ids=lambda page: page.name)
def test_blocks_of_a_page_run_in_order(page, tmp_path, monkeypatch):
    if page.name == "export.md" and os.environ["KERAS_BACKEND"] != "tensorflow":
        pytest.skip("export goes through TensorFlow")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    for number, block in enumerate(BLOCK.findall(page.read_text()), start=1):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)
