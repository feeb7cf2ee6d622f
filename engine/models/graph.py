"""A model as a graph: its layers with output shapes and parameters, and which feeds which; drawn as SVG.

A model is layers in a row, and blocks of paths side by side that are joined again. So there is nothing to search for:
each path gets a column as wide as it needs, and each layer a line.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple

from engine.errors import shape_text
from engine.host.storage import check_file_place, expanded, write_atomically
from engine.models.blocks import Paths
from engine.models.names import NamedLayer
from engine.models.shapes import Shape
from engine.models.summary import settings_text
from engine.text import one_line

if TYPE_CHECKING:
    from engine.models.specs import LayerRow

INPUT = "input"
BOX_WIDTH, BOX_HEIGHT, GAP, MARGIN, BYPASS_WIDTH = 200, 58, 26, 12, 28  # pixels
MOST_LETTERS = 28  # that a box has room for
FONT = "system-ui, sans-serif"
HEAD = '<svg xmlns="http://www.w3.org/2000/svg" class="engine-graph" '
"""How each drawing starts, by which a later one knows that it may take its place."""


@dataclass(frozen=True)
class Node:
    """A layer, or the join at the end of a block. text: its kind and settings; shape: of an example's output."""

    name: str
    text: str
    shape: Shape
    num_params: int


@dataclass(frozen=True)
class Graph:
    """The nodes of a model, first the input, in the order in which they are computed, and the names at both ends of
    each edge. `svg` is a drawing in the colour of the text around it."""

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]
    svg: str = field(repr=False)

    def save(self, path: str | PathLike[str]) -> None:
        """Writes the drawing as an SVG file; raises InputError for a name without .svg, or no such directory."""
        target = expanded(path)
        check_file_place(target, "path", ".svg")
        write_atomically(target, self.svg)

    def _repr_svg_(self) -> str:
        return self.svg


class Block(NamedTuple):
    """Paths side by side, from the same input, and the node that joins them."""

    paths: "list[list[Node | Block]]"
    join: Node


Chain = list[Node | Block]


def make_graph(named: Sequence[NamedLayer], rows: Sequence["LayerRow"], input_shape: Shape) -> Graph:
    """The graph of a model's layers at any depth, with the row of each."""
    pairs = iter(list(zip(named, rows, strict=True)))
    count = sum(len(each.position) == 1 for each in named)
    chain: Chain = [Node(INPUT, "", tuple(input_shape), 0), *_read_chain(pairs, count)]
    edges = tuple(_edges(chain, []))
    width, height = _size(chain)
    shapes = [*_draw(chain, MARGIN + width / 2, MARGIN, None)]
    return Graph(tuple(_nodes(chain)), edges, _svg(shapes, width + 2 * MARGIN, height + 2 * MARGIN))


def _read_chain(pairs: Iterator[tuple[NamedLayer, "LayerRow"]], count: int) -> Chain:
    """The next `count` layers, with all that is in them, which follows a block in its order."""
    chain: Chain = []
    for _ in range(count):
        each, row = next(pairs)
        layer = each.layer
        if isinstance(layer, Paths):
            activation = f", {layer.activation}" if layer.activation else ""
            paths = [_read_chain(pairs, len(path)) for path in layer.paths]
            chain.append(Block(paths, Node(row.name, f"{layer.join}{activation}", row.output_shape, 0)))
        else:
            kind = layer.loaded().kind
            text = f"{kind} {settings_text(layer)}".rstrip()
            chain.append(Node(row.name, text, row.output_shape, row.num_params))
    return chain


def _nodes(chain: Chain) -> Iterator[Node]:
    for item in chain:
        for path in item.paths if isinstance(item, Block) else ():
            yield from _nodes(path)
        yield item.join if isinstance(item, Block) else item


def _edges(chain: Chain, sources: list[str]) -> Iterator[tuple[str, str]]:
    """The edges into and within a chain, which `sources` feed."""
    for item in chain:
        node = item.join if isinstance(item, Block) else item
        for path in item.paths if isinstance(item, Block) else ():
            yield from _edges(path, sources)
        ends = [_last(path) for path in item.paths] if isinstance(item, Block) else [None]
        for end in ends:
            yield from ((source, node.name) for source in ([end] if end else sources))
        sources = [node.name]


def _last(chain: Chain) -> str | None:
    if not chain:
        return None
    return chain[-1].join.name if isinstance(chain[-1], Block) else chain[-1].name


def _size(chain: Chain) -> tuple[float, float]:
    """(width, height) in pixels, without a gap before or after it."""
    sizes = [(BOX_WIDTH, BOX_HEIGHT) if isinstance(item, Node) else _block_size(item) for item in chain]
    if not sizes:
        return BYPASS_WIDTH, 0
    return max(width for width, _ in sizes), sum(height for _, height in sizes) + GAP * (len(sizes) - 1)


def _block_size(block: Block) -> tuple[float, float]:
    widths, heights = zip(*map(_size, block.paths), strict=True)
    inner = max(heights)
    return max(BOX_WIDTH, sum(widths) + GAP * (len(widths) - 1)), inner + (GAP if inner else 0) + BOX_HEIGHT


def _draw(chain: Chain, middle: float, top: float, source: tuple[float, float] | None) -> Iterator[str]:
    """The shapes of a chain around a vertical line at `middle`, from `top` down, fed from a point."""
    for item in chain:
        if isinstance(item, Node):
            end = top
            if source:
                yield _line(source, (middle, top))
            yield from _box(item, middle, top)
        else:
            end = top + _block_size(item)[1] - BOX_HEIGHT
            yield from _draw_paths(item, middle, top, end, source)
            yield from _box(item.join, middle, end)
        source = (middle, end + BOX_HEIGHT)
        top = end + BOX_HEIGHT + GAP


def _draw_paths(
    block: Block, middle: float, top: float, end: float, source: tuple[float, float] | None
) -> Iterator[str]:
    sizes = [_size(path) for path in block.paths]
    left = middle - (sum(width for width, _ in sizes) + GAP * (len(sizes) - 1)) / 2
    for path, (width, height) in zip(block.paths, sizes, strict=True):
        at = left + width / 2
        left += width + GAP
        yield from _draw(path, at, top, source)
        start = (at, top + height) if path else source
        if start:
            yield _line(start, (middle, end), None if path else at)


def _line(start: tuple[float, float], end: tuple[float, float], by: float | None = None) -> str:
    """An arrow of vertical and horizontal pieces, with the horizontal ones next to its ends; by: another column."""
    (x, y), (to_x, to_y) = start, end
    if by is not None and by != x:
        steps = f"V{y + GAP / 2:g}H{by:g}V{to_y - GAP / 2:g}H{to_x:g}V{to_y:g}"
    elif x == to_x:
        steps = f"V{to_y:g}"
    else:
        turn = to_y - GAP / 2
        steps = f"V{turn:g}H{to_x:g}V{to_y:g}"
    return f'<path d="M{x:g} {y:g}{steps}" fill="none" stroke="currentColor" marker-end="url(#engine-arrow)"/>'


def _box(node: Node, middle: float, top: float) -> Iterator[str]:
    left, params = middle - BOX_WIDTH / 2, f" · {node.num_params:,} parameters" if node.num_params else ""
    lines = (node.name, node.text, f"{shape_text(node.shape)}{params}")
    yield f"<g><title>{_escaped('  '.join(filter(None, lines)))}</title>"
    yield (
        f'<rect x="{left:g}" y="{top:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"'
        ' fill="currentColor" fill-opacity="0.06" stroke="currentColor"/>'
    )
    for number, text in enumerate(lines):
        shown, weight = _escaped(_shortened(text, is_name=number == 0)), 400 if number else 600
        yield (
            f'<text x="{middle:g}" y="{top + 18 + 15 * number:g}" font-size="11" text-anchor="middle"'
            f' fill="currentColor" font-weight="{weight}">{shown}</text>'
        )
    yield "</g>"


def _shortened(text: str, is_name: bool) -> str:
    """A text that fits a box; of a long name its end, which says which layer of a block it is."""
    if len(text) <= MOST_LETTERS:
        return text
    return "…" + text[1 - MOST_LETTERS :] if is_name else text[: MOST_LETTERS - 1] + "…"


def _svg(shapes: Sequence[str], width: float, height: float) -> str:
    arrow = (
        '<defs><marker id="engine-arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7"'
        ' orient="auto"><path d="M0 1L7 4L0 7" fill="none" stroke="currentColor"/></marker></defs>'
    )
    # A grey that can be read on white and on black, where nothing around the drawing sets another colour.
    head = (
        f'{HEAD}viewBox="0 0 {width:g} {height:g}"'
        f' width="{width:g}" height="{height:g}" color="#767676" font-family="{FONT}" role="img"'
        ' aria-label="The layers of the model">'
    )
    return "\n".join((head, arrow, *shapes, "</svg>")) + "\n"


def _escaped(text: str) -> str:
    return escape(one_line(text))
