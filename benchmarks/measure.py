"""Measuring side by side: variants take turns, several rounds, medians with their spread, on a device that is named."""

import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from engine.versions import device_text, versions


def interleaved(variants: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each variant gives in each round. They take turns, so that a slow minute of a shared machine hits them all;
    one round before the first is thrown away."""
    for variant in variants.values():
        variant()
    rows = [{name: variant() for name, variant in variants.items()} for _ in range(rounds)]
    return {name: [row[name] for row in rows] for name in variants}


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """(median, half the distance between the largest and the smallest as a share of it)."""
    median = statistics.median(values)
    return median, (max(values) - min(values)) / 2 / median


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """(median, smallest, largest) of the ratios round by round."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def product_peak(size: int = 2048, repeats: int = 5) -> float:
    """float32 operations a second of one large matrix product: the best of a few."""
    matrix = jax.random.normal(jax.random.key(0), (size, size), jnp.float32)
    product = jax.jit(jnp.dot)
    jax.block_until_ready(product(matrix, matrix))
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(product(matrix, matrix))
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)


def circumstances() -> dict[str, Any]:
    """What a figure was measured on."""
    return {"device": device_text(), "system": platform.platform(terse=True), **versions()}


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Writes figures with their circumstances, if a path is given."""
    if path is not None:
        path.write_text(json.dumps({"circumstances": circumstances(), **figures}, indent=2) + "\n", encoding="utf-8")
