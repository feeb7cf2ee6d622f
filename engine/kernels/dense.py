"""Products of dense layers by our own code for the CPU, `cpu/convolution_dense.cc`, called by XLA's FFI.

Of a large kernel XLA's product reaches half of what the processor computes; here its weights are read once, and both
gradients come from one pass over them.

Axes: b batch, d features, o units.
"""

from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_derivatives import SymbolicZero

from engine.kernels.libraries import CONVOLUTIONS, DENSE, DENSE_GRADIENTS

LANES = 16  # of a vector; divides the supported numbers of units
LEAST_WEIGHTS = 2**16  # fewer are no slower as XLA's product


def direct_dot_general(
    inputs: jax.Array, kernel: jax.Array, dimension_numbers: Any, precision: Any = None, **named: Any
) -> jax.Array:
    """`lax.dot_general`; [b d] · [d o] by our own code, if it supports these shapes."""
    if dimension_numbers == (((1,), (0,)), ((), ())) and supports(inputs, kernel):
        return multiply(inputs, kernel)
    return lax.dot_general(inputs, kernel, dimension_numbers, precision=precision, **named)


def supports(inputs: Any, kernel: Any) -> bool:
    """Whether `multiply` runs for inputs [b d] and a kernel [d o], or their shapes and dtypes; loads the library."""
    is_float32 = inputs.dtype == kernel.dtype == jnp.float32
    fits = inputs.ndim == kernel.ndim == 2 and min(inputs.shape) > 0 and kernel.shape[1] % LANES == 0
    is_large = prod(kernel.shape) >= LEAST_WEIGHTS
    return is_float32 and fits and is_large and jax.default_backend() == "cpu" and CONVOLUTIONS.load() is not None


@jax.custom_vjp
def multiply(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
    """[b d] · [d o] → [b o]."""
    return _call(DENSE, _floats((len(inputs), kernel.shape[1])), inputs, kernel)


def _forward(inputs: Any, kernel: Any) -> tuple:
    kept = kernel.value if inputs.perturbed else None  # only the gradient of inputs needs it
    return multiply(inputs.value, kernel.value), (inputs.value, kept)


def _backward(saved: tuple, gradient: Any) -> tuple:
    inputs, kernel = saved
    if isinstance(gradient, SymbolicZero):
        return None, None
    to_inputs = _floats((0, 0) if kernel is None else inputs.shape)
    to_kernel = _floats((inputs.shape[1], gradient.shape[1]))
    kept = jnp.zeros((0, 0), jnp.float32) if kernel is None else kernel
    of_inputs, of_kernel = _call(DENSE_GRADIENTS, (to_inputs, to_kernel), inputs, kept, gradient)
    return None if kernel is None else of_inputs, of_kernel


multiply.defvjp(_forward, _backward, symbolic_zeros=True)


def _call(target: str, results: Any, *arrays: jax.Array) -> Any:
    return jax.ffi.ffi_call(target, results, vmap_method="sequential")(*arrays)


def _floats(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)
