"""Measuring side by side: variants take turns, several rounds, medians with their spread, on a device that is named."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
import tyro
from rich.console import Console

from engine.host.versions import device_text, versions

Figure = TypeVar("Figure")


@dataclass(frozen=True)
class Measuring:
    """What every benchmark can be told."""

    smoke: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """As little as shows that everything runs; the figures mean nothing."""
    json: Path | None = None
    """Where to write the figures."""


def interleaved(variants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each variant gives in each round. They take turns, so that a slow minute of a shared machine hits them all;
    one round before the first is thrown away, except where a single one only shows that everything runs."""
    for variant in variants.values() if rounds > 1 else ():
        variant()
    rows = take_turns(variants, rounds)
    return {name: [row[name] for row in rows] for name in variants}


def take_turns(variants: dict[str, Callable[[], Figure]], rounds: int) -> list[dict[str, Figure]]:
    """For each round what each variant gave."""
    return [{name: variant() for name, variant in variants.items()} for _ in range(rounds)]


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """(median, half the distance between the largest and the smallest as a share of it)."""
    median = statistics.median(values)
    return median, (max(values) - min(values)) / 2 / median


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """(median, smallest, largest) of the ratios round by round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def product_peak(size: int = 2048, repeats: int = 5, precision: str = "float32") -> float:
    """Operations a second of one large matrix product in float32, tf32 or bfloat16: the best of a few."""
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    matrix = jax.random.normal(jax.random.key(0), (size, size), dtype)
    # By default JAX may compute float32 products in TF32 where the device can.
    product = jax.jit(lambda a, b: jnp.dot(a, b, precision="highest" if precision == "float32" else None))
    return 2 * size**3 / _least_seconds(lambda: product(matrix, matrix), repeats)


def memory_bandwidth(num_bytes: int = 2**28, repeats: int = 5) -> float:
    """Bytes read and written a second by an update in place of a large array: the best of a few."""
    values = jnp.zeros(num_bytes // 4, jnp.float32)
    add = jax.jit(lambda values: values + 1, donate_argnums=0)

    def update() -> jax.Array:
        nonlocal values
        values = add(values)
        return values

    return 2 * values.nbytes / _least_seconds(update, repeats)


def _least_seconds(work: Callable[[], jax.Array], repeats: int) -> float:
    """What the work takes at best, once it is compiled."""
    jax.block_until_ready(work())
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(work())
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def circumstances() -> dict[str, Any]:
    """What a figure was measured on."""
    return {"device": device_text(), "system": platform.platform(terse=True), **versions()}


def show_circumstances(console: Console) -> None:
    """Prints what figures are measured on, a line each."""
    for name, value in circumstances().items():
        console.print(f"{name}: {value}", soft_wrap=True)


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Writes figures with their circumstances, if a path is given."""
    if path is not None:
        path.write_text(json.dumps({"circumstances": circumstances(), **figures}, indent=2) + "\n", encoding="utf-8")
