"""XLA's own convolutions, and the fallback to them for calls that another lowering does not support."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec

from engine.config.plan import DATA
from engine.kernels.depthwise import shifted_sums
from engine.kernels.windows import Window, padded_size, sliding


def by_example(function: Callable[[jax.Array, jax.Array], jax.Array], examples: jax.Array, weights: jax.Array) -> Any:
    """function(examples [b …], weights) → [b …], which treats each example independently.

    Under `Devices.by_member`, if `data` splits the batch, each device computes its own examples, and the gradients of
    the weights are summed; devices do not exchange examples. Differentiable once.
    """
    mesh = jax.sharding.get_abstract_mesh()
    share = 1 if DATA in mesh.manual_axes else mesh.shape.get(DATA, 1)
    if share == 1 or len(examples) % share:
        return function(examples, weights)
    split, whole = PartitionSpec(DATA), PartitionSpec()
    # The caller's: its context is gone when gradients are traced.
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]

    def pull_back(examples: jax.Array, weights: jax.Array, gradient: jax.Array) -> tuple[jax.Array, ...]:
        with jax.default_matmul_precision(precision):
            return jax.vjp(function, examples, weights)[1](gradient)  # summed along `data`, where weights are the same

    forward = jax.shard_map(function, in_specs=(split, whole), out_specs=split, axis_names={DATA})
    backward = jax.shard_map(pull_back, in_specs=(split, whole, split), out_specs=(split, whole), axis_names={DATA})
    # By hand, because jax 0.10 cannot differentiate a map over one axis inside a map over another.
    apply = jax.custom_vjp(forward)
    apply.defvjp(
        lambda *inputs: (forward(*inputs), inputs), lambda inputs, gradient: backward(inputs[0], inputs[1], gradient)
    )
    return apply(examples, weights)


Convolve = Callable[[jax.Array, jax.Array, Window, Any], jax.Array]


NHWC = ("NHWC", "HWIO", "NHWC")


def xla_conv_general_dilated(lhs: jax.Array, rhs: jax.Array, *arguments: Any, **named: Any) -> jax.Array:
    """`lax.conv_general_dilated`; if a mesh splits the batch, each device convolves its own examples.

    Left to the compiler, the kernel gradient of convolutions mapped over members would gather all examples.
    """
    return by_example(lambda lhs, rhs: lax.conv_general_dilated(lhs, rhs, *arguments, **named), lhs, rhs)


def with_fallback(
    convolve: Convolve,
    lhs: jax.Array,
    rhs: jax.Array,
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    precision: Any = None,
    by_channel: Callable[[jax.Array, jax.Array, Window], jax.Array] = shifted_sums,
    **other: Any,
) -> jax.Array:
    """`convolve` for calls that are 2-D, NHWC, one group, not transposed; `by_channel` for depthwise ones."""
    is_depthwise = lhs.ndim == 4 and feature_group_count == lhs.shape[3] == rhs.shape[3]
    is_supported = (
        lhs.ndim == 4
        and (feature_group_count == 1 or is_depthwise)
        and all(d == 1 for d in lhs_dilation or ())
        and not any(value not in (None, 1) for value in other.values())
        and _is_nhwc(lhs, rhs, dimension_numbers)
    )
    if not is_supported:
        return xla_conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers, feature_group_count,
            precision=precision, **other,
        )  # fmt: skip
    window = sliding(lhs.shape, rhs.shape[:2], window_strides, rhs_dilation or (1, 1), padding)
    padded = padded_size(lhs.shape, window)
    if min(window.positions(*padded)) < 1:
        raise ValueError(f"kernel {rhs.shape[:2]} is larger than the padded image {padded}")
    if feature_group_count != 1:
        return by_channel(lhs, rhs, window)
    # The caller's: its context is gone when gradients are traced.
    precision = precision or jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    return convolve(lhs, rhs, window, precision)


def _is_nhwc(lhs: jax.Array, rhs: jax.Array, dimension_numbers: Any) -> bool:
    numbers = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    return numbers == lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)
