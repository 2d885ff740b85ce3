import dataclasses
import io
import json
import logging
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dermaseg import cli, commands, options
from dermaseg.commands import looking, predicting
from dermaseg.console import load_backend_quietly
from dermaseg.data import Sample, Samples, Split, make_synthetic, read_mask, read_samples
from dermaseg.evaluation import evaluate_run
from dermaseg.pretrained import DEFAULT_PRESET, find_preset
from dermaseg.tasks import Settings

TINY = ("--size", 32, "--model", "filters=[8,16]", "--precision", "float32", "--batch-size", 4)


@pytest.fixture(scope="module")
def data(synthetic_folder):
    return synthetic_folder


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Twenty photographs of grey: more than a batch."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = [folder / f"grey_{index}.png" for index in range(20)]
    for index, path in enumerate(paths):
        Image.new("RGB", (40, 30), (10 * index,) * 3).save(path)
    return paths


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A run made by the command line alone."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    arguments = ["train", "segment", "--data", data, "--output", folder, *TINY, "--steps", 2, "--max-epochs", 1]
    assert cli.run([*map(str, arguments)]) == 0
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
    assert len([line for line in lines if line.startswith("dermaseg:") and not line.startswith("dermaseg: warning:")]) == 1
    return lines[-1]


def test_help_and_import_are_quick_and_load_no_backend():
    loads = (
        ("import dermaseg.cli; dermaseg.cli._parser(None).format_help()", {"numpy", "PIL"}),
        ("import dermaseg.cli; dermaseg.cli._parser('predict')", {"dermaseg.tasks", "scipy", "onnxruntime"}),
        ("import dermaseg.options, dermaseg.data, dermaseg.metrics", {"matplotlib", "skimage", "scipy"}),
    )
    for code, heavy in loads:
        left_out = heavy | {"keras", "tensorflow", "jax", "torch"}
        check = f"import sys; {code}; loaded = {left_out} & set(sys.modules); assert not loaded, loaded"
        subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "dermaseg demo" in shell("--help").stdout
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5  # of processor time, which a busy machine stretches less than the clock's


def test_each_command_teaches_by_example(capsys):
    for command in ("demo", "train", "evaluate", "predict", "audit", "tasks", "presets", "export"):
        with pytest.raises(SystemExit, match="0"):
            cli.run([command, "--help"])
        shown = capsys.readouterr().out
        assert len(re.findall(rf"^  dermaseg {command}", shown.partition("Examples:")[2], re.MULTILINE)) in (1, 2, 3, 4)
        assert "default: None" not in shown
        assert "default: False" not in shown


def test_the_bare_command_shows_where_to_begin(capsys):
    assert cli.run([]) == cli.USER_ERROR
    examples = capsys.readouterr().out.partition("Examples:")[2]
    assert all(f"dermaseg {command}" in examples for command in ("demo", "predict", "train"))


def test_the_settings_of_a_training_are_explained(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.run(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "photographs a step (default: 32; classify-9: 16)" in shown
    assert "(default: none; classify, classify-7, hybrid: logits)" in shown
    settings = {field.name for field in dataclasses.fields(Settings)}
    assert set(options.SETTINGS) == settings - {"model", "jit_compile"}


def test_tasks_are_listed(capsys):
    assert cli.run(["tasks"]) == 0
    assert capsys.readouterr().out.startswith("segment ")
    assert cli.run(["tasks", "--json"]) == 0
    listed = {task["name"]: task for task in json.loads(capsys.readouterr().out)}
    assert listed["classify-9"]["settings"]["size"] == 224


def test_presets_say_what_they_may_be_used_for(capsys):
    for arguments in ([], [DEFAULT_PRESET]):
        assert cli.run(["presets", *arguments]) == 0
        shown = capsys.readouterr().out
        assert "CC BY-NC 4.0" in shown
        assert "not a medical device" in shown
    card = find_preset(DEFAULT_PRESET).card
    data, figures = next(iter(card["figures"].items()))
    name, figure = next((name, figure) for name, figure in figures.items() if isinstance(figure, dict))
    assert data in shown
    assert re.search(rf"{name} +{figure['value']:.3f} \[{figure['low']:.3f}", shown)
    assert card["limits"] in " ".join(shown.split())
    assert cli.run(["presets", DEFAULT_PRESET, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": DEFAULT_PRESET, **card}
    assert cli.run(["presets", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["name"] == DEFAULT_PRESET


def test_a_card_shows_a_figure_without_an_interval():
    preset = find_preset(DEFAULT_PRESET)
    figures = {"test": {"images": 1, "jaccard": {"value": 0.5, "low": None, "high": None}}}
    card = {**preset.card, "figures": figures}
    assert f"  {'jaccard':24} 0.500" in list(looking._card_lines(dataclasses.replace(preset, card=card)))


def test_an_unknown_preset_is_a_mistake(capsys):
    assert "there is no preset 'huge'" in fails(capsys, "presets", "huge")


def test_warnings_are_one_line(capsys, monkeypatch):
    def warn(options):
        warnings.simplefilter("always")
        warnings.warn("photographs say\nneither", UserWarning, stacklevel=1)

    monkeypatch.setattr(commands, "tasks", warn)
    monkeypatch.setattr(warn, "__name__", "tasks")
    assert cli.run(["tasks"]) == 0
    assert capsys.readouterr().err == "dermaseg: warning: photographs say neither\n"


def test_a_finished_run_is_scored_again_and_said_to_be_finished(run, capsys):
    before = (run / "model.keras").read_bytes()
    (run / "report.json").unlink()
    assert cli.run(["train", "--resume", str(run)]) == 0
    assert f"{run}: this training was finished already. It is scored again." in capsys.readouterr().err.replace("\n", " ")
    assert (run / "report.json").is_file()
    assert (run / "model.keras").read_bytes() == before


def test_training_ends_with_a_report(run):
    assert (run / "model.keras").is_file()
    assert (run / "report.json").is_file()


@pytest.mark.filterwarnings("ignore:.*or others of their lesions or patients, trained this run:UserWarning")
def test_evaluate_prints_json_that_a_script_can_read(run, data, capsys):
    assert cli.run(["evaluate", str(run), "--data", str(data), "--json"]) == 0
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    page = re.search(r"Look at (.+\.html)\.", shown.err)
    assert (run / f"report-{data.name}.html") == Path(page[1])
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


def test_a_photograph_that_cannot_be_read_stops_no_other(photographs, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_text("not a photograph")
    output = tmp_path / "output"
    # More than one batch: the broken one is in the second, the missing one in the first.
    given = [photographs[0], tmp_path / "missing.jpg", *photographs[1:], broken, photographs[0]]
    assert cli.run(["predict", *map(str, given), "--output", str(output), "--no-measure"]) == cli.USER_ERROR
    out, err = capsys.readouterr()
    assert [json.loads(line)["photo"] for line in out.splitlines()] == [str(path) for path in photographs]
    complaints = [line for line in err.splitlines() if line.startswith("dermaseg:")]
    assert [("missing.jpg does not exist" in line, "broken.jpg is not an image" in line) for line in complaints] == [
        (True, False),
        (False, True),
    ]
    assert f"{output / 'predictions.html'}" in err
    assert f"2 of {len(photographs) + 2} photographs could not be read" in err
    assert len(list(output.glob("*_mask.png"))) == len(photographs)
    assert len((output / "predictions.csv").read_text().splitlines()) == len(photographs) + 1
    assert (output / "predictions.html").read_text().count("<article") == len(photographs)


def test_interrupted_predictions_keep_their_table_and_page(photographs, tmp_path, capsys, monkeypatch):
    output = tmp_path / "output"

    class Interrupted(io.StringIO):
        def write(self, text):
            if "_2_mask" in text:
                raise KeyboardInterrupt
            return len(text)

    monkeypatch.setattr(sys, "stdout", Interrupted())
    code = cli.run(["predict", *map(str, photographs[:4]), "--output", str(output), "--no-measure"])
    assert code == cli.INTERRUPTED
    assert f"What was done is in {output}." in capsys.readouterr().err
    saved = len(list(output.glob("*_mask.png")))  # photographs that were under way are finished
    assert saved >= 3
    assert len((output / "predictions.csv").read_text().splitlines()) == 1 + saved
    assert (output / "predictions.html").read_text().count("<article") == saved


def test_an_interrupted_demo_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    def interrupted(task, samples, folder, **_):
        folder.mkdir(parents=True)
        (folder / "settings.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("dermaseg.training.train", interrupted)
    output = tmp_path / "demo"
    assert cli.run(["demo", "--images", "24", "--output", str(output)]) == cli.INTERRUPTED
    said = capsys.readouterr().err.replace("\n", "")
    assert said.endswith(f"Interrupted. Go on with: dermaseg train --resume {output / 'run'}")
    assert f"dermaseg train --resume {output / 'run'}" in fails(capsys, "demo", "--output", output)


@pytest.mark.parametrize(("resume", "output"), [("run", None), (None, "run"), (None, "nothing")])
def test_an_interrupt_names_the_run_to_go_on_with_where_there_is_one(tmp_path, capsys, resume, output, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text("{}")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("dermaseg.runs.RunFolder.open", interrupted)
    monkeypatch.setattr("dermaseg.data.layout.scan", interrupted)
    given = ["--resume", tmp_path / resume] if resume else ["--data", tmp_path, "--output", tmp_path / output]
    assert cli.run(["train", *map(str, given)]) == cli.INTERRUPTED
    said = capsys.readouterr().err.replace("\n", "")
    assert said == (
        "Interrupted." if output == "nothing" else f"Interrupted. Go on with: dermaseg train --resume {tmp_path / 'run'}"
    )


def test_a_terminal_gets_lines_to_read(photographs, tmp_path, capsys, monkeypatch):
    given = ["predict", *map(str, photographs[:2]), "--output", str(tmp_path), "--no-measure", "--no-page"]
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.run(given) == 0
    out, err = capsys.readouterr()
    assert [line.split(": ")[0] for line in out.splitlines()] == [str(path) for path in photographs[:2]]
    assert "lesion" in out
    assert "{" not in out
    assert f"Look at {tmp_path / 'predictions.csv'}" in err
    assert cli.run([*given, "--json"]) == 0
    assert len([json.loads(line) for line in capsys.readouterr().out.splitlines()]) == 2


def test_sigterm_ends_a_prediction_as_ctrl_c_does(photographs, tmp_path):
    terminated_at_the_third = """
import io, signal, sys
from dermaseg.cli import run

class Stdout(io.StringIO):
    def write(self, text):
        if "_2_mask" in text:
            signal.raise_signal(signal.SIGTERM)
        return len(text)

sys.stdout = Stdout()
sys.exit(run(sys.argv[1:]))
"""
    arguments = ["predict", *photographs[:4], "--output", tmp_path / "output", "--no-measure"]
    command = [sys.executable, "-c", terminated_at_the_third, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == cli.TERMINATED == 128 + signal.SIGTERM, done.stderr
    assert "Traceback" not in done.stderr
    saved = len(list((tmp_path / "output").glob("*_mask.png")))
    assert saved >= 3
    assert len((tmp_path / "output" / "predictions.csv").read_text().splitlines()) == 1 + saved
    assert not list((tmp_path / "output").glob(".unfinished-*"))


def test_sigterm_is_left_to_who_listened_before(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    heard = []
    monkeypatch.setattr(cli, "_run", lambda _: heard.append(signal.getsignal(signal.SIGTERM)) or 0)
    try:
        for others in (signal.SIG_DFL, signal.SIG_IGN):
            signal.signal(signal.SIGTERM, others)
            assert cli.run([]) == 0
            assert signal.getsignal(signal.SIGTERM) is others
    finally:
        signal.signal(signal.SIGTERM, before)
    assert callable(heard[0])
    assert heard[1] is signal.SIG_IGN


def test_ctrl_c_before_anything_is_done_names_no_folder(photographs, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dermaseg.prediction.Predictor", interrupted)
        assert cli.run(["predict", str(photographs[0]), "--output", str(tmp_path / "none")]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "Interrupted.\n"
    monkeypatch.setattr(options, "add_options", interrupted)
    assert cli.run(["predict", str(photographs[0])]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "Interrupted.\n"


def test_a_reader_that_has_had_enough_does_not_stop_the_masks(photographs, tmp_path):
    """`dermaseg predict photos | head -1` writes all files."""
    arguments = ["predict", *photographs[:6], "--output", tmp_path / "output", "--no-measure"]
    command = [sys.executable, "-m", "dermaseg", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=120) == 0, said
    assert len(list((tmp_path / "output").glob("*_mask.png"))) == 6
    assert len((tmp_path / "output" / "predictions.csv").read_text().splitlines()) == 1 + 6
    assert "predictions.html" in said
    assert "BrokenPipe" not in said


def test_a_closed_standard_output_is_no_error(photographs, tmp_path):
    arguments = [sys.executable, "-m", "dermaseg", "predict", photographs[0], "--output", tmp_path, "--no-measure"]
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *map(str, arguments)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "predictions.html").is_file()


def test_earlier_predictions_are_told_of_only_where_they_are_replaced(photographs, tmp_path, capsys):
    output = tmp_path / "output"
    assert cli.run(["predict", str(photographs[0]), "--output", str(output), "--no-measure"]) == 0
    before = (output / "predictions.csv").read_bytes()
    capsys.readouterr()
    (tmp_path / "broken.jpg").write_text("not a photograph")
    assert cli.run(["predict", str(tmp_path / "broken.jpg"), "--output", str(output)]) == cli.USER_ERROR
    assert "earlier predictions" not in capsys.readouterr().err
    assert (output / "predictions.csv").read_bytes() == before


def test_a_name_as_long_as_a_file_system_takes_gets_its_mask(photographs, tmp_path):
    longest = [tmp_path / f"{'x' * 250}{letter}.png" for letter in "ab"]
    for path in longest:
        shutil.copy(photographs[0], path)
    output = tmp_path / "output"
    assert cli.run(["predict", *map(str, longest), "--output", str(output), "--no-measure"]) == 0
    assert len(list(output.glob("*_mask.png"))) == 2


LETTERS = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])


@given(st.lists(st.builds(lambda text, count: text * count, st.text(LETTERS, min_size=1, max_size=6), st.integers(1, 60))))
def test_output_names_differ_and_leave_room_for_what_is_added(stems):
    names = predicting._distinct_names([Path(f"{number}/{stem}.jpg") for number, stem in enumerate(stems)])
    assert len({name.casefold() for name in names}) == len(stems)
    assert all(len(os.fsencode(f".unfinished-4194304-{name}_overlay.png")) <= 255 for name in names)


def test_outputs_get_names_of_their_own():
    given = [Path("a/x.jpg"), Path("b/x.jpg"), Path("c/x_2.jpg"), Path("d/y.jpg"), Path("e/Y.jpg")]
    assert predicting._distinct_names(given) == ["x", "x_2", "x_2_2", "y", "Y_2"]


def test_the_default_preset_runs_without_a_deep_learning_library(photographs, tmp_path):
    code = (
        "import sys; from dermaseg.cli import run;"
        "assert run(sys.argv[1:]) == 0;"
        "heavy = {'keras', 'tensorflow', 'jax', 'torch', 'matplotlib', 'sklearn', 'skimage'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    arguments = ["predict", photographs[0], "--output", tmp_path, "--no-measure"]
    subprocess.run([sys.executable, "-c", code, *map(str, arguments)], check=True, timeout=60, capture_output=True)
    assert (tmp_path / "predictions.html").is_file()


def test_audit_of_a_clean_set(data, capsys):
    assert cli.run(["audit", str(data), "--json"]) == 0
    audit = json.loads(capsys.readouterr().out)
    assert audit["num_images"] == 28
    assert [finding for finding in audit["findings"] if finding["severity"] == "error"] == []


def test_audit_lists_errors_and_its_exit_code_says_so(tmp_path, capsys, monkeypatch):
    for name in "abcd":
        (tmp_path / f"{name}.jpg").write_text("no photograph")
    Image.new("RGB", (40, 30)).save(tmp_path / "e.png")
    monkeypatch.setattr("dermaseg.commands.looking.MOST_LISTED", 3)
    assert cli.run(["audit", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert all(f"- {tmp_path / name}.jpg" in out for name in "abc")
    assert f"- {tmp_path / 'd'}.jpg" not in out
    assert "- and 1 more: --json lists all" in out
    assert "found neither masks nor classes; looking at the photographs alone" in " ".join(err.split())
    for name in "abcd":
        (tmp_path / f"{name}.jpg").unlink()
    Image.new("RGB", (20, 20)).save(tmp_path / "tiny.png")
    assert cli.run(["audit", str(tmp_path)]) == 0
    assert "| tiny image | warning |" in capsys.readouterr().out
    assert "found neither masks nor classes" in fails(capsys, "train", "--data", tmp_path, "--output", tmp_path / "run")


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
    assert "dermaseg.evaluate(dermaseg.Predictor(" in fails(capsys, "evaluate", DEFAULT_PRESET, "--data", data)
    assert "size must be a positive number" in fails(capsys, "predict", words, "--size", "0")
    assert "is a model: name one" in fails(capsys, "predict", run)
    assert "no model here" in fails(capsys, "predict", tmp_path / "missing.keras", words)
    assert "words.jpg" in fails(capsys, "predict", run, words, "--output", output)
    assert "learning_rate" in fails(capsys, "train", "--data", data, "--output", output, "--learning-rate", "-1")
    assert "missing" in fails(capsys, "audit", tmp_path / "missing")
    assert not output.exists()


def test_tensorflows_advice_against_several_sizes_is_not_shown():
    load_backend_quietly()
    said = [
        logging.LogRecord("tensorflow", logging.WARNING, "", 0, words, (), None) for words in ("triggered retracing", "other")
    ]
    assert [bool(logging.getLogger("tensorflow").filter(record)) for record in said] == [False, True]


def test_a_wrong_path_or_setting_is_named_before_a_backend_loads(data, tmp_path):
    for folder in ("flat", "unfinished"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "lesion.jpg").touch()
    for folder in ("unfinished", "used"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "settings.json").write_text("{}")
    (tmp_path / "lesion.onnx").touch()
    moved = Samples([Sample("a", tmp_path / "gone" / "a.jpg")])
    for folder in ("moved", "finished"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "settings.json").write_text("{}")
        moved.save(tmp_path / folder / "samples.json")
    (tmp_path / "finished" / "model.keras").touch()
    train = ["train", "--data", str(data), "--output"]
    mistakes = (
        (["train", "--data", "nowhere", "--output", "run"], "nowhere does not exist"),
        (["train", "--data", "flat", "--output", "run"], "Looked there and one level down"),
        ([*train, "run", "--steps", "0"], "steps must be a positive integer"),
        ([*train, "run", "--batch-size", "0"], "batch_size must be a positive integer"),
        ([*train, "run", "--start", "nowhere"], "nowhere: no model here"),
        ([*train, "run", "--start", "unfinished"], "unfinished: its training is not finished"),
        ([*train, "used"], "used: holds a run already"),
        ([*train, "flat"], "flat: holds lesion.jpg, which is none of a run's"),
        (["train", "--resume", "nowhere"], "nowhere: not a run folder"),
        (["train", "--resume", "moved"], "moved: its photographs have moved"),
        (["evaluate", "nowhere"], "nowhere: not a run folder"),
        (["evaluate", "unfinished"], "Go on with it: dermaseg train --resume unfinished"),
        (["evaluate", "finished"], "Say where they are: dermaseg train --resume finished --data FOLDER"),
        (["export", "unfinished", "lesion.tflite"], "unfinished: its training is not finished"),
        (["export", "lesion.onnx", "again.onnx"], "lesion.onnx: is exported already"),
        (["export", "unfinished", "lesion.pt"], "no format has the suffix '.pt'"),
        (["demo", "--images", "0"], "--images must be 24 at least"),
        (["demo", "--steps", "0"], "steps must be a positive integer"),
    )
    code = (
        "import json, sys; from dermaseg import cli\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    assert cli.run(arguments) == 2\n"
        "    assert 'keras' not in sys.modules, arguments"
    )
    given = json.dumps([arguments for arguments, _ in mistakes])
    done = subprocess.run([sys.executable, "-c", code, given], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    said = done.stderr.split("dermaseg: ")[1:]
    assert [words in line for line, (_, words) in zip(said, mistakes, strict=True)] == [True] * len(mistakes), said


def test_an_unknown_option_shows_the_usage_of_its_command(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.run(["predict", "photo.jpg", "--outptu", "masks"])
    shown = capsys.readouterr().err
    assert shown.startswith("usage: dermaseg predict [MODEL] PHOTO")
    assert "unrecognized arguments: --outptu" in shown


def test_broken_photographs_of_a_training_set_are_named(tmp_path, capsys):
    make_synthetic(tmp_path / "data", count=28, size=(48, 64))
    broken = sorted((tmp_path / "data" / "images").iterdir())[3]
    broken.write_bytes(broken.read_bytes()[:400])
    assert broken.name in fails(
        capsys, "train", "--data", tmp_path / "data", "--output", tmp_path / "run", "--size", 32, "--steps", 1
    )


@pytest.fixture
def ham10000(tmp_path):
    make_synthetic(tmp_path / "ham", count=28, size=(48, 64))
    return tmp_path / "ham"


def test_a_broken_folder_is_named_in_one_line(ham10000, tmp_path, capsys, monkeypatch):
    """What a data set can have wrong with it, from the shell: the file or the column, and code 2."""

    def train():
        return fails(capsys, "train", "--data", ham10000, "--output", tmp_path / "run", "--size", 32, "--steps", 1)

    (table,) = ham10000.glob("*.csv")
    right = table.read_text()
    head, first, *rest = right.splitlines()
    identity = first.split(",")[head.split(",").index("image_id")]

    def with_first(row):
        table.write_text("\n".join([head, row, *rest]) + "\n")

    table.write_text(right.replace("image_id", "picture", 1))
    assert "image_id" in train()
    with_first(first.replace(identity, "ISIC_9999999"))
    assert "ISIC_9999999" in train()
    with_first(first.replace(identity, "../ISIC_0000001"))
    assert "../ISIC_0000001" in train()
    table.write_text(right)
    photograph = next(path for path in (ham10000 / "images").iterdir() if path.stem == identity)
    whole = photograph.read_bytes()
    photograph.write_bytes(b"")
    assert photograph.name in train()
    photograph.write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert "Pillow's limit of 1000" in train()
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on_and_resume_does(data, tmp_path):
    folder = tmp_path / "run"
    options = [*TINY, "--steps", 10_000, "--max-epochs", 3000]
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
    done = len((folder / "history.csv").read_text().splitlines()) - 1
    settings["settings"]["max_epochs"] = done + 2
    (folder / "settings.json").write_text(json.dumps(settings))
    assert cli.run(["train", "--resume", str(folder)]) == 0
    assert len((folder / "history.csv").read_text().splitlines()) - 1 == done + 2
    assert (folder / "report.json").is_file()


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_training_goes_on(data, tmp_path, capsys, monkeypatch):
    import keras

    folder = tmp_path / "run"
    real_save = keras.Model.save

    def save(*arguments, **how):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # no file may grow beyond it, as on a full disk
        try:
            real_save(*arguments, **how)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save", save)
        code = cli.run([str(part) for part in ("train", "--data", data, "--output", folder, *TINY, "--steps", 8)])
    said = capsys.readouterr().err
    assert code == cli.USER_ERROR, said
    assert "Traceback" not in said
    said = said.replace("\n", "")
    assert re.search(r"run/checkpoints/\S+\.keras: File too large\. .* Make room", said)
    assert f"dermaseg train --resume {folder}" in said
    assert not list(folder.rglob(".unfinished-*"))
    assert cli.run(["train", "--resume", str(folder)]) == 0
    assert (folder / "model.keras").is_file()


def test_a_file_that_the_system_refuses_is_named(tmp_path, capsys, photographs):
    (tmp_path / "taken").write_text("no folder")
    assert f"{tmp_path / 'taken'}" in fails(capsys, "predict", photographs[0], "--output", tmp_path / "taken")


@pytest.mark.slow
def test_the_demo_runs_from_an_empty_folder(tmp_path):
    done = shell("demo", "--images", 28, "--steps", 4, cwd=tmp_path)
    made = tmp_path / "dermaseg-demo"
    for name in ("run/report.json", "run/report.md", "run/report.png", "run/curves.png", "run/model.keras"):
        assert (made / name).stat().st_size > 0
    assert list((made / "predictions").glob("*_mask.png"))
    assert "jaccard" in done.stdout
    closing = done.stderr.replace("\n", "").partition("Look at ")[2]
    assert closing.startswith("dermaseg-demo/run/report.html")


def test_a_reader_that_has_had_enough_is_no_error(tmp_path):
    """`dermaseg tasks --json | head -1` ends without a complaint."""
    script = "import sys; from dermaseg.cli import run; sys.exit(run(['tasks', '--json']))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # before anything is written
        assert process.stderr.read() == ""
        assert process.wait() == 0


def test_a_run_behind_the_photographs_is_not_taken_for_more_of_them(run, photographs, tmp_path, capsys):
    assert f"{run} is a model: name it before the photographs" in fails(capsys, "predict", photographs[0], run)
    assert "name it before the photographs" in fails(capsys, "predict", photographs[0], tmp_path / "model.onnx")


def test_masks_do_not_lie_among_the_photographs_nor_replace_others_unsaid(photographs, tmp_path, capsys):
    folder = photographs[0].parent
    assert "Give another --output" in fails(capsys, "predict", folder, "--output", folder.parent / "." / folder.name)
    assert not list(folder.glob("*_mask.png"))
    given = ["predict", str(photographs[0]), "--output", str(tmp_path / "output"), "--no-measure"]
    assert cli.run(given) == 0
    assert "earlier predictions" not in capsys.readouterr().err
    assert cli.run(given) == 0
    assert f"{tmp_path / 'output'} holds earlier predictions: table and page are" in capsys.readouterr().err.replace("\n", " ")
    assert cli.run([*given, "--no-page"]) == 0
    assert "holds earlier predictions: the table is replaced" in capsys.readouterr().err.replace("\n", " ")


def test_true_masks_beside_the_photographs_are_not_replaced(photographs, tmp_path, capsys):
    """Neither by one that is seen first nor by one that is seen late; what predict wrote, interrupted or not, is."""
    for path in photographs[:6]:
        shutil.copy(path, tmp_path)
    true = tmp_path / f"{photographs[5].stem}_mask.png"
    Image.new("L", (40, 30), 255).save(true)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    given = ["predict", *(tmp_path / path.name for path in photographs[:6]), "--output", tmp_path, "--no-measure"]
    assert f"{tmp_path}: holds {true.name}, which predict did not write. Give another" in fails(capsys, *given)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"} == before
    true.unlink()
    assert cli.run([*map(str, given)]) == 0
    for left in ("predictions.csv", "predictions.html"):  # as where the power was cut
        (tmp_path / left).unlink()
    assert cli.run([*map(str, given)]) == 0
    assert true.is_file()


def test_photographs_of_one_name_in_a_folder_get_numbers(tmp_path, capsys):
    for name, size in (("a.jpg", (40, 30)), ("a.png", (50, 30))):
        Image.new("RGB", size, "grey").save(tmp_path / name)
    output = tmp_path / "output"
    assert cli.run(["predict", str(tmp_path), "--output", str(output), "--no-measure"]) == 0
    assert [read_mask(output / f"{name}_mask.png").shape for name in ("a", "a_2")] == [(30, 40), (30, 50)]


def test_predict_hands_its_options_on(photographs, tmp_path, monkeypatch):
    taken = {}

    def record(model, **how):
        taken.update(how)
        raise ValueError("enough")

    monkeypatch.setattr("dermaseg.prediction.Predictor", record)
    options = ["--tta", "flips", "--threshold", "0.3", "--largest-component", "--no-fill-holes", "--mm-per-px", "0.02"]
    given = ["predict", str(photographs[0]), "--output", str(tmp_path), "--no-measure", *options]
    assert cli.run(given) == cli.USER_ERROR
    assert taken == {
        "size": None,
        "threshold": 0.3,
        "tta": "flips",
        "dropout_samples": 0,
        "mm_per_px": 0.02,
        "largest_component": True,
        "fill_holes": False,
    }


def test_train_hands_its_split_and_its_start_on(data, tmp_path, monkeypatch):
    taken = {}

    def record(task, samples, output, **how):
        taken.update(how, task=task)
        raise ValueError("enough")

    monkeypatch.setattr("dermaseg.training.train", record)
    given = ["train", "classify", "--data", str(data), "--output", str(tmp_path)]
    given += ["--split", "official", "--start", DEFAULT_PRESET]
    assert cli.run(given) == cli.USER_ERROR
    assert (taken["task"], taken["split"], taken["start"]) == ("classify", "official", DEFAULT_PRESET)


def test_audit_of_a_run_finds_the_leaks_of_its_split(data, tmp_path, capsys):
    ids = [sample.id for sample in read_samples(data)]  # two photographs a lesion, one behind the other
    Split({"train": tuple(ids[::2]), "test": tuple(ids[1::2])}).save(tmp_path / "split.json")
    (tmp_path / "settings.json").write_text("{}")
    assert cli.run(["audit", str(data), "--run", str(tmp_path), "--json"]) == 1
    assert "leaking lesion" in {finding["kind"] for finding in json.loads(capsys.readouterr().out)["findings"]}


def test_a_second_demo_leaves_the_photographs_of_the_first(tmp_path, capsys):
    run = tmp_path / "demo" / "run"
    run.mkdir(parents=True)
    (run / "settings.json").write_text("{}")
    assert "holds a run already" in fails(capsys, "demo", "--output", tmp_path / "demo")
    assert not (tmp_path / "demo" / "data").exists()


def test_a_mistyped_model_does_not_become_another(tmp_path, capsys):
    assert "no model, preset or photograph of that name" in fails(capsys, "predict", tmp_path / "rnu", tmp_path / "photo.png")
    assert "leave --seed out" in fails(capsys, "train", "--resume", tmp_path, "--seed", 5)


def test_what_would_be_ignored_is_refused(run, data, tmp_path, capsys):
    assert "leave --output out" in fails(capsys, "train", "--resume", run, "--output", tmp_path / "other")
    assert "was begun with the task 'segment'" in fails(capsys, "train", "classify", "--resume", run)
    assert "leave one of them out" in fails(capsys, "evaluate", run, "--data", data, "--part", "validation")
    with pytest.raises(ValueError, match=r"part='test' is of the run's own split"):
        evaluate_run(run, data=data, part="test")


def test_what_is_no_photograph_is_not_taken_for_the_first(photographs, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no photograph")
    (tmp_path / "DEP.ONNX").write_text("not a model")
    options = [photographs[0], "--output", tmp_path / "output"]
    said = fails(capsys, "predict", tmp_path / "notes.txt", *options)
    assert "notes.txt: neither a model nor a photograph. A model is a run folder, a .keras or exported .onnx file" in said
    assert "no model, preset or photograph of that name" in fails(capsys, "predict", tmp_path / "run-0.6", *options)
    assert "DEP.ONNX: cannot be read as an ONNX model" in fails(capsys, "predict", tmp_path / "DEP.ONNX", *options)
    assert not (tmp_path / "output").exists()
    unusual = tmp_path / "photo.jfif"
    Image.new("RGB", (40, 30)).save(unusual, "jpeg")
    assert predicting._model_and_photos([unusual, photographs[0]]) == (None, [unusual, photographs[0]])


def test_exports_that_predict_does_not_run_are_known(photographs, tmp_path, capsys):
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"")
    (tmp_path / "lesion.tflite").write_bytes(b"TFL3")
    for name, kind in (("saved", "a SavedModel"), ("lesion.tflite", "a TensorFlow Lite file")):
        for paths in ([tmp_path / name, photographs[0]], [photographs[0], tmp_path / name]):
            said = fails(capsys, "predict", *paths, "--output", tmp_path / "output")
            assert f"{name} is {kind}, which predict does not run. It takes a run folder, a .keras or exported .onnx" in said


def test_patterns_that_no_shell_has_expanded_are_expanded(photographs, tmp_path, capsys):
    folder = photographs[0].parent
    assert predicting._expanded([folder / "grey_1?.png", tmp_path / "a.png"]) == [*photographs[10:], tmp_path / "a.png"]
    (tmp_path / "mole[1].png").write_bytes(photographs[0].read_bytes())
    assert predicting._expanded([tmp_path / "mole[1].png"]) == [tmp_path / "mole[1].png"]  # it is there under that very name
    output = tmp_path / "output"
    assert cli.run(["predict", str(folder / "grey_*9.png"), "--output", str(output), "--no-measure", "--no-page"]) == 0
    assert sorted(path.name for path in output.glob("*_mask.png")) == ["grey_19_mask.png", "grey_9_mask.png"]
    capsys.readouterr()
    assert "*.tif: there is no file or folder whose name fits" in fails(capsys, "predict", folder / "*.tif")


def test_a_folder_of_folders_says_how_to_go_on(photographs, tmp_path, capsys):
    for name in ("mel", "nv"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(photographs[0].read_bytes())
    said = fails(capsys, "predict", tmp_path, "--output", tmp_path / "output")
    assert f"no image itself, but the folders mel, nv. Give each by itself, to predict also as {tmp_path / '*' / '*'}," in said
    output = tmp_path.with_name("output")
    assert cli.run(["predict", str(tmp_path / "*" / "*"), "--output", str(output), "--no-measure", "--no-page"]) == 0
    assert sorted(path.name for path in output.glob("*_mask.png")) == ["a_2_mask.png", "a_mask.png"]


def test_an_output_that_is_a_file_is_named(photographs, tmp_path, capsys):
    (tmp_path / "make.py").write_text("pass")
    said = fails(capsys, "predict", photographs[0], "--output", tmp_path / "make.py")
    assert "make.py is a file, not a folder. Give another --output." in said


def test_a_page_of_earlier_predictions_does_not_stay_beside_a_new_table(photographs, tmp_path, capsys):
    given = ["predict", "--output", str(tmp_path), "--no-measure"]
    assert cli.run([*given, str(photographs[0])]) == 0
    assert (tmp_path / "predictions.html").is_file()
    capsys.readouterr()
    assert cli.run([*given, str(photographs[1]), "--no-page"]) == 0
    assert "the table is replaced, and outlines of the same names; their page is removed" in capsys.readouterr().err
    assert not (tmp_path / "predictions.html").exists()


def test_the_page_says_with_which_model_and_how(photographs, tmp_path):
    given = ["predict", *map(str, photographs[:2]), "--output", str(tmp_path), "--no-measure", "--threshold", "0.4"]
    assert cli.run([*given, "--tta", "flips"]) == 0
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", (tmp_path / "predictions.html").read_text()))
    assert facts["model"] == DEFAULT_PRESET
    assert facts["photographs given"] == "2"
    assert facts["working area"] == "192 x 192 px"
    assert facts["threshold of the outline"] == "0.4"
    assert facts["mean over"] == "flips"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", facts["date"])
    assert "nv = melanocytic nevus" in facts["classes"]


def test_a_line_names_all_classes_above_their_thresholds():
    row = {"photo": "a.jpg", "label": "nv", "classes": {"nv": 0.46, "mel": 0.3}, "refer": False}
    assert predicting._line({**row, "above_threshold": ["mel", "nv"]}) == "a.jpg: nv 46%; above its threshold mel, nv"


def test_a_folder_with_a_model_alone_is_a_model(run, photographs, tmp_path):
    for name in ("model.keras", "model.json"):
        shutil.copy(run / name, tmp_path / name)
    shutil.copy(photographs[0], tmp_path / "beside.png")
    assert predicting._model_and_photos([tmp_path, photographs[0]]) == (tmp_path, [photographs[0]])
    with pytest.raises(ValueError, match="name it before the photographs"):
        predicting._model_and_photos([photographs[0], tmp_path])


def test_a_folder_of_masks_and_one_of_diagnoses_train_one_hybrid(tmp_path, capsys):
    masks, diagnoses = tmp_path / "masks_only", tmp_path / "diagnoses_only"
    for folder, seed in ((masks, 1), (diagnoses, 2)):
        make_synthetic(folder, count=14, size=(48, 64), seed=seed)
    (masks / "HAM10000_metadata.csv").unlink()
    shutil.rmtree(diagnoses / "masks")
    arguments = ["train", "hybrid", "--data", masks, "--data", diagnoses, "--output", tmp_path / "run"]
    settings = [*TINY, "--steps", 4]
    assert "SYN_0000000" in fails(capsys, *arguments, *settings)  # an id of both is named, not taken twice
    for path in sorted(diagnoses.rglob("SYN_*")):
        path.rename(path.with_name(path.name.replace("SYN", "DX")))
    table = diagnoses / "HAM10000_metadata.csv"
    table.write_text(table.read_text().replace("SYN_", "DX_"))
    with warnings.catch_warnings():
        # So few photographs teach nothing, and half of them name no lesion.
        expected = "the model names the class right|.*neither lesion nor patient|.*part has no photograph of"
        warnings.filterwarnings("ignore", expected, UserWarning)
        assert cli.run([str(argument) for argument in (*arguments, *settings)]) == 0
    joined = Samples.load(tmp_path / "run" / "samples.json")
    assert len(joined.with_masks()) == len(joined.with_labels()) == 14
    assert len(joined) == 28
    capsys.readouterr()
    assert cli.run(["evaluate", str(tmp_path / "run"), "--part", "train", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    trained = Split.load(tmp_path / "run" / "split.json").apply(joined)["train"]
    assert figures["jaccard"]["count"] == len(trained.with_masks()) > 0
    assert figures["accuracy"]["count"] == len(trained.with_labels()) > 0


def test_predict_takes_a_scale_and_says_what_dropout_needs(tmp_path, capsys):
    path = make_synthetic(tmp_path / "data", count=1, size=(96, 128), images_per_lesion=1)[0].image
    assert cli.run(["predict", str(path), "--output", str(tmp_path / "out"), "--mm-per-px", "0.1"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)["measurements"]
    assert found["diameter_mm"] == pytest.approx(0.1 * found["diameter_px"])
    assert "not a medical device" in shown.err
    assert "at least 2" in fails(capsys, "predict", path, "--output", tmp_path / "out", "--dropout-samples", 1)
