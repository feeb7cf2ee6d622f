"""Small networks of timm beside the specs that take their weights."""

from typing import Any, NamedTuple

from engine.models.families import efficientnet_lite, torch_mobilenet_v2, torch_resnet, vit
from engine.models.specs import Sequential


class Case(NamedTuple):
    """timm's name of a network and what it is called with; our spec; the sizes of images that logits are stored of."""

    theirs: str
    settings: dict[str, Any]
    spec: Sequential
    sizes: tuple[int, ...]


NUM_CLASSES = 7
CASES = {
    "resnet_basic": Case("resnet18", {"layers": (1, 1, 2, 1)}, torch_resnet((1, 1, 2, 1), num_classes=NUM_CLASSES), (64, 75)),
    "resnet_bottleneck": Case(
        "resnet50", {"layers": (1, 2, 1, 1)}, torch_resnet((1, 2, 1, 1), bottleneck=True, num_classes=NUM_CLASSES), (75,)
    ),
    "efficientnet_lite": Case("tf_efficientnet_lite0", {}, efficientnet_lite(num_classes=NUM_CLASSES), (64,)),
    "mobilenet_v2": Case("mobilenetv2_100", {}, torch_mobilenet_v2(num_classes=NUM_CLASSES), (75,)),
    "vit": Case(
        "vit_small_patch16_224",
        {"embed_dim": 32, "depth": 2, "num_heads": 4, "img_size": 48},
        vit(32, 2, 4, num_classes=NUM_CLASSES),
        (48,),
    ),
}
