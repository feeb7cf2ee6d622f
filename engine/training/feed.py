"""How training images reach the device: all at once (resident), or in prefetched chunks (streamed).

Both train on the same examples in the same order, from `OrderSeeds.order`.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from math import prod
from typing import Protocol

import jax
import numpy as np

from engine.config import DataPlacement, PlanConfig, mesh_shape
from engine.data.arrays.stored import StoredImages
from engine.data.decoded.dataset import Dataset
from engine.devices.mesh import ONE_DEVICE, Devices
from engine.errors import InputError, problem
from engine.host.memory import free_device_bytes, free_host_bytes
from engine.processes.together import are_several
from engine.training.batches import OrderSeeds, num_batches
from engine.training.readers import read_ahead

CHUNK_BYTES = 32 * 2**20
# Up to seventeen are in memory, copies that reading makes among them, which should be less than the data.
SMALL_CHUNK_BYTES, CHUNKS_OF_DATA = 2 * 2**20, 32


@dataclass(frozen=True)
class DataWindow:
    """Images on the devices for the steps `first` to `end` of an epoch, and the labels and weights of all examples.

    images: the whole training set; streamed: the batches of those steps one after another, with a leading axis if the
      members of an ensemble have separate batches. On a mesh, [steps b …], padded and split along its axes.
    """

    images: jax.Array
    labels: jax.Array
    first: int
    end: int
    weights: jax.Array | None = None


class Feed(Protocol):
    """The source of a training program's images."""

    num_examples: int

    def window(self, epoch: int, step: int, order: jax.Array | None = None) -> DataWindow:
        """The window that contains a step (counted within its epoch). Steps are requested in the order of training.

        order: the epoch's order in the program; the order of the reader is compared with it.
        """
        ...

    def close(self) -> None:
        """Stops prefetching."""
        ...


def choose_placement(config: PlanConfig, dataset: Dataset) -> DataPlacement:
    """Resident if the images fit the limit (half of the free memory, or as configured), otherwise streamed.

    Several processes on CPUs stream what is in files, so that each reads and holds its share: one process
    streams at 0.97 of its resident rate; several were not compared.
    """
    if config.placement != "auto":
        return config.placement
    is_shared = are_several() and jax.default_backend() == "cpu" and isinstance(dataset.images, StoredImages)
    if is_shared and not config.resident_megabytes:
        return "streamed"
    # Host memory counts too: the images pass through it on their way to the device.
    free = min(free_device_bytes(), free_host_bytes())
    if jax.default_backend() == "cpu":
        free //= prod(mesh_shape(config.mesh))  # each device of a mesh has a copy, here in the same memory
    allowance = config.resident_megabytes * 10**6 if config.resident_megabytes else free // 2
    return "resident" if dataset.images.nbytes <= allowance else "streamed"


def make_feed(
    placement: DataPlacement,
    dataset: Dataset,
    order_seeds: OrderSeeds,
    batch_size: int,
    readers: int = 0,
    devices: Devices = ONE_DEVICE,
    period: int = 1,
    padded_size: int = 0,
) -> Feed:
    """The feed of a run, for all of its devices.

    period: steps that one window must hold. padded_size: of a batch, on a mesh.
    """
    if placement == "resident":
        return Resident(dataset, order_seeds.num_batches(len(dataset), batch_size), devices)
    return Streamed(dataset, order_seeds, batch_size, readers, devices, period, padded_size)


class Resident:
    """A training set replicated on the devices: images as stored, labels."""

    def __init__(self, dataset: Dataset, steps: int, devices: Devices = ONE_DEVICE):
        self.num_examples = len(dataset)
        arrays = (np.asarray(dataset.images), np.asarray(dataset.labels), dataset.weights)
        images, labels, weights = devices.place(arrays)
        self._window = DataWindow(images, labels, 0, steps, weights)

    def window(self, epoch: int, step: int, order: jax.Array | None = None) -> DataWindow:
        """The whole training set."""
        return self._window

    def close(self) -> None:
        """Does nothing: there is no prefetching."""


class Streamed:
    """Chunks of consecutive batches, read by Grain and copied to the device while it trains on the previous chunk."""

    def __init__(
        self,
        dataset: Dataset,
        order_seeds: OrderSeeds,
        batch_size: int,
        readers: int = 0,
        devices: Devices = ONE_DEVICE,
        period: int = 1,
        padded_size: int = 0,
    ):
        self.num_examples = len(dataset)
        self._num_members = np.size(order_seeds.seeds) if np.ndim(order_seeds.seeds) else None
        self._size = padded_size or devices.padded(batch_size)
        share = None if devices.is_one else devices.own_share(self._num_members or 1, self._size, period > 1)
        self.chunks = Chunks(dataset.images, order_seeds, batch_size, period, share)
        self._batch_size = batch_size
        self._labels, self._weights = devices.place((np.asarray(dataset.labels), dataset.weights))
        self._readers, self._name, self._devices = readers, dataset.name, devices
        self._carrier = ThreadPoolExecutor(1, "feed")
        self._iterator: Iterator[tuple[np.ndarray, np.ndarray]] = iter(())
        self._ahead: Future | None = None
        self._next_number = -1
        self._window: tuple[int, DataWindow] | None = None

    def window(self, epoch: int, step: int, order: jax.Array | None = None) -> DataWindow:
        """The chunk that contains the step; starts fetching the next one."""
        number = self.chunks.number_of(epoch, step)
        if self._window is None or self._window[0] != number:
            self._window = None  # frees the old images before waiting for new ones
            self._window = (number, self._fetched(number, order))
        return self._window[1]

    def close(self) -> None:
        """Stops reading; prefetched chunks are discarded."""
        self._window = None
        self._carrier.shutdown(wait=True, cancel_futures=True)
        self._stop_reading()

    def _fetched(self, number: int, order: jax.Array | None) -> DataWindow:
        if self._ahead is None or self._next_number != number:
            self._stop_reading()
            self._iterator = iter(read_ahead(self.chunks.starting_at(number), self._readers))
            self._ahead = self._carrier.submit(self._carry, self._iterator)
        try:
            images, examples = self._ahead.result()
        except (OSError, RuntimeError) as error:
            self.close()
            raise InputError(self._failure(error)) from None
        if order is not None:
            self._check_order(number, examples, order)
        self._next_number, self._ahead = number + 1, self._carrier.submit(self._carry, self._iterator)
        first = number % self.chunks.per_epoch * self.chunks.steps
        end = min(first + self.chunks.steps, self.chunks.steps_per_epoch)
        return DataWindow(images, self._labels, first, end, self._weights)

    def _carry(self, iterator: Iterator[tuple[np.ndarray, np.ndarray]]) -> tuple[jax.Array, np.ndarray]:
        images, examples = next(iterator)
        if self._devices.is_one:
            return self._devices.place(images), examples
        return self._devices.place_batches(images, self._num_members, self._size), examples

    def _check_order(self, number: int, examples: np.ndarray, order: jax.Array) -> None:
        """Checks that the reader, possibly another process, read the examples whose labels are trained on here."""
        epoch, part = divmod(number, self.chunks.per_epoch)
        size = self.chunks.steps * self._batch_size
        if not np.array_equal(examples, order[..., part * size : (part + 1) * size]):
            rule = "one order of examples, in the reader and here"
            remedy = "Set JAX's random number options for the whole process, or --plan.placement resident."
            raise InputError(problem(self._name, f"two orders in epoch {epoch + 1}", rule, remedy))

    def _failure(self, error: Exception) -> str:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if self._readers and not isinstance(error, OSError):
            remedy = "If one was killed, start again with --resume. "
            remedy += 'Or put what starts the run below `if __name__ == "__main__":`, or leave plan.readers at 0.'
            return problem("plan.readers", f"{self._readers} ({reason})", "processes that can be started", remedy)
        rule = "images that stay readable while a run lasts"
        return problem(self._name, reason, rule, "Start again with --resume.")

    def _stop_reading(self) -> None:
        close = getattr(self._iterator, "close", None)
        self._ahead, self._iterator = None, iter(())  # Grain's iterators must be freed before the interpreter exits
        if close is not None:
            close()


class Chunks:
    """Grain's data source: chunk number → (uint8[steps·b h w c], int32[≤ steps·b] indices of these examples).

    Both have a leading axis if there are several seeds. Chunks are numbered through all epochs.

    A chunk depends on its number alone, so reading can start anywhere, in any thread or process. All but the last of
    an epoch have a multiple of `period` steps.

    share: the members and the positions in a padded batch whose images are read, as [steps b …] then; None: all.
    """

    def __init__(
        self,
        images: np.ndarray | StoredImages,
        order_seeds: OrderSeeds,
        batch_size: int,
        period: int = 1,
        share: tuple[np.ndarray, np.ndarray] | None = None,
    ):
        self._images, self._order_seeds, self._batch_size, self._share = images, order_seeds, batch_size, share
        self.steps_per_epoch = order_seeds.num_batches(len(images), batch_size)
        image_bytes = max(1, images.nbytes // len(images)) * np.size(order_seeds.seeds)
        chunk_bytes = min(CHUNK_BYTES, max(SMALL_CHUNK_BYTES, images.nbytes // CHUNKS_OF_DATA))
        whole_periods = max(chunk_bytes // (image_bytes * batch_size) // period, 1) * period
        self.steps = min(self.steps_per_epoch, whole_periods)
        self.per_epoch = num_batches(self.steps_per_epoch, self.steps)
        self.first = 0
        self._orders: dict[int, np.ndarray] = {}  # of the last two epochs

    def starting_at(self, number: int) -> "Chunks":
        """The same chunks, numbered from that one."""
        moved = copy(self)
        moved.first = number
        return moved

    def number_of(self, epoch: int, step: int) -> int:
        """The number of the chunk that contains a step of an epoch."""
        return epoch * self.per_epoch + step // self.steps

    def __len__(self) -> int:
        return 2**31 - 1 - self.first

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, part = divmod(self.first + index, self.per_epoch)
        order = self._order(epoch)
        size = self.steps * self._batch_size
        chosen = order[..., part * size : (part + 1) * size]
        if self._share is not None:
            return self._read_share(chosen, *self._share), chosen
        if chosen.ndim == 1:
            return self._padded(chosen, size), chosen
        return np.stack([self._padded(row, size) for row in chosen]), chosen

    def _read_share(self, chosen: np.ndarray, members: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """[steps b …], or [m steps b …]: the images at these positions, padded by the first ones of each batch."""
        batches = chosen.reshape(*chosen.shape[:-1], -1, self._batch_size)[..., positions % self._batch_size]
        own = batches if chosen.ndim == 1 else batches[members]  # [m s b]
        rows = own.reshape(-1, own.shape[-2] * own.shape[-1])
        images = np.stack([self._padded(row, self.steps * len(positions)) for row in rows])
        return images.reshape(*own.shape[:-2], self.steps, len(positions), *images.shape[2:])

    def _order(self, epoch: int) -> np.ndarray:
        found = self._orders.get(epoch)
        if found is None:
            found = _compute_order(self._order_seeds, epoch, len(self._images), self._batch_size)
            self._orders = dict([*self._orders.items()][-1:]) | {epoch: found}
        return found

    def _padded(self, chosen: np.ndarray, size: int) -> np.ndarray:
        """The images [size …]: the last chunk of an epoch is padded to the shape that the program was compiled for."""
        images, missing = self._images[chosen], size - len(chosen)
        return np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images


def _compute_order(order_seeds: OrderSeeds, epoch: int, num_examples: int, batch_size: int) -> np.ndarray:
    # On the CPU, wherever the model trains: readers must not use an accelerator's memory or wait for it.
    try:
        device = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves no CPU
        device = None
    with jax.default_device(device):
        return np.asarray(order_seeds.order(epoch, num_examples, batch_size))
