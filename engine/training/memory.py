"""Checks whether a model and its batches fit into memory, and words the error if they do not."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator

import jax

from engine.devices.capacity import OutOfMemory, Tree, _size, memory_errors, num_bytes
from engine.errors import InputError, problem, shape_text
from engine.host.memory import free_device_bytes
from engine.models.specs import Sequential
from engine.networks.layer_names import Layers, key_path

SHARE = 0.9  # of the free memory, for the advised batch size


def check_model_fits(layers: Layers, input_shape: tuple[int, ...], params: Tree, kept: Tree, copies: int) -> None:
    """Raises InputError, naming the largest layer, if a model in training does not fit into free memory.

    params: the trained arrays of one model; kept: everything else in its state; both may be abstract.
    copies: members on a device.
    """
    of_params, of_kept, free = num_bytes(params), num_bytes(kept), free_device_bytes()
    needed = copies * (of_params + of_kept) + of_params  # gradients of one at a time
    if needed <= free:
        return
    many = f"{copies:,} members of {_size(of_params)} each" if copies > 1 else _size(of_params)
    got = f"parameters of {many}, {_size(needed)} with their gradients and the optimizer's state"
    remedy = _remedy(layers, input_shape, params)
    raise InputError(problem("model", got, f"at most the {_size(free)} of memory that are free", remedy))


@contextlib.contextmanager
def batch_errors(batch_size: int, params: Tree) -> Iterator[None]:
    """As `memory_errors`, for training steps: advises a batch size that fits."""
    try:
        with memory_errors("train"):
            yield
    except OutOfMemory as error:
        got = f"{batch_size}, whose steps take {_size(error.needed) if error.needed else 'more memory'}"
        rule = f"one that fits into the {_size(free_device_bytes())} that are free"
        raise InputError(problem("train.batch_size", got, rule, _batch_remedy(batch_size, error, params))) from None


def _batch_remedy(batch_size: int, error: OutOfMemory, params: Tree) -> str:
    smaller = batch_size // 2
    if error.needed is not None:  # gradients and the like do not shrink with the batch
        fixed = 2 * num_bytes(params)
        shrinks = max(1, error.needed - fixed)
        smaller = min(smaller, int(batch_size * (SHARE * free_device_bytes() - fixed) / shrinks))
    if smaller < 1:
        return "Use smaller images (data.image-size) or a smaller model: one example is too large."
    parts = 2 ** max(1, (batch_size // smaller - 1).bit_length())
    in_parts = "" if batch_size % parts else f"compute it in parts (train.accumulate {parts}), "
    return f"Give {smaller}, {in_parts}or use smaller images (data.image-size)."


def _remedy(layers: Layers, input_shape: tuple[int, ...], params: Tree) -> str:
    """Names the largest layer, and how to make it smaller."""
    sizes, shapes = defaultdict[str, int](int), dict[str, tuple[int, ...]]()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = layers.of(key_path(path)) or ".".join(map(str, key_path(path)))
        sizes[name] += num_bytes(leaf)
        shapes[name] = max(shapes.get(name, ()), leaf.shape, key=lambda shape: (len(shape), shape))
    largest = max(sizes, key=lambda name: sizes[name])
    said = f"The largest layer is {largest} ({shape_text(shapes[largest])}, {_size(sizes[largest])})"
    flat = _flattened(layers, input_shape, largest)
    if flat is not None:
        before = f"it takes all values of {shape_text(flat)} from Flatten"
        return f"{said}: {before}. Use GlobalAveragePool() in place of Flatten(), more pools before it, or fewer units."
    return f"{said}. Make it smaller."


def _flattened(layers: Layers, input_shape: tuple[int, ...], name: str) -> tuple[int, ...] | None:
    """The shape of the images whose values a layer takes as a vector, through Flatten; None if it does not."""
    specs = layers.spec.layers
    names = layers.spec.layer_names
    if name not in names:
        return None
    first = number = names.index(name)
    while first and specs[first - 1].keeps_values:
        first -= 1
    images, taken = (Sequential(specs[:end]).output_shape(input_shape) for end in (first, number))
    return images if len(images) == 3 and len(taken) == 1 else None
