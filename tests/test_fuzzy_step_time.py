"""The benchmark of the fuzzy gates compiles as training does, unless it is told."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the installed package

from benchmarks import fuzzy_step_time
from dermaseg.models import build_unet


def tiny_unet(**options):
    return build_unet(filters=(8, 16), **options)


@pytest.mark.thorough
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "torch", reason="compiles by another compiler, for minutes")
@pytest.mark.parametrize("option", [None, "--jit-compile", "--no-jit-compile"])
def test_steps_are_compiled_as_asked_or_as_training_does(option, monkeypatch, capsys):
    monkeypatch.setattr(fuzzy_step_time, "NETWORKS", {"unet": tiny_unet})
    command = ["--size", "16", "--batch", "1", "--rounds", "1", "--networks", "unet"]
    fuzzy_step_time.main(command if option is None else [*command, option])
    default = tiny_unet()
    default.compile(loss="mse")
    compiled = default.jit_compile if option is None else option == "--jit-compile"
    assert capsys.readouterr().out.splitlines()[0].endswith(", XLA" if compiled else ", no XLA")
