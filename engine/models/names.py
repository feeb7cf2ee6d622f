"""What the layers of a model are called, at any depth."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from engine.errors import InputError, problem
from engine.models.activations import Activation, activation_spec
from engine.models.blocks import Paths
from engine.models.layer import CustomLayer, Layer

Position = tuple[int, ...]


class NamedLayer(NamedTuple):
    """A layer of a model and what it is called.

    position: its number, from 0; within a block the block's, then the number of the path and that within it: (4, 1, 0).
    name: its own, or its kind and a number, conv_1, within a block after the block's name and a dot.
    within: the names of the blocks that it is part of, and of their activations, the innermost block last.
    also: the name of its activation, if that has one.
    """

    position: Position
    name: str
    layer: Layer
    within: tuple[str, ...]
    also: tuple[str, ...]

    @property
    def is_block(self) -> bool:
        """Whether it is made of other layers."""
        return isinstance(self.layer, Paths)

    @property
    def depth(self) -> int:
        """How many blocks it is within."""
        return len(self.position) // 2

    @property
    def answers_to(self) -> tuple[str, ...]:
        """Every name that a pattern may fit: of itself, its activation, and blocks, and these up to each dot."""
        wholes = (*self.within, self.name, *self.also)
        return tuple(dict.fromkeys(name[:end] for name in wholes for end in (*_dots(name), len(name))))


def name_layers(layers: Sequence[Layer]) -> tuple[NamedLayer, ...]:
    """All layers of a model at any depth, in order, each block before what is in it.

    Raises InputError where two are called the same.
    """
    named = tuple(_named([((number,), layer) for number, layer in enumerate(layers)], ()))
    seen = set[str]()
    for name in (name for each in named for name in (each.name, *each.also)):
        if name in seen:
            raise InputError(problem("layer name", f"{name!r} twice", "one of its own for each layer", "Rename one."))
        seen.add(name)
    return named


def _named(layers: Iterable[tuple[Position, Layer]], within: tuple[str, ...]) -> Iterator[NamedLayer]:
    numbers = defaultdict[str, Iterator[int]](lambda: count(1))
    for position, layer in layers:
        kind = re.sub(r"(?<!^)(?=[A-Z])", "_", layer.kind).lower()
        number = next(numbers[kind])  # those with names of their own count too
        name = layer.name or ".".join((*within[-1:], f"{kind}_{number}"))
        yield NamedLayer(position, name, layer, within, _folded_names(layer))
        if isinstance(layer, Paths):
            inner = ((p, n, each) for p, path in enumerate(layer.paths) for n, each in enumerate(path))
            yield from _named(
                (((*position, p, n), each) for p, n, each in inner), (*within, *_folded_names(layer), name)
            )


def _folded_names(layer: Layer) -> tuple[str, ...]:
    """The name of a layer's activation. A user's own layer is not looked into, because that would import it."""
    if isinstance(layer, CustomLayer | Activation):
        return ()
    activation = activation_spec(layer.activation)
    return (activation.name,) if activation is not None and activation.name else ()


def _dots(name: str) -> list[int]:
    return [match.start() for match in re.finditer(r"\.", name)]
