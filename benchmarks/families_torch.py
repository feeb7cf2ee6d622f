"""MobileNet and ResNet50 in PyTorch, compiled, in channels_last memory. See benchmarks/families.py."""

import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.families import CLASSES, SEPARABLE, STAGES
from engine.data.decoded.dataset import Dataset


def conv_norm(
    channels: int, filters: int, size: int, stride: int, groups: int = 1, is_relu: bool = True
) -> nn.Sequential:
    """A convolution, a batch norm and, where asked for, relu."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, filters, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(filters, eps=1e-5, momentum=0.1),
    ]
    return nn.Sequential(*layers, *[nn.ReLU(inplace=True)] * is_relu)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, channels: int, filters: int, stride: int):
        super().__init__()
        self.convs = nn.Sequential(
            conv_norm(channels, filters, 1, stride),
            conv_norm(filters, filters, 3, 1),
            conv_norm(filters, 4 * filters, 1, 1, is_relu=False),
        )
        is_plain = stride == 1 and channels == 4 * filters
        self.shortcut = nn.Identity() if is_plain else conv_norm(channels, 4 * filters, 1, stride, is_relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b c h w] → [b o y x]."""
        return functional.relu(self.convs(x) + self.shortcut(x))


def mobilenet() -> nn.Sequential:
    """With one dense layer behind the mean over pixels."""
    layers, channels = [conv_norm(3, 32, 3, 2)], 32
    for filters, stride in SEPARABLE:
        layers += [conv_norm(channels, channels, 3, stride, groups=channels), conv_norm(channels, filters, 1, 1)]
        channels = filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def resnet50() -> nn.Sequential:
    """With one dense layer behind the mean over pixels."""
    layers: list[nn.Module] = [conv_norm(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for filters, count, first_stride in STAGES:
        for number in range(count):
            layers.append(Bottleneck(channels, filters, first_stride if number == 0 else 1))
            channels = 4 * filters
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


class TorchTrainer:
    """uint8 images on the device in channels_last memory, a compiled step with Adam, fused."""

    def __init__(self, module: nn.Module, data: Dataset, batch_size: int, precision: str):
        self.module, self.batch_size, self.num = (
            module.cuda().to(memory_format=torch.channels_last),
            batch_size,
            len(data),
        )
        self.is_half = precision == "bfloat16"
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        self.num_params = sum(parameter.numel() for parameter in module.parameters())
        self.images = torch.from_numpy(np.asarray(data.images)).cuda()
        self.labels = torch.from_numpy(data.labels).cuda().long()
        self.optimizer = torch.optim.Adam(module.parameters(), 1e-3, eps=1e-7, fused=True)
        self._loss = torch.compile(self._mean_loss, dynamic=False)

    def _mean_loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(self.module(images.permute(0, 3, 1, 2).float() / 255).float(), labels)

    def rate(self) -> float:
        """Images a second over an epoch."""
        torch.cuda.synchronize()
        start = time.perf_counter()
        for chosen in torch.randperm(self.num, device="cuda").split(self.batch_size):
            self.optimizer.zero_grad(set_to_none=True)
            with torch.autocast("cuda", torch.bfloat16, enabled=self.is_half):
                loss = self._loss(self.images[chosen], self.labels[chosen])
            loss.backward()
            self.optimizer.step()
        torch.cuda.synchronize()
        return self.num / (time.perf_counter() - start)


def trainer(name: str, data: Dataset, batch_size: int, precision: str) -> TorchTrainer:
    """A trainer of MobileNet or ResNet50."""
    return TorchTrainer({"MobileNet": mobilenet, "ResNet50": resnet50}[name](), data, batch_size, precision)
