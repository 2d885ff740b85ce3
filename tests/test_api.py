"""The public API is what `api.json` says, no more and no less. After a wanted change: python tests/test_api.py --write."""

import importlib
import inspect
import json
import sys
from pathlib import Path

SNAPSHOT = Path(__file__).with_name("api.json")
PACKAGES = (
    "dermaseg",
    "dermaseg.artefacts",
    "dermaseg.conformal",
    "dermaseg.data",
    "dermaseg.decisions",
    "dermaseg.errors",
    "dermaseg.explain",
    "dermaseg.export",
    "dermaseg.fuzzy",
    "dermaseg.html",
    "dermaseg.layers",
    "dermaseg.losses",
    "dermaseg.measurements",
    "dermaseg.metrics",
    "dermaseg.model_card",
    "dermaseg.models",
    "dermaseg.monte_carlo",
    "dermaseg.plots",
    "dermaseg.precision",
    "dermaseg.prediction",
    "dermaseg.prediction_page",
    "dermaseg.presets",
    "dermaseg.report",
    "dermaseg.runs",
    "dermaseg.runtime",
    "dermaseg.saving",
    "dermaseg.tasks",
    "dermaseg.training",
    "dermaseg.uncertainty",
)


def describe(value):
    """The parameters of a function or class; the type's name of anything else."""
    if inspect.ismodule(value):
        return "module"
    if not callable(value):
        return type(value).__name__
    if inspect.isclass(value) and issubclass(value, Exception):
        return [base.__name__ for base in value.__bases__]
    # Defaults count; annotations do not, for they change with the tools that read them.
    return [
        str(parameter.replace(annotation=inspect.Parameter.empty)) for parameter in inspect.signature(value).parameters.values()
    ]


def public_api():
    found = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        found[package] = {name: describe(getattr(module, name)) for name in sorted(module.__all__)}
    return found


def test_the_public_api_is_the_snapshot():
    assert public_api() == json.loads(SNAPSHOT.read_text())


def test_every_public_name_has_a_docstring():
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            value = getattr(module, name)
            if callable(value):
                assert inspect.getdoc(value), f"{package}.{name}"


if __name__ == "__main__" and "--write" in sys.argv:
    SNAPSHOT.write_text(json.dumps(public_api(), indent=1) + "\n")
