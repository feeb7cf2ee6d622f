"""Our own code for the CPU, `direct.cc`: compiled for this processor when first asked for, called by XLA's FFI.

It keeps a block of sums in registers while everything that adds to it passes by, and reads images as they lie. What XLA
offers on a CPU copies windows first, and turns images and gradients around before it takes a kernel gradient.

Where there is no C++ compiler, or another processor is at work, convolutions run without it.

Axes: b batch, h w input, y x output, v u windows of a pool, i j kernel, c input channels, o output channels.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.data.cache import cache_directory
from engine.windows import Window, padded_size

SOURCE = Path(__file__).with_name("direct.cc")
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared")
LANES = 16  # of a vector; divides the numbers of filters that are served
FEW_WEIGHTS, MOST_WEIGHTS = 2**17, 2**19  # of a kernel; more leave the second cache and are better off as products
FEW_PIXELS, MANY_PIXELS = 16, 400  # of maps; fewer leave registers idle; with so many, more weights pay
MOST_SECONDS = 120  # that compiling may take
TARGETS = tuple(
    f"engine_direct_{name}"
    for name in ("forward", "kernel_gradient", "forward_pooled", "kernel_gradient_pooled", "input_gradient_pooled")
)
FORWARD, KERNEL_GRADIENT, FORWARD_POOLED, KERNEL_GRADIENT_POOLED, INPUT_GRADIENT_POOLED = TARGETS
MOST_PLACES = 256  # of a pool's window: which one was largest is kept in a byte


def is_available() -> bool:
    """Whether convolutions can run directly: on a CPU, with a C++ compiler. The first call on a machine compiles."""
    return jax.default_backend() == "cpu" and _is_registered()


def serves(images: jax.Array, kernel_shape: tuple[int, ...], window: Window) -> bool:
    """Whether images are convolved here: what it can do, and does faster than Eigen."""
    weights, pixels = prod(kernel_shape), prod(window.places(*padded_size(images.shape, window)))
    limit = MOST_WEIGHTS if pixels >= MANY_PIXELS else FEW_WEIGHTS
    is_possible = images.dtype == jnp.float32 and kernel_shape[3] % LANES == 0
    return is_possible and pixels >= FEW_PIXELS and weights <= limit


def convolve(images: jax.Array, kernel: jax.Array, bias: jax.Array, window: Window, is_relu: bool) -> jax.Array:
    """[b h w c] * [i j c o] + [o] → [b y x o], or the positive part of it; no pad is below zero."""
    shape = len(images), *window.places(*padded_size(images.shape, window)), kernel.shape[3]
    return _call(FORWARD, _floats(shape), images, kernel, bias, sizes=_sizes(window), is_relu=is_relu)


def kernel_gradient(images: jax.Array, gradient: jax.Array, window: Window) -> jax.Array:
    """[i j c o] of images [b h w c] and what came back to the maps [b y x o]; no pad is below zero."""
    shape = *window.size, images.shape[3], gradient.shape[3]
    return _call(KERNEL_GRADIENT, _floats(shape), images, gradient, sizes=_sizes(window))


def convolve_pooled(
    images: jax.Array, kernel: jax.Array, bias: jax.Array, window: Window, pool: Window, is_relu: bool
) -> tuple[jax.Array, jax.Array]:
    """(the largest of the maps in each window of a pool [b v u o], its place in the window uint8[b v u o]).

    The bias is added to what was largest; is_relu: of that the positive part.
    """
    maps = window.places(*padded_size(images.shape, window))
    shape = len(images), *pool.places(*maps), kernel.shape[3]
    kinds = _floats(shape), jax.ShapeDtypeStruct(shape, jnp.uint8)
    sizes = {"sizes": _sizes(window), "pool": _pool_sizes(pool), "is_relu": is_relu}
    return _call(FORWARD_POOLED, kinds, images, kernel, bias, **sizes)


def kernel_gradient_pooled(
    images: jax.Array, winners: jax.Array, gradient: jax.Array, window: Window, pool: Window
) -> jax.Array:
    """[i j c o] of images, the winners [b v u o] and what came back to them."""
    result, sizes = _floats((*window.size, images.shape[3], gradient.shape[3])), _sizes(window)
    return _call(KERNEL_GRADIENT_POOLED, result, images, winners, gradient, sizes=sizes, pool=_pool_sizes(pool))


def input_gradient_pooled(
    shape: tuple[int, ...], winners: jax.Array, gradient: jax.Array, turned: jax.Array, window: Window, pool: Window
) -> jax.Array:
    """Images of a shape [b h w c]: what came back to the maps, convolved with the turned kernel [i j o c].

    window: of that convolution.
    """
    result, sizes = _floats(shape), _sizes(window)
    return _call(INPUT_GRADIENT_POOLED, result, winners, gradient, turned, sizes=sizes, pool=_pool_sizes(pool))


def _call(target: str, result: Any, *arrays: jax.Array, **sizes: Any) -> Any:
    return jax.ffi.ffi_call(target, result, vmap_method="sequential")(*arrays, **sizes)


def _floats(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _sizes(window: Window) -> np.ndarray:
    return np.asarray([*window.strides, *window.pads[0], *window.pads[1], *window.dilation], np.int64)


def _pool_sizes(pool: Window) -> np.ndarray:
    return np.asarray([*pool.size, *pool.strides], np.int64)


@functools.cache
def _is_registered() -> bool:
    """Whether XLA knows the functions of the library by now; the process holds it to its end."""
    library = _library()
    for target in TARGETS if library else ():
        jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(getattr(library, target)), platform="cpu")
    return library is not None


def _library() -> ctypes.CDLL | None:
    """The compiled library, from the cache if there; None where it cannot be had: the next process tries again."""
    if not hasattr(os, "getuid"):  # on Windows
        return None
    compiler = shlex.split(os.environ.get("CXX", "")) or [next(filter(None, map(shutil.which, COMPILERS)), "")]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        file = _own_directory() / f"direct-{_key(compiler)}.so"
        if file.exists():
            with contextlib.suppress(OSError):  # damaged
                return ctypes.CDLL(str(file))
        _compile(compiler, file)
        return ctypes.CDLL(str(file))
    return None


def _own_directory() -> Path:
    """Where libraries are kept that this user may load: nobody else may have written there, for they are code."""
    directory = cache_directory() / f"native-{os.getuid()}"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = directory.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{directory} can be written by others")
    if os.statvfs(directory).f_flag & getattr(os, "ST_NOEXEC", 0):  # else each process would compile in vain
        raise PermissionError(f"nothing in {directory} can be executed")
    return directory


def _key(compiler: list[str]) -> str:
    """Of all that decides what is compiled: a cache may be shared by machines of several kinds."""
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, timeout=MOST_SECONDS).stdout
    parts = (
        SOURCE.read_bytes(),
        version,
        " ".join(FLAGS).encode(),
        _instructions(),
        metadata.version("jaxlib").encode(),
    )
    return hashlib.blake2b(b"\0".join(parts), digest_size=10).hexdigest()


def _instructions() -> bytes:
    """What this processor can do, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().splitlines()
        return next(line for line in lines if line.startswith((b"flags", b"Features")))
    except (OSError, StopIteration):
        return f"{platform.machine()} {platform.processor()}".encode()


def _compile(compiler: list[str], file: Path) -> None:
    """Compiles beside the place and renames: another process, or one after a crash, sees all of it or nothing."""
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        made = Path(scratch) / file.name
        command = [*compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", str(SOURCE), "-o", str(made)]
        subprocess.run(command, check=True, capture_output=True, timeout=MOST_SECONDS)
        with made.open("rb") as written:
            os.fsync(written.fileno())
        made.replace(file)
