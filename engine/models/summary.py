"""The layers of a model as a table, and what a layer is set to, as one line of text."""

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from engine.errors import shape_text
from engine.host.console import Table
from engine.host.html import html_table
from engine.models.blocks import Paths
from engine.models.layer import Layer
from engine.models.shapes import pair

if TYPE_CHECKING:
    from engine.models.specs import LayerRow, Sequential


def summary_table(
    spec: "Sequential",
    input_shape: tuple[int, ...],
    title: str = "",
    frozen: Collection[str] = (),
    inner: bool = False,
) -> Table:
    """Layers with output shapes and parameters; a footnote gives the totals. A block is one row.

    frozen: names of layers that do not train. inner: the layers within blocks have rows too.
    """
    table = Table(heading=title)
    for name, justify in (("", "right"), ("layer", "left"), ("settings", "left"), ("output", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    table.add_column("parameters", justify="right")
    table.add_row("", "input", "", shape_text(input_shape), "")
    rows = spec.all_rows(input_shape)
    for row, each in zip(rows, spec.named, strict=True):
        if inner or not each.within:
            number, name = "" if each.within else str(row.number), "  " * each.depth + row.name
            table.add_row(number, name, settings_text(each.layer), shape_text(row.output_shape), f"{row.num_params:,}")
    table.footnote = _totals(spec, rows, frozen)
    return table


def layers_html(spec: "Sequential") -> str:
    """The layers as a table for a notebook, without the shapes, which depend on the input."""
    rows = [
        (each.position[0] + 1, each.name, each.layer.loaded().kind, settings_text(each.layer))
        for each in spec.named
        if not each.within
    ]
    return html_table(("", "layer", "kind", "settings"), rows, "Sequential")


def _totals(spec: "Sequential", rows: Sequence["LayerRow"], frozen: Collection[str]) -> str:
    """The counts of a model in words: Keras's total has the statistics of batch norms too."""
    leaves = [row for row, each in zip(rows, spec.named, strict=True) if not each.is_block]
    params, statistics = sum(row.num_params for row in leaves), sum(row.num_statistics for row in leaves)
    still = sum(row.num_params for row in leaves if row.name in frozen)
    if not still and not statistics:
        return f"{params:,} parameters"
    counts = {"trained": params - still, "frozen": still, "statistics": statistics}
    parts = " + ".join(f"{count:,} {kind}" for kind, count in counts.items() if count)
    return f"{parts} = {params + statistics:,} parameters in all"


def settings_text(layer: Layer) -> str:
    """The size of a layer, then the settings that differ from its defaults: `32, 3×3, activation=relu`."""
    layer = layer.loaded()
    if isinstance(layer, Paths):
        return _block_settings(layer)
    shown = []
    for field in dataclasses.fields(layer):
        value = getattr(layer, field.name)
        if field.name in ("kernel_size", "size"):
            shown.append(shape_text(pair(value)))
        elif value != field.default and value is not None and field is not Layer.__dataclass_fields__["name"]:
            shown.append(f"{field.name}={value}" if shown or field.kw_only else str(value))
    return ", ".join(shown)


def _block_settings(block: Paths) -> str:
    """What is joined: `add(4 layers, input)`."""
    lengths = ", ".join(f"{len(path)} layer{'s' * (len(path) > 1)}" if path else "input" for path in block.paths)
    return f"{block.join}({lengths})" + (f", activation={block.activation}" if block.activation else "")
