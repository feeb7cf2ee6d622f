"""Which layer of a model an array belongs to, by the name that freezing and the like go by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from engine.models import specs

LayerPath = Sequence[Any]  # from the root: attribute names, and numbers within lists


@dataclass(frozen=True)
class Layers:
    """names: in order, of a Sequential; of a user's own class the dotted paths of modules that hold arrays."""

    spec: specs.Model
    names: tuple[str, ...]

    @property
    def are_ordered(self) -> bool:
        """Whether there is a first and a last one."""
        return self.spec.is_layered

    def of(self, path: LayerPath) -> str:
        """The layer of an array, or of a module, at a path; empty if it is none."""
        if self.are_ordered:
            return self.names[path[1]] if len(path) > 1 and path[0] == "layers" else ""
        wholes = (".".join(map(str, path[:end])) for end in range(len(path), 0, -1))
        return next((whole for whole in wholes if whole in self.names), "")

    def kept(self, tree: Any, keep: Callable[[str], bool]) -> Any:
        """What a tree of a module's arrays has of the layers that `keep` is true for."""
        return nnx.from_flat_state([(path, leaf) for path, leaf in nnx.to_flat_state(tree) if keep(self.of(path))])


def layers_of(spec: specs.Model, module: nnx.Module | None) -> Layers:
    """The layers of a spec; of a user's own class those of its module, which may be abstract."""
    if module is None or spec.is_layered:
        return Layers(spec, spec.layer_names)
    arrays = nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat)))
    holders = {".".join(map(str, path[:-1] or path)) for path, _ in arrays}
    draws = {".".join(map(str, path)) for path, node in nnx.iter_modules(module) if isinstance(node, nnx.Dropout)}
    return Layers(spec, tuple(sorted(holders | draws)))


def joined(*trees: Any) -> Any:
    """The tree of all arrays of several, which have none in common."""
    return nnx.from_flat_state([pair for tree in trees for pair in nnx.to_flat_state(tree)])


def key_path(path: tuple) -> tuple:
    """The path of an array as `Layers.of` takes it, from that of jax.tree_util."""
    return tuple(entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey))
