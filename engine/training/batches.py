"""The order of examples and their batches: a pure function of (seed, epoch)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from engine.data.weighing import ClassDraws
from engine.keys import step_key, stream_key

Seeds = int | tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Subsets:
    """The examples that each member of an ensemble trains on: indices int32[n_m] into those of the run, by member."""

    examples: tuple[np.ndarray, ...]

    @property
    def counts(self) -> np.ndarray:
        """int32[m]: how many examples each member has."""
        return np.array([len(own) for own in self.examples], np.int32)


@dataclass(frozen=True)
class OrderSeeds:
    """The seeds of the order of examples: one, or one for each member of an ensemble.

    is_bootstrap: draws the same number of examples with replacement instead of using each once.
    subsets: what each member trains on, if that is not all; then there is a seed for each.
    draws: of balanced sampling, the classes of the examples.
    """

    seeds: Seeds
    is_bootstrap: bool = False
    subsets: Subsets | None = None
    draws: ClassDraws | None = field(default=None, compare=False)

    def num_batches(self, num_examples: int, batch_size: int) -> int:
        """Batches of an epoch, of the member that has the most examples."""
        most = num_examples if self.subsets is None else int(self.subsets.counts.max())
        return num_batches(most, batch_size)

    def order(self, epoch: jax.Array | int, num_examples: int, batch_size: int) -> jax.Array:
        """int32[batches × b], or [m, batches × b] for several seeds: `epoch_orders` of these."""
        seeds = jnp.asarray(np.asarray(self.seeds, np.uint32))
        subsets = self.subsets and self.subsets.examples
        return epoch_orders(seeds, epoch, num_examples, batch_size, self.is_bootstrap, subsets, self.draws)


def num_batches(num_examples: int, batch_size: int) -> int:
    """Batches of an epoch; the last one may be padded."""
    return -(-num_examples // batch_size)


def epoch_order(
    seed: jax.Array | int,
    epoch: jax.Array | int,
    num_examples: int,
    batch_size: int,
    is_bootstrap: bool = False,
    draws: ClassDraws | None = None,
) -> jax.Array:
    """int32[batches × b]: every example once, shuffled, then the first ones again to fill the last batch.

    `batch_mask` marks the repeated ones. Traceable in seed and epoch.
    is_bootstrap: draws the same number of examples with replacement instead, the same ones in every epoch.
    draws: as many examples, of all classes equally many, see `balanced_order`.
    """
    examples = jnp.arange(num_examples, dtype=jnp.int32)
    if is_bootstrap:
        examples = jax.random.randint(stream_key(seed, "bootstrap"), (num_examples,), 0, num_examples, jnp.int32)
    key = step_key(seed, "order", epoch)
    order = jax.random.permutation(key, examples) if draws is None else balanced_order(key, draws)
    padding = num_batches(num_examples, batch_size) * batch_size - num_examples
    return jnp.concatenate([order, jnp.resize(order, (padding,))])


def balanced_order(key: jax.Array, draws: ClassDraws) -> jax.Array:
    """int32[n]: as many examples as there are, shuffled, of each of the k classes n / k, rounded down or up.

    Those of one class are drawn without replacement, again from all of them when none is left.
    """
    num, num_classes = len(draws.classes), len(draws.counts)
    of_examples, of_classes, of_places = jax.random.split(key, 3)
    shuffled = jax.random.permutation(of_examples, jnp.arange(num, dtype=jnp.int32))
    by_class = shuffled[jnp.argsort(jnp.asarray(draws.classes)[shuffled], stable=True)]
    turn = jnp.arange(num, dtype=jnp.int32)
    chosen = jax.random.permutation(of_classes, num_classes)[turn % num_classes]  # which class has one more is drawn
    counts = jnp.asarray(draws.counts)
    first = jnp.cumsum(counts) - counts
    return jax.random.permutation(of_places, by_class[first[chosen] + turn // num_classes % counts[chosen]])


def epoch_orders(
    seeds: jax.Array,
    epoch: jax.Array | int,
    num_examples: int,
    batch_size: int,
    is_bootstrap: bool,
    subsets: Sequence[Any] | None = None,
    draws: ClassDraws | None = None,
) -> jax.Array:
    """The `epoch_order` of a seed, or [m, batches × b] of several [m].

    subsets: of each member the indices int32[n_m] of its examples; members with fewer begin theirs again, as padding.
    """
    if subsets:
        length = max(num_batches(len(own), batch_size) for own in subsets) * batch_size
        orders = [
            epoch_order(seed, epoch, len(own), batch_size, is_bootstrap)[: len(own)]
            for seed, own in zip(seeds, subsets, strict=True)
        ]
        return jnp.stack([jnp.resize(own[order], (length,)) for own, order in zip(subsets, orders, strict=True)])

    def order(seed: jax.Array) -> jax.Array:
        return epoch_order(seed, epoch, num_examples, batch_size, is_bootstrap, draws)

    return jax.vmap(order)(seeds) if seeds.ndim else order(seeds)


def batch_mask(batch: jax.Array | int, num_examples: int, batch_size: int) -> jax.Array:
    """bool[b]: True for the examples of a batch that count, False for padding."""
    return batch * batch_size + jnp.arange(batch_size) < num_examples
