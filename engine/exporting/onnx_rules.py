"""Tables from JAX operations to ONNX: by name alone, or by a rule that writes the operation.

A rule gets the names of its inputs in the graph under construction, and the equation of the jaxpr.
"""

import string
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Protocol

import numpy as np
from onnx import helper


class Writer(Protocol):
    """A graph under construction; each method returns the name of an array in it."""

    stored: dict[str, np.ndarray]

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """The output of an operation that is added."""
        ...

    def store(self, array: Any) -> str:
        """A constant."""
        ...

    def integers(self, numbers: Sequence[int]) -> str:
        """Constant sizes or axes."""
        ...

    def transpose(self, name: str, order: Sequence[int]) -> str:
        """An array with its axes in another order."""
        ...


UNARY = {
    "abs": "Abs", "ceil": "Ceil", "copy": "Identity", "copy_p": "Identity", "cos": "Cos", "erf": "Erf", "exp": "Exp",
    "floor": "Floor", "log": "Log", "logistic": "Sigmoid", "neg": "Neg", "not": "Not", "sign": "Sign", "sin": "Sin",
    "sqrt": "Sqrt", "stop_gradient": "Identity", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip
BINARY = {
    "add": "Add", "add_any": "Add", "and": "And", "div": "Div", "eq": "Equal", "ge": "GreaterOrEqual", "gt": "Greater",
    "le": "LessOrEqual", "lt": "Less", "max": "Max", "min": "Min", "mul": "Mul", "or": "Or", "pow": "Pow", "sub": "Sub",
}  # fmt: skip
REDUCTIONS = {
    "reduce_max": "ReduceMax",
    "reduce_min": "ReduceMin",
    "reduce_prod": "ReduceProd",
    "reduce_sum": "ReduceSum",
}
LOGICAL = ("and", "or", "not")  # JAX has one operation for both the logical and the bitwise one

Rule = Callable[[Writer, list[str], Any], str]


def _scalar(writer: Writer, equation: Any, number: float) -> str:
    return writer.store(np.array(number, equation.invars[0].aval.dtype))


def _cast(writer: Writer, names: list[str], equation: Any) -> str:
    return writer.node("Cast", names, to=element_type(equation.outvars[0].aval.dtype))


def _power(writer: Writer, names: list[str], equation: Any) -> str:
    exponent = equation.params["y"]
    return writer.node("Pow", [names[0], _scalar(writer, equation, exponent)])


def _select(writer: Writer, names: list[str], equation: Any) -> str:
    if len(names) != 3 or equation.invars[0].aval.dtype != bool:
        raise NotImplementedError("the operation select_n of more than two")
    which, if_false, if_true = names
    return writer.node("Where", [which, if_true, if_false])


def _clamp(writer: Writer, names: list[str], equation: Any) -> str:
    least, value, most = names
    return writer.node("Min", [writer.node("Max", [value, least]), most])


def _is_finite(writer: Writer, names: list[str], equation: Any) -> str:
    return writer.node("Not", [writer.node("Or", [writer.node("IsNaN", names), writer.node("IsInf", names)])])


def _reduce(writer: Writer, names: list[str], equation: Any) -> str:
    axes = writer.integers(equation.params["axes"])
    return writer.node(REDUCTIONS[equation.primitive.name], [names[0], axes], keepdims=0)


def _argmax(writer: Writer, names: list[str], equation: Any) -> str:
    (axis,) = equation.params["axes"]
    kind = {"argmax": "ArgMax", "argmin": "ArgMin"}[equation.primitive.name]
    return _cast(writer, [writer.node(kind, names, axis=axis, keepdims=0)], equation)


def _reshape(writer: Writer, names: list[str], equation: Any) -> str:
    return writer.node("Reshape", [names[0], writer.integers(one_open(equation.outvars[0].aval.shape))])


def _transpose(writer: Writer, names: list[str], equation: Any) -> str:
    return writer.transpose(names[0], equation.params["permutation"])


def _concatenate(writer: Writer, names: list[str], equation: Any) -> str:
    return writer.node("Concat", names, axis=equation.params["dimension"])


def _slice(writer: Writer, names: list[str], equation: Any) -> str:
    """Lists only the axes that are cut, so that the number of examples need not be known."""
    params, shape = equation.params, equation.invars[0].aval.shape
    steps = params["strides"] or (1,) * len(shape)
    cuts = zip(params["start_indices"], params["limit_indices"], steps, range(len(shape)), shape, strict=True)
    cut = [(start, stop, step, axis) for start, stop, step, axis, size in cuts if (start, stop, step) != (0, size, 1)]
    starts, stops, strides, axes = zip(*cut, strict=True)
    return writer.node("Slice", [names[0], *map(writer.integers, (starts, stops, axes, strides))])


def _reverse(writer: Writer, names: list[str], equation: Any) -> str:
    axes = equation.params["dimensions"]
    starts, stops, steps = ([number] * len(axes) for number in (-1, np.iinfo(np.int64).min, -1))
    return writer.node("Slice", [names[0], *map(writer.integers, (starts, stops, axes, steps))])


def _gather(writer: Writer, names: list[str], equation: Any) -> str:
    """A slice, or a selection along one axis, at constant positions: JAX's form of x[:, 1:] and x[:, 0]."""
    numbers, sizes, places = (
        equation.params["dimension_numbers"],
        equation.params["slice_sizes"],
        writer.stored.get(names[1]),
    )
    shape, axes = equation.invars[0].aval.shape, numbers.start_index_map
    if places is None or numbers.operand_batching_dims or not _are_inside(places, axes, shape, sizes):
        raise NotImplementedError("the operation gather at positions that are not constant")
    if places.ndim == 1:
        stops = [place + sizes[axis] for place, axis in zip(places.tolist(), axes, strict=True)]
        cut = writer.node("Slice", [names[0], *map(writer.integers, (places.tolist(), stops, axes))])
        gone = numbers.collapsed_slice_dims
        return writer.node("Squeeze", [cut, writer.integers(gone)]) if gone else cut
    if len(axes) == 1 and axes == numbers.collapsed_slice_dims and places.ndim == 2:
        rank = len(shape)
        chosen = writer.node("Gather", [names[0], writer.integers(places[:, 0].tolist())], axis=axes[0])
        (target,) = set(range(rank)) - set(numbers.offset_dims)
        order = [axis for axis in range(rank) if axis != axes[0]]
        return writer.transpose(chosen, [*order[:target], axes[0], *order[target:]])
    raise NotImplementedError("the operation gather along several axes")


def _are_inside(places: np.ndarray, axes: Sequence[int], shape: Sequence[Any], sizes: Sequence[Any]) -> bool:
    last = [shape[axis] - sizes[axis] for axis in axes]
    return all(isinstance(size, int) for size in last) and bool((places >= 0).all() and (places <= last).all())


def _stack(writer: Writer, names: list[str], equation: Any) -> str:
    axis = equation.params["axis"]
    parts = [writer.node("Unsqueeze", [name, writer.integers([axis])]) for name in names]
    return writer.node("Concat", parts, axis=axis)


def _cumulate(writer: Writer, names: list[str], equation: Any) -> str:
    axis = writer.store(np.array(equation.params["axis"], np.int64))
    return writer.node("CumSum", [names[0], axis], reverse=int(equation.params["reverse"]))


def _pad(writer: Writer, names: list[str], equation: Any) -> str:
    low, high, between = zip(*equation.params["padding_config"], strict=True)
    if any(between):
        raise NotImplementedError("padding between pixels")
    return writer.node("Pad", [names[0], writer.integers([*low, *high]), names[1]])


def _product(writer: Writer, names: list[str], equation: Any) -> str:
    """A MatMul if possible, otherwise an Einsum."""
    (left_summed, right_summed), (left_kept, right_kept) = equation.params["dimension_numbers"]
    left, right = (len(variable.aval.shape) for variable in equation.invars)
    if right == 2 and not left_kept and (tuple(left_summed), tuple(right_summed)) == ((left - 1,), (0,)):
        return writer.node("MatMul", names)
    letters = iter(string.ascii_lowercase)
    of_left = [next(letters) for _ in range(left)]
    shared = dict(zip((*right_kept, *right_summed), (*left_kept, *left_summed), strict=True))
    of_right = [of_left[shared[axis]] if axis in shared else next(letters) for axis in range(right)]
    free = [of_left[axis] for axis in range(left) if axis not in (*left_kept, *left_summed)]
    free += [of_right[axis] for axis in range(right) if axis not in shared]
    kept = [of_left[axis] for axis in left_kept]
    return writer.node("Einsum", names, equation=f"{''.join(of_left)},{''.join(of_right)}->{''.join(kept + free)}")


def _convolve(writer: Writer, names: list[str], equation: Any) -> str:
    params = equation.params
    low, high = zip(*params["padding"], strict=True)
    if any(size != 1 for size in params["lhs_dilation"]):
        return _convolve_transposed(writer, names, params)
    if params["batch_group_count"] != 1 or min(low + high) < 0:
        raise NotImplementedError("a convolution with groups of examples, or with negative padding")
    numbers = params["dimension_numbers"]
    images = writer.transpose(names[0], numbers.lhs_spec)
    kernel = writer.transpose(names[1], numbers.rhs_spec)
    maps = writer.node(
        "Conv", [images, kernel], strides=params["window_strides"], pads=(*low, *high),
        dilations=params["rhs_dilation"], group=params["feature_group_count"],
    )  # fmt: skip
    return writer.transpose(maps, np.argsort(numbers.out_spec).tolist())


def _convolve_transposed(writer: Writer, names: list[str], params: dict[str, Any]) -> str:
    """A convolution of images with zeros between their pixels; ONNX has it with the flipped kernel."""
    numbers, kernel = params["dimension_numbers"], writer.stored.get(names[1])
    is_plain = params["batch_group_count"] == params["feature_group_count"] == 1
    if kernel is None or not is_plain or any(size != 1 for size in params["window_strides"]):
        raise NotImplementedError("a transposed convolution with groups, strides or a kernel that is not constant")
    weights = np.flip(kernel.transpose(numbers.rhs_spec), (2, 3)).swapaxes(0, 1)  # [o c i j] → [c o i j]
    reach = [(size - 1) * gap for size, gap in zip(weights.shape[2:], params["rhs_dilation"], strict=True)]
    low, high = ([far - pads[end] for far, pads in zip(reach, params["padding"], strict=True)] for end in (0, 1))
    if min(low) < 0:
        raise NotImplementedError("a transposed convolution that is padded at its start")
    maps = writer.node(
        "ConvTranspose", [writer.transpose(names[0], numbers.lhs_spec), writer.store(np.ascontiguousarray(weights))],
        strides=params["lhs_dilation"], pads=(*low, *(max(0, n) for n in high)), dilations=params["rhs_dilation"],
        output_padding=[max(0, -n) for n in high],
    )  # fmt: skip
    return writer.transpose(maps, np.argsort(numbers.out_spec).tolist())


def _pool(writer: Writer, names: list[str], equation: Any) -> str:
    """A pool over all axes but two, which come first in ONNX; a sum is a mean times the size of the window."""
    params, rank = equation.params, len(equation.invars[0].aval.shape)
    window, strides, pads = (params[key] for key in ("window_dimensions", "window_strides", "padding"))
    dilation = params["window_dilation"]
    still = [axis for axis in range(rank) if (window[axis], strides[axis], *pads[axis]) == (1, 1, 0, 0)]
    if len(still) < 2 or any(size != 1 for size in (*params["base_dilation"], *dilation)):
        raise NotImplementedError("a pool over more axes than height and width, or one that is dilated")
    first = [still[0], still[-1]]
    moved = [axis for axis in range(rank) if axis not in first]
    order = first + moved
    low, high = zip(*(pads[axis] for axis in moved), strict=True)
    sizes: dict[str, Any] = {
        "kernel_shape": [window[axis] for axis in moved],
        "strides": [strides[axis] for axis in moved],
        "pads": [*low, *high],
    }
    images = writer.transpose(names[0], order)
    if equation.primitive.name == "reduce_window_max":
        pooled = writer.node("MaxPool", [images], **sizes)
    else:
        mean = writer.node("AveragePool", [images], count_include_pad=1, **sizes)
        pooled = writer.node("Mul", [mean, _scalar(writer, equation, prod(window))])
    return writer.transpose(pooled, np.argsort(order).tolist())


ELEMENTWISE: dict[str, Rule] = {
    "clamp": _clamp,
    "convert_element_type": _cast,
    "erfc": lambda writer, names, of: writer.node("Sub", [_scalar(writer, of, 1), writer.node("Erf", names)]),
    "expm1": lambda writer, names, of: writer.node("Sub", [writer.node("Exp", names), _scalar(writer, of, 1)]),
    "integer_pow": _power,
    "is_finite": _is_finite,
    "log1p": lambda writer, names, of: writer.node("Log", [writer.node("Add", [names[0], _scalar(writer, of, 1)])]),
    "ne": lambda writer, names, of: writer.node("Not", [writer.node("Equal", names)]),
    "rsqrt": lambda writer, names, of: writer.node("Reciprocal", [writer.node("Sqrt", names)]),
    "select_n": _select,
    "square": lambda writer, names, of: writer.node("Mul", names * 2),
}
RULES: dict[str, Rule] = {
    "argmax": _argmax,
    "argmin": _argmax,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolve,
    "cumsum": _cumulate,
    "dot_general": _product,
    "gather": _gather,
    "pad": _pad,
    "reduce_window_max": _pool,
    "reduce_window_sum": _pool,
    "reshape": _reshape,
    "rev": _reverse,
    "slice": _slice,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "stack": _stack,
    "tile": lambda writer, names, of: writer.node("Tile", [names[0], writer.integers(of.params["reps"])]),
    "transpose": _transpose,
    **dict.fromkeys(REDUCTIONS, _reduce),
}


def one_open(shape: Sequence[Any]) -> list[int]:
    """Sizes as Reshape takes them, with -1 for the one that depends on the number of examples."""
    sizes = [size if isinstance(size, int) else -1 for size in shape]
    if sizes.count(-1) > 1:
        raise NotImplementedError(f"an array of {tuple(shape)}")
    return sizes


def element_type(dtype: Any) -> int:
    """ONNX's number of a NumPy dtype."""
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
