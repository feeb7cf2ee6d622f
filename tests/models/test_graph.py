"""The graph of a model: nodes with the shapes and parameters of its summary, edges as its modules are called."""

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

import engine
from engine.host.console import Table
from engine.models import BatchNorm, Conv, Dense, GlobalAveragePool, Paths, Sequential, mobilenet_v2, squeeze_excite
from engine.models.graph import Node, _box

BLOCKS = Sequential(
    (
        Conv(8, 3, padding="same", name="stem"),
        Paths(((Conv(8, 1), squeeze_excite(8, 2)), (), (Conv(8, 3, padding="same"), BatchNorm())), "concat", "relu"),
        GlobalAveragePool(),
        Dense(),
    )
)


def test_a_row_of_layers_is_a_row_of_nodes_with_shapes_and_parameters():
    graph = engine.cnn((32, 64)).graph((28, 28, 1), 10)
    names = ["input", "conv_1", "max_pool_1", "conv_2", "flatten_1", "dense_1"]
    assert [node.name for node in graph.nodes] == names
    assert graph.edges == tuple(pairwise(names))
    assert [(node.shape, node.num_params) for node in graph.nodes][1] == ((26, 26, 32), 320)
    assert sum(node.num_params for node in graph.nodes) == engine.cnn((32, 64)).with_outputs(10).num_params((28, 28, 1))


def test_paths_start_where_the_block_does_and_end_in_its_join():
    graph = BLOCKS.graph((28, 28, 1), 10)
    into = {node.name: {a for a, b in graph.edges if b == node.name} for node in graph.nodes}
    assert into["paths_1.conv_1"] == into["paths_1.conv_2"] == {"stem"}
    assert into["paths_1"] == {"paths_1.paths_1", "stem", "paths_1.batch_norm_1"}
    assert into["paths_1.paths_1"] == {"paths_1.conv_1", "paths_1.paths_1.conv_2"}
    assert into["global_average_pool_1"] == {"paths_1"}
    assert {node.text for node in graph.nodes} >= {"concat, relu", "multiply"}


@pytest.mark.parametrize(("model", "shape"), [(BLOCKS, (28, 28, 1)), (mobilenet_v2(), (96, 96, 3))])
def test_the_drawing_has_each_node_once_in_boxes_that_do_not_overlap(model: Sequential, shape: tuple[int, ...]):
    graph = model.graph(shape, 10)
    root = ElementTree.fromstring(graph.svg)
    rects = [each for each in root.iter() if each.tag.endswith("rect")]
    boxes = [{name: float(each.get(name, "")) for name in ("x", "y", "width", "height")} for each in rects]
    assert len(boxes) == len(graph.nodes)
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for i, one in enumerate(boxes):
        assert 0 <= one["x"] <= width - one["width"]
        assert 0 <= one["y"] <= height - one["height"]
        for other in boxes[:i]:
            apart = abs(one["x"] - other["x"]) >= one["width"] or abs(one["y"] - other["y"]) >= one["height"]
            assert apart
    titles = [each.text for each in root.iter() if each.tag.endswith("title")]
    assert all(text and text.startswith(node.name) for text, node in zip(titles, graph.nodes, strict=True))
    drawn = [each for each in root.iter() if each.tag.endswith("path") and each.get("marker-end")]
    assert len(drawn) == len(graph.edges)


def test_texts_are_escaped_and_the_file_is_written_whole(tmp_path):
    box = "".join(_box(Node("<script>", "a & b\x1b", (3,), 0), 100, 0))
    assert "&lt;script&gt;" in box
    assert "a &amp; b\\x1b" in box
    graph = engine.mlp(()).graph((5, 5, 1), 2)
    graph.save(tmp_path / "model.svg")
    for name, rule in (("model.png", r"a name that ends in \.svg"), ("missing/model.svg", "a directory that exists")):
        with pytest.raises(engine.InputError, match=f"path: got .*{rule}"):
            graph.save(tmp_path / name)
    assert (tmp_path / "model.svg").read_text() == graph.svg == graph._repr_svg_()


def test_a_summary_is_text_in_a_terminal_and_a_table_in_a_notebook():
    table = engine.mlp((4,)).summary((2, 2, 1), 3)
    assert isinstance(table, Table)
    assert "35 parameters" in str(table)
    shown = table._repr_mimebundle_()
    assert shown["text/plain"] == str(table)
    assert re.search(r"<td[^>]*>dense_1</td>.*<td[^>]*>20</td>", shown["text/html"])
    assert "<th>a&lt;b&gt;</th>" in Table("a<b>")._repr_mimebundle_()["text/html"]
