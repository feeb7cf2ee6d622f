"""The table of plans that `engine plan` shows."""

import math
from collections.abc import Sequence
from dataclasses import fields

from engine.config.plan import Alternative, Plan
from engine.host.console import Table


def plan_table(alternatives: Sequence[Alternative], chosen: Plan | None, title: str, how: str) -> Table:
    """One row per plan: its settings, the measured images per second, and whether the run uses it.

    how: how the run's plan was chosen; a footnote reports it if that plan is not the fastest.
    """
    names = [field.name for field in fields(Plan) if field.name != "chunk_steps"]
    fastest = alternatives[0].plan
    is_slower = any(each.plan == chosen != fastest and each.images_per_second > 0 for each in alternatives)
    footnote = f"the run's plan was set {how}; by the rates shown another is faster" if is_slower else ""
    table = Table(heading=title, footnote=footnote)
    for name in ("", *names):
        table.add_column(name.replace("is_", "").replace("_", " "))
    table.add_column("images/s", justify="right")
    for each in alternatives:
        rate = "–" if math.isnan(each.images_per_second) else f"{each.images_per_second:,.0f}"
        mark = "chosen" if each.plan == chosen else "fastest" if each.plan == fastest and is_slower else ""
        table.add_row(mark, *(_shown(getattr(each.plan, name)) for name in names), rate)
    return table


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
