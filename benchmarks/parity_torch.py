"""python -m benchmarks.parity_torch [NAME …]: our families against timm and torchvision; a table of docs/transfer.md.

All arrays of their model are drawn, moved over by name, and logits are compared for the same pictures: at the model's
size, at 180 and at 197, where the model takes these. What is found is kept in docs/parity_torch.json; models that are
there already are left out unless named. Needs torch, timm and torchvision.
"""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.keras_twins import difference
from benchmarks.torch_twins import compare_torch_steps, draw_images, make_torch, make_torch_twin, run_torch
from engine.models import families
from engine.models.specs import Sequential

DOCS = Path(__file__).parents[1] / "docs"
RESULTS, PAGE = DOCS / "parity_torch.json", DOCS / "transfer.md"
BEGIN, END = "<!-- torch: made by benchmarks/parity_torch.py -->\n", "<!-- end of torch -->\n"
OTHER_SIZES = (180, 197)
STEP_SIZE, STEP_BATCH = 96, 8


class Variant(NamedTuple):
    """A model of timm (torchvision's after a colon), and the family's function and arguments that it is here."""

    theirs: str
    family: str
    arguments: dict[str, Any]
    size: int = 224
    is_for_one_size: bool = False


def _resnet(theirs: str, blocks: tuple[int, ...], bottleneck: bool = True) -> Variant:
    return Variant(theirs, "torch_resnet", {"blocks": blocks, "bottleneck": bottleneck})


def _lite(number: int, width: float, depth: float, size: int) -> Variant:
    return Variant(f"tf_efficientnet_lite{number}", "efficientnet_lite", {"width": width, "depth": depth}, size)


def _v3(theirs: str, size: str) -> Variant:
    return Variant(theirs, "mobilenet_v3", {"size": size, "is_symmetric": True})


BASE = {"width": 768, "heads": 12}
VARIANTS: dict[str, Variant] = {
    "resnet18": _resnet("resnet18", (2, 2, 2, 2), bottleneck=False),
    "resnet34": _resnet("resnet34", (3, 4, 6, 3), bottleneck=False),
    "resnet50": _resnet("resnet50", (3, 4, 6, 3)),
    "resnet50 of torchvision": _resnet(":resnet50", (3, 4, 6, 3)),
    "resnet101": _resnet("resnet101", (3, 4, 23, 3)),
    "efficientnet_lite0": _lite(0, 1.0, 1.0, 224),
    "efficientnet_lite1": _lite(1, 1.0, 1.1, 240),
    "efficientnet_lite2": _lite(2, 1.1, 1.2, 260),
    "efficientnet_lite3": _lite(3, 1.2, 1.4, 300),
    "efficientnet_lite4": _lite(4, 1.4, 1.8, 380),
    "efficientnet_b0": Variant("tf_efficientnet_b0", "efficientnet", {"size": "b0"}),
    "mobilenet_v2": Variant("mobilenetv2_100", "torch_mobilenet_v2", {}),
    "mobilenet_v2 of torchvision": Variant(":mobilenet_v2", "torch_mobilenet_v2", {}),
    "mobilenet_v3_small": _v3("mobilenetv3_small_100", "small"),
    "mobilenet_v3_large": _v3("mobilenetv3_large_100", "large"),
    "vit_s16": Variant("vit_small_patch16_224", "vit", {}, is_for_one_size=True),
    "vit_b16": Variant("vit_base_patch16_224", "vit", BASE, is_for_one_size=True),
    "vit_b16 of torchvision": Variant(":vit_b_16", "vit", BASE, is_for_one_size=True),
    "convnext_tiny": Variant("convnext_tiny", "convnext", {"size": "tiny"}),
    "convnext_tiny of torchvision": Variant(":convnext_tiny", "convnext", {"size": "tiny"}),
    "convnext_small": Variant("convnext_small", "convnext", {"size": "small"}),
    "vgg16": Variant("vgg16", "vgg", {}, is_for_one_size=True),
    "vgg19 of torchvision": Variant(":vgg19", "vgg", {"convs": (2, 2, 4, 4, 4)}, is_for_one_size=True),
}
WITH_STEP = ("resnet18",)


def make_spec(variant: Variant, num_classes: int = 1000) -> Sequential:
    """Ours, with its top."""
    return getattr(families, variant.family)(**variant.arguments, num_classes=num_classes)


def measure(name: str) -> dict[str, Any]:
    """Parameters, and the differences."""
    variant = VARIANTS[name]
    spec, (model, arrays) = make_spec(variant), make_torch(variant.theirs)
    trained = sum(tensor.numel() for tensor in model.parameters())
    assert trained == spec.num_params((variant.size, variant.size, 3))
    differences = {}
    for size in (variant.size, *(() if variant.is_for_one_size else OTHER_SIZES)):
        twin = make_torch_twin(spec, size, arrays)
        assert not twin.left_over, twin.left_over
        images = draw_images(size)
        differences[str(size)] = difference(twin.run(images), run_torch(model, images))
    found = {"trained": trained, "statistics": spec.num_statistics((variant.size, variant.size, 3))}
    if name in WITH_STEP:
        found["step"] = compare_torch_steps(model, spec, arrays, draw_images(STEP_SIZE, STEP_BATCH))
    return {**found, "differences": differences}


def describe(found: dict[str, Any]) -> str:
    """A line a model, in Markdown."""
    lines = ["| model | parameters trained | statistics | logits differ by |", "| --- | --- | --- | --- |"]
    for name, of in found.items():
        differences = ", ".join(f"{share:.0e} at {size}" for size, share in of["differences"].items())
        lines.append(f"| {name} | {of['trained']:,} | {of['statistics']:,} | {differences} |")
    return "\n".join(lines) + "\n"


def main(names: list[str]) -> None:
    """Measures what is named, or is not measured yet, and writes the table."""
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in names or [name for name in VARIANTS if name not in found]:
        found[name] = measure(name)
        print(name, found[name], flush=True)
        kept = {name: found[name] for name in VARIANTS if name in found}
        RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    if PAGE.exists():
        page = PAGE.read_text(encoding="utf-8")
        before, after = page.partition(BEGIN)[0], page.partition(END)[2]
        PAGE.write_text(f"{before}{BEGIN}\n{describe(found)}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
