"""The public API is what `api.json` says, no more and no less. After a wanted change: python tests/test_api.py --write."""

import functools
import importlib
import inspect
import json
import pkgutil
import re
import sys
from pathlib import Path

import pytest

import dermaseg

SNAPSHOT = Path(__file__).with_name("api.json")
REFERENCE = Path(__file__).parents[1] / "docs" / "api"
# Nobody should import these; everything else that stands directly in the package is public. What the modules of a package such
# as `dermaseg.data` offer is public where the package itself offers it.
INTERNAL = (
    "arrays",
    "__main__",
    "_version",
    "callbacks",
    "cli",
    "commands",
    "console",
    "converters",
    "deciding",
    "disclaimer",
    "distribution",
    "fitting",
    "masks",
    "options",
    "pace",
    "parity",
    "pretrained",
    "progress",
    "reduction",
    "report_page",
    "run_data",
)
MODULES = tuple(module.name for module in pkgutil.iter_modules(dermaseg.__path__))
PACKAGES = ("dermaseg", *(f"dermaseg.{name}" for name in MODULES if name not in INTERNAL))


def parameters(value):
    """Names and defaults, with a star before those that must be named. Annotations change with the tools that read them."""
    found = []
    for parameter in inspect.signature(value).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not any(name.startswith("*") for name in found):
            found.append("*")
        found.append(str(parameter.replace(annotation=inspect.Parameter.empty)))
    return found


def members(value):
    """The public methods and properties of a class, its own and those of our base classes; not what Keras gives it."""
    found = {}
    for base in reversed(value.__mro__):
        if base.__module__.partition(".")[0] != "dermaseg":
            continue
        for name, member in vars(base).items():
            if name.startswith("_") and name != "__call__":
                continue
            if isinstance(member, (classmethod, staticmethod)):
                found[name] = [type(member).__name__, *parameters(member.__func__)]
            elif isinstance(member, (property, functools.cached_property)):
                found[name] = "property"
            elif inspect.isfunction(member):
                found[name] = parameters(member)
    return found


def describe(value):
    """The parameters of a function; those of a class and its members; the type's name of anything else."""
    if inspect.ismodule(value):
        return "module"
    if not callable(value):
        return type(value).__name__
    if inspect.isclass(value) and issubclass(value, Exception):
        return [base.__name__ for base in value.__bases__]
    if inspect.isclass(value):
        return {"parameters": parameters(value), "members": members(value)}
    return parameters(value)


def public_api():
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        found[package] = {name: describe(getattr(module, name)) for name in sorted(module.__all__)}
    return found


def test_the_public_api_is_the_snapshot():
    assert public_api() == json.loads(SNAPSHOT.read_text())


def test_internal_modules_exist():
    assert set(INTERNAL) <= {*MODULES, "__main__"}


def test_a_class_is_described_with_its_own_members():
    class Loss(dict):
        __module__ = "dermaseg.losses"

        def call(self, y_true, *, smooth=1.0):
            pass

        @property
        def name(self):
            pass

        @classmethod
        def from_name(cls, name):
            pass

        def _hidden(self):
            pass

    assert members(Loss) == {
        "call": ["self", "y_true", "*", "smooth=1.0"],
        "name": "property",
        "from_name": ["classmethod", "cls", "name"],
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        if not callable(value):
            continue
        assert inspect.getdoc(value), f"{package}.{name}"
        for member in members(value) if inspect.isclass(value) else ():
            assert inspect.getdoc(getattr(value, member)), f"{package}.{name}.{member}"


@pytest.mark.parametrize("package", ["dermaseg.fuzzy", "dermaseg.losses", "dermaseg.metrics"])
def test_a_reference_names_every_parameter_and_what_comes_back(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        if not callable(value):
            continue
        text = inspect.getdoc(value)
        for parameter in inspect.signature(value).parameters:
            assert re.search(rf"^ +\*{{0,2}}{parameter}: ", text, re.MULTILINE), f"{package}.{name}: {parameter}"
        if not inspect.isclass(value):
            assert "Returns:" in text, f"{package}.{name}"


def test_the_reference_shows_every_public_module_and_name():
    pages = {path.name: path.read_text() for path in REFERENCE.glob("*.md")}
    shown = {name for text in pages.values() for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE)}
    assert shown == set(PACKAGES) - {"dermaseg"}
    assert all(f"`{name}`" in pages["index.md"] for name in dermaseg.__all__)
    # What these two offer is known when they run, so their pages name it.
    for package in ("data", "metrics"):
        listed = re.findall(r"^        - (\w+)$", pages[f"{package}.md"], re.MULTILINE)
        assert sorted(listed) == sorted(getattr(dermaseg, package).__all__)


if __name__ == "__main__" and "--write" in sys.argv:
    SNAPSHOT.write_text(json.dumps(public_api(), indent=1) + "\n")
