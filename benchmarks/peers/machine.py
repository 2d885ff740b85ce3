"""What the machine is, and holding every framework to the same cores of it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Literal

__all__ = [
    "Device",
    "cores",
    "describe",
    "has_bfloat16",
    "hold_to_cores",
    "peak_memory_mb",
    "restart_peak_memory",
    "thread_environment",
]

Device = Literal["cpu", "cuda"]

_TOLD = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Say what a reader has to know about the machine to judge the figures."""
    return {
        "processor": _cpu("model name") or platform.processor() or platform.machine(),
        "vector instructions": [flag for flag in _TOLD if flag in _flags()],
        "bfloat16 in hardware": has_bfloat16(),
        "cores": cores(),
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "load average before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def has_bfloat16() -> bool:
    """Return whether the processor multiplies bfloat16 natively; emulated, it is slower than float32."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & _flags())


def thread_environment(threads: int, device: Device = "cpu") -> dict[str, str]:
    """Return the environment under which all frameworks start that many threads, on the processor or on the accelerator."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
    # JAX would take three quarters of an accelerator's memory for itself, and several processes wait there at once.
    # Named, it must be there: else JAX would quietly compute on the processor.
    where = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "JAX_PLATFORMS": "cuda,cpu"}
    if device == "cpu":
        where = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"}
    # As the command line does for a user: by itself, TensorFlow leaves these kernels out on some processors, at half the speed.
    kernels = os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1")
    return {
        **dict.fromkeys(names, str(threads)),
        **where,
        "TF_ENABLE_ONEDNN_OPTS": kernels,
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def hold_to_cores(threads: int) -> None:
    """Keep this process on so many cores, which JAX and ONNX Runtime count to size their pools. Before they are loaded."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def peak_memory_mb() -> float | None:
    """Return the most physical memory that this process has held since `restart_peak_memory`, in MB; None if unknown."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return None
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def restart_peak_memory() -> None:
    """Let the peak begin again at what is held now. Where the system does not allow it, the peak covers the whole process."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _flags() -> frozenset[str]:
    return frozenset((_cpu("flags") or _cpu("Features")).split())


def _cpu(key: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
