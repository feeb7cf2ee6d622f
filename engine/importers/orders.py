"""Files of Keras that have no names of layers, but their order within each class: `conv2d_3/kernel`."""

from collections import Counter

from engine.errors import InputError, problem
from engine.importers import keras_names
from engine.importers.matching import NameMap
from engine.models import convolutions, norms
from engine.models.layer import Layer
from engine.models.specs import Sequential

CLASSES: dict[type[Layer], str] = {
    convolutions.Conv: "conv2d",
    convolutions.DepthwiseConv: "depthwise_conv2d",
    convolutions.SeparableConv: "separable_conv2d",
    convolutions.Dense: "dense",
    norms.BatchNorm: "batch_normalization",
    norms.LayerNorm: "layer_normalization",
}


def by_order(spec: Sequential, whose: str) -> NameMap:
    """What such a file calls the arrays of a model whose layers are in a row, so that their order is known.

    Raises InputError for a model with blocks, whose layers Keras may have listed in another order.
    """
    if any(each.is_block for each in spec.named):
        got, rule = "a file without names of layers", "one with them, because this model is no plain row of layers"
        remedy = "Save the weights again with Keras 3.6 or newer, or as .h5."
        raise InputError(problem(whose, got, rule, remedy))
    counts, called = Counter[str](), {}
    for each in spec.named:
        if kind := CLASSES.get(type(each.layer)):
            called[each.name] = f"{kind}_{counts[kind]}" if counts[kind] else kind
            counts[kind] += 1
    return lambda target: keras_names.find_origin(target._replace(name=called.get(target.name, target.name)))
