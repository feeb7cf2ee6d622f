"""The devices that a run trains on: one, or a mesh of several with the axes `member` and `data`.

The members of an ensemble are split along `member`, the examples of each batch along `data`. Everything else, including
the training set, is replicated: devices gather a shuffled batch without communication, and exchange only sums over the
batch: gradients, batch statistics, metrics. So results equal those of one device, up to the order of summation.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from engine.config import mesh_shape
from engine.config.plan import DATA, MEMBER
from engine.errors import InputError, problem
from engine.processes.together import are_several


@dataclass(frozen=True)
class Devices:
    """The devices of a mesh like "member=2,data=4", the first available; without a mesh, JAX's default device."""

    mesh_text: str | None = None
    is_by_hand: bool = False
    """Whether each device runs the step on its examples alone, and what they find is added up by `add_up`; else the
    compiler splits one program over whole batches, and adds up array by array."""

    @property
    def is_one(self) -> bool:
        """Whether there is only one device."""
        return prod(mesh_shape(self.mesh_text)) == 1

    @cached_property
    def mesh(self) -> Mesh:
        """[member data]: the devices."""
        # Auto: the compiler places results by the placement of their inputs.
        shape = mesh_shape(self.mesh_text)
        return jax.make_mesh(shape, (MEMBER, DATA), axis_types=(AxisType.Auto, AxisType.Auto))

    def text(self, batch_size: int) -> str:
        """The mesh and each device's share of a batch, in words."""
        share, found, padded = mesh_shape(self.mesh_text)[1], jax.device_count(), self.padded(batch_size)
        of_batch = f"{padded // share} of {batch_size} examples" if share > 1 else "whole batches"
        evaluated = f"shared out over {jax.process_count()} processes" if are_several() else "on one"
        where = f"{self.mesh.size} of {found} devices"
        return f"mesh {self.mesh_text} on {where}, {of_batch} on each; evaluation {evaluated}"

    def place(self, tree: Any, by_member: bool = False) -> Any:
        """The arrays on every device; by_member: split by their leading axis.

        Of several processes, each has the whole arrays, and keeps the parts of its own devices.
        """
        if self.is_one:
            return jax.device_put(tree)
        sharding = NamedSharding(self.mesh, PartitionSpec(MEMBER) if by_member else PartitionSpec())
        if not are_several():
            return jax.device_put(tree, sharding)
        return jax.tree.map(lambda leaf: _spread(leaf, sharding), tree)

    def own_share(self, num_members: int, size: int, is_local: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """(members, positions in a batch padded to `size`) that lie on devices of this process, in their order.

        is_local: as of `share_out`.
        """
        is_ours = np.vectorize(lambda device: device.process_index == jax.process_index())(self.mesh.devices)
        (by_member, by_data), share = is_ours.shape, size // is_ours.shape[1]
        positions = np.arange(size).reshape(share, by_data).T if is_local else np.arange(size).reshape(by_data, share)
        members = np.arange(num_members).reshape(by_member, -1) if num_members > 1 else np.zeros((by_member, 1), int)
        return members[is_ours.any(axis=1)].ravel(), positions[is_ours.any(axis=0)].ravel()

    def place_batches(self, images: np.ndarray, num_members: int | None, size: int) -> jax.Array:
        """[s b …] or [m s b …]: batches of which `own_share` is given, split along `data`, and by member if there are.

        No process reads or holds the examples of others.
        """
        axes = (None, DATA) if num_members is None else (MEMBER, None, DATA)
        whole = (num_members, images.shape[1], size) if num_members is not None else (len(images), size)
        sharding = NamedSharding(self.mesh, PartitionSpec(*axes))
        return jax.make_array_from_process_local_data(sharding, images, (*whole, *images.shape[len(axes) :]))

    def at_hand(self, tree: Any) -> Any:
        """Placed arrays, as this process can read them: those that several processes share are gathered by all."""
        return jax.tree.map(_gather, tree) if are_several() else tree

    def on_one(self, tree: Any) -> Any:
        """Placed arrays on the first device of this process alone."""
        if self.is_one:
            return tree
        return jax.device_put(
            self.at_hand(tree), jax.local_devices()[0] if are_several() else self.mesh.devices.flat[0]
        )

    def padded(self, batch_size: int, multiple: int = 1) -> int:
        """Batch size padded so that each device has the same number of examples, a multiple of `multiple`."""
        share = mesh_shape(self.mesh_text)[1]
        step = share * multiple if share > 1 else 1
        return -(-batch_size // step) * step

    def share_out(
        self, size: int, mask: jax.Array, *arrays: jax.Array, is_local: bool = False
    ) -> tuple[jax.Array, ...]:
        """(mask, *arrays), each [b …], padded to [size …] by repetition with a false mask, split along `data`.

        For functions under `by_member`; is_local, as there: the share of this device, every so-manieth of the examples.
        """
        together = (mask, *arrays)
        if size != len(mask):
            repeated = (jnp.resize(array, (size, *array.shape[1:])) for array in arrays)
            # Whole on every device, so that each slices out its share without communication.
            together = (jnp.pad(mask, (0, size - len(mask))), *repeated)
            together = together if is_local else self.keep_everywhere(together)
        share = mesh_shape(self.mesh_text)[1]
        if is_local:  # so the padding of a last batch is shared too
            return tuple(_take_own(array, share) for array in together)
        if self.adds_up:  # pairs of examples stay together
            return tuple(
                lax.dynamic_slice_in_dim(x, lax.axis_index(DATA) * (size // share), size // share) for x in together
            )
        return self.keep_split(together)

    def keep_split(self, tree: Any) -> Any:
        """The arrays [b …], split along `data`. For functions under `by_member`."""
        is_ours = self._has_data and not self.is_by_hand
        return lax.with_sharding_constraint(tree, PartitionSpec(DATA)) if is_ours else tree

    @property
    def adds_up(self) -> bool:
        """Whether a step sees the examples of one device, so that its sums are to be added up."""
        return self.is_by_hand and self._has_data

    def add_up(self, tree: Any) -> Any:
        """The sums over all devices along `data`, exchanged as one vector: gloo exchanges array by array.

        Whole numbers are exact up to 2²⁴.
        """
        flat, restore = ravel_pytree(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree))
        return jax.tree.map(lambda total, leaf: total.astype(leaf.dtype), restore(lax.psum(flat, DATA)), tree)

    def keep_everywhere(self, tree: Any) -> Any:
        """The arrays, replicated along `data`: for what a loop carries. For functions under `by_member`."""
        is_ours = self._has_data and not self.is_by_hand
        return lax.with_sharding_constraint(tree, PartitionSpec()) if is_ours else tree

    def by_member(
        self,
        function: Callable[..., Any],
        axes: tuple[int | None, ...],
        is_local: bool = False,
        batches: int | None = None,
    ) -> Callable[..., Any]:
        """The function, run by each device on its members: its share of the arguments whose axis is 0.

        Its results have a leading member axis if its first argument has. is_local: the devices along `data` run it each
        for itself, and its results must be the same on all of them. batches: the number of the argument that
        `place_batches` made, if any.
        """
        if self.is_one:
            return function
        specs = tuple(PartitionSpec() if axis is None else PartitionSpec(MEMBER) for axis in axes)
        if is_local or self.is_by_hand:
            own = [PartitionSpec(*spec, None, DATA) if i == batches else spec for i, spec in enumerate(specs)]
            return jax.shard_map(function, mesh=self.mesh, in_specs=tuple(own), out_specs=specs[0], check_vma=False)
        # Along `data` the function remains one program over whole batches, which the compiler splits.
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=specs[0], axis_names={MEMBER})

    @property
    def _has_data(self) -> bool:
        return mesh_shape(self.mesh_text)[1] > 1


ONE_DEVICE = Devices()


def _spread(leaf: Any, sharding: NamedSharding) -> jax.Array:
    """An array in a sharding over several processes.

    `device_put` would compare whole arrays of all processes, by a collective, which only the main thread may call.
    """
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return leaf if leaf.sharding == sharding else jax.jit(lambda x: x, out_shardings=sharding)(leaf)
    leaf = np.asarray(leaf)
    return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])


def _gather(leaf: Any) -> Any:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return leaf
    if not leaf.is_fully_replicated:
        assert isinstance(leaf.sharding, NamedSharding)
        leaf = jax.jit(lambda x: x, out_shardings=NamedSharding(leaf.sharding.mesh, PartitionSpec()))(leaf)
    return leaf.addressable_data(0)


def _take_own(array: jax.Array, share: int) -> jax.Array:
    split = array.reshape(-1, share, *array.shape[1:])
    return lax.dynamic_index_in_dim(split, lax.axis_index(DATA), 1, keepdims=False)


def has_enough_devices(mesh_text: str | None) -> bool:
    """Whether there are enough devices for a mesh; of several processes, exactly as many, so that each has its part."""
    size = prod(mesh_shape(mesh_text))
    return size == jax.device_count() if are_several() else size <= jax.device_count()


def check_mesh(mesh_text: str | None) -> None:
    """Raises InputError if a mesh needs more devices than there are, or leaves one of several processes without any."""
    if has_enough_devices(mesh_text):
        return
    needed, found, kind = prod(mesh_shape(mesh_text)), jax.device_count(), jax.devices()[0].device_kind
    if are_several():
        rule = f"one for all {found} devices of the {jax.process_count()} processes"
        remedy = f"Use --mesh data={found}, or member={found} for the members of an ensemble."
        got = f"{mesh_text or 'none'}, which is {needed} device{'s' * (needed > 1)}"
        raise InputError(problem("plan.mesh", got, rule, remedy))
    rule = f"one for the {found} × {kind} that JAX finds here"
    fewer = "leave --mesh out" if found == 1 else f"use --mesh data={found}, or fewer"
    remedy = f"Start as many processes, engine launch -n {needed} -- …, or {fewer}."
    raise InputError(problem("plan.mesh", f"{mesh_text}, which is {needed} devices", rule, remedy))
