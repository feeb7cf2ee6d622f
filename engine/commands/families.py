"""`engine families`: what can be imported by name."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from engine.host.console import Table, show

if TYPE_CHECKING:
    from engine.importers.catalogue import Variant


def families(name: Annotated[str | None, Positional, arg(metavar="[NAME]")] = None) -> None:
    """List the models whose weights can be imported: sizes, parameters, contract, licence. With a name, all of it.

    Args:
        name: One of them, like resnet50; None for a table of all.
    """
    from engine.importers.catalogue import UNCLEAR
    from engine.importers.variants import VARIANTS, find_variant

    if name is None:
        show(families_table(VARIANTS.values()), UNCLEAR, "all of one: engine families resnet50")
    else:
        show(*variant_lines(find_variant(name)))


def families_table(variants: Iterable["Variant"]) -> Table:
    """One line for the variants that differ in the size of their images alone."""
    rows = defaultdict[tuple, list["Variant"]](list)
    for variant in variants:
        rows[re.sub(rf"_{variant.size}$", "_SIZE", variant.name), variant.contract].append(variant)
    table = Table()
    for column in ("name", "size", "million", "inputs", "licence"):
        table.add_column(column, justify="right" if column == "million" else "left")
    for (name, contract), same in rows.items():
        name = name if len(same) > 1 else same[0].name
        sizes = " ".join(str(variant.size) for variant in same)
        licence = same[0].terms.licence.partition(" (")[0]
        table.add_row(name, sizes, f"{sum(same[0].count()) / 1e6:.2f}", contract.values_text, licence)
    return table


def variant_lines(variant: "Variant") -> list[str]:
    """All of one variant, a fact a line."""
    lines = [variant.name, f"  {variant.terms.citation}", f"  weights: {variant.terms.licence}"]
    for top, called in ((True, "with its classifier"), (False, "without (--no-top)")):
        trained, statistics = variant.count(top)
        total = f"{trained + statistics:,} parameters {called}"
        lines.append(f"  {total}: {trained:,} trained, {statistics:,} statistics")
    lines.append(f"  inputs: {variant.size}x{variant.size}, {variant.contract.text()}")
    for published in filter(None, (variant.with_top, variant.without_top)):
        lines += [f"  {published.name}", f"    {published.url}", f"    {published.hash or 'no hash is published'}"]
    if variant.hub:
        lines.append(f"  --weights hf:{variant.hub}")
    if variant.is_ambiguous:
        lines.append("  other files than these need --normalization imagenet or file")
    lines.append(f"next:\n  engine import {variant.name} --out runs/{variant.name}")
    return lines


COMMANDS = {"families": families}
