"""Tables for the terminal."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from engine.errors import shape_text
from engine.host.console import Table
from engine.models.layer import Layer
from engine.models.shapes import pair
from engine.models.specs import Sequential


def summary_table(spec: Sequential, input_shape: tuple[int, ...], title: str) -> Table:
    """Layers with output shapes and parameters; a footnote gives the total."""
    table = Table(heading=title)
    for name, justify in (("", "right"), ("layer", "left"), ("settings", "left"), ("output", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("parameters", justify="right")
    table.add_row("", "input", "", shape_text(input_shape), "")
    for row, layer in zip(spec.rows(input_shape), spec.layers, strict=True):
        settings = _settings(layer)
        table.add_row(str(row.number), row.name, settings, shape_text(row.output_shape), f"{row.num_params:,}")
    table.footnote = f"{spec.num_params(input_shape):,} parameters"
    return table


def metrics_table(rows: Sequence[tuple[str, dict[str, Any]]], title: str) -> Table:
    """One line per split: its metrics and the number of examples, with the total if files were skipped."""
    names = [name for name in dict.fromkeys(name for _, metrics in rows for name in metrics) if name != "skipped"]
    table = Table(heading=title)
    table.add_column("split")
    for name in names:
        table.add_column(name, justify="right")
    for split, metrics in rows:
        table.add_row(split, *(_cell(name, metrics) for name in names))
    return table


def _cell(name: str, metrics: dict[str, Any]) -> str:
    if name == "n" and metrics.get("skipped"):
        return f"{metrics['n']:,} of {metrics['n'] + metrics['skipped']:,}"
    return format_metric(name, metrics[name]) if name in metrics else ""


def format_metric(name: str, value: float) -> str:
    """A metric as text: counts with separators, other values with four digits."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _settings(layer: Layer) -> str:
    """The size of a layer, then the settings that differ from its defaults: `32, 3×3, activation=relu`."""
    shown, layer = [], layer.loaded()
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if field.name in ("kernel_size", "size"):
            shown.append(shape_text(pair(value)))
        elif value != field.default and value is not None:
            shown.append(str(value) if not shown else f"{field.name}={value}")
    return ", ".join(shown)
