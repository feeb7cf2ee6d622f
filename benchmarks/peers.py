"""How fast does the engine train and predict, against the same model in PyTorch, Keras and plain Flax?

    python -m benchmarks.peers                 # training; the extra `peers` has the other libraries
    python -m benchmarks.peers --inference     # prediction of uint8 images on the host, in batches

Same layers (their parameters are counted), images, batch, optimizer and precision. Every variant is a process of its
own that is built and warm before the rounds; in a round each trains whole epochs while the others wait. The other
libraries get their data as suits them best: on the device, gathered by a shuffled index, for PyTorch already float32
(in channels_last memory where the variant says so), for Keras as arrays to `fit`. PyTorch also as CUDA graphs where
there is an NVIDIA GPU. They compute the loss and no metric; the engine also counts right answers. For prediction each
is given the batch size, of three, that suits it best; of families it is given. The best variant of all counts. Stride-2
convolutions of families are padded on all sides for PyTorch, as its users do, which changes no sizes.

The share of the peak is of a large matrix product, measured before and after the rounds, by the arithmetic of the
layers as described; with fewer products than described (minimal filtering) it can exceed 100 %.
"""

import importlib.util
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Annotated, Any

import jax
import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.measure import (
    Measuring,
    circumstances,
    interleaved,
    median_and_spread,
    product_peak,
    ratio,
    write_json,
)
from benchmarks.peers_worker import SHARED_DEVICE, Job, Unavailable, Worker
from benchmarks.workloads import FAMILY_WORKLOADS, WORKLOADS, Workload, operations
from engine.config import Precision


@dataclass(frozen=True)
class Variant:
    """A library, how it is used, and the packages that this needs."""

    library: str
    packages: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    needs_gpu: bool = False


def _torch(needs_gpu: bool = False, **options: Any) -> Variant:
    return Variant("torch", ("torch",), options, needs_gpu)


def _keras(backend: str, **options: Any) -> Variant:
    return Variant("keras", ("keras", backend), {"backend": backend, **options})


VARIANTS = {
    "engine": Variant("engine"),
    "torch eager": _torch(),
    "torch eager, channels_last": _torch(channels_last=True),
    "torch compiled": _torch(compile_mode="default"),
    "torch compiled, channels_last": _torch(compile_mode="default", channels_last=True),
    "torch reduce-overhead": _torch(True, compile_mode="reduce-overhead"),
    "torch reduce-overhead, channels_last": _torch(True, compile_mode="reduce-overhead", channels_last=True),
    "torch max-autotune, channels_last": _torch(True, compile_mode="max-autotune", channels_last=True),
    "torch CUDA graph": _torch(True, is_graphed=True),
    "torch CUDA graph, channels_last": _torch(True, is_graphed=True, channels_last=True),
    "torch compiled, CUDA graph": _torch(True, compile_mode="default", is_graphed=True),
    "torch compiled, CUDA graph, channels_last": _torch(
        True, compile_mode="default", is_graphed=True, channels_last=True
    ),
    "keras on tensorflow": _keras("tensorflow"),
    "keras on tensorflow, 100 steps a call": _keras("tensorflow", steps_per_call=100),
    "keras on tensorflow, no XLA": _keras("tensorflow", is_compiled=False),
    "keras on tensorflow, no XLA, 100 steps a call": _keras("tensorflow", is_compiled=False, steps_per_call=100),
    "keras on jax": _keras("jax"),
    "keras on jax, 100 steps a call": _keras("jax", steps_per_call=100),
    "flax, a jitted step": Variant("flax"),
}
KNOWN = {**WORKLOADS, **FAMILY_WORKLOADS}
SMOKE = ("engine", "torch eager", "keras on jax", "flax, a jitted step")


@dataclass(frozen=True)
class Options(Measuring):
    """What to compare and how long."""

    workloads: tuple[str, ...] = tuple(name for name in WORKLOADS if name != "convnet, batch 512")
    """Which of benchmarks/workloads.py."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Which to run; the engine always is."""
    inference: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Compare prediction in place of training."""
    precision: Precision = "float32"
    """Of the products; weights are float32 in any case. For PyTorch bfloat16 is autocast."""
    plan: str = "auto"
    """How the engine chooses its plan: auto, fast (by measurement), safe, or a file."""
    rounds: int = 7
    """Rounds in which the variants take turns."""
    steps: int | None = None
    """Steps of an epoch; None: those of the whole training split on a GPU, on a CPU what takes seconds."""
    seconds: float = 2.0
    """About how long a variant runs in a round, at least one epoch."""
    limit_seconds: float = 300.0
    """What building, compiling and warming up may take; a variant that takes longer is left out."""


def main(options: Options) -> None:
    """Measures and prints, one workload after another."""
    unknown = [*(set(options.workloads) - set(KNOWN)), *(set(options.variants) - set(VARIANTS))]
    if unknown:
        raise SystemExit(f"unknown: {', '.join(unknown)}. Known: {'; '.join((*KNOWN, *VARIANTS))}")
    if options.smoke:
        variants = tuple(name for name in SMOKE if name in options.variants)
        options = replace(options, workloads=("convnet, batch 64",), variants=variants, precision="float32")
        options = replace(options, rounds=1, steps=2, seconds=0.0)
    console = Console(width=120, highlight=False)
    described = {**circumstances(), **_peer_versions()}
    for name, value in described.items():
        console.print(f"{name}: {value}", soft_wrap=True)
    figures = {name: compare(name, options, console) for name in options.workloads}
    kind = "inference" if options.inference else "training"
    write_json(options.json, {**_peer_versions(), "kind": kind, "precision": options.precision, "workloads": figures})


def compare(name: str, options: Options, console: Console) -> dict[str, Any]:
    """The rates of every variant of a workload that runs here, and why the others do not."""
    workload, left_out = KNOWN[name], dict[str, str]()
    if options.smoke:
        workload = replace(workload, batch_size=8)
    with _workers(workload, options, left_out) as workers:
        peaks = [_measure_peak(options)]
        rates = interleaved({key: worker.images_per_second for key, worker in workers.items()}, options.rounds)
        peaks.append(_measure_peak(options))  # of a shared machine it is the best of what it gives
        ready = {key: worker.ready_seconds for key, worker in workers.items()}
    kind = "prediction" if options.inference else "training"
    title = f"{name}: {kind}, {options.precision}; medians of {options.rounds} rounds, ± half the range"
    most = max(peaks) / operations(workload.model(), workload.input_shape, not options.inference)
    console.print(f"{options.precision} matrix product: {max(peaks) / 1e9:,.0f} GFLOP/s")
    console.print(_table(title, rates, ready, most))
    best = best_peer(rates)
    if best:
        middle, low, high = ratio(rates["engine"], rates[best])
        console.print(f"{name}: engine / best peer ({best}) = {middle:.2f} ({low:.2f} to {high:.2f})")
    for key, reason in left_out.items():
        console.print(f"  {key}: left out, {reason}")
    figures = {"images_per_second": rates, "ready_seconds": ready, "left_out": left_out, "best_peer": best}
    return {**figures, "product_peak": max(peaks), "images_per_second_at_peak": most}


def _measure_peak(options: Options) -> float:
    """Operations a second of a large matrix product, in this process."""
    size = 256 if options.smoke else 2048 if jax.default_backend() == "cpu" else 8192
    return product_peak(size, 1 if options.smoke else 5, options.precision)


def best_peer(rates: dict[str, list[float]]) -> str | None:
    """The variant other than the engine with the highest median."""
    peers = {name: median_and_spread(values)[0] for name, values in rates.items() if name != "engine"}
    return max(peers, key=lambda name: peers[name]) if peers else None


@contextmanager
def _workers(workload: Workload, options: Options, left_out: dict[str, str]) -> Iterator[dict[str, Worker]]:
    """A process for each variant, built one after another; `left_out` is told why one could not be."""
    is_gpu = jax.default_backend() == "gpu"
    num_images = (options.steps or workload.steps(options.seconds, not is_gpu)) * workload.batch_size
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in dict.fromkeys(("engine", *options.variants)):
            variant = VARIANTS[name]
            missing = [package for package in variant.packages if importlib.util.find_spec(package) is None]
            if missing:
                left_out[name] = f"{', '.join(missing)} is not installed"
            if missing or (variant.needs_gpu and not is_gpu):
                continue
            settings = {"plan_mode": options.plan} if name == "engine" else variant.options
            job = Job(
                variant.library, workload, num_images, options.seconds, options.inference, options.precision, settings
            )
            try:
                worker = workers[name] = Worker(job, options.limit_seconds)
            except Unavailable as reason:
                if name == "engine":
                    raise SystemExit(f"the engine cannot run this: {reason}") from None
                left_out[name] = str(reason)
                continue
            stack.callback(worker.close)
            ours = workers["engine"].num_params
            assert worker.num_params == ours, f"{name} has {worker.num_params:,} parameters, the engine {ours:,}"
        yield workers


def _peer_versions() -> dict[str, str]:
    packages = ("torch", "keras", "tensorflow-cpu", "tensorflow")
    return {name: metadata.version(name) for name in packages if _is_installed(name)}


def _is_installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _table(title: str, rates: dict[str, list[float]], ready: dict[str, float], at_peak: float) -> Table:
    table = Table(title=title)
    for name in ("variant", "images/s", "of the peak", "engine is … times as fast", "ready after s"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for name, values in rates.items():
        median, spread = median_and_spread(values)
        middle, low, high = ratio(rates["engine"], values)
        against = "" if name == "engine" else f"{middle:.2f} ({low:.2f} to {high:.2f})"
        table.add_row(name, f"{median:,.0f} ±{spread:.0%}", f"{median / at_peak:.0%}", against, f"{ready[name]:.0f}")
    return table


if __name__ == "__main__":
    for variable, value in SHARED_DEVICE.items():
        os.environ.setdefault(variable, value)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the workers on the way out
    main(tyro.cli(Options, description=__doc__))
