"""Two virtual devices train as one does: same losses, same weights, but for rounding."""

import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import types
import warnings

import pytest

# Processes of their own: devices are set up before a backend starts.
SCRIPT = """
import contextlib, csv, hashlib, json, os, sys, tempfile
kind = sys.argv[1]
if kind == "mirrored":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from dermaseg.data import Split, make_synthetic
from dermaseg.training import train

folder = tempfile.mkdtemp()
task, count = sys.argv[2], int(sys.argv[3])
samples = make_synthetic(folder + "/data", count=count, size=(64, 80), images_per_lesion=2 - count % 2)
scope = contextlib.nullcontext()
if kind == "mirrored":
    scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
elif kind == "parallel":
    devices = keras.distribution.list_devices()
    assert len(devices) == 2, devices
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
elif kind == "hosts":
    import jax
    jax.distributed.initialize(sys.argv[4], num_processes=2, process_id=int(sys.argv[5]))
    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    assert (jax.local_device_count(), jax.device_count()) == (1, 2)
model = {"filters": [8, 16], "dropout": 0.0}
with scope:
    settings = {"size": 32, "steps": 8, "batch_size": 4, "precision": "float32", "augment": "none"}
    run = train(task, samples, folder + "/run", model=model, **settings)
assert len(Split.load(run.split).apply(samples)["validation"]) % 2 == count % 2
with open(run.history, newline="") as file:
    print("figures", json.dumps(list(csv.DictReader(file))))
keras.distribution.set_distribution(None)
weights = keras.saving.load_model(run.model, compile=False).get_weights()
print("weights", hashlib.sha256(b"".join(values.tobytes() for values in weights)).hexdigest())
"""


def history(kind, *, backend, task="hybrid", count=28):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if kind == "one":  # needs no setting up
        assert backend == os.environ["KERAS_BACKEND"]
        with (
            contextlib.redirect_stdout(io.StringIO()) as shown,
            warnings.catch_warnings(action="ignore", category=UserWarning),  # so few photographs teach nothing
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(sys, "argv", ["", kind, task, str(count)])
            exec(SCRIPT, {})
        return figures_of(shown.getvalue())
    if kind == "parallel":
        environment["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    command = [sys.executable, "-c", SCRIPT, kind, task, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return figures_of(done.stdout)


def figures_of_two_hosts(task, count, folder):
    """Two processes, each with a device of its own, as two machines would be."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", SCRIPT, "hosts", task, str(count), address]
    said = [folder / f"host-{number}.txt" for number in range(2)]
    processes = []
    try:
        for number, file in enumerate(said):
            with file.open("w") as output:
                started = subprocess.Popen([*command, str(number)], stdout=output, stderr=subprocess.STDOUT, env=environment)
            processes.append(started)
        for process, file in zip(processes, said, strict=True):
            assert process.wait(timeout=600) == 0, file.read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
    return [(figures_of(file.read_text()), digest_of(file.read_text())) for file in said]


def digest_of(shown):
    return next(line for line in shown.splitlines() if line.startswith("weights "))


def figures_of(shown):
    line = next(line for line in shown.splitlines() if line.startswith("figures "))
    return [{name: float(value) for name, value in row.items() if value} for row in json.loads(line.removeprefix("figures "))]


def assert_alike(several, one, *, tolerance):
    assert len(several) == len(one) > 0
    for found, expected in zip(several, one, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if name.endswith("loss"):  # a photograph on the edge of a class may count otherwise after rounding
                assert found[name] == pytest.approx(value, rel=tolerance), name


# Each in the run of its own backend.
on_tensorflow = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "tensorflow", reason="several devices of TensorFlow")
on_jax = pytest.mark.skipif(os.environ["KERAS_BACKEND"] != "jax", reason="several devices of JAX")


@on_tensorflow
@pytest.mark.thorough
@pytest.mark.parametrize("task", ["segment", "hybrid"])
def test_mirrored_replicas_train_as_one_device(task):
    several, one = (history(kind, backend="tensorflow", task=task) for kind in ("mirrored", "one"))
    # Not to the last digit: replicas clip their own gradients before they are summed.
    assert_alike(several, one, tolerance=0.02)


@on_jax
@pytest.mark.slow
def test_data_parallel_devices_train_as_one_device():
    assert_alike(history("parallel", backend="jax"), history("one", backend="jax"), tolerance=1e-4)


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize(("task", "count"), [("segment", 37), ("classify-2", 35), ("hybrid", 37)])  # 7, 5 and 7 validate
def test_data_parallel_devices_share_any_number_of_validation_photographs(task, count):
    several, one = (history(kind, backend="jax", task=task, count=count) for kind in ("parallel", "one"))
    # The hybrid averages its outputs' losses over batches, of 4 and 3 photographs on one device, and of 4 and 4 places on two.
    assert_alike(several, one, tolerance=0.02 if task == "hybrid" else 1e-4)
    assert several[-1].keys() >= {"val_loss"}


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize(("task", "count"), [("segment", 37), ("hybrid", 28)])
def test_two_hosts_train_as_one_device(task, count, tmp_path):
    (figures, weights), other = figures_of_two_hosts(task, count, tmp_path)
    assert (figures, weights) == other
    assert_alike(figures, history("one", backend="jax", task=task, count=count), tolerance=0.02 if task == "hybrid" else 1e-4)


def test_hosts_read_their_own_rows(tmp_path, monkeypatch):
    import numpy as np

    from dermaseg.data import make_dataset, make_synthetic, pipeline

    samples = make_synthetic(tmp_path, count=11, size=(24, 24))

    def batches(share, **more):
        monkeypatch.setattr(pipeline, "host_share", lambda: share)
        how = {"size": 16, "batch_size": 4, "target": "label", "shuffle": True, "framework": "pydataset", "multiple": 2}
        return list(make_dataset(samples, **{**how, **more}))

    whole, first, second = batches((0, 1)), batches((0, 2)), batches((1, 2))
    assert len(whole) == len(first) == len(second) == 3
    for one, *halves in zip(whole, first, second, strict=True):
        for array, *parts in zip(one, *halves, strict=True):
            np.testing.assert_array_equal(array, np.concatenate(parts))
    with pytest.raises(ValueError, match="batch_size=4 and multiple=1 must be multiples of it"):
        batches((0, 2), multiple=1)
    for wrong in ({"batch_size": 5, "multiple": 1, "drop_remainder": True}, {"framework": "tensorflow"}):
        with pytest.raises(ValueError, match="2 processes share each batch"):
            batches((0, 2), **wrong)
    drawn = []

    def varied(images, masks, *, rng):
        drawn.append(rng.random())
        return images, masks

    for number in range(2):
        batches((number, 2), augment=varied)
    assert len(set(drawn)) == 6  # no process repeats what another draws


def test_hosts_are_told_what_they_cannot_do_before_anything_is_written(tmp_path, monkeypatch):
    import keras

    from dermaseg import training
    from dermaseg.data import make_synthetic

    monkeypatch.setattr(training, "host_share", lambda: (0, 2))
    monkeypatch.setattr(
        keras.distribution, "distribution", lambda: types.SimpleNamespace(auto_shard_dataset=True, device_mesh=None)
    )
    samples = make_synthetic(tmp_path / "data", count=28, size=(48, 64))
    small = {"size": 32, "batch_size": 4, "steps": 4, "model": {"filters": (8, 16)}}
    for more, remedy in (
        ({"minutes": 1}, "give steps"),
        ({"head_epochs": 2}, "head_epochs=0"),
        ({}, "auto_shard_dataset=False"),
    ):
        with pytest.raises(ValueError, match=remedy):
            training.train("segment", samples, tmp_path / "run", **{**small, **more})
    assert not (tmp_path / "run").exists()


def test_the_strategy_that_keras_cannot_train_under_is_refused(monkeypatch):
    from dermaseg.distribution import check_strategy

    class Strategy:
        pass

    distribute = types.SimpleNamespace(get_strategy=Strategy, MultiWorkerMirroredStrategy=Strategy)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(distribute=distribute))
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="does not train under MultiWorkerMirroredStrategy"):
        check_strategy()
    distribute.get_strategy = object
    check_strategy()


def test_a_batch_is_shared_equally_or_refused(monkeypatch):
    from dermaseg import fitting

    assert [fitting.shared_batch(16, shares) for shares in (1, 2, 3, 16)] == [16, 16, 15, 16]
    with pytest.raises(ValueError, match="4 devices cannot share batches of 3 photographs: batch_size must be 4 at least"):
        fitting.shared_batch(3, 4)
    assert fitting._weighted({"loss": 1, "metrics": 2}, 1) == {"loss": 1, "metrics": 2}
    assert fitting._weighted({"loss": 1, "metrics": 2}, 2) == {"loss": 1, "weighted_metrics": 2}


@pytest.mark.parametrize(("count", "shares"), [(86, 1), (86, 3), (7, 3), (5, 5)])
def test_the_rate_is_planned_for_the_steps_that_are_taken(tmp_path, count, shares):
    from dermaseg.data import make_synthetic
    from dermaseg.fitting import _TrainingPlan
    from dermaseg.tasks import Settings, get_task

    part = make_synthetic(tmp_path, count=count, size=(16, 16))
    plan = Settings(size=16, batch_size=8, steps=40, max_epochs=5, augment="none")
    training_plan = _TrainingPlan(get_task("segment"), plan, part, part, {"size": (16, 16), "target": "mask"}, shares)
    training, _ = training_plan.feeds()
    assert training_plan.steps_per_epoch == sum(1 for _ in training)
    if count == 86:
        assert training_plan.epochs * training_plan.steps_per_epoch == pytest.approx(40, abs=training_plan.steps_per_epoch / 2)


def test_shares_are_counted_along_the_batch(monkeypatch):
    import keras

    from dermaseg.distribution import batch_shares, undistributed

    mesh = types.SimpleNamespace(shape=(2, 4), axis_names=("model", "batch"))
    used = [types.SimpleNamespace(device_mesh=mesh, batch_dim_name="batch")]
    monkeypatch.setattr(keras.distribution, "distribution", lambda: used[-1])
    monkeypatch.setattr(keras.distribution, "set_distribution", used.append)
    assert batch_shares() == 4
    with undistributed():
        assert batch_shares() == 1
    assert batch_shares() == 4


def test_replicas_share_their_statistics_within_encoders_too(monkeypatch):
    import keras

    from dermaseg import fitting

    inner = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.BatchNormalization()])
    outer = keras.Sequential([keras.Input((4, 4, 2)), inner, keras.layers.BatchNormalization()])
    norms = [inner.layers[-1], outer.layers[-1]]
    fitting._share_statistics(outer)
    assert not any(norm.synchronized for norm in norms)  # one device
    monkeypatch.setattr(fitting, "replica_count", lambda: 2)
    fitting._share_statistics(outer)
    assert all(norm.synchronized for norm in norms)
