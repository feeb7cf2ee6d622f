"""Which array of a file fills which array of a model: by name, each filled once, and nothing left over unsaid."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from engine.errors import InputError, problem, shape_text
from engine.models.layer import Layer
from engine.networks.layer_names import Layers

MOST_NAMED = 5


class Target(NamedTuple):
    """An array of a model, to be filled.

    layer: the spec of its layer. name: what the layer is called, like conv4_block6_2_conv. array: what the array is
    called in it: kernel, bias, scale, mean, var, or a dotted path like qkv.kernel. path: in (params, model_state).
    """

    layer: Layer
    name: str
    array: str
    shape: tuple[int, ...]
    path: tuple


def unchanged(array: np.ndarray) -> np.ndarray:
    """The array itself."""
    return array


class Origin(NamedTuple):
    """Where a target comes from.

    names: what it may be called in the file; the first that is there counts. turned: the file's array → ours.
    """

    names: tuple[str, ...]
    turned: Callable[[np.ndarray], np.ndarray] = unchanged


NameMap = Callable[[Target], Origin]
"""What each library that wrote a file calls the arrays of a layer: keras_names.find_origin, torch_names.find_origin."""


class Filled(NamedTuple):
    """(params, model_state) filled, as flat {path: array}, and the arrays of the file that nothing was filled with."""

    arrays: dict[tuple, np.ndarray]
    left_over: tuple[str, ...]


def find_targets(layers: Layers, by_name: Mapping[str, Layer], flat: Mapping[tuple, Any]) -> Iterator[Target]:
    """The arrays of a model as targets. flat: {(0 for params or 1 for state, *path): array or its shape}."""
    for path, leaf in flat.items():
        name, *inner = layers.parts(path[1:])
        yield Target(by_name[name], name, ".".join(map(str, inner)), tuple(leaf.shape), path)


def fill(targets: Sequence[Target], given: Mapping[str, np.ndarray], find_origin: NameMap, whose: str) -> Filled:
    """Every target filled by the one array that its name asks for.

    Raises InputError, naming both sides, if the file lacks an array or has it in another shape, with values that are
    not finite, or for two targets.
    """
    filled, missing, used = {}, [], dict[str, Target]()
    for target in targets:
        names, turned = find_origin(target)
        found = next((name for name in names if name in given), None)
        if found is None:
            missing.append(f"{target.name} {target.array} ({names[0]})")
            continue
        if found in used:
            got = f"one array for {used[found].name} and {target.name}"
            raise InputError(problem(f"{whose}: {found}", got, "one for each layer", "Import it as another model."))
        used[found] = target
        filled[target.path] = _checked(turned(given[found]), target, f"{whose}: {found}")
    left_over = tuple(name for name in given if name not in used)
    if missing:
        raise InputError(_lacking(whose, missing, len(targets), left_over))
    return Filled(filled, left_over)


def _checked(array: np.ndarray, target: Target, where: str) -> np.ndarray:
    """float32 in C order, or the file's own memory where it is that already."""
    if array.shape != target.shape:
        got, rule = shape_text(array.shape), f"{shape_text(target.shape)}, as {target.name} {target.array} has"
        raise InputError(problem(where, got, rule, "Import it as the model that it was saved from."))
    array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        got = f"{int((~np.isfinite(array)).sum()):,} values that are no finite numbers"
        raise InputError(problem(where, got, "finite numbers", "Get the file again, or another one."))
    return array


def _lacking(whose: str, missing: Sequence[str], count: int, left_over: Sequence[str]) -> str:
    named = ", ".join(missing[:MOST_NAMED]) + (", …" if len(missing) > MOST_NAMED else "")
    got = f"nothing for {len(missing):,} of {count:,} arrays: {named}"
    rule = "an array for each by name"
    rest = f"Left over there: {', '.join(left_over[:MOST_NAMED])}{', …' * (len(left_over) > MOST_NAMED)}. "
    return problem(whose, got, rule, f"{rest if left_over else ''}Name the model that it was saved from.")
