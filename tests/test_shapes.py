"""The shapes in docstrings: each must be that of an array that goes into the function or comes out of it.

Every axis letter stands for one size here, all different, so that a wrong letter, order or rank cannot match.
"""

import ast
import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from engine.augment import apply, mixing
from engine.augment.config import AugmentConfig
from engine.config.contract import InputSpec
from engine.config.data import DataConfig
from engine.data import coverage, folds, weighing
from engine.data.arrays import axes, stored
from engine.data.classes import labels as class_labels
from engine.data.classes import reading
from engine.data.classes import several as class_several
from engine.data.decoded.dataset import Dataset
from engine.data.pictures import images as pictures
from engine.data.pictures import interpolating, levels, ranges, resampling, shown
from engine.data.sources import array_files
from engine.kernels import (
    batch_norm,
    batch_norm_gpu,
    chain,
    dense,
    depthwise,
    direct,
    eigen,
    ffi,
    matrix,
    pooling,
    quantized,
    separable,
    triton,
    windows,
    xla,
)
from engine.kernels.libraries import CONVOLUTIONS
from engine.kernels.windows import Window
from engine.metrics import calibration, combination, losses, pairs, per_class, ranking, table
from engine.models import UpSample
from engine.networks import build, folding, functions, modules, network

ENGINE = Path(__file__).parents[1] / "engine"
ROOMS = ("kernels", "networks", "metrics", "data")
SIZES = {
    "b": 6, "h": 20, "w": 12, "c": 3, "i": 2, "j": 5, "y": 19, "x": 8, "v": 9, "u": 4, "o": 16, "k": 10, "n": 11,
    "m": 13, "d": 14, "c'": 1,
}  # fmt: skip
SHAPE = re.compile(r"(?:\b(u?int|float|bool)(\d*) ?)?\[((?:[a-z]'?|\d+|…)(?: (?:[a-z]'?|\d+|…))*)\]")
WINDOW, POOL = Window((2, 5), (1, 1)), Window((2, 2), (2, 2))
NO_PADS = ((0, 0), (0, 0))


def array(axes: str, dtype: str = "float32", below: float | None = None) -> np.ndarray:
    """Numbers in an array of such axes: fractions from 0 to 1, whole numbers from 0 to below 256 or `below`."""
    draw = np.random.default_rng(len(axes)).random([SIZES.get(axis) or int(axis) for axis in axes.split()])
    return (draw * (below or (1 if dtype.startswith("float") else 256))).astype(dtype)


def shares(axes: str) -> np.ndarray:
    """Probabilities over the last axis."""
    numbers = array(axes) + 0.1
    return numbers / numbers.sum(-1, keepdims=True)


MAPS, KERNEL, BIAS = array("b h w c"), array("i j c o"), array("o")
PICTURES, PICTURE = array("n h w c", "uint8"), array("h w c", "uint8")
LOGS, LABELS, WEIGHTS = np.log(shares("m n k")), array("n", "int32", 10), np.full(13, 1 / 13)
LOGITS, TARGETS, MARKS = array("b k"), array("b", "int32", 10), array("b k", "int32", 2)
SPEC, CONFIG = InputSpec((20, 12, 3)), DataConfig(image_size="20x12")
DATA = Dataset(PICTURES, LABELS, tuple("abcdefghij"), "some", "")
KERNEL8, BIAS8 = array("i j c o", "int8", 100), array("o", "int32")
AFTER8 = (BIAS8, BIAS)  # bias and factors
FLIPPED = (eigen.flip(KERNEL), eigen.flipped_window(WINDOW, (20, 12), (19, 8)))
AUGMENT = AugmentConfig(horizontal_flip=True, mixup=0.2)
ONE, KEYS = jax.random.key(0), jax.random.split(jax.random.key(0), 6)
# Function → the arguments of each call.
CASES: dict[Callable[..., Any], list[tuple]] = {
    depthwise.depthwise: [(MAPS, array("i j c"), WINDOW)],
    depthwise.shifted_sums: [(MAPS, array("i j 1 c"), WINDOW)],
    build.run_rows: [([], MAPS, array("b", "bool"))],
    folding.run_in_parts: [(lambda images: images, MAPS)],
    eigen.eigen_convolve: [(MAPS, KERNEL, WINDOW, None)],
    eigen.input_gradient: [(MAPS.shape, KERNEL, array("b y x o"), WINDOW, None)],
    eigen.flip: [(KERNEL,)],
    matrix.convolve_patches: [(MAPS, KERNEL, WINDOW, None)],
    pooling.max_pool: [(MAPS, WINDOW.size, (1, 1), NO_PADS, "matrix")],
    pooling.average_pool: [(MAPS, WINDOW.size, (1, 1), NO_PADS, "matrix")],
    quantized.unpack: [(quantized.pack(KERNEL8), KERNEL8.shape)],
    quantized.convolve: [
        (array("b h w c", "uint8"), quantized.pack(KERNEL8), *AFTER8, array("c", "uint8"), WINDOW, quantized.Tail())
    ],
    quantized.multiply: [
        (array("b d", "uint8"), quantized.pack(array("1 1 d o", "int8", 100)), *AFTER8, quantized.Tail())
    ],
    windows.slice_at: [(MAPS, (0, 0), (1, 1), (19, 8))],
    windows.spread: [(array("b y x c"), (0, 0), (1, 1), (20, 12))],
    windows.pad: [(MAPS, ((1, -1), (0, 0)))],
    windows.collect: [([array("b y x c")] * 10, MAPS.shape, WINDOW)],
    xla.by_example: [(lambda examples, weights: examples, MAPS, KERNEL)],
    functions.global_max: [(MAPS,)],
    functions.up_sample: [(UpSample(2), MAPS)],
    modules.moments: [(MAPS, array("b", "bool"))],
    network.crop_middle: [(MAPS, SPEC)],
    network.logits_of: [(LOGITS, "softmax")],
    calibration.scores: [(shares("n k"), LABELS)],
    calibration.reliability: [(shares("n k"), LABELS)],
    calibration.uncertainty: [(LOGS, WEIGHTS)],
    calibration.entropy: [(shares("n k"),)],
    combination.fit: [
        ("weighted", LOGS, LABELS, False, np.full(13, True)),
        ("weighted", LOGS, shares("n k"), False, np.full(13, True)),
    ],
    combination.mean_probabilities: [(LOGS, WEIGHTS)],
    combination.vote_shares: [(LOGS, WEIGHTS)],
    combination.sum_weighted: [(shares("m n k"), np.ones(SIZES["m"]))],
    combination.label_likelihoods: [(LOGS, LABELS, np.arange(13))],
    combination.mixture_weights: [(shares("m n"),)],
    combination.greedy_weights: [(shares("m n"),)],
    combination.fit_scaling: [(shares("n k"), LABELS)],
    losses.softmax_cross_entropy: [(LOGITS, TARGETS)],
    losses.binary_cross_entropy: [(array("b 1"), array("b", "int32", 2)), (LOGITS, MARKS)],
    losses.focal: [(LOGITS, TARGETS)],
    losses.binary_focal: [(array("b 1"), array("b", "int32", 2)), (LOGITS, MARKS)],
    per_class.count_confusion: [(shares("n k"), LABELS), (shares("n k"), array("n k", "uint8", 2), None, [0.5] * 10)],
    per_class.find_best_thresholds: [(shares("n k"), array("n k", "uint8", 2))],
    class_labels.of_one_kind: [(array("n"), "labels"), (array("n d"), "labels")],
    class_labels.are_truths: [(array("n d"),)],
    class_labels.is_one_hot: [(array("n k"),)],
    class_labels.are_shares: [(shares("n k"),)],
    class_several.are_class_shares: [(shares("n k"),)],
    class_several.normalize_shares: [(shares("n k"),)],
    ranking.roc_auc: [(array("n"), array("n") > 0.5, array("n"))],
    batch_norm_gpu.normalize: [((1e-3, "relu"), MAPS, array("c"), array("c"), array("b", "bool"))],
    direct.convolve_by_xla: [(MAPS, KERNEL, WINDOW, None)],
    pooling.collect_by_remainder: [([array("b y x c")] * 10, MAPS.shape, WINDOW)],
    shown.shown_levels: [(PICTURE,), (array("h w"),)],
    shown.png_bytes: [(PICTURE,), (array("h w 1", "uint8"),)],
    losses.mean_squared_error: [(array("b d"), array("b d"))],
    losses.mean_absolute_error: [(array("b d"), array("b d"))],
    losses.probabilities: [(LOGITS, "softmax")],
    axes.channels_last: [
        (array(shape, "uint8"), "images", layout, print)
        for shape, layout in (("n h w", "auto"), ("n h w c", "auto"), ("n c h w", "channels_first"))
    ],
    axes.check_pictures: [(PICTURES, "images")],
    stored.image_hashes: [(PICTURES,)],
    class_labels.read_targets: [(array("n"), "labels"), (array("n d"), "labels")],
    class_labels.targets_for_classes: [(array("n d"), "labels", "softmax_cross_entropy")],
    reading.classes_of: [(LABELS, "labels")],
    coverage.absent_notes: [(DATA, "training", array("k", "bool"))],
    pictures.fit_levels: [(PICTURE, "grayscale", (19, 8), "stretch")],
    pictures.fit_array: [(PICTURE, SPEC), (array("h w", "uint8"), InputSpec((20, 12, 1)))],
    pictures.fit_values: [(PICTURE, SPEC, None, "picture")],
    pictures.levels_of: [(PICTURE, SPEC, None, "picture")],
    pictures.fit_images: [(array("b h w c", "uint8"), CONFIG)],
    interpolating.interpolated: [(PICTURE, (19, 8), "bilinear")],
    levels.as_levels: [(MAPS, (0, 1), "pictures")],
    levels.spread: [(MAPS, 0, 1)],
    ranges.parts_of: [(PICTURES,)],
    ranges.range_of: [(PICTURES, "images")],
    ranges.levels_range: [(PICTURES, "images", None)],
    ranges.check_not_raw: [(PICTURES, None, "images")],
    resampling.fitted: [(PICTURE, (19, 8), "stretch")],
    resampling.stretched: [(PICTURE, (19, 8))],
    resampling.resized: [(PICTURE, (19, 8))],
    weighing.balanced_weights: [(DATA,)],
    folds.assign_folds: [(LABELS, 3, 0), (array("n d"), 3, 0)],
    array_files.decode_arrays: [(PICTURES, LABELS, DATA.class_names, CONFIG)],
    apply.augment_image: [(ONE, PICTURE, AUGMENT)],
    apply.augment_policy: [(ONE, PICTURE.astype("float32"), AUGMENT)],
    apply.augment_batch: [(KEYS, array("b h w c", "uint8"), AUGMENT)],
    mixing.mix_pairs: [(KEYS, MAPS, AUGMENT)],
}
if ffi.is_available() and CONVOLUTIONS.load() is not None:
    NO_WINNERS = np.zeros((0, 0, 0, 0), np.uint8)
    CASES[ffi.convolve] = [(MAPS, KERNEL, BIAS, WINDOW, pool, True) for pool in (None, POOL)]
    CASES[ffi.gradients] = [(MAPS, FLIPPED, NO_WINNERS, None, array("b y x o"), WINDOW, None)]
NOT_EVERYWHERE = {
    # They need a GPU, or a processor for which there is a library.
    *(triton.convolve, ffi.convolve, ffi.spread, ffi.convolve_spread, ffi.gradients, batch_norm.normalize),
    *(chain.convolve, chain.pack, dense.multiply, dense.direct_dot_general),
    # They also need multiples of 16 channels, or windows of 1×1.
    *(
        separable.depthwise,
        separable.convolve_depthwise,
        separable.pack,
        separable.pointwise,
        separable.convolve_pointwise,
    ),
    # They give no arrays.
    *(table.score_outputs, pairs.as_pairs, pairs.count_pairs, per_class.score_classes),
}


def stated_shapes(docstring: str) -> list[tuple[str, tuple[str, ...]]]:
    """(dtype, axes) of each shape in a docstring; no dtype is ""."""
    return [(kind + bits, tuple(axes.split())) for kind, bits, axes in SHAPE.findall(docstring)]


def matches(stated: tuple[str, tuple[str, ...]], shape: tuple[int, ...], dtype: str) -> bool:
    """Whether an array is of a stated shape and dtype: `int` is any whole number, `…` any axes."""
    wanted, axes = stated
    sizes = [None if axis == "…" else SIZES.get(axis) or int(axis) for axis in axes]
    if None in sizes:
        at, after = sizes.index(None), len(sizes) - sizes.index(None) - 1
        fits = list(shape[:at]) == sizes[:at] and list(shape[len(shape) - after :]) == sizes[at + 1 :]
        fits = fits and len(shape) >= len(sizes) - 1
    else:
        fits = list(shape) == sizes
    return fits and (dtype == wanted or dtype.rstrip("0123456789").removeprefix("u") == wanted or not wanted)


def arrays_in(*values: Any) -> list[tuple[tuple[int, ...], str]]:
    """(shape, dtype) of the arrays in values, and in their fields."""
    leaves = [leaf for value in values for leaf in jax.tree.leaves(value, lambda each: isinstance(each, Iterator))]
    return [(leaf.shape, str(leaf.dtype)) for leaf in leaves if hasattr(leaf, "dtype")]


def wrong_shapes(function: Callable[..., Any], calls: Iterable[tuple]) -> list[Any]:
    """The stated shapes that nothing has; the result's is the first, or that behind an arrow."""
    docstring = function.__doc__ or ""
    seen, results = [], []
    for arguments in calls:
        results += arrays_in(function(*arguments))
        seen += arrays_in(*arguments)
    line = docstring.splitlines()[0]
    of_result = line.partition("→")[2] if "→" in line else line if SHAPE.match(line.removeprefix("(")) else ""
    stated = stated_shapes(docstring)
    wrong: list[Any] = [each for each in stated if not any(matches(each, *array) for array in seen + results)]
    return wrong + [
        ("result", stated)
        for stated in stated_shapes(of_result)[:1]
        if results and not any(matches(stated, *each) for each in results)
    ]


@pytest.mark.parametrize("function", CASES, ids=lambda function: f"{function.__module__}.{function.__name__}")
def test_shapes_of_a_docstring_are_those_of_a_run(function):
    assert stated_shapes(function.__doc__ or "")
    assert wrong_shapes(function, CASES[function]) == []


def array_functions() -> set[Callable[..., Any]]:
    """The public functions of ROOMS that take arrays and whose docstrings state shapes."""
    found = set()
    for path in (path for room in ROOMS for path in (ENGINE / room).rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                takes_arrays = re.search(r"ndarray|jax\.Array", ast.unparse(node.args))
                if takes_arrays and stated_shapes(ast.get_docstring(node) or ""):
                    module = ".".join(path.relative_to(ENGINE.parent).with_suffix("").parts)
                    found.add(getattr(importlib.import_module(module), node.name))
    return found


def test_every_array_function_is_among_the_cases():
    missing = array_functions() - CASES.keys() - NOT_EVERYWHERE
    assert sorted(f"{each.__module__}.{each.__name__}" for each in missing) == []


def test_wrong_shape_in_a_docstring_is_found():
    assert len(set(SIZES.values())) == len(SIZES)

    def stacked(rows: np.ndarray) -> np.ndarray:
        return np.stack([rows, rows])

    for docstring, is_right in {
        "[2 n k] of rows [n k].": True,
        "float32[2 n k] of rows float32[n k].": True,
        "[… k] of rows [n …].": True,
        "[n k] → [2 n k].": True,
        "[2 k n] of rows [n k].": False,
        "[2 n k] of rows [n d].": False,
        "[n k] of rows [n k].": False,
        "float64[2 n k] of rows [n k].": False,
        "[2 n k] → [n k].": False,
    }.items():
        stacked.__doc__ = docstring
        assert (wrong_shapes(stacked, [(array("n k"),)]) == []) == is_right, docstring
