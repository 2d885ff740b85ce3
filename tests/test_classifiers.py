"""The benchmark of classifiers at equal time: its ResNet-18, its plan by the clock, and that it goes on where it stopped."""

import os
from functools import partial

import keras
import numpy as np
import pytest

from benchmarks import classifiers
from benchmarks.classification_ideas import CAPTION
from benchmarks.classifiers import CONTESTANTS, REFERENCE, Clock, build_resnet18, plan_epochs, table
from dermaseg.data import make_synthetic
from dermaseg.models import build_cnn
from dermaseg.pace import Pace
from dermaseg.runs import read_json, write_json

PART = {"steps_per_epoch": 10}


@pytest.mark.slow
def test_the_reference_is_a_resnet18_of_torchvision_s_shape():
    model = build_resnet18(num_classes=7)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == 11_180_103
    kernels = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(kernels) == 20  # 17 of 3x3 and 7x7, three shortcuts
    shapes = keras.Model(model.input, [model.get_layer(f"stage_{stage}_1_out").output for stage in range(4)])
    found = shapes.compute_output_shape((1, 128, 160, 3))
    assert [shape[1:] for shape in found] == [(32, 40, 64), (16, 20, 128), (8, 10, 256), (4, 5, 512)]
    predicted = model(np.zeros((2, 45, 61, 3), "float32"))
    assert predicted.shape == (2, 7)


def test_nobody_gets_more_time_than_the_reference():
    pace = Pace(step_s=1.0, look_s=1.0, save_s=1.0, first_s=3.0)
    assert pace.seconds(4, **PART) == pytest.approx(3 + 4 * 12)
    assert pace.seconds(40, **PART) == pytest.approx(3 + 40 * 11 + 20)  # only twenty epochs are validated
    paces = {
        REFERENCE: pace,
        "cnn": Pace(step_s=0.3, look_s=0.5, save_s=0.5, first_s=1.0),
        "slow": Pace(step_s=100.0, look_s=0.0, save_s=0.0, first_s=0.0),
    }
    assert plan_epochs(paces, 50.0, **PART) == {REFERENCE: 4, "cnn": 12, "slow": 1}
    assert plan_epochs(paces, 58.0, **PART)[REFERENCE] == 5  # nearer to 63 seconds than to 51
    equal = pace.seconds(4, **PART)
    assert paces["cnn"].seconds(12, **PART) <= equal < paces["cnn"].seconds(13, **PART)
    assert plan_epochs(paces, 1.0, **PART)[REFERENCE] == 1


def test_the_clock_tells_steps_validations_and_checkpoints_apart():
    time = iter(range(100))
    clock = Clock(now=lambda: float(next(time)))
    clock.on_train_begin()
    for epoch in range(2):
        clock.on_epoch_begin(epoch)
        clock.on_train_batch_end(0)
        clock.on_train_batch_end(1)
        clock.on_test_begin()
        clock.on_test_end()
        clock.on_epoch_end(epoch)
    clock.on_train_end()
    assert np.diff(clock.batches).tolist() == [1.0]
    assert (clock.validations, clock.epochs, clock.seconds) == ([1.0, 1.0], [6.0, 6.0], 17.0)


def result(name, seed, right):
    probabilities = np.array([[0.1, 0.9], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    probabilities[:right] = probabilities[:right, ::-1]
    own = {"contestant": name, "seed": seed, "epochs": 3, "seconds": 90.0, "parameters": 1234}
    return {**own, "groups": [0, 1, 2, 2], "labels": [0, 0, 1, 1], "probabilities": probabilities.tolist()}


def test_differences_are_to_the_reference(tmp_path):
    for name, seed, right in ((REFERENCE, 0, 0), (REFERENCE, 1, 1), ("cnn", 0, 1), ("cnn", 1, 2), ("cnn", 2, 0)):
        write_json(tmp_path / f"{name}-{seed}.json", result(name, seed, right))
    lines = table(tmp_path).splitlines()
    assert len(lines) == 6
    assert lines[-1] == CAPTION
    cells = [cell.strip() for cell in lines[2].split("|")][1:]
    assert cells[:5] == [CONTESTANTS["cnn"], "1,234", "2", "3", "1.5"]
    assert (cells[5][:5], cells[6][:5], cells[8][:5]) == ("0.875", "0.250", "0.250")
    cells = [cell.strip() for cell in lines[3].split("|")][1:]
    assert (cells[5][:5], cells[6]) == ("0.625", "")


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:the model names the class right:UserWarning")
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "jax", reason="minutes of compiling; the parts are tested on JAX")
def test_runs_from_end_to_end_and_goes_on(tmp_path, monkeypatch, capsys):
    make_synthetic(tmp_path / "data", count=84, size=(48, 64), seed=3)
    output = tmp_path / "classifiers"
    command = ["--data", str(tmp_path / "data"), "--output", str(output), "--seeds", "0", "--contestants", "plain"]
    command += ["--size", "32", "--batch-size", "8", "--minutes"]
    monkeypatch.setattr(classifiers, "_REHEARSALS", 1)
    monkeypatch.setattr(classifiers, "build_resnet18", partial(build_cnn, filters=(8, 16)))  # 11 million take a minute
    classifiers.main([*command, "0.02"])
    assert len((output / "classifiers.md").read_text().splitlines()) == 6  # the last says what its bold means
    names = (REFERENCE, "plain")
    runs = {name: read_json(output / f"{name}-0.json") for name in names}
    assert 0 < runs[REFERENCE]["parameters"] < runs["plain"]["parameters"]
    settings = {name: read_json(output / "runs" / f"{name}-0" / "settings.json") for name in names}
    assert settings["plain"]["settings"]["model"]["variant"] == "plain"
    assert settings["plain"]["split"] == settings[REFERENCE]["split"]
    for name in names:
        history = (output / "runs" / f"{name}-0" / "history.csv").read_text().splitlines()
        assert len(history) - 1 == runs[name]["epochs"]
        assert runs[name]["seconds"] > 0
    assert runs["plain"]["labels"] == runs[REFERENCE]["labels"]

    monkeypatch.setattr(classifiers, "train", lambda *_args, **_kwargs: pytest.fail("trained again"))
    classifiers.main([*command, "0.02"])
    capsys.readouterr()
    classifiers.main(["--output", str(output), "--table"])
    assert CONTESTANTS["plain"] in capsys.readouterr().out
    with pytest.raises(SystemExit, match="minutes"):
        classifiers.main([*command, "3"])
