"""Chooses the lowering of convolutions and pools, and plugs it into finished modules."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal

import jax
from flax import nnx
from jax import lax

from engine.config import Lowering, PlanConfig, Precision
from engine.errors import InputError, problem
from engine.kernels import direct, ffi
from engine.kernels.dense import direct_dot_general
from engine.kernels.direct import FusedTail, direct_conv_general_dilated
from engine.kernels.eigen import eigen_conv_general_dilated
from engine.kernels.matrix import matrix_conv_general_dilated
from engine.kernels.pooling import average_pool, max_pool
from engine.kernels.windows import Window, sliding, window_pads
from engine.kernels.xla import xla_conv_general_dilated

CONVOLUTIONS: dict[Lowering, Callable[..., jax.Array]] = {
    "direct": direct_conv_general_dilated,
    "eigen": eigen_conv_general_dilated,
    "matrix": matrix_conv_general_dilated,
    "xla": xla_conv_general_dilated,
}


def evaluation_lowering(config: PlanConfig) -> Lowering:
    """The lowering of forward passes outside of loops: direct if available and not excluded by the config, else xla."""
    is_open = config.lowering in ("auto", "direct") and config.mode != "safe"
    return "direct" if is_open and ffi.is_available() else "xla"


def plug(module: nnx.Module, lowering: Lowering) -> None:
    """Sets the convolution of every plain nnx.Conv, the product of every nnx.Linear and our own layers to a lowering.

    Without a convolution by our own code products stay XLA's, so that no C++ has to be compiled for them alone.
    """
    nodes = [node for _, node in nnx.iter_graph(module)]
    has_own_dense = lowering == "direct" and any(map(_may_run_directly, nodes))
    for node in nodes:
        if isinstance(node, nnx.Conv) and node.conv_general_dilated in (
            lax.conv_general_dilated,
            *CONVOLUTIONS.values(),
        ):
            node.conv_general_dilated = CONVOLUTIONS[lowering]
        elif isinstance(node, nnx.Linear) and node.dot_general in (lax.dot_general, direct_dot_general):
            node.dot_general = direct_dot_general if has_own_dense else lax.dot_general
        elif isinstance(node, Lowered):
            node.lowering = lowering


def _may_run_directly(node: object) -> bool:
    """Whether a layer is a convolution whose library `runs.needed_kernels` asks for."""
    if not isinstance(node, nnx.Conv) or node.feature_group_count > 1:
        return False
    return prod(node.kernel_size) > 1 and node.out_features % ffi.LANES == 0


class Lowered(nnx.Module):
    """A layer of our own that follows the lowering that `plug` sets."""

    lowering: Lowering = "xla"


class Pool(Lowered):
    """A pooling layer."""

    def __init__(self, kind: Literal["max", "average"], size: tuple[int, int], strides: tuple[int, int], padding: Any):
        self.kind, self.size, self.strides, self.padding = kind, size, strides, padding

    def __call__(self, images: jax.Array) -> jax.Array:
        """[b h w c] → [b y x c]."""
        pads = window_pads(images.shape[1:3], self.size, self.strides, self.padding)
        pool = {"max": max_pool, "average": average_pool}[self.kind]
        return pool(images, self.size, self.strides, pads, self.lowering)


def runs_directly(conv: nnx.Module, images: jax.Array) -> bool:
    """True if a convolution can be one operation with its bias, relu and a pool."""
    if not isinstance(conv, nnx.Conv) or conv.conv_general_dilated is not direct_conv_general_dilated:
        return False
    size, sizes = conv.kernel_size, (conv.strides, conv.kernel_dilation, conv.padding)
    window = sliding(images.shape, size, *sizes)  # type: ignore[arg-type]
    kernel, bias = conv.kernel[...], images.dtype if conv.bias is None else conv.bias[...].dtype
    has_one_dtype = bias == images.dtype and conv.dtype in (None, images.dtype)  # otherwise Flax first converts them
    return conv.feature_group_count == 1 and has_one_dtype and direct.supports(images, kernel, window)


def pools_directly(pool: nnx.Module | None) -> bool:
    """True if a layer is a pool that can be part of a direct convolution."""
    return (
        isinstance(pool, Pool)
        and pool.kind == "max"
        and pool.padding in ("valid", 0, ((0, 0), (0, 0)))
        and direct.may_pool(Window(pool.size, pool.strides))
    )


def convolve_directly(
    conv: nnx.Conv, images: jax.Array, pool: Pool | None = None, is_relu: bool = False, has_bias: bool = True
) -> jax.Array:
    """Convolution with its bias if `has_bias`, then relu if `is_relu`, then `pool` if given, in one operation."""
    tail = FusedTail(Window(pool.size, pool.strides) if pool else None, is_relu)
    bias = conv.bias[...] if has_bias and conv.bias is not None else None
    return direct_conv_general_dilated(
        images, conv.kernel[...], conv.strides, conv.padding, None, conv.kernel_dilation,
        ("NHWC", "HWIO", "NHWC"), precision=conv.precision, bias=bias, tail=tail,
    )  # fmt: skip


SMALL_SIDE = 32  # pixels; up to this size, products of patches are faster on a GPU than cuDNN's convolutions


def choose_lowering(
    config: PlanConfig,
    platform: str,
    precision: Precision = "float32",
    input_shape: Sequence[int] = (),
    is_by_hand: bool = False,
) -> Lowering:
    """The lowering for this processor, precision and shape of an example.

    On the CPU direct, otherwise Eigen's form; on an NVIDIA GPU direct in bfloat16, and matrix products for small
    images; otherwise XLA's own. Over several CPU devices, of which the compiler splits the batch, matrix products: the
    other lowerings mix the examples. Raises InputError if the config pins a lowering that does not run here.

    is_by_hand: as of `Devices`: each device runs the lowering of one.
    """
    if config.lowering == "direct" and ((config.mesh and not is_by_hand) or not direct.is_available()):
        got = f"'direct' with the mesh {config.mesh}" if config.mesh else "'direct'"
        where = "where there is neither an NVIDIA GPU nor a CPU that our C++ is shipped for or can be compiled for"
        rule = f"another where the compiler splits batches over devices, and {where}"
        raise InputError(problem("plan.lowering", got, rule, "Leave it out to choose."))
    if config.lowering != "auto":
        return config.lowering
    if config.mode == "safe" or platform not in ("cpu", "gpu"):
        return "xla"
    if platform == "gpu":
        return _gpu_lowering(config, precision, input_shape)
    if config.mesh is not None and not is_by_hand:
        return "matrix"
    return "direct" if direct.is_available() else "eigen"


def _gpu_lowering(config: PlanConfig, precision: Precision, input_shape: Sequence[int]) -> Lowering:
    """The fastest lowering on an H100 (`docs/benchmarks.md`); `--plan fast` measures."""
    if config.mesh is not None or not direct.is_available():
        return "xla"
    if precision == "bfloat16":
        return "direct"
    return "matrix" if len(input_shape) == 3 and max(input_shape[:2]) <= SMALL_SIDE else "xla"


def runs_here(lowering: Lowering) -> bool:
    """Whether a run that was started on another machine can be resumed with its lowering."""
    return lowering != "direct" or direct.is_available()
