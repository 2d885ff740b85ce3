"""Who is measured: each a network of some library, a framework that runs it, and a number format."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = [
    "ACCELERATED",
    "CLASSES",
    "CONTESTANTS",
    "DEFAULT_FILTERS",
    "FAMILY",
    "PLAIN_FILTERS",
    "REFERENCE",
    "SEGMENTERS",
    "Contestant",
    "choose",
]

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
        precision: `"bfloat16"` is Keras's mixed policy or PyTorch's autocast; `"int8"` the quantised export.
        engine: `"eager"` is the framework's own default; the others compile the whole network first.
    """

    name: str
    label: str
    framework: Framework
    network: str = "dermaseg"
    options: Mapping[str, Any] = field(default_factory=dict)
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    engine: Literal["eager", "xla", "compile"] = "eager"

    @property
    def ours(self) -> bool:
        """Whether dermaseg built it and a framework that dermaseg supports runs it."""
        return self.network.startswith("dermaseg") and self.framework != "torch"

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


CLASSES = 7
"""Diagnoses of the networks that name the lesion."""

FAMILY: Mapping[str, tuple[str, str]] = {
    "dermaseg-cnn": ("cnn", "classifier"),
    "dermaseg-fuzzy": ("fuzzy", "fuzzy U-Net"),
    "dermaseg-hybrid": ("hybrid", "hybrid"),
    "dermaseg-inception": ("inception", "Inception-ResNet-V2"),
}
"""dermaseg's networks beside the U-Net: what contestants and labels call them."""

_FORMS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "": ("", {}),
    "-bfloat16": (", bfloat16", {"precision": "bfloat16"}),
    "-xla": (" with XLA", {"engine": "xla"}),
    "-xla-bfloat16": (" with XLA, bfloat16", {"engine": "xla", "precision": "bfloat16"}),
    "-compiled": (", torch.compile", {"engine": "compile"}),
    "-compiled-bfloat16": (", torch.compile, bfloat16", {"engine": "compile", "precision": "bfloat16"}),
}
_TENSORFLOW = ("", "-bfloat16", "-xla", "-xla-bfloat16")
_TORCH = ("", "-bfloat16", "-compiled", "-compiled-bfloat16")


def _forms(forms: Sequence[str], *, name: str, label: str, **fields: Any) -> Iterator[Contestant]:
    for form in forms:
        words, more = _FORMS[form]
        yield Contestant(name=name + form, label=label + words, **{**fields, **more})


_PLAIN = {"stem_stride": 1, "filters": PLAIN_FILTERS}
_DEFAULT = {"stem_stride": 2, "filters": DEFAULT_FILTERS}
# Keras compiles on JAX unless it is told not to; then each operation is compiled alone.
_JAX: Mapping[str, Any] = {"framework": "jax", "engine": "xla"}

CONTESTANTS: Mapping[str, Contestant] = {
    one.name: one
    for one in (
        *_forms(_TENSORFLOW, name="ours", label="dermaseg U-Net, TensorFlow", framework="tensorflow"),
        *_forms(("", "-bfloat16"), name="ours-jax", label="dermaseg U-Net, JAX", **_JAX),
        Contestant(name="ours-jax-eager", label="dermaseg U-Net, JAX, not compiled", framework="jax"),
        Contestant(name="ours-onnx", label="dermaseg U-Net, ONNX Runtime", framework="onnxruntime"),
        Contestant(
            name="ours-onnx-int8", label="dermaseg U-Net, ONNX Runtime, int8", framework="onnxruntime", precision="int8"
        ),
        *_forms(
            ("", "-bfloat16"),
            name="plain",
            label="plain U-Net by dermaseg, TensorFlow",
            framework="tensorflow",
            options=_PLAIN,
        ),
        *_forms(("", "-bfloat16"), name="plain-jax", label="plain U-Net by dermaseg, JAX", options=_PLAIN, **_JAX),
        Contestant(name="plain-onnx", label="plain U-Net by dermaseg, ONNX Runtime", framework="onnxruntime", options=_PLAIN),
        *_forms(_TORCH, name="torch-plain", label="plain U-Net, PyTorch", framework="torch", options=_PLAIN),
        *_forms(_TORCH, name="torch-ours", label="dermaseg's default graph in PyTorch", framework="torch", options=_DEFAULT),
        *_forms(_TORCH, name="monai-unet", label="MONAI UNet, 2 residual units", framework="torch", network="monai-unet"),
        *_forms(_TORCH, name="monai-basic", label="MONAI BasicUNet", framework="torch", network="monai-basic"),
        *_forms(
            _TORCH,
            name="smp-resnet18",
            label="segmentation_models_pytorch Unet, resnet18",
            framework="torch",
            network="smp-resnet18",
        ),
        *_forms(
            ("", "-bfloat16", "-xla"),
            name="medicai-resnet18",
            label="medicai UNet, resnet18, TensorFlow",
            framework="tensorflow",
            network="medicai",
        ),
        *_forms(
            ("", "-bfloat16", "-xla"),
            name="keras-unet-collection",
            label="keras-unet-collection unet_2d, TensorFlow",
            framework="tensorflow",
            network="keras-unet-collection",
        ),
        *(
            one
            for network, (name, words) in FAMILY.items()
            for one in (
                *_forms(("", "-bfloat16"), name=f"{name}-jax", label=f"dermaseg {words}, JAX", network=network, **_JAX),
                *_forms(_TORCH, name=f"torch-{name}", label=f"{words}, PyTorch", framework="torch", network=network),
            )
        ),
    )
}
"""Everyone that is known, by name."""

SEGMENTERS: Sequence[str] = tuple(name for name, one in CONTESTANTS.items() if one.network not in FAMILY)
"""Who is measured on a processor unless others are named: all that give a mask and nothing else."""

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
