"""Who is measured: each a network of some library, a framework that runs it, and a number format."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ACCELERATED", "CONTESTANTS", "DEFAULT_FILTERS", "PLAIN_FILTERS", "REFERENCE", "Contestant", "choose"]

Framework = Literal["tensorflow", "jax", "torch", "onnxruntime"]
Mode = Literal["train", "predict"]

DEFAULT_FILTERS = (16, 32, 64, 128, 256, 384)
"""Channels a stage of `build_unet()`, told apart from it because PyTorch's process does not load Keras."""

PLAIN_FILTERS = (16, 32, 64, 128, 256)
"""Channels a stage of the plain U-Net, and of every peer that lets its user choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """One network as one framework runs it.

    Args:
        name: How the command line and the files call it.
        label: What tables and pictures call it.
        framework: What computes; for `"tensorflow"` and `"jax"`, Keras's backend.
        network: The library and the network; `keras_learner.py` and `torch_networks.py` build it.
        options: Of the network's builder.
        precision: `"bfloat16"` is Keras's mixed policy or PyTorch's autocast.
        engine: `"eager"` is the framework's own default; the others compile the whole network first.
    """

    name: str
    label: str
    framework: Framework
    network: str = "dermaseg"
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: Literal["float32", "bfloat16"] = "float32"
    engine: Literal["eager", "xla", "compile"] = "eager"

    @property
    def ours(self) -> bool:
        """Whether dermaseg built it and a framework that dermaseg supports runs it."""
        return self.network == "dermaseg" and self.framework != "torch"

    @property
    def modes(self) -> tuple[Mode, ...]:
        """What it can be measured at, the mode that needs less memory first."""
        return ("predict",) if self.framework == "onnxruntime" else ("predict", "train")

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` takes, fit for a JSON file."""
        return {**dataclasses.asdict(self), "options": dict(self.options)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Contestant:
        """Make the contestant that `to_json` described."""
        return cls(**content)


_PLAIN = {"stem_stride": 1, "filters": PLAIN_FILTERS}
_DEFAULT = {"stem_stride": 2, "filters": DEFAULT_FILTERS}

CONTESTANTS: Mapping[str, Contestant] = {
    one.name: one
    for one in (
        Contestant(name="ours", label="dermaseg U-Net, TensorFlow", framework="tensorflow"),
        Contestant(name="ours-xla", label="dermaseg U-Net, TensorFlow with XLA", framework="tensorflow", engine="xla"),
        Contestant(name="ours-jax", label="dermaseg U-Net, JAX", framework="jax", engine="xla"),
        Contestant(
            name="ours-jax-bfloat16",
            label="dermaseg U-Net, JAX, bfloat16",
            framework="jax",
            precision="bfloat16",
            engine="xla",
        ),
        Contestant(
            name="ours-bfloat16", label="dermaseg U-Net, TensorFlow, bfloat16", framework="tensorflow", precision="bfloat16"
        ),
        Contestant(name="ours-onnx", label="dermaseg U-Net, ONNX Runtime", framework="onnxruntime"),
        Contestant(name="plain", label="plain U-Net by dermaseg, TensorFlow", framework="tensorflow", options=_PLAIN),
        Contestant(
            name="plain-bfloat16",
            label="plain U-Net by dermaseg, TensorFlow, bfloat16",
            framework="tensorflow",
            options=_PLAIN,
            precision="bfloat16",
        ),
        Contestant(name="plain-jax", label="plain U-Net by dermaseg, JAX", framework="jax", options=_PLAIN, engine="xla"),
        Contestant(
            name="plain-jax-bfloat16",
            label="plain U-Net by dermaseg, JAX, bfloat16",
            framework="jax",
            options=_PLAIN,
            precision="bfloat16",
            engine="xla",
        ),
        Contestant(name="plain-onnx", label="plain U-Net by dermaseg, ONNX Runtime", framework="onnxruntime", options=_PLAIN),
        Contestant(name="torch-plain", label="plain U-Net, PyTorch", framework="torch", options=_PLAIN),
        Contestant(
            name="torch-plain-compiled",
            label="plain U-Net, PyTorch, torch.compile",
            framework="torch",
            options=_PLAIN,
            engine="compile",
        ),
        Contestant(
            name="torch-plain-bfloat16",
            label="plain U-Net, PyTorch, bfloat16",
            framework="torch",
            options=_PLAIN,
            precision="bfloat16",
        ),
        Contestant(
            name="torch-plain-compiled-bfloat16",
            label="plain U-Net, PyTorch, torch.compile, bfloat16",
            framework="torch",
            options=_PLAIN,
            precision="bfloat16",
            engine="compile",
        ),
        Contestant(name="torch-ours", label="dermaseg's default graph in PyTorch", framework="torch", options=_DEFAULT),
        Contestant(
            name="torch-ours-compiled",
            label="dermaseg's default graph in PyTorch, torch.compile",
            framework="torch",
            options=_DEFAULT,
            engine="compile",
        ),
        Contestant(
            name="torch-ours-bfloat16",
            label="dermaseg's default graph in PyTorch, bfloat16",
            framework="torch",
            options=_DEFAULT,
            precision="bfloat16",
        ),
        Contestant(
            name="torch-ours-compiled-bfloat16",
            label="dermaseg's default graph in PyTorch, torch.compile, bfloat16",
            framework="torch",
            options=_DEFAULT,
            precision="bfloat16",
            engine="compile",
        ),
        Contestant(name="monai-unet", label="MONAI UNet, 2 residual units", framework="torch", network="monai-unet"),
        Contestant(
            name="monai-unet-bfloat16",
            label="MONAI UNet, 2 residual units, bfloat16",
            framework="torch",
            network="monai-unet",
            precision="bfloat16",
        ),
        Contestant(name="monai-basic", label="MONAI BasicUNet", framework="torch", network="monai-basic"),
        Contestant(
            name="smp-resnet18", label="segmentation_models_pytorch Unet, resnet18", framework="torch", network="smp-resnet18"
        ),
        Contestant(
            name="smp-resnet18-bfloat16",
            label="segmentation_models_pytorch Unet, resnet18, bfloat16",
            framework="torch",
            network="smp-resnet18",
            precision="bfloat16",
        ),
        Contestant(
            name="medicai-resnet18", label="medicai UNet, resnet18, TensorFlow", framework="tensorflow", network="medicai"
        ),
        Contestant(
            name="keras-unet-collection",
            label="keras-unet-collection unet_2d, TensorFlow",
            framework="tensorflow",
            network="keras-unet-collection",
        ),
    )
}
"""Everyone that is known, by name."""

ACCELERATED: Sequence[Framework] = ("jax", "torch")
"""Frameworks that are measured on a GPU: one environment holds both."""

REFERENCE = "torch-plain"
"""Whose speed is 1: the U-Net that most people would write."""


def choose(names: Sequence[str]) -> list[Contestant]:
    """Return the contestants of those names, in that order.

    Raises:
        ValueError: If a name is not known.
    """
    for name in names:
        if name not in CONTESTANTS:
            raise ValueError(f"there is no contestant {name!r}; there are {', '.join(CONTESTANTS)}.")
    return [CONTESTANTS[name] for name in dict.fromkeys(names)]
