"""Feature maps: what each layer of a network makes of one picture, before and after its activation."""

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from engine.errors import InputError, problem
from engine.inference.layer_outputs import wrapped_network
from engine.models.activations import activation_spec
from engine.models.shapes import Shape
from engine.models.specs import Model
from engine.networks.modules import Activated
from engine.networks.network import Tree, normalize
from engine.text import counted

if TYPE_CHECKING:
    from engine.inference.single import SingleClassifier


class InParts(nnx.Module):
    """A SequentialModule that gives what each of its layers gives, one behind the other."""

    def __init__(self, module: Any):
        self.module = module

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b …] → [b d]: the outputs that `parts_of` names, each flattened."""
        given = list[jax.Array]()
        for layer in self.module.layers:
            if isinstance(layer, Activated):
                given.append(before := layer.layer(x))  # type: ignore[operator]
                x = layer.activation.apply(before)
            else:
                x = layer(x)
            given.append(x)
        return jnp.concatenate([each.reshape(len(each), -1) for each in given], axis=1)


def parts_of(model: Model, input_shape: Shape) -> Iterator[tuple[str, Shape]]:
    """(name, shape of an example) of each output: `conv_1 before relu`, `conv_1`, `max_pool_1`."""
    for row, layer in zip(model.rows(input_shape), model.layers, strict=True):
        plain = layer.loaded()
        activation = activation_spec(plain.activation)
        if activation is not None and activation is not plain:
            yield f"{row.name} before {activation}", row.output_shape
        yield row.name, row.output_shape


def find_feature_maps(classifier: "SingleClassifier", images: np.ndarray) -> dict[str, np.ndarray]:
    """float32[y x c] by name, of all layers that give images, in order, for the one image of [1 …].

    Raises InputError for more images, and for a class of the user's own, whose layers have no order.
    """
    record, spec = classifier.record, classifier.input_spec
    if len(images) != 1:
        rule, remedy = "one picture", "Use features(pictures, layer) for many."
        raise InputError(problem("feature_maps", counted(len(images), "picture"), rule, remedy))
    if not record.config.model.is_layered:
        rule, remedy = "a Sequential", "Use features(pictures, layer), with the path of a submodule."
        raise InputError(problem("feature_maps", "a class of its author's own", rule, remedy))
    parts = list(parts_of(record.config.model.with_outputs(record.num_outputs), spec.network_shape))
    run = wrapped_network(record, "xla", InParts)  # of which nothing is fused

    def maps_of(params: Tree, model_state: Tree, images: jax.Array) -> jax.Array:
        return run(params, model_state, normalize(images, spec))

    arguments = classifier.params, classifier.model_state, np.asarray(images)
    values = np.asarray(classifier.executables.call("feature maps", maps_of, *arguments))[0]
    ends = np.cumsum([prod(shape) for _, shape in parts])
    pieces = zip(parts, np.split(values, ends[:-1]), strict=True)
    return {name: piece.reshape(shape) for (name, shape), piece in pieces if len(shape) == 3}
