"""The precision in which a network computes: float32, TF32 or bfloat16. Its weights stay float32.

Micikevicius et al., Mixed Precision Training (2018), https://arxiv.org/abs/1710.03740. bfloat16 has the exponents of
float32, so no loss scaling is needed.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp

from engine.config import Precision
from engine.errors import InputError, problem
from engine.host.cores import limit_threads
from engine.host.forking import check_not_forked
from engine.host.memory import keep_freed_memory

Arguments = ParamSpec("Arguments")
Returned = TypeVar("Returned")

TENSOR_CORES_WITH_TF32 = 8.0  # compute capability of NVIDIA's Ampere, the first with TF32 and bfloat16 products


def computes(function: Callable[Arguments, Returned]) -> Callable[Arguments, Returned]:
    """Decorator of entry points: runs the function with 32-bit types, and raises InputError if JAX would hang.

    The process keeps freed memory from then on, and has no more threads that compute than cores.

    JAX_ENABLE_X64 of the caller is ignored: with 64 bits, random draws differ and programs mix two precisions.
    """

    @functools.wraps(function)
    def wrapped(*arguments: Arguments.args, **named: Arguments.kwargs) -> Returned:
        check_not_forked()
        keep_freed_memory()
        limit_threads()
        with jax.enable_x64(False):
            return function(*arguments, **named)

    return wrapped


def products_in(precision: Precision) -> AbstractContextManager[Any]:
    """While a function is traced: the precision of float32 products and of their gradients.

    A GPU's default is TF32, so float32 has to be requested. Products of bfloat16 are exact, their sums float32.
    """
    names = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": "default"}
    return jax.default_matmul_precision(names[precision])


def products_outside() -> AbstractContextManager[Any]:
    """While a program is traced: float32 products outside of its network, in losses, metrics and augmentation, too.

    On a CPU they are float32 anyway.
    """
    return products_in("float32") if jax.default_backend() == "gpu" else nullcontext()


def rounded(tree: Any, precision: Precision) -> Any:
    """The tree with its float32 arrays as bfloat16, if that is the precision. Their gradients are float32."""
    if precision != "bfloat16":
        return tree
    return jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if leaf.dtype == jnp.float32 else leaf, tree)


def check_precision(precision: Precision, device: Any) -> None:
    """Raises InputError, listing the supported precisions, if a jax.Device cannot train in this one.

    bfloat16 works on every CPU and TPU: if a processor lacks it, XLA rounds float32 to the same numbers.
    """
    if precision in _precisions(device):
        return
    rule = f"one of {', '.join(_precisions(device))}, which {device.device_kind} has"
    raise InputError(problem("train.precision", precision, rule, "Choose one of these."))


def _precisions(device: Any) -> tuple[Precision, ...]:
    if device.platform != "gpu":
        return ("float32", "bfloat16")
    try:
        capability = float(device.compute_capability)
    except (AttributeError, ValueError):  # AMD names its processors, gfx90a: all that JAX supports have bfloat16
        return ("float32", "bfloat16")
    return ("float32", "tf32", "bfloat16") if capability >= TENSOR_CORES_WITH_TF32 else ("float32",)
