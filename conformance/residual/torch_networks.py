"""ResNet and ResNeXt in plain PyTorch, written from the papers with torchvision's module names.

He et al. 2016, https://arxiv.org/abs/1512.03385 (figure 3, table 1), the stride of a bottleneck on
its 3x3 convolution; Xie et al. 2017, https://arxiv.org/abs/1611.05431 (figure 3c, table 1).
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision_layout import CLASSES, WIDTHS, Network


class Block(nn.Module):
    """A residual block; basic if the network's expansion is 1, else a bottleneck."""

    def __init__(self, network: Network, channels: int, width: int, stride: int) -> None:
        super().__init__()
        outputs, inner = width * network.expansion, network.inner(width)
        if network.expansion == 1:
            steps = [(channels, width, 3, stride, 1), (width, width, 3, 1, 1)]
        else:
            steps = [
                (channels, inner, 1, 1, 1),
                (inner, inner, 3, stride, network.groups),
                (inner, outputs, 1, 1, 1),
            ]
        self.steps = len(steps)
        for number, (inputs, filters, size, step, groups) in enumerate(steps, 1):
            convolution = nn.Conv2d(
                inputs, filters, size, step, size // 2, groups=groups, bias=False
            )
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(filters))
        self.downsample = None
        if stride > 1 or channels != outputs:
            projection = nn.Conv2d(channels, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = x
        for number in range(1, self.steps + 1):
            branch = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(branch))
            if number < self.steps:
                branch = branch.relu()
        return (branch + (x if self.downsample is None else self.downsample(x))).relu()


class ResidualNetwork(nn.Module):
    """Images (B, 3, H, W) -> the feature maps of the four stages."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, (width, count) in enumerate(zip(WIDTHS, network.blocks, strict=True), 1):
            blocks = []
            for number in range(count):
                stride = 2 if stage > 1 and number == 0 else 1
                blocks.append(Block(network, channels, width, stride))
                channels = width * network.expansion
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, CLASSES)  # only to have its tensors

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x = self.maxpool(self.bn1(self.conv1(x)).relu())
        maps = []
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
            maps.append(x)
        return maps
