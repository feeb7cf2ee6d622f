"""The ways a function of one example is run over many: they must agree."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def looped(function: Callable, *batches: jax.Array) -> jax.Array:
    """A plain Python loop over the examples, the reference."""
    return jnp.stack([function(*examples) for examples in zip(*batches, strict=True)])


HARNESSES: dict[str, Callable[..., jax.Array]] = {
    "jit": lambda function, *batches: looped(jax.jit(function), *batches),
    "vmap": lambda function, *batches: jax.jit(jax.vmap(function))(*batches),
}
