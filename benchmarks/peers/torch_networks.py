"""Networks that PyTorch runs, each built as its own documentation shows; each returns logits, or a dict of them."""

from __future__ import annotations

import importlib.metadata

import torch
from torch import nn

from benchmarks.peers.contestants import CLASSES, DEFAULT_FILTERS, FAMILY, PLAIN_FILTERS, Contestant
from benchmarks.peers.torch_family import Classifier, FuzzyUNet, Hybrid, LabelOnly
from benchmarks.peers.torch_unet import UNet

__all__ = ["build_network"]


def build_network(contestant: Contestant) -> tuple[nn.Module, int, dict[str, str]]:
    """Return the network, the number that heights and widths must be multiples of, and the versions it comes from.

    Raises:
        ImportError: If the peer's library is missing.
    """
    if contestant.network == "dermaseg":
        return UNet(**contestant.options), 1, {}
    if contestant.network in FAMILY:
        return _of_family(contestant)
    if contestant.network == "smp-resnet18":
        stubs = _declare_torchvision_operators()
        import segmentation_models_pytorch as smp

        versions = {"segmentation_models_pytorch": smp.__version__, **({"torchvision": "operators stubbed"} if stubs else {})}
        return smp.Unet("resnet18", encoder_weights=None), 32, versions
    from monai.networks import nets

    versions = {"monai": importlib.metadata.version("monai")}
    if contestant.network == "monai-basic":
        return nets.BasicUNet(spatial_dims=2, in_channels=3, out_channels=1), 16, versions
    network = nets.UNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=1,
        channels=PLAIN_FILTERS,
        strides=(2, 2, 2, 2),
        num_res_units=2,
    )
    return network, 16, versions


def _of_family(contestant: Contestant) -> tuple[nn.Module, int, dict[str, str]]:
    if contestant.network == "dermaseg-inception":
        stubs = _declare_torchvision_operators()
        import timm

        network = timm.create_model("inception_resnet_v2", num_classes=CLASSES, drop_rate=0.2)
        versions = {"timm": timm.__version__, **({"torchvision": "operators stubbed"} if stubs else {})}
        return LabelOnly(network, frozen_norms=True), 1, versions
    if contestant.network == "dermaseg-cnn":
        return LabelOnly(Classifier((16, 32, 64, 128, 256), (1, 1, 1, 2, 2), CLASSES)), 1, {}
    if contestant.network == "dermaseg-fuzzy":
        return FuzzyUNet(DEFAULT_FILTERS, 2), 1, {}
    return Hybrid(DEFAULT_FILTERS, 2, CLASSES), 1, {}


def _declare_torchvision_operators() -> bool:
    """Make torchvision import where its compiled operators cannot load; nothing here calls them. True if it was needed."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    else:
        return False
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)  # the declarations go with the object
    return True


_KEPT: list[torch.library.Library] = []
