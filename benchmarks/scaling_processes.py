"""What several processes cost beside one with as many threads: CPU seconds of a step, for `benchmarks.scaling`."""

import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks.measure import median_and_spread, take_turns

BATCH_SIZE, NUM_STEPS = 256, 16
STORED = (50_000, 32, 32, 3)  # images in a file of 154 MB


def compare_processes(count: int, rounds: int, epochs: int) -> dict[str, list[dict[str, float]]]:
    """{variant: {cpu_ms, ms} of a step in each round}: one process, one with a mesh of devices, so many processes."""
    variants = {
        f"one process, {count} threads": (1, 1, None),
        f"one process, mesh data={count}": (1, count, f"data={count}"),
        f"{count} processes": (count, 1, f"data={count}"),
    }
    rows = take_turns({name: lambda how=how: _run(*how, epochs, count) for name, how in variants.items()}, rounds)
    return {name: [row[name] for row in rows] for name in variants}


def make_table(figures: dict[str, list[dict[str, float]]]) -> Table:
    """Milliseconds of a step, and the efficiency: CPU seconds of the first over those of each, round by round."""
    table = Table(title=f"convnet, batch {BATCH_SIZE}", title_justify="left", min_width=60)
    for column in ("", "CPU ms a step", "ms a step", "efficiency"):
        table.add_column(column, justify="right" if column else "left")
    first = next(iter(figures.values()))
    for name, rows in figures.items():
        cpu, spread = median_and_spread([row["cpu_ms"] for row in rows])
        share, _ = median_and_spread([a["cpu_ms"] / b["cpu_ms"] for a, b in zip(first, rows, strict=True)])
        wall, _ = median_and_spread([row["ms"] for row in rows])
        table.add_row(name, f"{cpu:.2f} ±{spread:.0%}", f"{wall:.2f}", f"{share:.2f}")
    return table


def measure_data(count: int) -> dict[str, list[dict[str, float]]]:
    """{variant: {rows, megabytes} of each process}: what is read in an epoch of images in a file, and the most held."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "images.raw"
        np.random.default_rng(0).integers(0, 256, STORED, np.uint8).tofile(path)
        found = {}
        for processes, placement in ((1, "resident"), (1, "streamed"), (count, "resident"), (count, "streamed")):
            name = f"{processes} process{'es' * (processes > 1)}, {placement}"
            mesh = f"data={processes}" if processes > 1 else None
            found[name] = _start("hold_share", (placement, str(path), mesh), processes, 1, count)
        return found


def make_table_of_data(figures: dict[str, list[dict[str, float]]]) -> Table:
    """The most of all processes, and as shares of the rows and of the bytes of all images."""
    table = Table(title=f"images of {np.prod(STORED) / 1e6:.0f} MB in a file", title_justify="left", min_width=60)
    for column in ("", "rows read by each", "share", "MB held by each", "share"):
        table.add_column(column, justify="right" if column else "left")
    for name, rows in figures.items():
        most = {key: max(row[key] for row in rows) for key in ("rows", "megabytes")}
        shares = most["rows"] / STORED[0], most["megabytes"] / np.prod(STORED) * 1e6
        table.add_row(name, f"{most['rows']:,}", f"{shares[0]:.2f}", f"{most['megabytes']:.0f}", f"{shares[1]:.2f}")
    return table


def hold_share(placement: Any, path: str, mesh: str | None) -> dict[str, float]:
    """{rows, megabytes}: images that this process reads in an epoch, and the most private memory that they take."""
    from engine.processes.start import join

    join()
    import grain  # noqa: F401 — its code is no data
    import jax

    from engine.data.arrays.stored import StoredImages
    from engine.data.decoded.dataset import Dataset
    from engine.devices.mesh import Devices
    from engine.training.batches import OrderSeeds, num_batches
    from engine.training.feed import Streamed, make_feed

    class Counted(StoredImages):
        rows = 0

        def __getitem__(self, chosen: Any) -> np.ndarray:
            found = super().__getitem__(chosen)
            Counted.rows += len(found)
            return found

    seeds, devices = OrderSeeds(0), Devices(mesh, is_by_hand=mesh is not None)
    jax.block_until_ready(seeds.order(0, STORED[0], BATCH_SIZE))
    data = Dataset(Counted(Path(path), STORED), np.zeros(STORED[0], np.int32), ("a", "b"), "stored", "none")
    with most_private_memory() as most:
        feed = make_feed(placement, data, seeds, BATCH_SIZE, devices=devices)
        step, last = 0, num_batches(STORED[0], BATCH_SIZE)
        while step < last:
            window = feed.window(0, step)
            jax.block_until_ready(window.images)
            time.sleep(0.2)  # of training, in which is read ahead
            step = window.end
        feed.close()
    if isinstance(feed, Streamed):  # again, because more was read ahead
        Counted.rows = 0
        for number in range(feed.chunks.per_epoch):
            feed.chunks[number]
    return {"rows": Counted.rows or STORED[0], "megabytes": most[0] / 1e6}


@contextmanager
def most_private_memory() -> Iterator[list[float]]:
    """[bytes]: the most that the private memory of this process grows by meanwhile."""
    begun, is_over, most = _private_bytes(), threading.Event(), [0.0]

    def look() -> None:
        while not is_over.wait(0.005):
            most[0] = max(most[0], _private_bytes() - begun)

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield most
    finally:
        is_over.set()
        watcher.join()


def _private_bytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(float(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def train_share(mesh: str | None, epochs: int) -> dict[str, float]:
    """{cpu_ms, ms} a step of this process, in the best of some epochs; the others train with it."""
    from engine.processes.start import join

    join()
    from benchmarks.throughput import Training
    from benchmarks.workloads import workload_of

    workload = workload_of("convnet")
    config = workload.config()
    config = replace(config, train=replace(config.train, batch_size=BATCH_SIZE), plan=replace(config.plan, mesh=mesh))
    training = Training(config, workload.images(NUM_STEPS * BATCH_SIZE))
    training.train_epoch()
    found = []
    for _ in range(epochs):
        start, cpu = time.perf_counter(), _cpu_seconds()
        training.train_epoch()
        wall = time.perf_counter() - start
        found.append({"cpu_ms": (_cpu_seconds() - cpu) / NUM_STEPS * 1e3, "ms": wall / NUM_STEPS * 1e3})
    return {name: min(each[name] for each in found) for name in ("cpu_ms", "ms")}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _run(processes: int, devices: int, mesh: str | None, epochs: int, cores: int) -> dict[str, Any]:
    """{cpu_ms, ms} a step of so many processes together, with so many devices each, on the same cores."""
    rows = _start("train_share", (mesh, epochs), processes, devices, cores)
    return {"cpu_ms": sum(row["cpu_ms"] for row in rows), "ms": max(row["ms"] for row in rows)}


def _start(
    function: str, arguments: tuple[Any, ...], processes: int, devices: int, cores: int
) -> list[dict[str, float]]:
    """What a function of this module returns in each of so many processes, which share the cores out."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    program = f"import json, sys; from benchmarks.scaling_processes import {function}\n"
    program += f"print(json.dumps({function}(*json.loads(sys.argv[1]))), flush=True)"
    own = sorted(os.sched_getaffinity(0))[:cores]
    started = []
    for rank in range(processes):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        if processes > 1:
            numbers = {"ENGINE_NUM_PROCESSES": str(processes), "ENGINE_PROCESS_ID": str(rank)}
            environment = {**environment, "ENGINE_DISTRIBUTED": address, **numbers}
        share = ",".join(map(str, own[rank::processes] or own))
        command = ["taskset", "-c", share, sys.executable, "-c", program, json.dumps(arguments)]
        root = Path(__file__).parents[1]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=environment))
    return [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
