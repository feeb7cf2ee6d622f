"""A workload in PyTorch, as its users get the most out of it. See benchmarks/peers.py."""

import os
import shutil
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.peers_worker import Job, Unavailable
from benchmarks.workloads import Workload
from engine.models import (
    Activation,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    Sequential,
)
from engine.models.activations import activation_spec
from engine.models.blocks import Paths
from engine.models.shapes import pair


class FlattenChannelsLast(nn.Module):
    """[b c h w] in channels_last memory → [b h·w·c] without moving a value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The values in the order in which they lie in memory."""
        return x.permute(0, 2, 3, 1).flatten(1)  # [b c h w] → [b h w c] → [b d]


def network(spec: Sequential, input_shape: tuple[int, ...], channels_last: bool) -> nn.Sequential:
    """The layers of a spec, called with [b c h w]."""
    modules: list[nn.Module] = []
    shape = input_shape
    for row, layer in zip(spec.rows(input_shape), spec.layers, strict=True):
        modules.append(_module(layer, shape, channels_last))
        if activation := activation_spec(layer.activation):
            modules.append({"relu": nn.ReLU, "relu6": nn.ReLU6}[str(activation.function)](inplace=True))
        shape = row.output_shape
    return nn.Sequential(*modules)


class Frozen(nn.Module):
    """Layers that are not trained: as in evaluation, and nothing of them is kept for gradients."""

    def __init__(self, layers: nn.Module):
        super().__init__()
        self.layers = layers.requires_grad_(False)

    def adopt_statistics(self, images: torch.Tensor) -> None:
        """Gives batch norms the statistics of [b c h w].

        By fresh ones (mean 0, variance 1) maps shrink from layer to layer to denormal numbers, as no trained trunk's
        do, and torch's threads take several times as long for these.
        """
        norms = [each for each in self.layers.modules() if isinstance(each, nn.BatchNorm2d)]
        kept = [each.momentum for each in norms]
        for norm in norms:
            norm.train().momentum = 1.0
        self(images)
        for norm, momentum in zip(norms, kept, strict=True):
            norm.eval().momentum = momentum

    def train(self, mode: bool = True) -> "Frozen":
        """Never in training."""
        return super().train(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b c h w] → [b o y x]."""
        with torch.no_grad():
            return self.layers(x)


class Mean(nn.Module):
    """Global average pooling."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b c h w] → [b c]."""
        return x.mean((2, 3))


class Sum(nn.Module):
    """Paths that are added."""

    def __init__(self, paths: list[nn.Module]):
        super().__init__()
        self.paths = nn.ModuleList(paths)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[b c h w] → [b o y x]."""
        first, second = (path(x) for path in self.paths)
        return first + second


def _trained_network(workload: Workload, channels_last: bool) -> nn.Module:
    """The layers of a workload, the first ones frozen where it says so."""
    spec, shape, count = workload.model(), workload.input_shape, workload.num_frozen
    trunk, head = Sequential(spec.layers[:count]), Sequential(spec.layers[count:])
    if not count:
        return network(spec, shape, channels_last)
    frozen = Frozen(network(trunk, shape, channels_last))
    return nn.Sequential(frozen, network(head, trunk.output_shape(shape), channels_last))


def _module(layer: Any, shape: tuple[int, ...], channels_last: bool) -> nn.Module:
    match layer:
        case Conv() | DepthwiseConv():
            groups = shape[2] if isinstance(layer, DepthwiseConv) else layer.groups
            pads = tuple(0 if layer.padding == "valid" else side // 2 for side in pair(layer.kernel_size))
            return nn.Conv2d(
                shape[2], layer.output_shape(shape)[2], pair(layer.kernel_size), pair(layer.strides), pads,  # type: ignore[arg-type]
                groups=groups, bias=layer.use_bias,
            )  # fmt: skip
        case BatchNorm(momentum, epsilon):
            return nn.BatchNorm2d(shape[2], epsilon, 1 - momentum)
        case Activation():
            return nn.Identity()  # its activation follows
        case Paths(paths):
            assert layer.join == "add"
            return Sum([network(Sequential(path), shape, channels_last) for path in paths])
        case GlobalAveragePool():
            return Mean()
        case MaxPool(size, strides, padding):
            pads = 0 if padding == "valid" else padding
            assert isinstance(pads, int)
            return nn.MaxPool2d(pair(size), pair(strides or size), pads)
        case Flatten():
            return FlattenChannelsLast() if channels_last else nn.Flatten()
        case Dropout(rate):
            return nn.Dropout(rate)
        case Dense(units):
            assert units is not None
            return nn.Linear(shape[0], units, bias=layer.use_bias)
    raise TypeError(f"no counterpart of {layer}")


class TorchPeer:
    """Images as float32 on the device, in the memory order of the variant, gathered by a shuffled index.

    compile_mode: of torch.compile, or None for eager. is_graphed: the whole step replayed as one CUDA graph.
    """

    def __init__(
        self, job: Job, channels_last: bool = False, compile_mode: str | None = None, is_graphed: bool = False
    ):
        self.is_cuda = torch.cuda.is_available()
        self.device = torch.device("cuda" if self.is_cuda else "cpu")
        if is_graphed and not self.is_cuda:
            raise Unavailable("CUDA graphs need an NVIDIA GPU")
        if compile_mode:
            _check_compiler(self.is_cuda)
        _set_precision(job.precision)
        self.job, self.channels_last, self.is_graphed = job, channels_last, is_graphed
        workload = job.workload
        self.loss_name = workload.config().train.loss
        module = _trained_network(workload, channels_last).to(self.device)
        self.module = module.to(memory_format=torch.channels_last) if channels_last else module
        self.num_params = sum(parameter.numel() for parameter in module.parameters())
        self._loss, self._forward = self._mean_loss, self._probabilities
        self._build_optimizer(is_capturable=is_graphed or bool(compile_mode))
        if compile_mode:
            torch._inductor.config.freezing = job.inference  # type: ignore[attr-defined]  # packs weights for oneDNN
            self._loss = torch.compile(self._mean_loss, mode=compile_mode, dynamic=False)
            self._forward = torch.compile(self._probabilities, mode=compile_mode, dynamic=False)
            if self.is_cuda and not self.is_fused:
                self._update = torch.compile(self.optimizer.step)
        if not job.inference:
            self._load()

    def _build_optimizer(self, is_capturable: bool) -> None:
        """Keras's constants, in the implementation with the fewest kernels."""
        config, capturable = self.job.workload.config().optim, False
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        capturable = self.is_cuda and is_capturable
        self.is_fused = config.name == "adam"
        if self.is_fused:
            self.optimizer: Any = torch.optim.Adam(
                parameters, config.learning_rate, eps=1e-7, fused=True, capturable=capturable
            )
        else:
            assert config.name == "rmsprop"
            self.optimizer = torch.optim.RMSprop(
                parameters, config.learning_rate, alpha=0.9, eps=1e-7, foreach=self.is_cuda, capturable=capturable
            )
        self._update = self.optimizer.step

    def _load(self) -> None:
        data = self.job.workload.images(self.job.num_images)
        images = torch.from_numpy(np.asarray(data.images)).to(self.device).float().div_(255)
        self.images = images if self.channels_last else images.permute(0, 3, 1, 2).contiguous()  # [n h w c] → [n c h w]
        for trunk in (each for each in self.module.modules() if isinstance(each, Frozen)):
            some = self.images[: self.job.workload.batch_size]
            trunk.adopt_statistics(some.permute(0, 3, 1, 2) if self.channels_last else some)  # [b h w c] → [b c h w]
        labels = torch.from_numpy(data.labels).to(self.device)
        self.labels = labels.float() if self.loss_name == "binary_cross_entropy" else labels.long()
        self._replay: torch.cuda.CUDAGraph | None = None
        if self.is_graphed:
            self._capture()

    def _mean_loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        outputs = self.module(images).float()
        if self.loss_name == "binary_cross_entropy":
            return functional.binary_cross_entropy_with_logits(outputs[:, 0], labels)
        return functional.cross_entropy(outputs, labels)

    def _train_step(self, chosen: torch.Tensor) -> None:
        images, labels = self.images.index_select(0, chosen), self.labels.index_select(0, chosen)
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)  # [b h w c] → [b c h w], where it lies
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            loss = self._loss(images, labels)
        loss.backward()
        self._update()

    def _autocast(self) -> Any:
        is_half = self.job.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_half, cache_enabled=False)

    def _capture(self) -> None:
        """Records one step as a CUDA graph, after a few on a stream of their own, as PyTorch's notes ask for."""
        self._chosen = torch.arange(self.job.workload.batch_size, device=self.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._train_step(self._chosen)
        torch.cuda.current_stream().wait_stream(side)
        self._replay = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._replay):
            self._train_step(self._chosen)

    def train(self, epochs: int) -> None:
        """Trains; returns when the device is done."""
        self.module.train()
        for _ in range(epochs):
            order = torch.randperm(self.job.num_images, device=self.device)
            for chosen in order.split(self.job.workload.batch_size):
                if self._replay is None:
                    self._train_step(chosen)
                else:
                    self._chosen.copy_(chosen)
                    self._replay.replay()
        self._wait()

    def _probabilities(self, images: torch.Tensor) -> torch.Tensor:
        values = images.permute(0, 3, 1, 2).float().div(255)  # [b h w c] → [b c h w]
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        outputs = self.module(values.contiguous(memory_format=layout)).float()
        if self.loss_name == "binary_cross_entropy":
            positive = torch.sigmoid(outputs)
            return torch.cat([1 - positive, positive], dim=1)
        return torch.softmax(outputs, dim=1)

    def predict(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """uint8[n h w c] → float32[n k], in batches."""
        self.module.eval()
        with torch.inference_mode(), self._autocast():
            parts = [
                # A copy, because what torch.compile returns may lie in memory that its next call writes over.
                self._forward(batch.to(self.device)).clone()
                for batch in torch.from_numpy(images).split(batch_size)
            ]
            return torch.cat(parts).cpu().numpy()

    def _wait(self) -> None:
        if self.is_cuda:
            torch.cuda.synchronize()


def build(job: Job) -> TorchPeer:
    """The variant that the job names."""
    torch.set_flush_denormal(True)  # as XLA does
    return TorchPeer(job, **job.options)


def _set_precision(precision: str) -> None:
    is_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = is_tf32
    torch.backends.cudnn.allow_tf32 = is_tf32
    torch.backends.cudnn.benchmark = True


def _check_compiler(is_cuda: bool) -> None:
    """Raises Unavailable where torch.compile has no C++ compiler to call."""
    candidates = [os.environ.get("CXX", "g++"), "gcc", "cc"] if is_cuda else [os.environ.get("CXX", "g++")]
    if not any(map(shutil.which, candidates)):
        raise Unavailable(f"torch.compile needs a C++ compiler ({candidates[0]})")
