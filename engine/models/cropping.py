"""How much of an image counts: rows and columns at the end that no window of a later pool reaches need not be computed.

A pool of 2×2 on 11×11 leaves out the last row and column. The convolution before it then need not compute them,
which leaves less of the images before that to be needed, and so on to the first layer.
"""

from collections.abc import Sequence

from engine.models.activations import activation_spec
from engine.models.layer import Layer
from engine.models.shapes import Shape


def inputs_that_count(layers: Sequence[Layer], shapes: Sequence[Shape]) -> list[Shape]:
    """For each layer as much of its input, from the first row and column on, as the last one's output depends on.

    shapes: the input of the first layer, then the output of each. Those of vectors are in the result unchanged.
    """
    counted, shape = [], shapes[len(layers)]
    for number in reversed(range(len(layers))):
        layer, whole = layers[number], shapes[number]
        activation = activation_spec(layer.activation)
        if activation is not None and not activation.is_by_pixel:
            shape = shapes[number + 1]
        shape = (*layer.needed_input(whole, shape), *whole[2:])
        counted.append(shape)
    return counted[::-1]
