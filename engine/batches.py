"""Which example goes into which batch: a pure function of (seed, epoch)."""

import jax
import jax.numpy as jnp

from engine.keys import step_key


def num_batches(num_examples: int, batch_size: int) -> int:
    """Batches of an epoch; the last one may be padded."""
    return -(-num_examples // batch_size)


def epoch_order(seed: jax.Array | int, epoch: jax.Array | int, num_examples: int, batch_size: int) -> jax.Array:
    """int32[batches × b]: every example once, shuffled, then the first ones again to fill the last batch.

    `batch_mask` tells the repeated ones apart. Traceable in seed and epoch.
    """
    order = jax.random.permutation(step_key(seed, "order", epoch), jnp.arange(num_examples, dtype=jnp.int32))
    padding = num_batches(num_examples, batch_size) * batch_size - num_examples
    return jnp.concatenate([order, jnp.resize(order, (padding,))])


def batch_mask(batch: jax.Array | int, num_examples: int, batch_size: int) -> jax.Array:
    """bool[b]: which examples of a batch count, the others being padding."""
    return batch * batch_size + jnp.arange(batch_size) < num_examples
