"""The PRNG key of a stream: a pure function of (seed, stream name, step). Nothing random is ever stored."""

import zlib

import jax

# Pinned, because a program may make another one the default, and others differ between devices.
IMPLEMENTATION = "threefry2x32"


def stream_key(seed: int | jax.Array, stream: str) -> jax.Array:
    """The key of a named stream ("init", "order", "dropout", …); traceable in `seed` (0 ≤ seed < 2³²)."""
    return jax.random.fold_in(jax.random.key(seed, impl=IMPLEMENTATION), zlib.crc32(stream.encode()))


def step_key(seed: int | jax.Array, stream: str, step: int | jax.Array) -> jax.Array:
    """The key of a stream at a step (or epoch); traceable in `seed` and `step`."""
    return jax.random.fold_in(stream_key(seed, stream), step)
