import sys
import types

import keras
import pytest

from dermaseg import precision
from dermaseg.precision import choose_precision


@pytest.mark.parametrize(
    ("devices", "capabilities", "processor", "chosen"),
    [
        (["cpu:0"], [], True, "mixed_bfloat16"),
        (["cpu:0"], [], False, "float32"),
        (["gpu:0"], [9.0], False, "mixed_bfloat16"),
        (["gpu:0", "gpu:1"], [8.0, 8.6], False, "mixed_bfloat16"),
        (["gpu:0"], [7.5], True, "float32"),  # a T4 has no units for it, whatever the processor has
        (["gpu:0", "gpu:1"], [9.0, 7.0], False, "float32"),
        (["tpu:0"], [], False, "mixed_bfloat16"),
    ],
)
def test_auto_is_bfloat16_where_the_machine_multiplies_it(monkeypatch, devices, capabilities, processor, chosen):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)
    monkeypatch.setattr(precision, "_compute_capabilities", lambda: capabilities)
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: processor)
    assert choose_precision() == chosen
    assert choose_precision("mixed_float16") == "mixed_float16"


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_compute_capabilities_are_read_where_there_are_any(monkeypatch, backend):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    cards = [{"compute_capability": (8, 6)}, {}]
    experimental = types.SimpleNamespace(get_device_details=lambda card: card)
    config = types.SimpleNamespace(list_physical_devices=lambda kind: cards, experimental=experimental)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=config))
    devices = [types.SimpleNamespace(compute_capability=text) for text in ("8.6", "gfx942", "unknown")] + [object()]
    monkeypatch.setitem(sys.modules, "jax", types.SimpleNamespace(devices=lambda: devices))
    assert precision._compute_capabilities() == [8.6]


@pytest.mark.parametrize(
    ("card", "units", "accelerator", "processor", "chosen"),
    [
        (True, True, True, False, "mixed_bfloat16"),
        (True, False, True, True, "float32"),
        (False, False, True, True, "float32"),  # as Apple's, which is not asked
        (False, False, False, True, "mixed_bfloat16"),
        (False, False, False, False, "float32"),
    ],
)
def test_pytorch_is_asked_for_bfloat16(monkeypatch, card, units, accelerator, processor, chosen):
    cuda = types.SimpleNamespace(is_available=lambda: card, is_bf16_supported=lambda including_emulation: units)
    any_accelerator = types.SimpleNamespace(is_available=lambda: accelerator)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda, accelerator=any_accelerator))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(precision, "_cpu_has_bfloat16", lambda: processor)
    assert choose_precision() == chosen


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="PyTorch is asked for bfloat16 itself")
def test_a_processor_has_no_compute_capability():
    if any(not device.startswith("cpu") for device in keras.distribution.list_devices()):
        pytest.skip("there is an accelerator")
    assert precision._compute_capabilities() == []


def test_a_precision_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="precision must be one of auto, float32"):
        choose_precision("float8")
