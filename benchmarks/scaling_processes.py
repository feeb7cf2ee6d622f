"""What several processes cost beside one with as many threads: CPU seconds of a step, for `benchmarks.scaling`."""

import json
import os
import resource
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.measure import median_and_spread, take_turns

BATCH_SIZE, NUM_STEPS = 256, 16


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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    program = "import json, sys; from benchmarks.scaling_processes import train_share\n"
    program += "print(json.dumps(train_share(sys.argv[1] or None, int(sys.argv[2]))), flush=True)"
    own = sorted(os.sched_getaffinity(0))[:cores]
    started = []
    for rank in range(processes):
        flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
        if processes > 1:
            numbers = {"ENGINE_NUM_PROCESSES": str(processes), "ENGINE_PROCESS_ID": str(rank)}
            environment = {**environment, "ENGINE_DISTRIBUTED": address, **numbers}
        share = ",".join(map(str, own[rank::processes] or own))
        command = ["taskset", "-c", share, sys.executable, "-c", program, mesh or "", str(epochs)]
        root = Path(__file__).parents[1]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root, env=environment))
    rows = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    return {"cpu_ms": sum(row["cpu_ms"] for row in rows), "ms": max(row["ms"] for row in rows)}
