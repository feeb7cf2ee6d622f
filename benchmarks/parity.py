"""python -m benchmarks.parity [NAME …]: our families against those of Keras, and the table of docs/transfer.md.

Each model of Keras is made with the JAX backend, and all its variables are drawn: scales, offsets and statistics too,
since in a fresh model these hide what is swapped. The same pictures go through both, each by its own preprocessing, and
logits are compared at the model's size, at 180 and at 143 (features where Keras has a top for one size alone). A
process measures one model, and what it found goes to docs/parity.json; models there are left out unless named.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.keras_twins import (
    Arrays,
    Twin,
    assign,
    calibrated,
    compare_steps,
    difference,
    draw_variables,
    make_keras,
    run_keras,
)
from engine.importers.catalogue import IMAGENET_MEAN, IMAGENET_STD, NUM_CLASSES
from engine.importers.importing import Wanted, take_weights
from engine.importers.variants import VARIANTS
from engine.importers.weights_file import WeightsFile
from engine.networks.network import network_of, normalize

DOCS = Path(__file__).parents[1] / "docs"
RESULTS, PAGE = DOCS / "parity.json", DOCS / "transfer.md"
BEGIN, END = "<!-- families: made by benchmarks/parity.py -->\n", "<!-- end of families -->\n"
OTHER_SIZES = (180, 143)
BATCH, STATISTICS_BATCH = 2, 8
ASKED = 1e-5  # a larger difference is shown beside Keras's own
LAST_BITS = np.float32(1 + 1e-7)
STEP_SIZE, STEP_DRAWS = 64, 5
PATCHES = 6  # of a colour each, along each side: pictures of noise alone look the same to a deep network
NORMALIZATION = {"mean": IMAGENET_MEAN, "variance": tuple(n**2 for n in IMAGENET_STD), "count": 0}
"""Variables of the layer that normalizes within EfficientNet B0 to B7, of which the importer makes the contract."""
WITH_STEP = {"mobilenet_224": {"dropout": 0.0}, "resnet50": {}}
"""What is measured in a training step too, and what Keras is called with for that."""


def _models() -> Iterator[tuple[str, tuple[str, dict[str, Any]]]]:
    for number in (16, 19):
        yield f"vgg{number}", (f"VGG{number}", {})
    for number in (50, 101, 152):
        yield f"resnet{number}", (f"ResNet{number}", {})
    for number in (50, 101, 152):
        yield f"resnet{number}v2", (f"ResNet{number}V2", {})
    for name, alpha in (("mobilenet_224", 1.0), ("mobilenet_25_224", 0.25)):
        yield name, ("MobileNet", {"alpha": alpha})
    for name, alpha in (("mobilenet_v2_224", 1.0), ("mobilenet_v2_35_224", 0.35), ("mobilenet_v2_140_224", 1.4)):
        yield name, ("MobileNetV2", {"alpha": alpha})
    for size in ("small", "large"):
        yield f"mobilenet_v3_{size}", (f"MobileNetV3{size.title()}", {})
    for number in (121, 169, 201):
        yield f"densenet{number}", (f"DenseNet{number}", {})
    yield "inception_v3", ("InceptionV3", {})
    yield "xception", ("Xception", {})
    for number in range(8):
        yield f"efficientnet_b{number}", (f"EfficientNetB{number}", {})
    for size in ("b0", "b1", "b2", "b3", "s"):
        yield f"efficientnet_v2_{size}", (f"EfficientNetV2{size.upper()}", {})
    for size in ("tiny", "small"):
        yield f"convnext_{size}", (f"ConvNeXt{size.title()}", {})


MODELS: dict[str, tuple[str, dict[str, Any]]] = dict(_models())
"""What can be imported → (model of keras.applications, what it is called with)."""


def count(name: str) -> dict[str, int]:
    """All numbers of the model of Keras, those that are trained, and all without its top."""
    whole, trunk = (make(name, VARIANTS[name].size, include_top=top) for top in (True, False))
    trained = sum(int(np.prod(variable.shape)) for variable in whole.trainable_variables)
    return {"total": whole.count_params(), "trained": trained, "without_top": trunk.count_params()}


def measure(name: str) -> dict[str, Any]:
    """The largest difference by size, of the outputs for the same pictures, as a share of the largest output."""
    started, variant = time.time(), VARIANTS[name]
    is_flat = any(each.layer.kind == "Flatten" for each in variant.spec().named)
    found, rounding = dict[str, float](), dict[str, float]()
    for size in (variant.size, *OTHER_SIZES):
        # Statistics are of pictures of the same size: with those of another, values grow with each block, to logits of
        # hundreds, and with them what is rounded.
        trunk = make(name, size, include_top=False)
        statistics = make_pictures(name, size, STATISTICS_BATCH)[1]
        values = calibrated(trunk, draw_variables(trunk, NORMALIZATION), statistics)
        top = size == variant.size or not is_flat
        ends = {"classifier_activation": None} if top else {"include_top": False, "pooling": "avg"}
        model = make(name, size, **ends)
        drawn = draw_variables(model, NORMALIZATION)
        found[str(size)] = compare(name, model, {key: values.get(key, drawn[key]) for key in drawn}, size, top)
        if found[str(size)] > ASKED:
            rounding[str(size)] = measure_rounding(model, make_pictures(name, size, BATCH)[1])
    return {"differences": found, "rounding": rounding, "seconds": round(time.time() - started)}


def compare(name: str, model: Any, values: Arrays, size: int, top: bool) -> float:
    """The difference at a size, where our model and its contract are what the importer makes of Keras's variables."""
    assign(model, values)
    pictures, theirs = make_pictures(name, size, BATCH)
    file = WeightsFile(Path(f"{name}.h5"), "keras h5", values)
    variant = VARIANTS[name]
    wanted = Wanted(top, (size, size), normalization="file" if variant.is_ambiguous else None)
    weights = take_weights(variant, file, wanted, "", NUM_CLASSES)
    network, _ = network_of(weights.spec, (size, size, 3), weights.num_outputs, "xla")
    trees = jax.tree.map(jnp.asarray, (weights.params, weights.model_state))
    ours = Twin(network, trees, ()).run(np.asarray(normalize(jnp.asarray(pictures), weights.inputs)))
    return difference(ours, run_keras(model, theirs)[0])


def measure_rounding(model: Any, inputs: np.ndarray) -> float:
    """How far Keras's own outputs are apart for inputs whose last bits differ."""
    return difference(run_keras(model, inputs * LAST_BITS)[0], run_keras(model, inputs)[0])


def measure_step(name: str) -> dict[str, float]:
    """The differences of a training step without dropout, in double precision."""
    import keras

    jax.config.update("jax_enable_x64", True)
    keras.config.set_floatx("float64")
    # Keras's type of float64 and float32 is float32, in which its batch norms would compute.
    setattr(importlib.import_module("keras.src.backend"), "result_type", lambda *kinds: "float64")  # noqa: B010
    model = make(name, STEP_SIZE, classes=10, classifier_activation=None, **WITH_STEP[name])
    draws = [make_pictures(name, STEP_SIZE, STATISTICS_BATCH, seed)[1].astype(np.float64) for seed in range(STEP_DRAWS)]
    values = calibrated(model, draw_variables(model, NORMALIZATION), draws[0])
    return compare_steps(model, VARIANTS[name].spec(num_classes=10), values, draws)


def make(name: str, size: int, **settings: Any) -> Any:
    """The model of Keras for images of a size."""
    import keras

    called, own = MODELS[name]
    return make_keras(getattr(keras.applications, called), size, **own, **settings)


def make_pictures(name: str, size: int, batch: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(random pictures, the same as Keras's model is given them)."""
    import keras

    draw, patch = np.random.default_rng([seed, size]), -(-size // PATCHES)
    coarse = draw.integers(0, 200, (batch, PATCHES, PATCHES, 3), np.uint8)
    noise = draw.integers(0, 56, (batch, size, size, 3), np.uint8)
    pictures = coarse.repeat(patch, 1).repeat(patch, 2)[:, :size, :size] + noise
    module = sys.modules[getattr(keras.applications, MODELS[name][0]).__module__]
    return pictures, module.preprocess_input(pictures.astype(np.float32))


def write_table(found: dict[str, Any]) -> None:
    """The table of families in the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.partition(BEGIN)[0], page.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{describe(found)}\n{END}{after}", encoding="utf-8")


def describe(found: dict[str, Any]) -> str:
    """A line a model, in Markdown."""
    heads = ("name", "parameters: all / trained / without top", "differs from Keras by", "input", "file", "licence")
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    for name, of in found.items():
        variant = VARIANTS[name]
        counts = " / ".join(f"{of[kind]:,}" for kind in ("total", "trained", "without_top"))
        own = {size: f"; Keras from itself {share:.1e}" for size, share in of.get("rounding", {}).items()}
        shares = of.get("differences", {}).items()
        differences = ", ".join(f"{share:.{1 * (size in own)}e} ({size}{own.get(size, '')})" for size, share in shares)
        contract = f"{variant.contract.values_text}{', BGR' * variant.contract.is_bgr}; {variant.size}"
        file = variant.with_top.name if variant.with_top else ""
        cells = (name, counts, differences or "not measured", contract, f"`{file}`", variant.terms.licence)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measures in a process each what is named, or is not measured yet, and writes the table; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", help="models to measure; by default all that are not measured yet")
    parser.add_argument("--here", choices=PARTS, help="one thing, in this process, and only print it")
    parser.add_argument("--only", choices=PARTS, help="one thing alone")
    options = parser.parse_args()
    if options.here:
        print(json.dumps({name: PARTS[options.here](name) for name in options.names}))
        return 0
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    missing = [name for name in MODELS if name not in found or "differences" not in found[name]]
    for name in options.names or missing:
        for part in (options.only,) if options.only else PARTS:
            if part != "step" or name in WITH_STEP:
                new = in_process(name, part)
                found[name] = {**found.get(name, {}), **({"step": new} if part == "step" else new)}
        print(name, found[name], flush=True)
        found = {name: found[name] for name in MODELS if name in found}
        RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    write_table(found)
    return 0


def in_process(name: str, part: str) -> dict[str, Any]:
    """A part of what is measured of a model, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.parity", name, "--here", part]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])[name]


PARTS = {"counts": count, "outputs": measure, "step": measure_step}


if __name__ == "__main__":
    sys.exit(main())
