"""`quantize` makes a classifier that predicts in int8: faster on processors with AVX512-VNNI, nearly as accurate."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from engine.checkpoints.record import Record
from engine.config.data import ResizeRule
from engine.config.decoding import ValueRange
from engine.data.decoded.dataset import Dataset
from engine.data.pictures.images import Picture
from engine.devices.executables import Executables
from engine.devices.precision import computes
from engine.errors import InputError, problem
from engine.host.clock import Clock
from engine.host.console import tell
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.forward import apply_padded
from engine.inference.restore import Restorable, classifier_of
from engine.inference.single import Once, SingleClassifier
from engine.kernels import quantized
from engine.kernels.lowerings import evaluation_lowering
from engine.networks.build import SequentialModule
from engine.networks.network import Tree, abstract_module, crop_middle, logits_of, normalize
from engine.networks.quantizing import Code, Part, find_extremes, quantize_parts, split_parts
from engine.training.evaluate import Look

Predict = Callable[[Tree, jax.Array], jax.Array]
FEW_PICTURES = 16  # the fewest with which accuracy was measured (docs/plans.md)
_AGAIN = "Change the float32 classifier, and call engine.quantize again."


class QuantizedClassifier(SingleClassifier):
    """A classifier whose predictions are computed in int8. What looks into it, and what is saved, is float32.

    int8_layers, float32_layers: the names of its layers with weights, in order.
    """

    def __init__(self, of: SingleClassifier, parts: Sequence[Part], weights: Tree, predict: Predict):
        super().__init__(of.record, of.network, of.params, of.model_state)
        self._weights, self._predict = Once(lambda: weights), predict
        self.int8_layers = _names([part for part in parts if part.product])
        self.float32_layers = _names([part for part in parts if not part.product])

    def with_weights(self, record: Record, params: Tree, model_state: Tree) -> "SingleClassifier":
        """Raises InputError: other weights have to be quantized first."""
        raise InputError(problem("weights", "of a quantized classifier", "those of a float32 one", _AGAIN))

    def use_arrays(self, params: Tree, model_state: Tree) -> None:
        """Raises InputError: other weights have to be quantized first."""
        raise InputError(problem("set_weights", "a quantized classifier", "a float32 one", _AGAIN))

    def evaluate_fitting(self, dataset: Dataset, look: Look | None = None) -> dict[str, Any]:
        """As of `Classifier`."""
        outputs = self.fitting_outputs(dataset.images, 0, 0)
        if look is not None:
            look(0, outputs)
        return self.scoring.score(outputs, dataset.labels, dataset.weights)


def is_quantized(classifier: Classifier) -> bool:
    """Whether any of its predictions are computed in int8."""
    members = classifier.members if isinstance(classifier, EnsembleClassifier) else (classifier,)
    return any(isinstance(member, QuantizedClassifier) for member in members)


@computes
def quantize(
    classifier: Restorable,
    pictures: Picture | Sequence[Picture],
    resize: ResizeRule | None = None,
    value_range: ValueRange | None = None,
) -> Classifier:
    """The same classifier with predictions in int8, for a CPU. Of an ensemble each member.

    classifier: a Classifier, or the path of a run, a directory or packed.
    pictures, resize, value_range: as of `predict`. A hundred pictures or more like those to be classified; they need no
      labels. The input of each layer is rounded to 256 levels, between the least and the largest value that it has for
      these pictures; values beyond are clipped.
    Convolutions and dense layers become int8, with the batch norms, relus and pools after them. Other layers, and the
    last one, stay float32, which is reported with their number. What is saved of the run does not change.
    Raises InputError for a model of which no layer has an int8 form, and where it does not run on a CPU.
    """
    of = classifier_of(classifier, "classifier")
    if is_quantized(of):
        raise InputError(problem("quantize", "a quantized classifier", "a float32 one", "Use it as it is."))
    if jax.default_backend() != "cpu":
        remedy = "Set JAX_PLATFORMS=cpu, or predict with the classifier as it is."
        raise InputError(problem("quantize", f"a {jax.default_backend().upper()}", "a CPU", remedy))
    images = of._read(pictures, resize, value_range)
    if not len(images):
        raise InputError(problem("pictures", "none", "pictures to calibrate with", "Pass a hundred or so."))
    if isinstance(of, EnsembleClassifier):
        members = [_quantized(member, images) for member in of.members]
        _report(members[0], len(images))
        return EnsembleClassifier(members, of.combination, of.record)
    assert isinstance(of, SingleClassifier)
    made = _quantized(of, images)
    _report(made, len(images))
    return made


def _report(one: QuantizedClassifier, num_pictures: int) -> None:
    kept, all_layers = one.float32_layers, len(one.int8_layers) + len(one.float32_layers)
    pictures = f"{num_pictures:,} picture{'s' * (num_pictures != 1)}"
    tell(f"int8: {len(one.int8_layers)} of {all_layers} layers with weights, calibrated with {pictures}")
    if num_pictures < FEW_PICTURES:
        tell("int8: so few pictures may not have the values of others, which are clipped; pass a hundred or more")
    tell(f"float32: {len(kept)} ({', '.join(kept)})")
    if not quantized.is_fast():
        tell("int8 is slower than float32 here: this processor lacks AVX512-VNNI, or our C++ code cannot be loaded")


def _quantized(classifier: SingleClassifier, images: np.ndarray) -> QuantizedClassifier:
    parts, spec = _parts_of(classifier), classifier.input_spec
    pictures, gives = Code.of_pictures(spec), classifier.record.config.model.gives

    def extremes(inputs: jax.Array, first: Any) -> jax.Array:
        return find_extremes(parts, normalize(inputs, spec))

    executables = Executables(Clock())
    found = apply_padded(executables, ("extremes",), extremes, (), images)  # [n p 2]
    if not np.isfinite(found).all():
        raise InputError(problem("quantize", "values that are not finite", "finite ones", "Train the model again."))
    weights, run = quantize_parts(parts, pictures, np.stack([found[..., 0].min(0), found[..., 1].max(0)], 1))

    def predict(weights: Tree, inputs: jax.Array) -> jax.Array:
        if pictures is None:
            inputs = normalize(inputs, spec)
        else:  # test-time augmentation gives levels between whole ones
            inputs = crop_middle(inputs, spec)
            is_whole = inputs.dtype == jnp.uint8
            inputs = inputs if is_whole else jnp.clip(jnp.round(inputs), 0, quantized.LARGEST).astype(jnp.uint8)
        return logits_of(run(weights, inputs), gives)

    return QuantizedClassifier(classifier, parts, weights, predict)


def _names(parts: Sequence[Part]) -> tuple[str, ...]:
    """The first layer of each part with weights."""
    return tuple(part.names[0] for part in parts if part.has_weights)


def _parts_of(classifier: SingleClassifier) -> list[Part]:
    """The layers with their arrays; raises InputError for a model that has no int8 form."""
    record, spec = classifier.record, classifier.input_spec
    if not record.config.model.is_layered:
        remedy = "Predict with the classifier as it is."
        raise InputError(problem("quantize", "a class of its author's own", "a model of layers", remedy))
    if spec.whiten:
        rule, remedy = "none, which mixes all pixels", "Predict with the classifier as it is."
        raise InputError(problem("quantize", "a model with whitening", rule, remedy))
    lowering = evaluation_lowering(record.config.plan)
    module = abstract_module(record.config.model, spec.network_shape, record.num_outputs, lowering)
    assert isinstance(module, SequentialModule)
    for tree in classifier.arrays:
        nnx.update(module, tree)
    module.eval()
    names = {each.position[0]: each.name for each in classifier.model.named if len(each.position) == 1}
    parts = split_parts(module, [names[n] for n in range(len(module.layers))])
    if not any(part.product for part in parts):
        kept = ", ".join(_names(parts))
        rule = "a convolution or dense layer before the last one, of one group, outside of blocks"
        raise InputError(problem("quantize", kept, rule, "Predict with the classifier as it is."))
    return parts
