"""The graph of a Keras model as a series of layers, some of which join paths that parted before."""

from typing import NamedTuple

from engine.errors import InputError, problem
from engine.importers.keras_graph import JOINS, Graph, Node


class Join(NamedTuple):
    """A joining layer with what leads to it from one place."""

    node: Node
    paths: tuple[tuple["Node | Join", ...], ...]


def as_series(graph: Graph, where: str) -> tuple["Node | Join", ...]:
    """The layers from the input to the output, one after the other; where they part, a Join of what leads to it.

    Raises InputError if paths do not all join again where they parted, which is no series of parallel paths.
    """
    dominators = _find_dominators(graph)
    used: set[int] = set()

    def follow(at: int, stop: int) -> tuple["Node | Join", ...]:
        found: list[Node | Join] = []
        while at != stop:
            node = graph.nodes[at]
            if at in used or not node.inputs:
                got = f"paths that part before {node.name[:100]!r} and do not join as they parted"
                raise InputError(
                    problem(where, got, "paths within paths", "Build such a model in a class of your own.")
                )
            used.add(at)
            if len(node.inputs) > 1 or node.kind in JOINS:
                start = dominators[at]
                found.append(Join(node, tuple(follow(source, start) for source in node.inputs)))
                at = start
            else:
                found.append(node)
                at = max(node.inputs)  # the one that it has
        return tuple(reversed(found))

    return follow(graph.output, graph.input)


def _find_dominators(graph: Graph) -> list[int]:
    """For each node the last one that every path from the input to it goes through (nodes stand in order)."""
    depth, dominators = [0] * len(graph.nodes), [0] * len(graph.nodes)
    for number, node in enumerate(graph.nodes):
        common = node.inputs[0] if node.inputs else number
        for other in node.inputs[1:]:
            while common != other:
                common, other = (
                    (dominators[common], other) if depth[common] > depth[other] else (common, dominators[other])
                )
        dominators[number], depth[number] = common, depth[common] + 1 if node.inputs else 0
    return dominators
