"""Writes models as StableHLO, ONNX and TensorFlow SavedModels, and reads them back without using this package.

All three support any batch size of at least one. All are plain data: nothing is pickled.
"""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax import export as jax_export

from engine.errors import InputError, problem
from engine.exporting.formats import DESCRIPTION_FILES, ExportFormat
from engine.exporting.graph import graph_of
from engine.inference.classifier import Classifier

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
MODULE_FILE = "model.jaxexport"
Outputs = Callable[[np.ndarray], np.ndarray]


def write_stablehlo(classifier: Classifier, path: Path, description: dict[str, Any]) -> None:
    """A directory with a module serialized by `jax.export`, lowered for all PLATFORMS, and its description."""
    spec = classifier.input_spec
    batch = jax_export.symbolic_shape("b")
    inputs = jax.ShapeDtypeStruct((*batch, *spec.shape), spec.dtype)
    exported = jax_export.export(jax.jit(graph_of(classifier)), platforms=PLATFORMS)(inputs)
    _write_description(path / DESCRIPTION_FILES["stablehlo"], description)
    (path / MODULE_FILE).write_bytes(exported.serialize())


def read_stablehlo(path: Path, description: dict[str, Any]) -> Outputs:
    """The function of an exported directory."""
    call = jax.jit(jax_export.deserialize(bytearray((path / MODULE_FILE).read_bytes())).call)
    return lambda inputs: np.asarray(call(inputs))


def write_onnx(classifier: Classifier, path: Path, description: dict[str, Any]) -> None:
    """One file, with the description as metadata; in float32, because onnxruntime's CPU supports little bfloat16."""
    helper = _package("onnx.helper", "onnx")
    from engine.exporting.onnx import onnx_model

    spec, names = classifier.input_spec, (description["input"]["name"], description["output"]["name"])
    graph = graph_of(classifier, "float32")
    model = onnx_model(graph, spec.shape, spec.dtype, names, description["model"])
    helper.set_model_props(model, {key: json.dumps(value) for key, value in description.items()})
    path.write_bytes(model.SerializeToString())


def read_onnx(path: Path, description: dict[str, Any]) -> Outputs:
    """The function of an ONNX file, run by onnxruntime on the CPU."""
    session = _package("onnxruntime", "onnx").InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, {description["input"]["name"]: inputs})[0]


def write_savedmodel(classifier: Classifier, path: Path, description: dict[str, Any]) -> None:
    """A SavedModel with one signature, serving_default, that runs the StableHLO module with XLA."""
    tf = _package("tensorflow", "savedmodel")
    from jax.experimental import jax2tf

    spec, output = classifier.input_spec, description["output"]["name"]
    sizes = ", ".join(["b", *map(str, spec.shape)])
    converted = jax2tf.convert(
        graph_of(classifier),
        polymorphic_shapes=[f"({sizes})"],
        with_gradient=False,
        native_serialization_platforms=PLATFORMS,
    )
    inputs = tf.TensorSpec((None, *spec.shape), spec.dtype, name=description["input"]["name"])
    module = tf.Module()
    module.call = tf.function(lambda inputs: {output: converted(inputs)}, autograph=False, input_signature=[inputs])
    tf.saved_model.save(module, str(path), signatures={"serving_default": module.call})
    _write_description(path / DESCRIPTION_FILES["savedmodel"], description)


def read_savedmodel(path: Path, description: dict[str, Any]) -> Outputs:
    """The function of a SavedModel."""
    tf = _package("tensorflow", "savedmodel")
    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    name, output = description["input"]["name"], description["output"]["name"]

    def outputs(inputs: np.ndarray, loaded: Any = loaded) -> np.ndarray:  # keeps TensorFlow from freeing it
        return signature(**{name: tf.constant(inputs)})[output].numpy()

    return outputs


WRITERS: dict[ExportFormat, Callable[[Classifier, Path, dict[str, Any]], None]] = {
    "stablehlo": write_stablehlo,
    "onnx": write_onnx,
    "savedmodel": write_savedmodel,
}
READERS: dict[ExportFormat, Callable[[Path, dict[str, Any]], Outputs]] = {
    "stablehlo": read_stablehlo,
    "onnx": read_onnx,
    "savedmodel": read_savedmodel,
}


def _package(name: str, extra: str) -> ModuleType:
    """An optional package; if it is missing, raises InputError with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        rule = f"the packages of that format ({error})"
        remedy = f"Install them: pip install 'engine-jax[{extra}]'"
        raise InputError(problem("format", f"{extra} without {name}", rule, remedy)) from error


def _write_description(path: Path, description: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
