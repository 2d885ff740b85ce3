"""Which number format to train in on this machine."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["PRECISIONS", "choose_precision", "dtype_policy"]

_FIRST_WITH_BFLOAT16 = 8.0  # Ampere
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")


def choose_precision(precision: str = "auto") -> str:
    """Return the Keras dtype policy to train in.

    `"auto"` is mixed bfloat16 where the machine multiplies it natively (a TPU, an NVIDIA card of compute capability 8 or more,
    other accelerators, or a processor with AVX-512 BF16 or AMX) and float32 elsewhere: emulated bfloat16 is many times slower.

    Args:
        precision: One of `PRECISIONS`.

    Raises:
        ValueError: If `precision` is none of them.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
    if precision != "auto":
        return precision
    import keras

    if keras.backend.backend() == "torch":
        return "mixed_bfloat16" if _torch_has_bfloat16() else "float32"
    if any(not device.startswith("cpu") for device in keras.distribution.list_devices()):
        native = all(capability >= _FIRST_WITH_BFLOAT16 for capability in _compute_capabilities())
    else:
        native = _cpu_has_bfloat16()
    return "mixed_bfloat16" if native else "float32"


def _compute_capabilities() -> list[float]:
    """Return the compute capabilities of NVIDIA cards; other accelerators report names such as gfx942, which are skipped."""
    import keras

    found: list[Any]
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        cards = tf.config.list_physical_devices("GPU")
        pairs = [tf.config.experimental.get_device_details(card).get("compute_capability") for card in cards]
        found = [pair and f"{pair[0]}.{pair[1]}" for pair in pairs]
    else:
        import jax

        found = [getattr(device, "compute_capability", None) for device in jax.devices()]
    return [float(capability) for capability in found if re.fullmatch(r"\d+\.\d+", str(capability))]


def _torch_has_bfloat16() -> bool:
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return not torch.accelerator.is_available() and _cpu_has_bfloat16()


def _cpu_has_bfloat16() -> bool:
    # JAX on a CPU computes bfloat16 convolutions by way of float32.
    import keras

    if platform.system() != "Linux" or keras.backend.backend() == "jax":
        return False
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


@contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Build layers under a dtype policy, and put the caller's policy back.

    Args:
        name: A policy of Keras, as `"float32"` or `"mixed_bfloat16"`.

    Returns:
        A context manager, which gives nothing to its `as`.

    Raises:
        ValueError: If Keras knows no such policy.

    Examples:
        >>> import keras
        >>> with dtype_policy("mixed_bfloat16"):
        ...     layer = keras.layers.Dense(2)
        >>> layer.compute_dtype, layer.variable_dtype
        ('bfloat16', 'float32')
    """
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
