"""python -m benchmarks.parity [NAME …]: our families against those of Keras, and the table of docs/transfer.md.

Each model of Keras is made with the JAX backend, and all its variables are drawn: scales, offsets and statistics too,
since in a fresh model these hide what is swapped. The same pictures go through both, each by its own preprocessing, and
logits are compared at the model's size, at 180 and at 143 (features where Keras has a top for one size alone). A
process measures one model, and what it found goes to docs/parity.json; models there are left out unless named.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.keras_twins import (
    Arrays,
    assign,
    calibrated,
    compare_steps,
    difference,
    draw_variables,
    make_keras,
    make_twin,
    run_keras,
)
from engine.config.contract import InputSpec
from engine.models import families
from engine.models.specs import Sequential
from engine.networks.network import normalize

DOCS = Path(__file__).parents[1] / "docs"
RESULTS, PAGE = DOCS / "parity.json", DOCS / "transfer.md"
BEGIN, END = "<!-- families: made by benchmarks/parity.py -->\n", "<!-- end of families -->\n"
OTHER_SIZES = (180, 143)
MOST_DIFFERENCE = 1e-5  # of the largest logit
BATCH = 2


@dataclass(frozen=True)
class Variant:
    """A model of Keras, and the family's function and arguments that it is here.

    settings: what Keras is called with. contract: which of CONTRACTS its inputs are made by.
    """

    keras: str
    family: str
    arguments: tuple
    contract: str
    licence: str
    size: int = 224
    settings: tuple[tuple[str, Any], ...] = ()
    is_for_one_size: bool = False


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE = "caffe"
CONTRACTS: dict[str, dict[str, Any]] = {
    CAFFE: {"scale": 1.0, "mean": (123.68, 116.779, 103.939)},
    "−1…1": {"scale": 1 / 127.5, "mean": (1.0,)},
    "−1…1 by 128": {"scale": 1 / 128, "mean": (1.0,)},
    "ImageNet's mean and std": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
}
"""Fields of an InputSpec. For caffe, whose channels are BGR, the first kernel's are turned round."""
ONE, TORCH = "−1…1", "ImageNet's mean and std"
BSD, MIT, APACHE, CC_BY = "BSD-3-Clause", "MIT", "Apache-2.0", "CC BY 4.0"

VARIANTS: dict[str, Variant] = {
    "vgg16": Variant("VGG16", "vgg", ((2, 2, 3, 3, 3),), CAFFE, CC_BY, is_for_one_size=True),
    "vgg19": Variant("VGG19", "vgg", ((2, 2, 4, 4, 4),), CAFFE, CC_BY, is_for_one_size=True),
    "resnet50": Variant("ResNet50", "resnet", ((3, 4, 6, 3),), CAFFE, MIT),
    "resnet101": Variant("ResNet101", "resnet", ((3, 4, 23, 3),), CAFFE, MIT),
    "resnet152": Variant("ResNet152", "resnet", ((3, 8, 36, 3),), CAFFE, MIT),
    "resnet50_v2": Variant("ResNet50V2", "resnet_v2", ((3, 4, 6, 3),), ONE, BSD),
    "resnet101_v2": Variant("ResNet101V2", "resnet_v2", ((3, 4, 23, 3),), ONE, BSD),
    "resnet152_v2": Variant("ResNet152V2", "resnet_v2", ((3, 8, 36, 3),), ONE, BSD),
    "mobilenet": Variant("MobileNet", "mobilenet", (1.0,), ONE, APACHE),
    "mobilenet_0.25": Variant("MobileNet", "mobilenet", (0.25,), ONE, APACHE, settings=(("alpha", 0.25),)),
    "mobilenet_v2": Variant("MobileNetV2", "mobilenet_v2", (1.0,), ONE, APACHE),
    "mobilenet_v2_0.35": Variant("MobileNetV2", "mobilenet_v2", (0.35,), ONE, APACHE, settings=(("alpha", 0.35),)),
    "mobilenet_v2_1.4": Variant("MobileNetV2", "mobilenet_v2", (1.4,), ONE, APACHE, settings=(("alpha", 1.4),)),
    "mobilenet_v3_small": Variant("MobileNetV3Small", "mobilenet_v3", ("small",), ONE, APACHE),
    "mobilenet_v3_large": Variant("MobileNetV3Large", "mobilenet_v3", ("large",), ONE, APACHE),
    "densenet121": Variant("DenseNet121", "densenet", ((6, 12, 24, 16),), TORCH, BSD),
    "densenet169": Variant("DenseNet169", "densenet", ((6, 12, 32, 32),), TORCH, BSD),
    "densenet201": Variant("DenseNet201", "densenet", ((6, 12, 48, 32),), TORCH, BSD),
    "inception_v3": Variant("InceptionV3", "inception_v3", (), ONE, APACHE, 299),
    "xception": Variant("Xception", "xception", (), ONE, MIT, 299),
    **{
        f"efficientnet_b{n}": Variant(f"EfficientNetB{n}", "efficientnet", (f"b{n}",), TORCH, APACHE, size)
        for n, size in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    },
    **{
        f"efficientnet_v2_b{n}": Variant(f"EfficientNetV2B{n}", "efficientnet_v2", (f"b{n}",), TORCH, APACHE, size)
        for n, size in enumerate((224, 240, 260, 300))
    },
    "efficientnet_v2_s": Variant("EfficientNetV2S", "efficientnet_v2", ("s",), "−1…1 by 128", APACHE, 384),
    "convnext_tiny": Variant("ConvNeXtTiny", "convnext", ("tiny",), TORCH, APACHE),
    "convnext_small": Variant("ConvNeXtSmall", "convnext", ("small",), TORCH, APACHE),
}
NORMALIZATION = {"mean": IMAGENET_MEAN, "variance": tuple(n**2 for n in IMAGENET_STD), "count": 0}
"""Variables of the layer that normalizes within EfficientNet. Here they are its contract."""
WITH_STEP = {"mobilenet": {"dropout": 0.0}, "resnet50": {}}
"""What is measured in a training step too, and what Keras is called with for that."""
SMALL = 96  # pixels, where batch statistics are taken
STEP_SIZE, STEP_BATCH, STEP_DRAWS = 64, 8, 5
PATCHES = 6  # of a colour each, along each side: pictures of noise alone look the same to a deep network


def make_spec(variant: Variant, top: bool = True, num_classes: int = 1000) -> Sequential:
    """Ours, with a top or without."""
    return getattr(families, variant.family)(*variant.arguments, top=top, num_classes=num_classes if top else None)


def measure(name: str) -> dict[str, Any]:
    """Counts of Keras, and the differences."""
    started, variant = time.time(), VARIANTS[name]
    settings = dict(variant.settings)
    model = make_keras(maker(variant), SMALL, include_top=False, **settings)
    found: dict[str, Any] = {"without_top": model.count_params(), "differences": {}}
    values = calibrated(model, draw_variables(model, NORMALIZATION), make_inputs(variant, SMALL, STEP_BATCH)[0])
    for size in (variant.size, *OTHER_SIZES):
        top = size == variant.size or not variant.is_for_one_size
        ends = {"classifier_activation": None} if top else {}
        model = make_keras(maker(variant), size, include_top=top, **ends, **settings)
        if size == variant.size:
            found |= count(model)
        found["differences"][str(size)] = compare(variant, model, make_spec(variant, top), values, size)
    return {**found, "seconds": round(time.time() - started)}


def measure_step(name: str) -> dict[str, float]:
    """The differences of a training step without dropout, in double precision (batch norms of Keras stay in single)."""
    import keras

    variant = VARIANTS[name]
    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    ends = {"classes": 10, "classifier_activation": None, **WITH_STEP[name]}
    model = make_keras(maker(variant), STEP_SIZE, **ends, **dict(variant.settings))
    draws = [make_inputs(variant, STEP_SIZE, STEP_BATCH, seed)[0].astype(np.float64) for seed in range(STEP_DRAWS)]
    values = calibrated(model, draw_variables(model, NORMALIZATION), draws[0])
    return compare_steps(model, make_spec(variant, num_classes=10), values, draws)


def count(model: Any) -> dict[str, int]:
    """All numbers of a model of Keras, and those that are trained."""
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return {"total": model.count_params(), "trained": trained}


def compare(variant: Variant, model: Any, spec: Sequential, values: Arrays, size: int) -> float:
    """The largest difference of the outputs for the same pictures, as a share of the largest output."""
    known = all_values(model, values)
    assign(model, known)
    theirs, ours = make_inputs(variant, size, BATCH)
    if variant.contract == CAFFE:
        first = f"{spec.named[0].name}/kernel"
        known = {**known, first: known[first][:, :, ::-1]}
    return difference(make_twin(spec, size, known).run(ours), run_keras(model, theirs)[0])


def all_values(model: Any, values: Arrays) -> Arrays:
    """Those given, and what the model has beyond them, drawn."""
    return {name: values.get(name, drawn) for name, drawn in draw_variables(model, NORMALIZATION).items()}


def maker(variant: Variant) -> Any:
    """Keras's function that makes the model."""
    import keras

    return getattr(keras.applications, variant.keras)


def make_inputs(variant: Variant, size: int, batch: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The same random pictures as Keras is given them, and as our contract makes them."""
    draw, patch = np.random.default_rng([seed, size]), -(-size // PATCHES)
    coarse = draw.integers(0, 200, (batch, PATCHES, PATCHES, 3), np.uint8)
    pictures = coarse.repeat(patch, 1).repeat(patch, 2)[:, :size, :size] + draw.integers(
        0, 56, (batch, size, size, 3), np.uint8
    )
    module = sys.modules[maker(variant).__module__]
    spec = InputSpec((size, size, 3), **CONTRACTS[variant.contract])
    return module.preprocess_input(pictures.astype(np.float32)), np.asarray(normalize(pictures, spec))


def write_table(found: dict[str, Any]) -> None:
    """The table of families in the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{describe(found)}\n{END}{after}", encoding="utf-8")


def describe(found: dict[str, Any]) -> str:
    """A line a model, in Markdown."""
    lines = ["| family | parameters, all / trained / without top | differs from Keras by | input | licence |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, of in found.items():
        variant = VARIANTS[name]
        counts = " / ".join(f"{of[kind]:,}" for kind in ("total", "trained", "without_top"))
        differences = ", ".join(f"{share:.0e} at {size}" for size, share in of["differences"].items())
        lines.append(f"| {name} | {counts} | {differences} | {variant.contract}, {variant.size} | {variant.licence} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measures in a process each what is named, or is not measured yet, and writes the table; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="models to measure; by default all that are not measured yet")
    parser.add_argument("--here", choices=("outputs", "step"), help="one thing, in this process, and only print it")
    options = parser.parse_args()
    if options.here:
        measured = {"outputs": measure, "step": measure_step}[options.here]
        print(json.dumps(measured(*options.names)))
        return 0
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in options.names or [name for name in VARIANTS if name not in found]:
        found[name] = in_process(name, "outputs")
        if name in WITH_STEP:
            found[name]["step"] = in_process(name, "step")
        print(name, found[name], flush=True)
        ordered = {name: found[name] for name in VARIANTS if name in found}
        RESULTS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    write_table(found)
    return 0


def in_process(name: str, what: str) -> dict[str, Any]:
    """What is measured of a model, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.parity", name, "--here", what]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
