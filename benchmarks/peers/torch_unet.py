"""dermaseg's U-Net graph in PyTorch, as someone who knows both would write it: the same layers, widths and order.

Two things differ. PyTorch pads a strided 3x3 convolution by one pixel on each side, TensorFlow's `"same"` by one pixel at the
end; and an odd map's last row or column is repeated before it is halved, not mirrored. The counts of parameters and operations
agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

__all__ = ["Residual", "UNet", "convolution", "cut", "even"]


class UNet(nn.Module):
    """From scaled pictures `(batch, 3, height, width)` to logits `(batch, 1, height, width)`, of any size.

    Args:
        filters: Channels a stage, finest first.
        stem_stride: Stride of the first convolution, 1 or 2.
    """

    def __init__(self, filters: Sequence[int], stem_stride: int) -> None:
        super().__init__()
        self.stem_stride = stem_stride
        self.stem = nn.Sequential(convolution(3, filters[0], stride=stem_stride), nn.ReLU(inplace=True))
        before = (filters[0], *filters)
        self.encoder = nn.ModuleList(
            Residual(before[stage], width, stride=2 if stage else 1) for stage, width in enumerate(filters)
        )
        levels = range(len(filters) - 1)
        self.narrow = nn.ModuleList(convolution(filters[level + 1], filters[level], kernel=1) for level in levels)
        self.join = nn.ModuleList(
            nn.Sequential(convolution(filters[level], filters[level]), nn.ReLU(inplace=True)) for level in levels
        )
        self.head = nn.Conv2d(filters[0], 1, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return cut(self.decode(self.encode(images)), images)

    def encode(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return the features of each stage, finest first."""
        x = self.stem(images)
        features = []
        for block in self.encoder:
            x = block(x)
            features.append(x)
        return features

    def skip(self, level: int, skip: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
        """Return what is added to the decoder's features at a level: here the skip as it is."""
        return skip

    def decode(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return logits of the mask, of an odd picture by a row or column too many."""
        x = features[-1]
        for level in reversed(range(len(features) - 1)):
            x = self.narrow[level](x)
            skip = self.skip(level, features[level], x)
            x = cut(functional.interpolate(x, scale_factor=2.0, mode="nearest"), skip)
            x = self.join[level](functional.relu(x + skip))
        logits = self.head(x)
        if self.stem_stride > 1:
            logits = functional.interpolate(logits, scale_factor=2.0, mode="bilinear", align_corners=False)
        return logits


class Residual(nn.Module):
    """Two convolutions added to their input, averaged down and projected where shapes differ."""

    def __init__(self, channels: int, filters: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        shortcut: list[nn.Module] = [nn.AvgPool2d(stride)] if stride > 1 else []
        if channels != filters:
            shortcut.append(convolution(channels, filters, kernel=1))
        self.shortcut = nn.Sequential(*shortcut)
        self.body = nn.Sequential(
            convolution(channels, filters, stride=stride), nn.ReLU(inplace=True), convolution(filters, filters)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's features."""
        if self.stride > 1:
            x = even(x)
        return functional.relu(self.shortcut(x) + self.body(x))


def even(x: torch.Tensor) -> torch.Tensor:
    """Repeat the last row and column where height and width are odd."""
    height, width = x.shape[2:]
    return functional.pad(x, (0, width % 2, 0, height % 2), mode="replicate") if height % 2 or width % 2 else x


def cut(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the beginning of the map, at the height and width of the other."""
    return x if x.shape[2:] == like.shape[2:] else x[:, :, : like.shape[2], : like.shape[3]]


def convolution(channels: int, filters: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Return a convolution and its normalisation."""
    convolution = nn.Conv2d(channels, filters, kernel, stride, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
    return nn.Sequential(convolution, nn.BatchNorm2d(filters, eps=1e-3, momentum=0.1))
