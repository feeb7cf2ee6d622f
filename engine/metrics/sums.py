"""Metrics as sums and counts that merge over batches; the division comes last."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from engine.config import Loss
from engine.metrics.losses import LOSSES

Scalar = jax.Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Metrics:
    """Sums over the examples seen, scalars: float32 for the loss, int32 for counts, exact below 2³¹.

    correct and top5 are counts of examples whose label is the largest output, or among the five largest.
    """

    loss_sum: Scalar
    correct: Scalar
    top5: Scalar
    count: Scalar

    def __add__(self, other: "Metrics") -> "Metrics":
        return jax.tree.map(jnp.add, self, other)

    def means(self, loss: Loss, num_outputs: int) -> dict[str, float]:
        """loss, and for classes accuracy and (with more than five) top5, as plain numbers; n is what was seen."""
        n = int(self.count)
        found = {"n": n, "loss": float(self.loss_sum) / n if n else float("nan")}
        if loss != "mean_squared_error":
            found["accuracy"] = int(self.correct) / n if n else float("nan")
        if loss == "softmax_cross_entropy" and num_outputs > 5:
            found["top5"] = int(self.top5) / n if n else float("nan")
        return found


def zero_metrics() -> Metrics:
    """Nothing seen yet, as host arrays."""
    return Metrics(np.zeros((), np.float32), *(np.zeros((), np.int32) for _ in range(3)))


def batch_metrics(outputs: jax.Array, targets: jax.Array, losses: jax.Array, mask: jax.Array, loss: Loss) -> Metrics:
    """The sums of one batch: outputs [b k], targets [b] or [b d], losses [b], examples counted where mask [b]."""
    correct = top5 = jnp.zeros((), jnp.int32)
    if loss == "softmax_cross_entropy":
        own = jnp.take_along_axis(outputs, targets[:, None], axis=-1)
        # Rank of the label, equal outputs counted as ahead of it when they come first: argmax and top-k agree with it.
        is_before = jnp.arange(outputs.shape[-1])[None] < targets[:, None]  # [b k]
        rank = jnp.sum(~(outputs < own) & ((outputs != own) | is_before), axis=-1)  # outputs that are NaN come last
        correct, top5 = _count(rank < 1, mask), _count(rank < 5, mask)
    elif loss == "binary_cross_entropy":
        correct = _count((outputs[:, 0] > 0) == (targets > 0), mask)
    return Metrics(jnp.sum(jnp.where(mask, losses, 0)), correct, top5, _count(mask, mask))


def evaluation_losses(outputs: jax.Array, targets: jax.Array, loss: Loss) -> jax.Array:
    """The losses [b] of evaluation: without label smoothing, which the training loss includes."""
    return LOSSES[loss](outputs, targets, 0.0)


def _count(hits: jax.Array, mask: jax.Array) -> jax.Array:
    return jnp.sum(hits & mask, dtype=jnp.int32)
