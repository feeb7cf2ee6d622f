"""VGG, after Simonyan and Zisserman, https://arxiv.org/abs/1409.1556. Names and numbers are those of Keras."""

from collections.abc import Sequence

from engine.models.convolutions import Conv, Dense
from engine.models.layer import Layer
from engine.models.layers import Flatten
from engine.models.pools import MaxPool
from engine.models.specs import Sequential

FILTERS = (64, 128, 256, 512, 512)


def vgg(convs: Sequence[int] = (2, 2, 3, 3, 3), *, top: bool = True, num_classes: int | None = None) -> Sequential:
    """VGG with so many convolutions before each of its pools: (2, 2, 3, 3, 3) is VGG16, (2, 2, 4, 4, 4) VGG19.

    top: with its three dense layers, of which the last has `num_classes` outputs (None: as many as the data needs);
    else it ends with feature maps, float32[b h/32 w/32 512]. With a top, weights are for images of one size alone.
    """
    layers: list[Layer] = []
    for block, (filters, count) in enumerate(zip(FILTERS, convs, strict=True), 1):
        for number in range(1, count + 1):
            name = f"block{block}_conv{number}"
            layers.append(Conv(filters, padding="same", activation="relu", name=name))
        layers.append(MaxPool(name=f"block{block}_pool"))
    if top:
        hidden = (Dense(4096, "relu", name=name) for name in ("fc1", "fc2"))
        layers += [Flatten(name="flatten"), *hidden, Dense(num_classes, name="predictions")]
    return Sequential(tuple(layers))
