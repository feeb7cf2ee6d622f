"""MobileNet and ResNet50 with random weights and images: how fast do they fine-tune, against PyTorch compiled?

    python -m benchmarks.families

A. Howard et al., MobileNets (2017), https://arxiv.org/abs/1704.04861; K. He et al., Deep residual learning (2015),
https://arxiv.org/abs/1512.03385. All layers train, two classes, Adam, bfloat16 around float32 weights. The same layers
in both: convolutions without biases, each with a batch norm; strides in the first convolution of a block.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import tyro
from flax import nnx
from rich.console import Console

import engine
from benchmarks.measure import Measuring, interleaved, median_and_spread, ratio, show_circumstances, write_json
from benchmarks.throughput import Training
from benchmarks.workloads import random_images
from engine.config import Precision

CLASSES = 2
# Filters and stride of MobileNet's thirteen separable convolutions; filters, blocks and stride of ResNet50's stages.
SEPARABLE = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


class ConvNorm(nnx.Module):
    """A convolution, a batch norm and, where asked for, relu; a depthwise one where groups are channels."""

    def __init__(
        self, channels: int, filters: int, size: int, stride: int, rngs: nnx.Rngs, groups: int = 1, is_relu: bool = True
    ):
        self.conv = nnx.Conv(
            channels, filters, (size, size), (stride, stride), padding=size // 2, use_bias=False,
            feature_group_count=groups, rngs=rngs,
        )  # fmt: skip
        self.norm, self.is_relu = nnx.BatchNorm(filters, momentum=0.9, epsilon=1e-5, rngs=rngs), is_relu

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b y x o]."""
        x = self.norm(self.conv(x))
        return nnx.relu(x) if self.is_relu else x


class Bottleneck(nnx.Module):
    """Three convolutions beside a shortcut."""

    def __init__(self, channels: int, filters: int, stride: int, rngs: nnx.Rngs):
        self.convs = nnx.List(
            (
                ConvNorm(channels, filters, 1, stride, rngs),
                ConvNorm(filters, filters, 3, 1, rngs),
                ConvNorm(filters, 4 * filters, 1, 1, rngs, is_relu=False),
            )
        )
        is_plain = stride == 1 and channels == 4 * filters
        self.shortcut = None if is_plain else ConvNorm(channels, 4 * filters, 1, stride, rngs, is_relu=False)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b y x o]."""
        straight = x if self.shortcut is None else self.shortcut(x)
        for conv in self.convs:
            x = conv(x)
        return nnx.relu(x + straight)


class MobileNet(nnx.Module):
    """The trunk, the mean over pixels and one dense layer."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs):
        layers, channels = [ConvNorm(input_shape[-1], 32, 3, 2, rngs)], 32
        for filters, stride in SEPARABLE:
            layers.append(ConvNorm(channels, channels, 3, stride, rngs, groups=channels))
            layers.append(ConvNorm(channels, filters, 1, 1, rngs))
            channels = filters
        self.layers, self.head = nnx.List(layers), nnx.Linear(channels, num_outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b k]."""
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean((1, 2)))


class ResNet50(nnx.Module):
    """The trunk, the mean over pixels and one dense layer."""

    def __init__(self, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs):
        self.stem, blocks, channels = ConvNorm(input_shape[-1], 64, 7, 2, rngs), [], 64
        for filters, count, first_stride in STAGES:
            for number in range(count):
                blocks.append(Bottleneck(channels, filters, first_stride if number == 0 else 1, rngs))
                channels = 4 * filters
        self.blocks, self.head = nnx.List(blocks), nnx.Linear(channels, num_outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b k]."""
        x = nnx.max_pool(self.stem(x), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((1, 2)))


@dataclass(frozen=True)
class Family:
    """A network, the side of its images, and images a step."""

    module: type[nnx.Module]
    side: int
    batch_size: int


FAMILIES = {"mobilenet_128": Family(MobileNet, 128, 64), "resnet50_224": Family(ResNet50, 224, 64)}


@dataclass(frozen=True)
class Options(Measuring):
    """What to compare and how long."""

    families: tuple[str, ...] = tuple(FAMILIES)
    """Which of them."""
    precision: Precision = "bfloat16"
    """Of the products; weights are float32. For PyTorch bfloat16 is autocast."""
    steps: int = 20
    """Steps of a round."""
    rounds: int = 5
    """Rounds in which the two take turns."""


def main(options: Options) -> None:
    """Measures and prints, one family after another."""
    console, found = Console(width=120, highlight=False), {}
    if options.smoke:
        options = replace(options, families=("mobilenet_128",), steps=1, rounds=1, precision="float32")
    show_circumstances(console)
    for name in options.families:
        family = replace(FAMILIES[name], side=32, batch_size=2) if options.smoke else FAMILIES[name]
        found[name] = rates = compare(family, options)
        ours, spread = median_and_spread(rates["engine"])
        console.print(f"{name}, batch {family.batch_size}, {options.precision}: {ours:,.0f} images/s (±{spread:.0%})")
        if "torch compiled, channels_last" in rates:
            middle, low, high = ratio(rates["engine"], rates["torch compiled, channels_last"])
            console.print(f"{name}: {middle:.2f} ({low:.2f} to {high:.2f}) times PyTorch compiled with channels last")
        write_json(options.json, {"precision": options.precision, "images_per_second": found})


def compare(family: Family, options: Options) -> dict[str, list[float]]:
    """Images a second of each library, taking turns; the engine alone where PyTorch is not installed, or on a CPU."""
    shape, num = (family.side, family.side, 3), family.batch_size * options.steps
    data = random_images(num, shape, CLASSES)
    train = engine.TrainConfig(batch_size=family.batch_size, precision=options.precision)
    config = engine.RunConfig("family", engine.custom(family.module), train=train)
    training = Training(config, data)
    variants: dict[str, Callable[[], float]] = {"engine": training.rate}
    if jax.default_backend() == "gpu":
        from benchmarks.families_torch import trainer  # PyTorch is heavy, and missing on most machines

        torch_rate = trainer(family.module.__name__, data, family.batch_size, options.precision)
        variants["torch compiled, channels_last"] = functools.partial(_checked_rate, torch_rate, training)
    return interleaved(variants, options.rounds)


def _checked_rate(of_torch: Any, training: Training) -> float:
    assert of_torch.num_params == training.session.setup.model.num_params, (
        of_torch.num_params,
        training.session.setup.model.num_params,
    )
    return of_torch.rate()


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
