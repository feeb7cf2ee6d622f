"""A file of weights becomes a model of ours: its arrays by name, with the input contract that they were trained on."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flax import nnx

from engine.config import PlanConfig
from engine.config.contract import InputSpec
from engine.errors import InputError, problem, shape_text
from engine.importers import keras_names, torch_names
from engine.importers.catalogue import Contract, Variant
from engine.importers.matching import MOST_NAMED, NameMap, Origin, Target, fill, find_targets
from engine.importers.nearest import name_nearest
from engine.importers.normalization import find_contract
from engine.importers.orders import by_order
from engine.importers.weights_file import WeightsFile
from engine.kernels.lowerings import evaluation_lowering
from engine.models.convolutions import Conv, Dense
from engine.models.layers import Flatten
from engine.models.pools import GlobalAveragePool
from engine.models.shapes import pair
from engine.models.specs import Sequential
from engine.models.tokens import PositionEmbedding
from engine.networks.network import abstract_arrays, layers_in
from engine.text import counted

Channels = Literal[1, 3]
Normalization = Literal["imagenet", "file"]


@dataclass(frozen=True)
class Wanted:
    """What is made of a file: with the published classifier or without, for images of a size and so many channels.

    class_names: of the classifier's outputs; None: ImageNet's. normalization: of files that do not say how inputs were
    normalised.
    """

    top: bool = True
    height_width: tuple[int, int] | None = None
    channels: Channels = 3
    class_names: tuple[str, ...] | None = None
    normalization: Normalization | None = None


@dataclass(frozen=True)
class Weights:
    """A model with its arrays: (params, model_state). notes: what was dropped or converted, for the user."""

    spec: Sequential
    inputs: InputSpec
    num_outputs: int
    params: Any
    model_state: Any
    notes: tuple[str, ...]


def take_weights(variant: Variant, file: WeightsFile, wanted: Wanted, digest: str, num_classes: int) -> Weights:
    """The variant's model with the arrays of a file. digest: the file's, `md5:…` or so, that says if it is published.

    Raises InputError, naming both sides, if the file is not of this model.
    """
    height, width, _ = shape = shape_of(variant, wanted)
    spec = make_spec(variant, wanted)
    num_outputs = num_classes if wanted.top else spec.output_shape(shape)[0]
    targets, whose = targets_of(spec, shape, num_outputs), str(file.path)
    given, find_origin = _names_of(variant, file, spec)
    contract, used = find_contract(variant, file, given, digest, wanted.normalization)
    rest = {name: array for name, array in given.items() if name not in used}
    first = _first_kernel(spec, targets)
    try:
        _check_classes(targets, rest, find_origin, whose, wanted, num_classes)
        filled = fill(targets, rest, partial(_as_fed, find_origin, first, contract, wanted.channels), whose)
        dropped = _dropped(variant, file, filled.left_over, wanted, whose)
    except InputError as error:
        raise name_nearest(error, variant, file, rest) from None
    notes = [*file.notes, *dropped, *_kernel_notes(contract, wanted.channels)]
    if _has_positions(spec) and height != variant.size:
        notes.append(f"the embeddings of positions were resized for images of {shape_text((height, width))}, bicubic")
    inputs = contract.spec((height, width), wanted.channels)
    params, state = (tree_of(filled.arrays, number) for number in (0, 1))
    return Weights(spec, inputs, num_outputs, params, state, tuple(notes))


def shape_of(variant: Variant, wanted: Wanted) -> tuple[int, int, int]:
    """The shape of an image."""
    return (*(wanted.height_width or (variant.size, variant.size)), wanted.channels)


def make_spec(variant: Variant, wanted: Wanted) -> Sequential:
    """The variant's spec; a trunk gives the means of its last feature maps.

    Raises InputError for a size that its weights are not for.
    """
    shape = shape_of(variant, wanted)
    spec = variant.spec(wanted.top, None)
    if not wanted.top and len(spec.output_shape(shape)) == 3:
        spec = Sequential((*spec.layers, GlobalAveragePool(name="avg_pool")))
    is_fixed = any(isinstance(each.layer, Flatten) for each in spec.named)
    if is_fixed and shape[:2] != (variant.size, variant.size):
        rule = f"{shape_text((variant.size, variant.size))}, because the weights of {variant.name} are for places"
        raise InputError(problem("image-size", shape_text(shape[:2]), rule, "Leave it out, or try --no-top."))
    if _has_positions(spec) and shape[0] != shape[1]:
        rule = f"a square, because {variant.name} has an embedding for each place"
        raise InputError(problem("image-size", shape_text(shape[:2]), rule, f"Give one number, like {variant.size}."))
    if _has_positions(spec) and (rest := shape[0] % (patch := _patch_size(spec))):
        rule = f"a multiple of {patch}, for pixels beyond the last whole patch would not be seen"
        whole = max(patch, shape[0] - rest)
        raise InputError(problem("image-size", shape_text(shape[:2]), rule, f"Give {whole} or {whole + patch}."))
    return spec


def _patch_size(spec: Sequential) -> int:
    """How many pixels a side become one token: the step of the first convolution."""
    return next(pair(each.layer.strides)[0] for each in spec.named if isinstance(each.layer, Conv))


def _has_positions(spec: Sequential) -> bool:
    return any(isinstance(each.layer, PositionEmbedding) for each in spec.named)


def targets_of(spec: Sequential, shape: tuple[int, ...], num_outputs: int) -> list[Target]:
    """The arrays of a model, to be filled."""
    trees = abstract_arrays(spec, shape, num_outputs, evaluation_lowering(PlanConfig()))
    flat = {(number, *path): leaf for number, tree in enumerate(trees) for path, leaf in nnx.to_flat_state(tree)}
    by_name = {each.name: each.layer for each in spec.named}
    return list(find_targets(layers_in(spec, shape, num_outputs), by_name, flat))


def tree_of(arrays: Mapping[tuple, np.ndarray], number: int) -> Any:
    """The params (0) or model state (1) among flat arrays."""
    pairs = [(path[1:], array) for path, array in arrays.items() if path[0] == number]
    return nnx.as_pure(nnx.from_flat_state(pairs))


def _names_of(variant: Variant, file: WeightsFile, spec: Sequential) -> tuple[dict[str, np.ndarray], NameMap]:
    """(the file's arrays by name, what each target is called there)."""
    is_torch = file.is_of_torch
    if is_torch != (variant.library == "torch"):
        libraries = {True: "torch", False: "Keras"}
        got, rule = f"a file of {libraries[is_torch]}", f"one of {libraries[not is_torch]}, whose {variant.name} it is"
        remedy = "Choose a model of the other library: engine families lists them."
        raise name_nearest(InputError(problem(str(file.path), got, rule, remedy)), variant, file, file.arrays)
    if is_torch:
        kept = {name: array for name, array in file.arrays.items() if not torch_names.is_counter(name)}
        return kept, torch_names.make_name_map(spec)
    plain = keras_names.plain_names(file.arrays)
    given = {plain[name]: array for name, array in file.arrays.items()}
    return given, by_order(spec, str(file.path)) if file.is_by_order else keras_names.find_origin


def _first_kernel(spec: Sequential, targets: Sequence[Target]) -> tuple | None:
    """The path of the first kernel, which multiplies the channels of images."""
    first = next(each.name for each in spec.named if each.layer.has_kernel and not each.is_block)
    return next((target.path for target in targets if target.name == first and target.array.endswith("kernel")), None)


def _as_fed(find_origin: NameMap, first: tuple | None, contract: Contract, channels: int, target: Target) -> Origin:
    """Where a target comes from; the first kernel for red first, or for one channel."""
    origin = find_origin(target)
    if target.path != first:
        return origin

    def changed(array: np.ndarray) -> np.ndarray:
        kernel = origin.turned(array)
        kernel = kernel[:, :, ::-1] if contract.is_bgr else kernel
        return kernel.sum(2, keepdims=True) if channels == 1 and kernel.ndim == 4 else kernel

    return Origin(origin.names, changed)


def _kernel_notes(contract: Contract, channels: int) -> Iterator[str]:
    if contract.is_bgr:
        yield "the first kernel was reversed: it expects red first, where the file has blue first"
    if channels == 1:
        yield "the first kernel was summed over its three channels, for images of one"
        if any(len(set(numbers)) > 1 for numbers in (contract.mean or (), contract.std or ()) if numbers):
            yield "mean and deviation are means over the three channels: not quite as if grey stood three times"


def _check_classes(
    targets: Sequence[Target],
    given: Mapping[str, np.ndarray],
    find_origin: NameMap,
    whose: str,
    wanted: Wanted,
    num_classes: int,
) -> None:
    """Raises InputError if the file has no classifier, or one of another number of classes."""
    if not wanted.top:
        return
    last = next(t for t in reversed(targets) if isinstance(t.layer, Dense) and t.array == "bias")
    found = next((given[name] for name in find_origin(last).names if name in given), None)
    if found is None:
        got, rule = f"no weights of {last.name}, the classifier", "those of the whole model"
        raise InputError(problem(whose, got, rule, "Add --no-top, or use the file with them."))
    if found.shape != (num_classes,):
        got = f"a classifier of {counted(found.size, 'class')} ({last.name})"
        whose_names = "ImageNet's" if wanted.class_names is None else "as many as --class-names lists"
        remedy = f"Name its classes: --class-names FILE with {found.size:,} lines; or add --no-top."
        raise InputError(problem(whose, got, f"{num_classes:,}, {whose_names}", remedy))


def _dropped(
    variant: Variant, file: WeightsFile, left_over: Sequence[str], wanted: Wanted, whose: str
) -> Iterator[str]:
    """A note for what was dropped on purpose. Raises InputError for what else nothing was filled with."""
    allowed = set() if wanted.top else _names_of_top(variant, file)
    others = [name for name in left_over if name not in allowed]
    if others:
        named = ", ".join(others[:MOST_NAMED]) + (", …" if len(others) > MOST_NAMED else "")
        got = f"{counted(len(others), 'array')} that this model lacks: {named}"
        raise InputError(problem(whose, got, f"those of {variant.name} alone", "Name the model it was saved from."))
    counters = sum(map(torch_names.is_counter, file.arrays)) if variant.library == "torch" else 0
    dropped = [name for name in left_over if name in allowed]
    return (
        note
        for note in (
            f"dropped: {counted(len(dropped), 'array')} of the classifier ({', '.join(dropped)})" if dropped else "",
            f"dropped: {counters:,} counts of batches" if counters else "",
        )
        if note
    )


def _names_of_top(variant: Variant, file: WeightsFile) -> set[str]:
    """What the arrays of the published classifier may be called in a file."""
    whole, trunk = (variant.spec(top) for top in (True, False))
    inside = {each.name for each in trunk.named}
    _, find_origin = _names_of(variant, file, whole)
    targets = targets_of(whole, (variant.size, variant.size, 3), 1000)
    return {name for target in targets if target.name not in inside for name in find_origin(target).names}


def checked_class_names(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names as a tuple; raises InputError unless there are two or more and each is there once."""
    if len(names) < 2 or len(set(names)) != len(names) or not all(names):
        twice = next((name for name in names if names.count(name) > 1), "")
        got = f"{len(names):,} names" + (f", {twice!r} twice" if twice else "")
        raise InputError(problem(where, got, "at least two names, each once, none empty", "Correct the list."))
    return tuple(names)


def read_class_names(path: Path) -> tuple[str, ...]:
    """The class names in a text file, one a line."""
    try:
        if path.stat().st_size > 2**24:
            raise OSError(0, "larger than 16 MB")
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise InputError(problem("class-names", f"{path} ({reason})", "a text, a name a line", "Correct it.")) from None
    return checked_class_names([line.strip() for line in lines if line.strip()], str(path))


def imagenet_classes() -> tuple[str, ...]:
    """ImageNet's 1000 classes in the order of the outputs: number and name, like `n02111889 Samoyed`."""
    text = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())
