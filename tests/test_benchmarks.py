"""The benchmarks run with dermaseg alone; peers that are not installed become rows that say so."""

import contextlib
import importlib
import importlib.util
import json
import os
import sys
import types
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are run from the repository's root, not installed

import benchmarks
from benchmarks import cold_start, fine_tuning, gpu, input_pipeline, robustness, train_presets, unet_variants
from benchmarks.peers import fleet, learning, quality_report, steps, steps_report, time_to_quality
from benchmarks.peers.contestants import CONTESTANTS, DEFAULT_FILTERS, FAMILY, REFERENCE, SEGMENTERS, Contestant, choose
from benchmarks.peers.learners import labels_of
from benchmarks.peers.learning import jaccard_by_photograph, learn
from benchmarks.peers.lesson import Lesson, Material, hold_to, learning_rate, open_material, prepare
from benchmarks.peers.machine import thread_environment
from dermaseg import training
from dermaseg.data import Samples, Split, make_dataset, make_synthetic, read_samples
from dermaseg.data.augment import Augment
from dermaseg.data.samples import Sample
from dermaseg.decisions import Decisions
from dermaseg.evaluation import evaluate
from dermaseg.prediction import Predictor
from dermaseg.presets import load_preset
from dermaseg.pretrained import find_preset
from dermaseg.runs import read_json, write_json

LESSON = Lesson(
    seconds=1.0,
    steps=None,
    every_s=0.3,
    size=32,
    batch_size=4,
    learning_rate=0.1,
    weight_decay=0.0,
    augment="light",
    seed=3,
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lesson")
    make_synthetic(folder / "data", count=28, size=(48, 64))
    split = prepare(folder / "data", folder / "output", [32], protocol={"looks": 3}, limit=None, validation_limit=None)
    return folder / "output", split


def test_results_of_other_photographs_are_not_mixed_with_these(prepared, tmp_path):
    output, split = prepared
    make_synthetic(tmp_path / "others", count=30, size=(48, 64), seed=5)
    with pytest.raises(SystemExit, match="holds results of other photographs"):
        prepare(tmp_path / "others", output, [32], protocol={"looks": 3}, limit=None, validation_limit=None)
    assert Split.load(output / "split.json") == split


class Oracle:
    """Learns the masks by heart after two steps, and tells the time by a clock of its own."""

    def __init__(self, material, clock):
        self.material, self.clock, self.steps, self.rates = material, clock, 0, []

    def set_learning_rate(self, rate):
        self.rates.append(rate)

    def train(self, images, masks):
        assert images.shape == (4, 28, 37, 3)
        assert masks.shape == (4, 28, 37, 1)
        assert images.dtype == masks.dtype == np.uint8
        self.steps += 1
        self.clock.now += 0.1
        return 1.0 / self.steps

    def predict(self, images):
        self.clock.now += 100.0  # looks must not count
        return np.full((*images.shape[:3], 1), float(self.steps > 2), np.float32)


def test_contestants_survive_json_and_the_default_is_that_of_build_unet():
    from dermaseg.models.unet import DEFAULT_FILTERS as OWN

    assert DEFAULT_FILTERS == OWN
    for name, one in CONTESTANTS.items():
        assert one.name == name
        assert Contestant.from_json(one.to_json()) == one
    assert not CONTESTANTS[REFERENCE].ours
    assert CONTESTANTS["ours"].modes == ("predict", "train")
    assert CONTESTANTS["ours-onnx"].modes == ("predict",)
    with pytest.raises(ValueError, match="there is no contestant 'nobody'"):
        choose(["ours", "nobody"])


def test_the_reference_is_in_every_group():
    groups = steps._groups(choose(list(CONTESTANTS)), 7)
    assert all(group[0].name == REFERENCE and 2 <= len(group) <= 7 for group in groups)
    assert {one.name for group in groups for one in group} == set(CONTESTANTS)
    assert steps._groups(choose(["ours"]), 7) == [[CONTESTANTS["ours"]]]


def test_a_gpu_meets_those_that_run_there_and_hides_nothing_from_them(tmp_path, monkeypatch):
    groups = []
    monkeypatch.setattr(steps, "_measure_group", lambda name, group, options: groups.append((name, group, options)) or {})
    monkeypatch.setattr(steps, "write_report", lambda *arguments, **how: None)
    gpu.main(["--output", str(tmp_path), "--sizes", "256"])
    options = groups[0][2]
    assert options.device == "cuda"
    assert {name for name, _, _ in groups} == {"256"}
    assert all(group[0].name == REFERENCE and len(group) <= 6 for _, group, _ in groups)  # a card has less memory
    people = [one for _, group, _ in groups for one in group]
    assert {one.framework for one in people} == {"jax", "torch"}
    assert {one.network for one in people} > set(FAMILY)  # every model
    assert not any(steps._excluded(one, options) for one in people)
    assert "tensorflow is not measured" in steps._excluded(CONTESTANTS["ours"], options)
    assert "CUDA_VISIBLE_DEVICES" not in thread_environment(2, "cuda")
    assert thread_environment(2, "cuda")["JAX_PLATFORMS"].startswith("cuda")  # or fail: never the processor instead
    assert thread_environment(2)["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(("chosen", "taken"), [(None, "1"), ("0", "0")])
def test_tensorflow_runs_with_the_kernels_that_the_command_line_chooses(chosen, taken, monkeypatch):
    monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
    if chosen is not None:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", chosen)
    assert thread_environment(2)["TF_ENABLE_ONEDNN_OPTS"] == taken


@pytest.mark.parametrize("chosen", [None, "0"])
def test_every_benchmark_has_those_kernels_unless_they_are_refused(chosen, monkeypatch):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "")
    if chosen is None:
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS")
    else:
        monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", chosen)
    importlib.reload(benchmarks)
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == (chosen or "1")


def test_a_processor_meets_those_that_only_outline():
    assert not {CONTESTANTS[name].network for name in SEGMENTERS} & set(FAMILY)
    assert {*SEGMENTERS} < {*CONTESTANTS}
    assert CONTESTANTS["cnn-jax"].ours
    assert not CONTESTANTS["torch-cnn"].ours
    assert labels_of(np.array([[[[1]]], [[[0]]]], np.uint8)).tolist() == [1, 0]


def test_int8_has_no_share_of_a_float32_peak():
    one = group("128", {"ours": 1.0})
    assert steps_report._matrix_peaks([one]) == {"float32": 20e9}
    one["contestants"][0]["precision"] = "int8"
    assert steps_report._matrix_peaks([one]) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, _ in FAMILY.values()])
def test_a_network_in_pytorch_has_the_parameters_of_ours(name):
    pytest.importorskip("torch")
    if name == "inception":
        pytest.importorskip("timm")
    from benchmarks.peers import keras_learner, torch_networks

    network, _, _ = torch_networks.build_network(CONTESTANTS[f"torch-{name}"])
    ours = keras_learner.build_network(CONTESTANTS[f"{name}-jax"], (96, 96))
    expected = keras_learner.trainable_parameters(ours)
    found = sum(weight.numel() for weight in network.parameters())
    # timm's normalisations have scales, those of keras.applications have none; ours stay frozen.
    assert found == pytest.approx(expected, rel=0.01 if name == "inception" else 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch-ours", "torch-plain", "torch-cnn", "torch-fuzzy", "torch-hybrid"])
def test_a_network_in_pytorch_takes_any_size_as_ours_do(name):
    torch = pytest.importorskip("torch")
    from benchmarks.peers import torch_networks

    network, multiple, _ = torch_networks.build_network(CONTESTANTS[name])
    assert multiple == 1
    outputs = network(torch.zeros(2, 3, 67, 98))
    outputs = outputs if isinstance(outputs, dict) else {"label" if name == "torch-cnn" else "mask": outputs}
    sizes = {key: tuple(value.shape[2:]) for key, value in outputs.items()}
    assert sizes == {key: (67, 98) if key == "mask" else () for key in outputs}


@pytest.mark.slow
def test_operations_are_those_counted_by_hand():
    import keras

    from benchmarks.peers.keras_learner import KerasLearner, forward_flops

    backend = keras.backend.backend()
    engine = "xla" if backend == "jax" else "eager"  # JAX without its compiler is slow
    one = Contestant(name="tiny", label="tiny", framework=backend, options={"filters": (4, 8)}, engine=engine)
    pixels = 16 * 16  # a stem of stride 2
    stem = 9 * 3 * 4 * pixels
    first = 2 * 9 * 4 * 4 * pixels
    second = (9 * 4 * 8 + 9 * 8 * 8 + 4 * 8) * pixels / 4
    decoder = 8 * 4 * pixels / 4 + 9 * 4 * 4 * pixels
    head = 9 * 4 * pixels
    assert forward_flops(one, (32, 32)) == 2 * (stem + first + second + decoder + head)

    learner = KerasLearner(one, (32, 32), seed=0, learning_rate=1e-3, weight_decay=0.0)
    images = np.random.default_rng(0).integers(0, 256, (2, 30, 32, 3), dtype=np.uint8)
    learner.set_learning_rate(1e-2)
    losses = [learner.train(images, images[..., :1] // 128) for _ in range(2)]
    assert np.isfinite(losses).all()
    assert learner.predict(images).shape == (2, 30, 32, 1)
    assert learner.parameters == sum(np.prod(weight.shape) for weight in learner.model.trainable_weights)
    assert learner.multiply(8)().tolist() == [[8.0]]


def test_the_rate_follows_the_clock_or_the_steps():
    assert learning_rate(LESSON, 0.0, 0) == pytest.approx(0.001)
    assert learning_rate(LESSON, 0.05, 0) == pytest.approx(0.1)
    assert learning_rate(LESSON, 1.0, 0) == pytest.approx(0.001)
    assert learning_rate(LESSON, 9.0, 0) == pytest.approx(0.001)
    by_steps = Lesson(**{field: getattr(LESSON, field) for field in LESSON.__dataclass_fields__ if field != "steps"}, steps=100)
    assert learning_rate(by_steps, 0.9, 5) == pytest.approx(0.1)


def test_no_lesion_is_in_both_parts_and_the_batches_are_those_of_the_library(prepared):
    folder, split = prepared
    parts = {name: Samples.load(folder / f"{name}.json") for name in ("train", "validation")}
    assert {name: set(part.ids) for name, part in parts.items()} == {name: set(split.parts[name]) for name in parts}
    lesions = [{sample.lesion_id for sample in part} for part in parts.values()]
    assert not lesions[0] & lesions[1]
    material = open_material(folder, 32)
    assert material.masks.shape[1:] == (222, 296)
    library = make_dataset(
        parts["train"],
        size=(28, 37),
        batch_size=4,
        augment=Augment.light(),
        shuffle=True,
        drop_remainder=True,
        seed=3,
        framework="pydataset",
    )
    with material.batches(LESSON) as take:
        for _ in range(2):
            for images, masks in library:
                ours = take()
                np.testing.assert_array_equal(ours[0], images)
                np.testing.assert_array_equal(ours[1], masks)


def test_an_error_while_a_batch_is_made_reaches_the_trainer(prepared, tmp_path):
    material = open_material(prepared[0], 32)
    broken = types.SimpleNamespace(read=lambda positions: (_ for _ in ()).throw(OSError("disk gone")))
    broken_material = Material(broken, material.count, material.images, material.masks, material.groups)
    with broken_material.batches(LESSON) as take, pytest.raises(OSError, match="disk gone"):
        take()


def test_the_clock_counts_training_alone(prepared, monkeypatch):
    from benchmarks.peers import learning

    material = open_material(prepared[0], 32)
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(learning, "time", types.SimpleNamespace(perf_counter=lambda: clock.now))
    oracle = Oracle(material, clock)
    found = learn(oracle, material, LESSON, name="oracle")
    assert found["history"][-1]["train_s"] == pytest.approx(1.0, abs=0.11)
    assert found["history"][-1]["steps"] == oracle.steps in (10, 11)
    assert len(found["history"]) in (4, 5)
    assert oracle.rates[0] < oracle.rates[1] > oracle.rates[-1]
    assert not found["diverged"]
    truth = (material.masks > 0).mean(axis=(1, 2))
    assert found["last_jaccards"] == pytest.approx(truth.tolist(), abs=1e-4)
    oracle.train = lambda images, masks: float("nan")
    assert learn(oracle, material, LESSON, name="oracle")["diverged"]


def test_the_load_is_read_before_the_training_that_makes_one(prepared, tmp_path, monkeypatch):
    output, _ = prepared
    done = []
    learner = types.SimpleNamespace(parameters=1, forward_flops=1.0, versions={})
    monkeypatch.setattr(learning, "build_learner", lambda *_, **__: learner)
    monkeypatch.setattr(learning, "hold_to_cores", lambda _: None)
    monkeypatch.setattr(learning, "describe", lambda: done.append("load") or {"load average before": 0.5})
    monkeypatch.setattr(learning, "learn", lambda *_, **__: done.append("training") or {})
    task, result = tmp_path / "task.json", tmp_path / "result.json"
    lesson = {name: getattr(LESSON, name) for name in LESSON.__dataclass_fields__}
    write_json(task, {"contestant": CONTESTANTS["ours"].to_json(), "lesson": lesson, "folder": str(output)})
    monkeypatch.setattr(sys, "argv", ["learning", str(task), str(result)])
    learning.main()
    assert done == ["load", "training"]
    assert read_json(result)["machine"] == {"load average before": 0.5}


def test_jaccard_of_empty_masks_and_of_a_last_batch():
    count = 33
    masks = np.zeros((count, 8, 8), np.uint8)
    masks[1, :4] = 1
    material = Material(None, 0, np.zeros((count, 4, 4, 3), np.uint8), masks, np.arange(count))
    learner = types.SimpleNamespace(predict=lambda images: np.zeros((len(images), 4, 4, 1), np.float32))
    scores = jaccard_by_photograph(learner, material)
    assert scores.tolist() == [1.0, 0.0] + [1.0] * 31


def test_results_of_another_protocol_are_not_mixed(tmp_path):
    hold_to(tmp_path / "protocol.json", {"size": 128})
    hold_to(tmp_path / "protocol.json", {"size": 128})
    with pytest.raises(SystemExit, match="size was 128, is 96"):
        hold_to(tmp_path / "protocol.json", {"size": 96})


def group(name, speeds, failed=None):
    people = ["torch-plain", *speeds]
    times = {"torch-plain": [2.0, 4.0, 2.0], **{one: [2.0 / s, 4.0 / s, None] for one, s in speeds.items()}}
    case = {one: {"first_s": 3.0, "steps": 1, "step_s": times[one], "peak_mb": 500.0} for one in people}
    return {
        "size": name,
        "contestants": [CONTESTANTS[one].to_json() for one in [*people, *(failed or {})]],
        "failed": failed or {},
        "facts": {one: {"parameters": 7, "forward_flops": 1e9, "versions": {"x": "1"}} for one in people},
        "cases": [{"mode": "train", "batch": 4, "height": 64, "width": 64, "contestants": case}],
        "matrix_flops_s": {"torch-plain": [30e9, 10e9, 20e9]},
    }


def test_speeds_are_ratios_within_a_round(tmp_path):
    groups = [group("128", {"ours": 4.0}, {"monai-unet": "no | module"}), group("128", {"smp-resnet18": 0.5})]
    rows = steps_report.step_rows(groups, reference=REFERENCE)
    assert [(row["contestant"], row["speed"]) for row in rows] == [("ours", 4.0), ("torch-plain", 1.0), ("smp-resnet18", 0.5)]
    ours = rows[0]
    assert (ours["speed_low"], ours["speed_high"], ours["rounds"]) == (4.0, 4.0, 2)
    assert ours["step_ms"] == 750.0
    assert ours["peak_share"] == pytest.approx(3 * 4 * 1e9 / 0.75 / 20e9)
    for number, one in enumerate(groups):
        write_json(tmp_path / "rounds" / f"{number}.json", one)
    write_json(tmp_path / "machine.json", {"processor": "p", "vector instructions": ["avx2"], "load average before": 0.1})
    steps.main(["--output", str(tmp_path), "--table"])
    page = (tmp_path / "steps.md").read_text()
    assert "| **dermaseg U-Net, TensorFlow** | 750.0 | 5.3 | 4.00 | 4.00 to 4.00 |  | 1.00 | 80 % | 500 | 3.0 |" in page
    assert "| MONAI UNet, 2 residual units, 128 | no / module |" in page
    assert "not idle" not in page
    assert (tmp_path / "steps.csv").is_file()
    assert (tmp_path / "steps.png").stat().st_size > 5000


def test_times_of_ours_are_ratios_within_a_round_too(tmp_path):
    one = group("128", {"ours": 1.0, "monai-unet": 1.0, "ours-bfloat16": 1.0, "torch-plain-bfloat16": 1.0})
    times = {
        "ours": [1.0, 3.0, 2.0],
        "monai-unet": [3.0, 3.0, 2.0],  # the medians' quotient is 1.5
        "ours-bfloat16": [1.0, 2.0, None],
        "torch-plain-bfloat16": [4.0, 4.0, 4.0],
    }
    for name, step_s in times.items():
        one["cases"][0]["contestants"][name]["step_s"] = step_s
    rows = {row["contestant"]: row for row in steps_report.step_rows([one], reference=REFERENCE)}
    monai, bfloat16 = rows["monai-unet"], rows["torch-plain-bfloat16"]
    assert (monai["times_ours"], monai["times_ours_low"], monai["times_ours_high"]) == (1.0, 1.0, 2.0)
    assert (bfloat16["times_ours"], bfloat16["times_ours_low"], bfloat16["times_ours_high"]) == (3.0, 2.5, 3.5)
    assert np.isnan(rows["ours"]["times_ours"])
    write_json(tmp_path / "rounds" / "0.json", one)
    steps.main(["--output", str(tmp_path), "--table"])
    page = (tmp_path / "steps.md").read_text()
    assert "| times ours |" in page
    assert " | 1.00 (1.00 to 2.00) | 1.00 | " in page


@pytest.mark.thorough
@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="shows what happens without PyTorch")
def test_a_missing_library_becomes_a_row_that_says_so(tmp_path):
    command = ["--output", str(tmp_path), "--quick", "--contestants", "torch-plain"]
    steps.main(command)
    (file,) = (tmp_path / "rounds").glob("*.json")
    assert read_json(file)["failed"] == {"torch-plain": "ModuleNotFoundError: No module named 'torch'"}
    assert "| plain U-Net, PyTorch, 128 | ModuleNotFoundError: No module named 'torch' |" in (tmp_path / "steps.md").read_text()
    before = file.stat().st_mtime_ns
    steps.main(command)
    assert file.stat().st_mtime_ns == before
    with pytest.raises(SystemExit, match="other settings"):
        steps.main([*command, "--threads", "77"])


def test_the_last_words_of_a_process_fit_a_cell():
    assert fleet.reason("Traceback\n\nValueError: no\n", 1) == "ValueError: no"
    assert fleet.reason("", -9) == "ended with code -9"
    assert len(fleet.reason("x" * 1000, 1)) == 160


def run(name, seed, jaccards, *, rate=2e-3, size=128, label=None, minutes=1.5):
    return {
        "name": name,
        "contestant": Contestant(
            name=name,
            label=label or name,
            framework="torch" if name.startswith("torch") else "tensorflow",
            options={"filters": [4, 8], "stem_stride": 2},
        ).to_json(),
        "lesson": {
            **{field: getattr(LESSON, field) for field in LESSON.__dataclass_fields__},
            "seed": seed,
            "learning_rate": rate,
            "size": size,
            "seconds": 60 * minutes,
        },
        "machine": {"processor": "p", "vector instructions": ["avx2"], "load average before": 0.25 + seed},
        "threads": 2,
        "parameters": 1234,
        "forward_flops": 5e8,
        "versions": {"keras": "3"},
        "diverged": False,
        "first_step_s": 1.5,
        "peak_mb": 400.0,
        "history": [
            {"train_s": 30.0 * (look + 1), "steps": 10 * (look + 1), "loss": 0.5, "jaccard": value}
            for look, value in enumerate(jaccards)
        ],
        "last_jaccards": [jaccards[-1] - 0.1, jaccards[-1] + 0.1, jaccards[-1]],
        "lesions": [0, 1, 1],
    }


def test_seconds_to_a_target_over_seeds(tmp_path):
    runs = [
        run("ours", 0, [0.80, 0.86, 0.89], label="dermaseg U-Net, TensorFlow"),
        run("ours", 1, [0.86, 0.85, 0.87], label="dermaseg U-Net, TensorFlow"),
        run("torch-plain", 0, [0.5, 0.6, 0.7]),
    ]
    for number, one in enumerate(runs):
        write_json(tmp_path / "runs" / f"{number}.json", one)
    write_json(tmp_path / "failures.json", {"smp-resnet18-rate0.002-seed0": "no module"})
    time_to_quality.main(["--output", str(tmp_path), "--table"])
    ours, torch = quality_report.quality_rows(runs, (0.85, 0.88))
    assert (ours["s_to_0.85"], ours["s_to_0.85_low"], ours["s_to_0.85_high"], ours["reached_0.85"]) == (60.0, 30.0, 60.0, 2)
    assert (ours["s_to_0.88"], ours["s_to_0.88_low"], ours["reached_0.88"]) == (None, 90.0, 1)
    assert ours["best_jaccard"] == 0.88
    assert torch["s_to_0.85"] is None
    page = (tmp_path / "time_to_quality.md").read_text()
    assert "- load average before each run: 0.25 to 1.25\n" in page
    assert (
        "| **dermaseg U-Net, TensorFlow** | 90 | 0.002 | 2 | 60 (30 to 60) | 1 of 2 seeds | 0.8800 |  | 0.8800 | 0.33 | "
        "1.5 | 400 |" in page
    )
    assert "| torch-plain | 90 | 0.002 | 1 | not reached | not reached | 0.7000 | -0.1900 [-0.1900, -0.1900] |" in page
    assert "| smp-resnet18-rate0.002-seed0 | no module |" in page
    assert (tmp_path / "time_to_quality.png").stat().st_size > 5000


def test_plans_of_other_lengths_are_rows_of_their_own_beside_the_shortest_of_ours(tmp_path):
    runs = [
        run("ours", 0, [0.86], minutes=5),
        run("ours", 0, [0.89], minutes=20),
        run("torch-plain", 0, [0.85], minutes=20),
        run("torch-plain", 1, [0.10], minutes=20),  # no seed of the reference: not in the difference
    ]
    rows = {(row["contestant"], row["planned_s"]): row for row in quality_report.quality_rows(runs, (0.85,))}
    assert set(rows) == {("ours", 300), ("ours", 1200), ("torch-plain", 1200)}
    assert "difference" not in rows["ours", 300]
    assert rows["ours", 1200]["difference"] == 0.03
    assert (rows["torch-plain", 1200]["difference"], rows["torch-plain", 1200]["shared_seeds"]) == (-0.01, 1)
    quality_report.draw_curves(runs, (0.85,), tmp_path / "curves.png")


def test_variants_are_compared_on_the_same_photographs_and_seeds(tmp_path):
    runs = [run("default", 0, [0.8]), run("default", 1, [0.9]), run("plain", 1, [0.88], size=96)]
    for number, one in enumerate(runs):
        write_json(tmp_path / "runs" / f"{number}.json", one)
    unet_variants.main(["--output", str(tmp_path), "--table"])
    plain, default = unet_variants.variant_rows(runs)
    assert (default["jaccard"], default["jaccard_low"], default["jaccard_high"]) == (0.85, 0.8, 0.9)
    assert (plain["difference"], plain["shared_seeds"]) == (-0.02, 1)  # against seed 1 alone
    page = (tmp_path / "unet_variants.md").read_text()
    assert "| plain | 96 | 1,234 | 0.50 | 1 | 10 | 0.8800 | -0.0200 [-0.0200, -0.0200] | 400 |" in page
    assert "| **default** | 128 | 1,234 | 0.50 | 2 | 10 | 0.8500 (0.8000 to 0.9000) |" in page
    assert (tmp_path / "unet_variants.csv").is_file()


def test_variants_have_the_settings_of_train_and_forget_failures_that_are_mended(tmp_path, monkeypatch):
    from dermaseg.tasks import Settings

    lessons = []
    monkeypatch.setattr(unet_variants, "prepare", lambda *_, **__: None)
    monkeypatch.setattr(unet_variants, "train_one", lambda _, lesson, *__, **___: lessons.append(lesson))
    write_json(tmp_path / "failures.json", {"plain-seed0": "out of memory", "wide-seed0": "out of memory"})
    unet_variants.main(["--data", "anywhere", "--output", str(tmp_path), "--variants", "plain"])
    assert read_json(tmp_path / "failures.json") == {"wide-seed0": "out of memory"}
    defaults = Settings()
    for name in ("augment", "batch_size", "learning_rate", "weight_decay"):
        assert getattr(lessons[0], name) == getattr(defaults, name)


def test_variants_differ_and_the_first_is_what_build_unet_builds():
    import inspect

    from dermaseg.models import build_unet

    variants = list(unet_variants.VARIANTS.values())
    assert (variants[0].filters, variants[0].stem_stride) == (
        DEFAULT_FILTERS,
        inspect.signature(build_unet).parameters["stem_stride"].default,
    )
    assert len({(one.filters, one.stem_stride, one.size) for one in variants}) == len(variants)


def test_training_needs_data(tmp_path):
    for command in (time_to_quality, unet_variants):
        with pytest.raises(SystemExit, match="--data is needed"):
            command.main(["--output", str(tmp_path)])
    with pytest.raises(SystemExit, match="does not exist"):
        time_to_quality.main(["--output", str(tmp_path), "--data", str(tmp_path / "nowhere")])


def photographs(count, a_lesion=2):
    rows = [Sample(f"p{index:02d}", Path(f"p{index:02d}.jpg"), lesion_id=str(index // a_lesion)) for index in range(count)]
    return Samples(rows), {row.id: index // a_lesion for index, row in enumerate(rows)}


def test_small_sets_lie_within_larger_ones_and_take_whole_lesions():
    samples, groups = photographs(20)
    draws = {count: fine_tuning.some_of(samples, count, groups=groups, seed=3).ids for count in (4, 5, 12, 20)}
    assert {count: len(set(ids)) for count, ids in draws.items()} == {4: 4, 5: 5, 12: 12, 20: 20}
    assert set(draws[4]) < set(draws[5]) < set(draws[12])
    assert len({groups[key] for key in draws[4]}) == 2
    other_order = samples.select(list(reversed(samples.ids)))
    assert set(fine_tuning.some_of(other_order, 4, groups=groups, seed=3).ids) == set(draws[4])
    assert any(set(fine_tuning.some_of(samples, 4, groups=groups, seed=seed).ids) != set(draws[4]) for seed in range(5))


def test_looks_are_the_validated_epochs_in_steps():
    history = "epoch,loss,val_jaccard,val_loss\n1,0.5,,\n2,0.4,0.7,0.3\n3,0.3,0.9,0.2\n"
    looks = fine_tuning.looks_of(history, steps_an_epoch=6)
    assert looks == [[12, 0.7], [18, 0.9]]
    assert fine_tuning.steps_to(looks, 0.7) == 12
    assert fine_tuning.steps_to(looks, 0.95) is None


def tuning(arm, seed, jaccards, looks, size=50):
    return {"arm": arm, "size": size, "seed": seed, "jaccards": jaccards, "groups": [0, 1, 1], "looks": looks}


def test_starts_are_compared_on_the_same_photographs_and_seeds(tmp_path):
    runs = [
        tuning("scratch", 0, [0.5, 0.6, 0.7], [[10, 0.4], [20, 0.6]]),
        tuning("scratch", 1, [0.6, 0.7, 0.8], [[10, 0.5], [20, 0.7]]),
        tuning("tuned", 0, [0.7, 0.8, 0.9], [[10, 0.65], [20, 0.8]]),
        tuning("tuned", 1, [0.7, 0.8, 0.9], [[10, 0.6], [20, 0.8]]),
        tuning("tuned", 2, [0.0, 0.0, 0.0], [[10, 0.0]]),  # no partner: left out
        tuning("scratch", 0, [0.9, 0.9, 0.9], [[10, 0.9]], size=200),
    ]
    (row,) = fine_tuning.size_rows(runs)
    assert (row["size"], row["seeds"], row["steps"], row["sooner"]) == (50, 2, 20, 15)
    assert row["difference"].value == pytest.approx(0.15)
    for number, one in enumerate(runs):
        write_json(tmp_path / "results" / f"{number}.json", one)
    write_json(tmp_path / "preset.json", {"jaccards": [0.5, 0.5, 0.5], "groups": [0, 1, 1]})
    protocol = {"data": "clinic", "start": "p", "steps": 20, "batch_size": 4, "size": 32, "augment": "light"}
    write_json(tmp_path / "protocol.json", {**protocol, "rates": {"scratch": 2e-3, "tuned": 5e-4}})
    fine_tuning.main(["--output", str(tmp_path), "--table"])
    page = (tmp_path / "fine_tuning.md").read_text()
    assert "| 50 | 2 | 0.650 (0.600 to 0.700) | 0.800 (0.800 to 0.800) | +0.150 [+0.150, +0.150] | 15 of 20 |" in page
    assert "trained no further: 0.500 [0.500, 0.500]" in page
    assert "scored on 3 photographs in 2 groups" in page


def test_a_preset_is_not_measured_on_what_it_learned():
    unet, hybrid = (find_preset(name).card for name in train_presets.NAMES.values())
    ham = Samples([Sample("a", Path("a.jpg"), lesion_id="HAM_0000001")], source="clinic")
    isic = Samples([Sample("a", Path("a.jpg"))], source="ISIC 2018 task 1")
    fine_tuning.check_unseen(isic, unet)
    for samples, card, words in (
        (ham, unet, "has learned from HAM10000"),
        (isic, hybrid, "has learned from ISIC 2018"),
        (photographs(2)[0], hybrid, "task segment is needed"),
    ):
        with pytest.raises(SystemExit, match=words):
            fine_tuning.check_unseen(samples, card)


@pytest.mark.thorough
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] == "jax", reason="minutes of compiling; the parts are tested on JAX")
def test_fine_tuning_runs_from_end_to_end_and_goes_on(synthetic_folder, tmp_path, monkeypatch):
    # Two stages of the preset's six: the start still fits where it fits, and the test takes seconds.
    monkeypatch.setattr(training, "train", partial(training.train, model={"filters": (16, 32)}))
    command = ["--data", str(synthetic_folder), "--output", str(tmp_path), "--quick"]
    fine_tuning.main(command)
    assert "| 8 | 1 | 0." in (tmp_path / "fine_tuning.md").read_text()
    scratch, tuned = (read_json(tmp_path / "runs" / f"{arm}-8-seed0" / "settings.json") for arm in ("scratch", "tuned"))
    assert (scratch["start"], tuned["start"]) == (None, "unet-ham10000-128")
    splits = [Split.load(tmp_path / "runs" / f"{arm}-8-seed0" / "split.json") for arm in ("scratch", "tuned")]
    assert splits[0].fingerprint == splits[1].fingerprint
    assert len(splits[0].parts["train"]) == 8
    files = sorted((tmp_path / "results").glob("*.json"))
    before = [file.stat().st_mtime_ns for file in files]
    fine_tuning.main(command)
    assert [file.stat().st_mtime_ns for file in files] == before


@pytest.mark.thorough
@pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "tensorflow", reason="writes graphs, which takes TensorFlow")
def test_presets_are_made_scored_as_delivered_and_not_made_again(tmp_path, monkeypatch):
    pytest.importorskip("tf2onnx")
    ham, isic = tmp_path / "ham", tmp_path / "isic"
    make_synthetic(ham, count=28, size=(48, 64), seed=1)
    for kind in ("images", "masks"):
        (isic / kind).mkdir(parents=True)
    for sample in read_samples(ham)[:12:2]:
        for kind, file in (("images", sample.image), ("masks", sample.mask)):
            (isic / kind / f"other_{sample.id}{file.suffix}").write_bytes(file.read_bytes())
    tiny = {"steps": 1, "batch_size": 4, "precision": "float32", "model": {"filters": [8, 16]}}
    stages = ({"size": 32, "augment": "strong", **tiny}, {"size": 48, **tiny})
    monkeypatch.setattr(train_presets, "STAGES", {"unet": ({"size": 32, **tiny},), "hybrid": stages})
    output, weights = tmp_path / "output", tmp_path / "weights"
    command = ["all", "--ham10000", str(ham), "--isic2018", str(isic), "--output", str(output), "--weights", str(weights)]
    with warnings.catch_warnings():
        expected = "the model names the class right|.*neither lesion nor patient|.*part has no photograph of"
        warnings.filterwarnings("ignore", expected, UserWarning)
        train_presets.main(command)
        unet, hybrid = (find_preset(name, folder=weights) for name in train_presets.NAMES.values())
        assert "at 32 pixels" in unet.card["limits"]
        assert "at 32 and then 48 pixels" in hybrid.card["limits"]
        assert hybrid.card["size"] == 48
        assert [stage["start"] for stage in hybrid.card["stages"][:2]] == ["unet-ham10000-128", "stage 1"]
        assert [stage["settings"]["augment"] for stage in hybrid.card["stages"][:2]] == ["strong", "light"]
        assert hybrid.card["stages"][2:] == [{"mean_of": ["stage 1", "stage 2"]}]
        assert unet.card["stages"][0]["start"] is None
        assert str(tmp_path) not in json.dumps([unet.card, hybrid.card])
        for preset in (unet, hybrid):
            assert preset.graph.is_file()
            assert preset.runs_without_keras
            for figures in preset.card["figures"].values():
                tones = figures["subgroups"]["tone"].values()
                assert sum(tone["jaccard"]["count"] for tone in tones) == figures["images"] == figures["jaccard"]["count"]
        assert "accuracy" in hybrid.card["figures"]["HAM10000, test part"]
        test = Split.load(output / "unet" / "stage-1" / "split.json").apply(read_samples(ham))["test"]
        predictor = Predictor(load_preset(unet.name, folder=weights), size=32)
        predictor.decisions = Decisions.from_dict(unet.card["decisions"])
        expected = evaluate(predictor, test, subgroups=()).figures["jaccard"].value
        assert unet.card["figures"]["HAM10000, test part"]["jaccard"]["value"] == pytest.approx(expected, abs=2e-3)
        # Names within a converted graph, and so its hash, differ from call to call.
        before = hybrid.path.read_bytes(), {**hybrid.card, "graph_sha256": ""}
        monkeypatch.setattr(train_presets, "train", None)
        train_presets.main(["hybrid", *command[1:]])
        again = find_preset(hybrid.name, folder=weights)
    assert (again.path.read_bytes(), {**again.card, "graph_sha256": ""}) == before


# PyTorch's side


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs PyTorch")
def test_peers_in_pytorch_have_the_loss_of_dermaseg():
    import keras
    import torch

    from benchmarks.peers.torch_learner import overlap_crossentropy
    from dermaseg.losses import OverlapCrossentropy

    rng = np.random.default_rng(0)
    true = (rng.uniform(size=(4, 12, 10, 1)) < np.array([0.0, 0.1, 0.5, 1.0])[:, None, None, None]).astype("float32")
    logits = rng.normal(scale=3.0, size=true.shape).astype("float32")
    ours = OverlapCrossentropy(overlap="jaccard", from_logits=True, reduction="none")(true, logits)
    theirs = overlap_crossentropy(*(torch.from_numpy(values).permute(0, 3, 1, 2) for values in (true, logits)))
    np.testing.assert_allclose(theirs.numpy(), keras.ops.convert_to_numpy(ours), rtol=1e-5)


# One photograph, one stage


@pytest.mark.parametrize("count", ["33", "0", "many"])
def test_photographs_that_do_not_fill_batches_are_refused_at_the_door(count, capsys):
    with pytest.raises(SystemExit):
        input_pipeline.main([count])
    assert "count" in capsys.readouterr().err


def test_the_input_says_how_it_is_asked(capsys):
    with pytest.raises(SystemExit, match="0"):
        input_pipeline.main(["--help"])
    assert "a multiple of 32" in capsys.readouterr().out


@pytest.mark.parametrize(("platform", "megabytes"), [("linux", 204.8), ("darwin", 0.2)])
def test_peak_memory_is_in_megabytes(platform, megabytes, monkeypatch, tmp_path):
    process = types.SimpleNamespace(stdout=None, pid=7, returncode=None)
    monkeypatch.setattr(cold_start.subprocess, "Popen", lambda *_, **__: contextlib.nullcontext(process))
    monkeypatch.setattr(cold_start.os, "wait4", lambda *_: (7, 0, types.SimpleNamespace(ru_maxrss=200_000)))
    monkeypatch.setattr(cold_start, "sys", types.SimpleNamespace(platform=platform, executable="python"))
    assert cold_start.run([], tmp_path, [])[1] == pytest.approx(megabytes)


def test_few_photographs_are_taken_from_all_of_a_sorted_table(classes_folder, tmp_path, monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(robustness, "Predictor", lambda _: None)

    def scores(_, samples, *__):
        seen.append([sample.id for sample in samples])
        return {"jaccard": np.ones(len(samples))}

    monkeypatch.setattr(robustness, "scores", scores)
    command = ["robustness", "--ham10000", str(classes_folder), "--changes", "as it is"]
    for images in ([], ["--images", "3"]):
        monkeypatch.setattr(sys, "argv", [*command, *images])
        robustness.main()
    everything, few = seen
    assert few == [everything[0], everything[(len(everything) - 1) // 2], everything[-1]]
