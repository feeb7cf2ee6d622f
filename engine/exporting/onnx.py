"""Converts a JAX function to an ONNX model: the operations of its jaxpr, one after another.

Constant expressions are computed here and stored. JAX makes every broadcast explicit, ONNX broadcasts implicitly: so
arrays stay unbroadcast, and are widened only for operations that need their full shape.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
from jax import export as jax_export
from jax.extend import core
from onnx import helper, numpy_helper

from engine.exporting.onnx_rules import BINARY, ELEMENTWISE, LOGICAL, RULES, UNARY, element_type, one_open

OPSET = 18  # of December 2022: onnxruntime from 1.14 on
IR_VERSION = 8
Shape = tuple[Any, ...]  # numbers, and jax.export's expressions of the number of examples


@dataclass(frozen=True)
class Value:
    """An array of the graph by name, or a constant; `shape` has 1 where it is still to be broadcast."""

    shape: Shape
    name: str = ""
    constant: np.ndarray | None = None


def onnx_model(
    function: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], dtype: str, names: tuple[str, str], title: str
) -> onnx.ModelProto:
    """The ONNX model of a function of inputs [b …], for any b; shape: of one example. names: of input and output.

    Raises NotImplementedError for a function with operations that are not known here, naming the first.
    """
    (batch,) = jax_export.symbolic_shape("b")
    closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, *shape), dtype))
    (given,), (answer,) = closed.in_avals, closed.out_avals
    writer = _Writer(names[0], batch)
    (output,) = writer.run(closed.jaxpr, closed.consts, [Value(given.shape, names[0])])
    writer.node("Identity", [writer.wide(output, answer.shape)], names[1])
    used = {name for node in writer.nodes for name in node.input}
    stored = [numpy_helper.from_array(array, name) for name, array in writer.stored.items() if name in used]
    declared = ([_declared(names[0], given)], [_declared(names[1], answer)])
    graph = helper.make_graph(writer.nodes, title, *declared, stored)
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="engine"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Writer:
    """The graph under construction."""

    def __init__(self, inputs: str, batch: Any):
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, np.ndarray] = {}
        self._inputs, self._batch, self._batch_size = inputs, batch, ""

    def run(self, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
        """The outputs of a jaxpr, whose equations are written one by one."""
        known = dict(zip(jaxpr.constvars, map(_constant, constants), strict=True))
        known |= dict(zip(jaxpr.invars, inputs, strict=True))

        def value(atom: Any) -> Value:
            aval: Any = atom.aval
            return _constant(np.asarray(atom.val, aval.dtype)) if isinstance(atom, core.Literal) else known[atom]

        for equation in jaxpr.eqns:
            outputs = self._equation(equation, [value(atom) for atom in equation.invars])
            known |= dict(zip(equation.outvars, outputs, strict=True))
        return [value(atom) for atom in jaxpr.outvars]

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Writes an operation; returns the name of its output."""
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def name(self, value: Value) -> str:
        """The name of a value, which is stored if it is a constant."""
        return value.name if value.constant is None else self.store(value.constant)

    def store(self, array: Any) -> str:
        """The name of a constant."""
        name = f"constant_{len(self.stored)}"
        self.stored[name] = np.asarray(array)
        return name

    def integers(self, numbers: Sequence[int]) -> str:
        """The name of a constant list of numbers, ONNX's form of sizes and axes."""
        return self.store(np.array(numbers, np.int64))

    def transpose(self, name: str, order: Sequence[int]) -> str:
        """The name of an array with its axes in another order; constants, like kernels, are transposed here."""
        if name in self.stored:
            return self.store(np.ascontiguousarray(self.stored[name].transpose(order)))
        return self.node("Transpose", [name], perm=list(order))

    def wide(self, value: Value, shape: Shape) -> str:
        """The name of a value broadcast to its shape in JAX."""
        if value.shape == shape:
            return self.name(value)
        sizes = [1 if old == new else new for old, new in zip(value.shape, shape, strict=True)]
        if all(isinstance(size, int) for size in sizes):
            return self.node("Expand", [self.name(value), self.integers(sizes)])
        parts = [self._size(size) for size in sizes]
        return self.node("Expand", [self.name(value), self.node("Concat", parts, axis=0)])

    def _size(self, size: Any) -> str:
        if isinstance(size, int):
            return self.integers([size])
        if size != self._batch:
            raise NotImplementedError(f"an array whose size is {size}")
        self._batch_size = self._batch_size or self.node("Shape", [self._inputs], start=0, end=1)
        return self._batch_size

    def _equation(self, equation: Any, inputs: list[Value]) -> list[Value]:
        name, shapes = equation.primitive.name, [variable.aval.shape for variable in equation.outvars]
        inner = next((equation.params[key] for key in ("jaxpr", "call_jaxpr", "call") if key in equation.params), None)
        if inner is not None and name not in ("scan", "while", "cond"):
            jaxpr, constants = (inner.jaxpr, inner.consts) if isinstance(inner, core.ClosedJaxpr) else (inner, ())
            return self.run(jaxpr, constants, inputs)
        if name == "broadcast_in_dim":
            return [self._broadcast(inputs[0], equation.params)]
        are_constant = all(value.constant is not None for value in inputs)
        if are_constant and all(isinstance(size, int) for shape in shapes for size in shape):
            return _computed(equation, inputs)
        if name in UNARY or name in BINARY or name in ELEMENTWISE:
            return [self._elementwise(equation, inputs)]
        if name not in RULES:
            raise NotImplementedError(f"the operation {name}")
        wide = [self.wide(value, atom.aval.shape) for value, atom in zip(inputs, equation.invars, strict=True)]
        return [Value(shapes[0], RULES[name](self, wide, equation))]

    def _broadcast(self, value: Value, params: dict[str, Any]) -> Value:
        """The value with axes of size 1 at the positions of new ones."""
        shape: list[Any] = [1] * len(params["shape"])
        for axis, size in zip(params["broadcast_dimensions"], value.shape, strict=True):
            shape[axis] = size
        if value.constant is not None:
            return Value(tuple(shape), constant=value.constant.reshape(shape))
        if tuple(shape) == value.shape:
            return value
        return Value(tuple(shape), self.node("Reshape", [value.name, self.integers(one_open(shape))]))

    def _elementwise(self, equation: Any, inputs: list[Value]) -> Value:
        name, names = equation.primitive.name, [self.name(value) for value in inputs]
        if name in ELEMENTWISE:
            output = ELEMENTWISE[name](self, names, equation)
        elif name in LOGICAL and equation.outvars[0].aval.dtype != bool:
            raise NotImplementedError(f"the operation {name} of bits")
        else:
            output = self.node(UNARY.get(name) or BINARY[name], names)
        shapes = [value.shape for value in inputs if value.shape]
        rank = len(equation.outvars[0].aval.shape)
        sizes = [[shape[axis] for shape in shapes if shape[axis] != 1] for axis in range(rank)]
        return Value(tuple(size[0] if size else 1 for size in sizes), output)


def _constant(array: Any) -> Value:
    array = np.asarray(array)
    return Value(array.shape, constant=array)


def _computed(equation: Any, inputs: Sequence[Value]) -> list[Value]:
    """The results of an operation on constants."""
    wide = [
        jnp.asarray(np.broadcast_to(value.constant, atom.aval.shape))  # type: ignore[arg-type]
        for value, atom in zip(inputs, equation.invars, strict=True)
    ]
    outputs = equation.primitive.bind(*wide, **equation.params)
    return [_constant(output) for output in (outputs if equation.primitive.multiple_results else [outputs])]


def _declared(name: str, aval: Any) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, element_type(aval.dtype), [s if isinstance(s, int) else str(s) for s in aval.shape]
    )
