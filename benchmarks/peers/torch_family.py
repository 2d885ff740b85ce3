"""dermaseg's other models in PyTorch, layer by layer: the classifier, the fuzzy U-Net, the hybrid.

Each returns a dict of logits by output name, as the Keras models return probabilities. Inception-ResNet-V2 is timm's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers.torch_unet import Residual, UNet, convolution, cut, even

__all__ = ["Classifier", "FuzzyUNet", "Hybrid", "LabelOnly"]

_SOFTPLUS_TO_ONE = math.log(math.expm1(1.0 - 1e-3))


class LabelOnly(nn.Module):
    """Give a classifier's logits the name of their output.

    Args:
        network: From pictures to `(batch, classes)`.
        frozen_norms: Leave normalisations as the network came with them, statistics and weights, as the Keras model does.
    """

    def __init__(self, network: nn.Module, *, frozen_norms: bool = False) -> None:
        super().__init__()
        self.network = network
        self.frozen_norms = frozen_norms
        if frozen_norms:
            for layer in self.network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.requires_grad_(False)

    def train(self, mode: bool = True) -> LabelOnly:
        """Switch to training, and the frozen normalisations back."""
        super().train(mode)
        if self.frozen_norms:
            for layer in self.network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.eval()
        return self

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return logits."""
        return {"label": self.network(images)}


class Classifier(nn.Module):
    """`build_cnn`: the U-Net's encoder under global average pooling.

    Args:
        filters: Channels a stage.
        blocks: Residual blocks a stage.
        classes: Of the diagnosis.
    """

    def __init__(self, filters: Sequence[int], blocks: Sequence[int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [convolution(3, filters[0], stride=2), nn.ReLU(inplace=True)]
        before = filters[0]
        for stage, (width, count) in enumerate(zip(filters, blocks, strict=True)):
            for block in range(count):
                layers.append(Residual(before, width, stride=2 if stage and not block else 1))
                before = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, `(batch, classes)`."""
        return self.head(self.features(images).float().mean(dim=(2, 3)))


class FuzzyUNet(UNet):
    """`build_fuzzy_unet`: a gate of fuzzy rules on each skip."""

    def __init__(self, filters: Sequence[int], stem_stride: int, rules: int = 8) -> None:
        super().__init__(filters, stem_stride)
        self.gates = nn.ModuleList(_FuzzyGate(width, rules) for width in filters[:-1])

    def skip(self, level: int, skip: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        """Gate the skip."""
        return cut(self.gates[level](even(skip), decoded), skip)


class Hybrid(UNet):
    """`build_hybrid`: a mask, and a diagnosis from means over all places, the lesion and its border, at stride 16 and coarser.

    Args:
        filters: Channels a stage, six of them.
        stem_stride: 1 or 2.
        classes: Of the diagnosis.
    """

    def __init__(self, filters: Sequence[int], stem_stride: int, classes: int) -> None:
        super().__init__(filters, stem_stride)
        strides = [stem_stride * 2**level for level in range(len(filters))]
        self.levels = [level for level, stride in enumerate(strides) if stride >= 16]
        self.strides = strides
        self.attention = nn.ParameterList(torch.zeros(filters[level]) for level in self.levels)
        self.beta = nn.ParameterList(torch.zeros(()) for _ in self.levels)
        self.label = nn.Linear(3 * sum(filters[level] for level in self.levels), classes)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
        """Return logits by output."""
        features = self.encode(images)
        mask = cut(self.decode(features), images)
        guide = torch.sigmoid(mask.float()).detach()
        pooled = []
        for index, level in enumerate(self.levels):
            maps = features[level].float()
            fraction = functional.avg_pool2d(guide, self.strides[level], ceil_mode=True)
            scores = torch.einsum("bchw,c->bhw", maps, self.attention[index])[:, None]
            scores = scores + self.beta[index] * torch.log(fraction + 1e-3)
            lesion = torch.softmax(scores.flatten(1), dim=1).view_as(scores)
            border = 4.0 * fraction * (1.0 - fraction) + 1e-3
            border = border / border.sum(dim=(2, 3), keepdim=True)
            pooled += [maps.mean(dim=(2, 3)), (lesion * maps).sum(dim=(2, 3)), (border * maps).sum(dim=(2, 3))]
        return {"mask": mask, "label": self.label(torch.cat(pooled, dim=1))}


class _FuzzyGate(nn.Module):
    """`FuzzySkipGate(stride=2, decoder_stride=2)`: firing strengths by two products and a softmax, in float32."""

    def __init__(self, channels: int, rules: int) -> None:
        super().__init__()
        self.width = max(8, channels // 4)
        self.encoder = nn.Conv2d(channels, self.width, 1, bias=False)
        self.decoder = nn.Conv2d(channels, self.width, 1, bias=False)
        self.norm = nn.BatchNorm2d(self.width, eps=1e-3, momentum=0.1)
        self.center = nn.Parameter(torch.randn(self.width, rules))
        self.rho = nn.Parameter(torch.full((self.width, rules), _SOFTPLUS_TO_ONE))
        self.log_t = nn.Parameter(torch.zeros(()))
        self.theta = nn.Parameter(torch.zeros(rules, channels))

    def forward(self, skip: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        """Return the gated skip."""
        joint = self.encoder(functional.avg_pool2d(skip, 2)) + self.decoder(decoded)
        with torch.autocast(skip.device.type, enabled=False):
            # Channels last in memory, so that the rules' products need no copy.
            q = self.norm(joint.float()).clamp(-8.0, 8.0).permute(0, 2, 3, 1)
            precision = torch.exp(self.log_t) / math.sqrt(self.width) * (functional.softplus(self.rho) + 1e-3) ** 2
            bias = -0.5 * (precision * self.center**2).sum(dim=0)
            strengths = torch.softmax(q @ (precision * self.center) + bias + q**2 @ (-0.5 * precision), dim=-1)
        logits = (strengths.to(skip.dtype) @ self.theta.to(skip.dtype)).permute(0, 3, 1, 2)
        return skip * functional.interpolate(2.0 * torch.sigmoid(logits), scale_factor=2.0, mode="nearest")
