"""The devices that a run trains on: one, or a mesh of several with the axes `member` and `data`.

The members of an ensemble are shared out along `member`, the examples of each batch along `data`. Everything else, the
training set too, is on every device: a shuffled batch is gathered without asking the others, and the only thing they
tell each other is sums over the batch: gradients, batch statistics, metrics. So the numbers are those of one device, up
to the order in which they are added.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from engine.config import mesh_shape
from engine.config.plan import DATA, MEMBER
from engine.errors import InputError, problem


@dataclass(frozen=True)
class Devices:
    """The devices of a mesh like "member=2,data=4", the first of those there are; JAX's default device without one."""

    mesh_text: str | None = None

    @property
    def is_one(self) -> bool:
        """Whether there is nothing to share out."""
        return prod(mesh_shape(self.mesh_text)) == 1

    @cached_property
    def mesh(self) -> Mesh:
        """[member data]: the devices."""
        # Auto: the compiler places what is computed, from where its inputs are.
        shape = mesh_shape(self.mesh_text)
        return jax.make_mesh(shape, (MEMBER, DATA), axis_types=(AxisType.Auto, AxisType.Auto))

    def text(self, batch_size: int) -> str:
        """The mesh and what each device has of a batch, in words."""
        share, found, padded = mesh_shape(self.mesh_text)[1], jax.device_count(), self.padded(batch_size)
        of_batch = f"{padded // share} of {batch_size} examples" if share > 1 else "whole batches"
        return f"mesh {self.mesh_text} on {self.mesh.size} of {found} devices, {of_batch} on each; evaluation on one"

    def place(self, tree: Any, by_member: bool = False) -> Any:
        """The arrays on every device, or, by_member, shared out by their leading axis."""
        if self.is_one:
            return jax.device_put(tree)
        return jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec(MEMBER) if by_member else PartitionSpec()))

    def on_one(self, tree: Any) -> Any:
        """Placed arrays on the first device alone."""
        return tree if self.is_one else jax.device_put(tree, self.mesh.devices.flat[0])

    def padded(self, batch_size: int, multiple: int = 1) -> int:
        """Examples of a batch once each device has the same number of them, itself a multiple of `multiple`."""
        share = mesh_shape(self.mesh_text)[1]
        step = share * multiple if share > 1 else 1
        return -(-batch_size // step) * step

    def share_out(self, size: int, mask: jax.Array, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        """(mask, *arrays), each [b …], repeated up to [size …] with a mask that is false there, split along `data`.

        For functions under `by_member`.
        """
        together = (mask, *arrays)
        if size != len(mask):
            repeated = (jnp.resize(array, (size, *array.shape[1:])) for array in arrays)
            # Whole on every device, for each to cut out its share without asking the others.
            together = self.keep_everywhere((jnp.pad(mask, (0, size - len(mask))), *repeated))
        return lax.with_sharding_constraint(together, PartitionSpec(DATA)) if self._has_data else together

    def keep_everywhere(self, tree: Any) -> Any:
        """The arrays, for every device along `data` to hold as a whole: what a loop carries. As `share_out`."""
        return lax.with_sharding_constraint(tree, PartitionSpec()) if self._has_data else tree

    def by_member(self, function: Callable[..., Any], axes: tuple[int | None, ...]) -> Callable[..., Any]:
        """The function, for each device to run on its members: its share of those arguments whose axis is 0.

        What it returns has a leading member axis if its first argument has.
        """
        if self.is_one:
            return function
        specs = tuple(PartitionSpec() if axis is None else PartitionSpec(MEMBER) for axis in axes)
        # Along `data` the function stays one program over whole batches, which the compiler splits.
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=specs[0], axis_names={MEMBER})

    @property
    def _has_data(self) -> bool:
        return mesh_shape(self.mesh_text)[1] > 1


ONE_DEVICE = Devices()


def has_enough_devices(mesh_text: str | None) -> bool:
    """Whether there are enough devices for a mesh."""
    return prod(mesh_shape(mesh_text)) <= jax.device_count()


def check_mesh(mesh_text: str | None) -> None:
    """Raises InputError for a mesh that needs more devices than there are, or in one of several processes."""
    if jax.process_count() > 1:
        rule = "one, which may use all devices of its machine"
        raise InputError(problem("processes", jax.process_count(), rule, "Train on one machine, with --mesh data=8."))
    if not has_enough_devices(mesh_text):
        needed, found, kind = prod(mesh_shape(mesh_text)), jax.device_count(), jax.devices()[0].device_kind
        rule = f"one for the {found} × {kind} that JAX finds here"
        remedy = "Leave --mesh out." if found == 1 else f"Use --mesh data={found}, or fewer."
        raise InputError(problem("plan.mesh", f"{mesh_text}, which is {needed} devices", rule, remedy))
