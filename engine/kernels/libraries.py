"""Our C++ for CPUs in `cpu/`, a library a source, whose functions XLA calls. Importable without JAX."""

import ctypes
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from engine.host.library import Library


def _make_library(name: str, purpose: str, targets: Sequence[str]) -> Library:
    """The library of `cpu/<name>.cc`, whose functions `targets` XLA knows once it is loaded.

    XLA refuses functions that were compiled for a version of its FFI that it does not support. It checks them once it
    is initialized, as by `jax.default_backend()`.
    """

    def register(library: ctypes.CDLL) -> bool:
        import jax

        try:
            for target in targets:
                jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
        except (AttributeError, RuntimeError, ValueError):
            return False
        return True

    return Library(Path(__file__).parent / "cpu" / f"{name}.cc", purpose, register, _find_headers)


def _find_headers() -> str:
    """The directory of jaxlib's headers, as `jax.ffi.include_dir()`."""
    found = importlib.util.find_spec("jaxlib")
    assert found is not None
    return str(Path(next(iter(found.submodule_search_locations or []))) / "include")


FORWARD, BACKWARD = "engine_convolution_forward", "engine_convolution_backward"
PACK, CHAIN = "engine_convolution_pack", "engine_convolution_chain"
SPREAD, FORWARD_SPREAD = "engine_convolution_spread", "engine_convolution_forward_spread"
DENSE, DENSE_GRADIENTS = "engine_dense", "engine_dense_gradients"
CONVOLUTIONS = _make_library(
    "convolution", "convolutions and dense layers",
    (FORWARD, BACKWARD, SPREAD, FORWARD_SPREAD, PACK, CHAIN, DENSE, DENSE_GRADIENTS),
)  # fmt: skip
SEPARABLE = _make_library(
    "separable", "depthwise and 1×1 convolutions",
    ("engine_depthwise", "engine_depthwise_gradients", "engine_pointwise", "engine_pointwise_gradient",
     "engine_pointwise_pack"),
)  # fmt: skip
BATCH_NORM = _make_library("batch_norm", "batch norms", ("engine_batch_norm", "engine_batch_norm_gradients"))
QUANTIZED = _make_library("quantized", "int8 convolutions", ("engine_quantized_convolution",))
