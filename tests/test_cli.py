import json
import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from dermaseg import cli
from dermaseg.data import make_synthetic, read_mask


@pytest.fixture(scope="module")
def data(synthetic_folder):
    return synthetic_folder


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run made by the command line alone, with the network that it builds by default."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    arguments = ["train", "segment", "--data", data, "--output", folder, "--size", 32, "--steps", 2, "--max-epochs", 1]
    assert cli.run([*map(str, arguments), "--batch-size", "4", "--precision", "float32"]) == 0
    return folder


def shell(*arguments, code=0, **options):
    """Run the installed command as a user does, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "dermaseg", *map(str, arguments)], capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == code, done.stderr
    return done


def fails(capsys, *arguments):
    """Run a command that must fail, and return its one line."""
    assert cli.run([str(argument) for argument in arguments]) == cli.USER_ERROR
    lines = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in " ".join(lines)
    assert len([line for line in lines if line.startswith("dermaseg:")]) == 1
    return lines[-1]


def test_help_and_import_are_quick_and_load_no_backend():
    code = (
        "import sys, dermaseg, dermaseg.cli;"
        "dermaseg.data, dermaseg.metrics;"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch', 'matplotlib', 'sklearn', 'skimage'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "dermaseg demo" in shell("--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 1.0  # of processor time, which a busy machine stretches less than the clock's


def test_each_command_teaches_by_example(capsys):
    for command in ("demo", "train", "evaluate", "predict", "audit", "tasks", "presets", "export"):
        with pytest.raises(SystemExit, match="0"):
            cli.run([command, "--help"])
        assert "Example: dermaseg" in capsys.readouterr().out


def test_tasks_are_listed(capsys):
    assert cli.run(["tasks"]) == 0
    assert capsys.readouterr().out.startswith("segment ")


def test_training_ends_with_a_report(run):
    assert (run / "model.keras").is_file()
    assert (run / "report.json").is_file()


def test_evaluate_prints_json_that_a_script_can_read(run, data, capsys):
    assert cli.run(["evaluate", str(run), "--data", str(data), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 28
    assert 0 <= report["figures"]["jaccard"]["value"] <= 1


def test_predict_writes_a_mask_of_each_size_and_a_line_each(run, tmp_path):
    for name, size in (("a", (61, 47)), ("b", (33, 90))):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((*size, 3), 120, "uint8")).save(tmp_path / name / "photo.png")
    output = tmp_path / "masks"
    photos = [str(tmp_path / "a" / "photo.png"), str(tmp_path / "b")]
    done = shell("predict", run, *photos, "--output", output)  # a fresh process must know every class of the model
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["height_px"], line["width_px"]) for line in lines] == [(61, 47), (33, 90)]
    assert [read_mask(line["mask"]).shape for line in lines] == [(61, 47), (33, 90)]
    assert len(list(output.glob("*.png"))) == 4
    assert len((output / "predictions.csv").read_text().splitlines()) == 3
    page = (output / "predictions.html").read_text()
    assert "not a medical device" in page
    assert "photo_2" in page


def test_audit_of_a_clean_set(data, capsys):
    assert cli.run(["audit", str(data), "--json"]) == 0
    audit = json.loads(capsys.readouterr().out)
    assert audit["num_images"] == 28
    assert [finding for finding in audit["findings"] if finding["severity"] == "error"] == []


def test_mistakes_are_one_line_and_code_2(run, data, tmp_path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    words = tmp_path / "words.jpg"
    words.write_text("not a photograph")
    output = tmp_path / "output"
    assert "missing" in fails(capsys, "train", "--data", tmp_path / "missing", "--output", output)
    assert "empty" in fails(capsys, "train", "--data", empty, "--output", output)
    assert "needs --data DIR" in fails(capsys, "train")
    assert "holds a run already" in fails(capsys, "train", "--data", data, "--output", run)
    assert "not a run folder" in fails(capsys, "evaluate", empty)
    assert "is a model: name one" in fails(capsys, "predict", run)
    assert "no model here" in fails(capsys, "predict", tmp_path / "missing.keras", words)
    assert "words.jpg" in fails(capsys, "predict", run, words, "--output", output)
    assert "learning_rate" in fails(capsys, "train", "--data", data, "--output", output, "--learning-rate", "-1")
    assert "missing" in fails(capsys, "audit", tmp_path / "missing")
    assert not output.exists()


def test_broken_photographs_of_a_training_set_are_named(tmp_path, capsys):
    make_synthetic(tmp_path / "data", count=28, size=(48, 64))
    broken = sorted((tmp_path / "data" / "images").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:400])
    assert broken.name in fails(
        capsys, "train", "--data", tmp_path / "data", "--output", tmp_path / "run", "--size", 32, "--steps", 1
    )


@pytest.mark.slow
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "jax", reason="compiles the default network three times, for minutes")
def test_ctrl_c_says_how_to_go_on_and_resume_does(data, tmp_path):
    folder = tmp_path / "run"
    options = ["--size", 32, "--batch-size", 4, "--steps", 10_000, "--max-epochs", 3000, "--precision", "float32"]
    # A shell that starts tests in the background makes them deaf to Ctrl-C, and their children with them.
    listen = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", listen, "-m", "dermaseg", "train", "--data", data, "--output", folder, *options]
    errors_file = tmp_path / "errors"
    with errors_file.open("w") as stderr, subprocess.Popen([str(part) for part in command], stderr=stderr) as process:
        deadline = time.monotonic() + 200
        while not list(folder.glob("checkpoints/epoch-*.keras")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=100)
    errors = errors_file.read_text()
    assert process.returncode == cli.INTERRUPTED, errors
    assert "Traceback" not in errors
    assert f"dermaseg train --resume {folder}" in errors.replace("\n", "")
    settings = json.loads((folder / "settings.json").read_text())
    settings["settings"]["max_epochs"] = 1
    (folder / "settings.json").write_text(json.dumps(settings))
    shell("train", "--resume", folder)
    assert (folder / "report.json").is_file()


@pytest.mark.slow
def test_the_demo_runs_from_an_empty_folder(tmp_path):
    done = shell("demo", "--images", 42, "--steps", 8, cwd=tmp_path)
    made = tmp_path / "dermaseg-demo"
    for name in ("run/report.json", "run/report.md", "run/report.png", "run/curves.png", "run/model.keras"):
        assert (made / name).stat().st_size > 0
    assert list((made / "predictions").glob("*_mask.png"))
    assert "jaccard" in done.stdout
