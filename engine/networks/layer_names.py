"""Which layer of a model an array belongs to, by the name that freezing and the like go by."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from flax import nnx

from engine.config.finetune import LayerName, dotted_names, layer_names
from engine.models import specs

LayerPath = Sequence[Any]  # from the root: attribute names, and numbers within lists


@dataclass(frozen=True)
class Layers:
    """all: in order, the layers of a Sequential that are no blocks; of a user's own class the modules that hold arrays,
    by their dotted paths."""

    spec: specs.Model
    all: tuple[LayerName, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Of all layers, in order."""
        return tuple(layer.name for layer in self.all)

    @cached_property
    def by_name(self) -> dict[str, LayerName]:
        """Each layer by its name."""
        return {layer.name: layer for layer in self.all}

    @cached_property
    def by_position(self) -> dict[tuple[int, ...], str]:
        """Position (`NamedLayer.position`) → name, blocks too."""
        return {each.position: each.name for each in self.spec.named}

    @property
    def are_ordered(self) -> bool:
        """Whether there is a first and a last one."""
        return self.spec.is_layered

    def num_still(self, frozen: Collection[str]) -> int:
        """How many first layers of a Sequential, with all that lies within, are frozen or neither train nor draw.

        0 if none is frozen, and for a custom class, whose layers have no known order.
        """
        if not frozen or not self.spec.layers:
            return 0
        inner = (each for each in self.spec.named if not each.is_block and each.name not in frozen)
        live = (each.position[0] for each in inner if each.layer.has_params or each.layer.is_random)
        return min(live, default=len(self.spec.layers))

    def of(self, path: LayerPath) -> str:
        """The innermost layer of an array, or of a module, at a path; empty if it is none."""
        return self.parts(path)[0]

    def parts(self, path: LayerPath) -> tuple[Any, ...]:
        """(the layer of an array or a module at a path, the rest of the path within that layer's module)."""
        if self.are_ordered:
            return self._ordered_parts(path)
        name = self._dotted_of(path)
        return (name, *path[len(name.split(".")) if name else 0 :])

    def _ordered_parts(self, path: LayerPath) -> tuple[Any, ...]:
        """The path goes from the root, or a block, by (`layers` or `paths`, number), and by `layer` into one with an
        activation."""
        if len(path) < 2 or path[0] != "layers":
            return ("", *path)
        position, rest, name = (), list(path), ""
        while len(rest) > 1 and rest[0] in ("layers", "paths") and self._leads_on((*position, rest[1])):
            position, rest = (*position, rest[1]), rest[2:]
            name = self.by_position.get(position, name)
            rest = rest[1:] if rest[:1] == ["layer"] else rest
        return (name, *rest)

    def _leads_on(self, position: tuple[Any, ...]) -> bool:
        """Whether there is a layer, or a path of a block."""
        return position in self.by_position or position in self._path_positions

    @cached_property
    def _path_positions(self) -> set[tuple[int, ...]]:
        return {each.position[:-1] for each in self.spec.named if each.within}

    def _dotted_of(self, path: LayerPath) -> str:
        wholes = (".".join(map(str, path[:end])) for end in range(len(path), 0, -1))
        return next((whole for whole in wholes if whole in self.names), "")

    def kept(self, tree: Any, keep: Callable[[str], bool]) -> Any:
        """What a tree of a module's arrays has of the layers that `keep` is true for."""
        return nnx.from_flat_state([(path, leaf) for path, leaf in nnx.to_flat_state(tree) if keep(self.of(path))])


def layers_of(spec: specs.Model, module: nnx.Module | None) -> Layers:
    """The layers of a spec; of a user's own class those of its module, which may be abstract."""
    if module is None or spec.is_layered:
        return Layers(spec, layer_names(spec.named))
    arrays = nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    holders = {".".join(map(str, path[:-1] or path)) for path, _ in arrays}
    draws = {".".join(map(str, path)) for path, node in nnx.iter_modules(module) if isinstance(node, nnx.Dropout)}
    return Layers(spec, dotted_names(sorted(holders | draws)))


def joined(*trees: Any) -> Any:
    """The tree of all arrays of several, which have none in common."""
    return nnx.from_flat_state([pair for tree in trees for pair in nnx.to_flat_state(tree)])


def key_path(path: tuple) -> tuple:
    """The path of an array as `Layers.of` takes it, from that of jax.tree_util."""
    return tuple(entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey))
