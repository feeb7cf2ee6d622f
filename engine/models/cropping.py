"""How much of an image counts: rows and columns at the end that no window of a later pool reaches need not be computed.

A pool of 2×2 on 11×11 leaves the last row and column to nobody. The convolution before it then need not give them,
which leaves less of the images before that to be needed, and so on to the first layer.
"""

from collections.abc import Sequence

from engine.models.layers import (
    Activation,
    AveragePool,
    Conv,
    DepthwiseConv,
    Layer,
    MaxPool,
    Rescale,
    SeparableConv,
    Shape,
    pair,
)


def inputs_that_count(layers: Sequence[Layer], shapes: Sequence[Shape]) -> list[Shape]:
    """For each layer as much of its input, from the first row and column on, as the last one's output depends on.

    shapes: what comes to the first layer, then what each gives. The result has those of vectors as they are.
    """
    counted, shape = [], shapes[len(layers)]
    for layer, whole in zip(reversed(layers), reversed(shapes[: len(layers)]), strict=True):
        shape = (*_input_size(layer, whole, shape), *whole[2:])
        counted.append(shape)
    return counted[::-1]


def _input_size(layer: Layer, whole: Shape, output: Shape) -> Shape:
    """(h, w) of a layer's input that so much of its output depends on; all of it where padding or statistics do."""
    match layer:
        case Conv() | DepthwiseConv() | SeparableConv() if layer.padding in ("valid", 0):
            size, strides, dilation = layer.kernel_size, layer.strides, layer.dilation
        case MaxPool(size, strides, padding="valid" | 0) | AveragePool(size, strides, padding="valid" | 0):
            dilation = 1
        case Activation() | Rescale():
            return output[:2]
        case _:
            return whole[:2]
    windows = zip(output[:2], pair(size), pair(strides or size), pair(dilation), strict=True)
    return tuple((n - 1) * step + (taps - 1) * gap + 1 for n, taps, step, gap in windows)
