"""The table of batch sizes that `engine batch-find` shows."""

from collections.abc import Sequence

from engine.host.console import Table
from engine.text import rate_text


def batch_line(size: int, count: int | None, rate: float) -> str:
    """A row of the table, as soon as it is known."""
    memory = "" if count is None else f", {_memory_text(count)} a step"
    return f"batch size {size:,}: {rate_text(rate)}{memory}"


def batch_table(rows: Sequence[tuple[int, int | None, float]], title: str) -> Table:
    """rows: batch size, bytes that a step needs beside weights and data (None if not known), images a second."""
    table = Table(heading=title)
    for name in ("batch size", "memory of a step", "images/s"):
        table.add_column(name, justify="right")
    for size, count, rate in rows:
        table.add_row(f"{size:,}", "–" if count is None else _memory_text(count), f"{rate:,.0f}")
    return table


def _memory_text(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"
