"""Every example runs on a folder of photographs; one, as a newcomer runs it, on those that it makes."""

import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from dermaseg.data import Samples, Split
from dermaseg.runs import RunFolder

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.name for path in EXAMPLES.glob("*.py") if path.name != "options.py")

# What each must leave behind beside its words.
FILES = {
    "two_classes.py": "run/report.html",
    "seven_classes.py": "logits/report-validation.html",
    "nine_classes.py": "nine_classes.keras",
    "unet.py": "lesion_overlay.png",
    "fuzzy_unet.py": "firing.png",
    "hybrid.py": "predictions/predictions.html",
    "own_keras_loop.py": "project.keras",
}

# Their networks have the stages that they name.
THOROUGH = ("fuzzy_unet.py", "own_keras_loop.py")


def test_every_example_is_known():
    assert set(SCRIPTS) == set(FILES)


@pytest.mark.parametrize("script", SCRIPTS)
def test_options_are_read_before_keras_loads_tensorflow(script):
    tree = ast.parse((EXAMPLES / script).read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [getattr(node, "module", None) or node.names[0].name for node in imports]
    assert all(name.partition(".")[0] not in ("keras", "dermaseg") for name in names[: names.index("options")])
    assert {"keras", "dermaseg"} & {name.partition(".")[0] for name in names}


def test_options_turn_on_the_kernels_that_the_command_line_turns_on(monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "")
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    runpy.run_path(str(EXAMPLES / "options.py"))
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"


def arguments(script, output):
    return ["--output", str(output), "--steps", "3", *([] if script == "nine_classes.py" else ["--size", "32"])]


@pytest.mark.slow
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "jax", reason="minutes of compiling; the parts are tested on JAX")
# They train for a few steps only, to be quick.
@pytest.mark.filterwarnings("ignore:the model names the class right:UserWarning")
@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(
    "script", [pytest.param(name, marks=pytest.mark.thorough) if name in THOROUGH else name for name in SCRIPTS]
)
def test_example_runs(script, classes_folder, tmp_path, monkeypatch, capsys, request):
    if script == "nine_classes.py":
        request.getfixturevalue("small_base")  # the real one takes minutes; tests/models builds it
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setattr(sys, "argv", [script, *arguments(script, tmp_path), "--data", str(classes_folder)])
    keras.utils.clear_session()  # layers are named as in a process of their own
    try:
        runpy.run_path(str(EXAMPLES / script), run_name="__main__")
    finally:
        sys.modules.pop("options", None)
    said = capsys.readouterr().out
    assert said.strip()
    shown = {
        "two_classes.py": lambda: [line.partition(":")[0] for line in said.splitlines() if ", threshold " in line],
        "hybrid.py": lambda: [path.stem for path in (tmp_path / "predictions").glob("*_overlay.*")],
    }
    if script in shown:
        run = RunFolder.open(tmp_path / "run")
        test = {sample.id for sample in Split.load(run.split).apply(Samples.load(run.samples))["test"]}
        assert (names := [name.removesuffix("_overlay") for name in shown[script]()])
        assert set(names) <= test
    assert (tmp_path / FILES[script]).stat().st_size > 1000


@pytest.mark.thorough
def test_an_example_runs_as_a_newcomer_runs_it(tmp_path):
    script = EXAMPLES / "own_keras_loop.py"
    command = [sys.executable, str(script), *arguments(script.name, tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / FILES[script.name]).stat().st_size > 1000
