"""Small networks of timm beside the specs that take their weights."""

from typing import Any, NamedTuple

import numpy as np

from engine.models.families import efficientnet, efficientnet_lite, mobilenet_v3, torch_mobilenet_v2, torch_resnet, vit
from engine.models.specs import Sequential


class Case(NamedTuple):
    """timm's name of a network and what it is called with; our spec; the sizes of images that logits are stored of."""

    theirs: str
    settings: dict[str, Any]
    spec: Sequential
    sizes: tuple[int, ...]


NUM_CLASSES = 7
BASIC, BOTTLENECK = (1, 1, 2, 1), (1, 2, 1, 1)
SMALL_VIT = {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 48}
CASES = {
    "resnet_basic": Case("resnet18", {"layers": BASIC}, torch_resnet(BASIC, num_classes=NUM_CLASSES), (64, 75)),
    "resnet_bottleneck": Case(
        "resnet50", {"layers": BOTTLENECK}, torch_resnet(BOTTLENECK, bottleneck=True, num_classes=NUM_CLASSES), (75,)
    ),
    "efficientnet_lite": Case("tf_efficientnet_lite0", {}, efficientnet_lite(num_classes=NUM_CLASSES), (64,)),
    "mobilenet_v2": Case("mobilenetv2_100", {}, torch_mobilenet_v2(num_classes=NUM_CLASSES), (64,)),
    "mobilenet_v3": Case(
        "mobilenetv3_small_100", {}, mobilenet_v3("small", is_symmetric=True, num_classes=NUM_CLASSES), (75,)
    ),
    "efficientnet_b0": Case("tf_efficientnet_b0", {}, efficientnet("b0", num_classes=NUM_CLASSES), (64,)),
    "vit": Case("vit_small_patch16_224", SMALL_VIT, vit(32, 2, 4, num_classes=NUM_CLASSES), (48,)),
}

NAMED = (
    "resnet50 of torchvision",
    "mobilenet_v2 of torchvision",
    "vit_s16",
    "vit_b16 of torchvision",
    "convnext_tiny",
    "convnext_tiny of torchvision",
    "vgg16",
    "vgg19 of torchvision",
)
"""Of benchmarks.parity_torch.VARIANTS, those whose names and shapes of arrays are stored."""
POSITIONS = (11, 16)
"""Patches a side that position embeddings of 14 a side are resized to."""


def draw_positions() -> np.ndarray:
    """Those of a class token and 14 × 14 patches."""
    return np.random.default_rng(0).standard_normal((1, 197, 3), np.float32)


PACKAGED = "efficientnet_lite0 of its package"
