"""Two virtual devices train as one does: same losses, same weights, but for rounding."""

import json
import os
import subprocess
import sys

import pytest

# Processes of their own: devices are set up before a backend starts.
SCRIPT = """
import contextlib, csv, json, os, sys, tempfile
kind = sys.argv[1]
if kind == "mirrored":
    import tensorflow as tf
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from dermaseg.data import make_synthetic
from dermaseg.training import train

folder = tempfile.mkdtemp()
samples = make_synthetic(folder + "/data", count=28, size=(64, 80))
scope = contextlib.nullcontext()
if kind == "mirrored":
    scope = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope()
elif kind == "parallel":
    devices = keras.distribution.list_devices()
    assert len(devices) == 2, devices
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
model = {"filters": [8, 16], "dropout": 0.0}
with scope:
    settings = {"size": 32, "steps": 8, "batch_size": 4, "precision": "float32", "augment": "none"}
    run = train("hybrid", samples, folder + "/run", model=model, **settings)
with open(run.history, newline="") as file:
    print("figures", json.dumps(list(csv.DictReader(file))))
"""


def history(kind, *, backend):
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    if kind == "parallel":
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
    done = subprocess.run([sys.executable, "-c", SCRIPT, kind], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("figures "))
    return [{name: float(value) for name, value in row.items() if value} for row in json.loads(line.removeprefix("figures "))]


def assert_alike(several, one, *, tolerance):
    assert len(several) == len(one) > 0
    for found, expected in zip(several, one, strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            if name.endswith("loss"):  # a photograph on the edge of a class may count otherwise after rounding
                assert found[name] == pytest.approx(value, rel=tolerance), name


@pytest.mark.slow
def test_mirrored_replicas_train_as_one_device():
    pytest.importorskip("tensorflow")
    # Not to the last digit: replicas clip their own gradients before they are summed.
    assert_alike(history("mirrored", backend="tensorflow"), history("one", backend="tensorflow"), tolerance=0.02)


@pytest.mark.slow
def test_data_parallel_devices_train_as_one_device():
    pytest.importorskip("jax")
    assert_alike(history("parallel", backend="jax"), history("one", backend="jax"), tolerance=1e-4)


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
