"""`export`: writes a Classifier as a file or directory that runs without this package, and verifies the result."""

import json
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from engine.config.contract import InputSpec
from engine.devices.precision import computes
from engine.errors import InputError, problem
from engine.exporting.formats import ExportFormat, check_target, find_format, put_in_place
from engine.exporting.writers import MODULE_FILE, PLATFORMS, READERS, WRITERS, Outputs
from engine.host.storage import expanded
from engine.host.versions import versions
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.quantized import is_quantized
from engine.inference.restore import Restorable, classifier_of
from engine.records import to_json

DESCRIPTION_VERSION = 1
NUM_COMPARED = 3
TOLERANCE = 1e-3  # of the largest output, or of 1: reordered sums differ by 1e-6, by more for whitened noise
NARROW_TOLERANCE = 0.05  # for ONNX in float32 compared with a classifier in bfloat16, which has 3 digits


@computes
def export(
    classifier: Restorable, path: str | PathLike[str], format: ExportFormat | None = None, overwrite: bool = False
) -> Path:
    """Writes a classifier to `path`, including weights and preprocessing, and returns that path.

    classifier: a Classifier, or the path of a run, a directory or packed.
    The export takes inputs [b …] as stored (uint8 pictures or float32), for any b of at least 1, and returns the same
    as `classifier.outputs`, float32[b k]: probabilities (combined, for an ensemble), or a regression's outputs.
    format: stablehlo: a directory that needs only jax, on CPUs, GPUs and TPUs; onnx: a file, in float32; savedmodel:
      a directory for TensorFlow. The last two need additional packages. None: by the suffix of `path`, else stablehlo.
    overwrite: replace an earlier export there.
    The export is read back and compared with the classifier before it is moved to `path`. Raises InputError if
    something else exists there, if a package is missing, or if the model cannot be expressed in the format.
    """
    if not isinstance(path, str | PathLike):
        rule = "where to write it, like 'model.onnx'"
        raise InputError(problem("path", type(path).__name__, rule, "Pass a path."))
    target = expanded(path)
    format = format or find_format(target)
    check_target(target, format, overwrite)
    classifier = classifier_of(classifier, "classifier")
    if is_quantized(classifier):
        remedy = "Export the classifier that it was made of."
        raise InputError(problem("classifier", "a quantized one", "a float32 one", remedy))
    about = description(classifier, format, target.name)
    with put_in_place(target) as scratch:
        try:
            WRITERS[format](classifier, scratch, about)
            difference = _difference(READERS[format](scratch, about), classifier)
        except (InputError, OSError):
            raise
        except Exception as error:  # the three converters raise exceptions of any kind
            raise InputError(_inexpressible(classifier, format, error)) from error
        tolerance = TOLERANCE if about["precision"] == classifier.record.config.train.precision else NARROW_TOLERANCE
        if not difference <= tolerance:
            error = f"outputs that differ by {difference:.1g}"
            raise InputError(_inexpressible(classifier, format, ValueError(error)))
    return target


def description(classifier: Classifier, format: ExportFormat, name: str) -> dict[str, Any]:
    """The description stored with an exported model, as JSON: input and output, class names, versions, and usage.

    name: of the file or directory.
    """
    record, spec = classifier.record, classifier.input_spec
    is_picture = spec.dtype == "uint8"
    output = {
        "name": "probabilities" if classifier.class_names else "outputs",
        "dtype": "float32",
        "shape": ["b", len(classifier.class_names) or record.num_outputs],
    }
    about = {
        "exported_by": "engine",
        "description_version": DESCRIPTION_VERSION,
        "format": format,
        "model": record.config.name,
        "step": record.step,
        "class_names": list(classifier.class_names),
        "input": {"name": "images" if is_picture else "inputs", "dtype": spec.dtype, "shape": ["b", *spec.shape]},
        "output": output,
        "preprocessing_inside": _preprocessing(spec),
        "precision": "float32" if format == "onnx" else record.config.train.precision,
        **_of_ensemble(classifier),
        "versions": versions(),
    }
    if format != "onnx":
        about["platforms"] = list(PLATFORMS)
    return {**about, "usage": usage(about, name)}


def usage(about: dict[str, Any], path: str) -> list[str]:
    """Lines of Python that run an exported model at `path`, whose description is `about`."""
    given, answer = about["input"], about["output"]
    kinds = [f"{each['dtype']}[{' '.join(map(str, each['shape']))}]" for each in (given, answer)]
    comment = f"  # {' → '.join(kinds)}"
    place = json.dumps(f"{path}/{MODULE_FILE}" if about["format"] == "stablehlo" else path, ensure_ascii=False)
    if about["format"] == "stablehlo":
        return [
            "from pathlib import Path",
            "import jax.export  # pip install jax flatbuffers",
            f"model = jax.export.deserialize(bytearray(Path({place}).read_bytes()))",
            f"{answer['name']} = jax.jit(model.call)({given['name']}){comment}",
        ]
    if about["format"] == "onnx":
        return [
            "import onnxruntime",
            f"model = onnxruntime.InferenceSession({place})",
            f'({answer["name"]},) = model.run(None, {{"{given["name"]}": {given["name"]}}}){comment}',
        ]
    return [
        "import tensorflow as tf",
        f"model = tf.saved_model.load({place})",
        f'answer = model.signatures["serving_default"]({given["name"]}=tf.constant({given["name"]}))',
        f'{answer["name"]} = answer["{answer["name"]}"].numpy(){comment}',
    ]


_SHOWN = ("scale", "mean", "std", "per_example", "center_example", "whiten")


def _preprocessing(spec: InputSpec) -> dict[str, Any]:
    """The preprocessing of inputs, which must have the model's size and colours."""
    return {name: to_json(getattr(spec, name)) for name in _SHOWN}


def _of_ensemble(classifier: Classifier) -> dict[str, Any]:
    if not isinstance(classifier, EnsembleClassifier):
        return {"members": 1}
    return {"members": len(classifier.members), "combination": to_json(classifier.combination)}


def _difference(outputs: Outputs, classifier: Classifier) -> float:
    """The largest difference between export and classifier, relative to the largest output or to 1."""
    draw, spec = np.random.default_rng(0), classifier.input_spec
    inputs = draw.random((NUM_COMPARED, *spec.shape), np.float32)
    if spec.dtype == "uint8":
        inputs = (inputs * 256).astype(np.uint8)
    elif spec.value_range is not None:
        low, high = spec.value_range
        inputs = low + (high - low) * inputs
    found, expected = outputs(inputs), classifier.fitting_outputs(inputs, 0, 0)
    return float(np.abs(found - expected).max() / max(1, np.abs(expected).max()))


def _inexpressible(classifier: Classifier, format: str, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [""])[0][:300]
    got = f"{classifier.record.config.name} ({type(error).__name__}: {reason})"
    rule = f"a model that can be expressed in {format} for any number of examples"
    remedy = "Try another format; in a custom class, write x.shape[0] for len(x), and do not branch on it."
    return problem("model", got, rule, remedy)
