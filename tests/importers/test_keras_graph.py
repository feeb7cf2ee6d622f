"""Configs of Keras 1 to 3 as graphs, written by hand: the older versions are not at hand to write them."""

import pytest

from engine import InputError
from engine.importers.keras_front import Front, take_front
from engine.importers.keras_given import Given, layer_name
from engine.importers.keras_graph import Node, read_graph, snake_case
from engine.importers.keras_layers import LAYERS, WEIGHTED, convert
from engine.importers.keras_series import Join, as_series
from engine.models import Activation, Conv, Paths

INPUT = {"class_name": "InputLayer", "config": {"batch_input_shape": [None, 8, 8, 3], "name": "in"}, "name": "in",
         "inbound_nodes": []}  # fmt: skip


def layer(kind, name, *sources, **config):
    """As Keras 2 writes a layer of a Functional model."""
    inbound = [[[source, 0, 0, {}] for source in sources]]
    return {"class_name": kind, "name": name, "config": {"name": name, **config}, "inbound_nodes": inbound}


def model(*layers, output, kind="Functional"):
    ends = {"input_layers": [["in", 0, 0]], "output_layers": [[output, 0, 0]]}
    return {"class_name": kind, "config": {"name": "model", "layers": [INPUT, *layers], **ends}}


def names(series):
    return [
        [part.node.name, *(names(path) for path in part.paths)] if isinstance(part, Join) else part.name
        for part in series
    ]


def read(config):
    return as_series(read_graph(config, "file"), "file")


def test_the_nodes_of_keras_2_become_a_series_whatever_their_order():
    layers = [
        layer("Add", "sum", "a", "c"),
        layer("Dense", "out", "sum"),
        layer("Conv2D", "c", "b"),
        layer("Conv2D", "b", "a"),
        layer("Conv2D", "a", "in"),
        layer("Conv2D", "unused", "a"),
    ]
    for kind in ("Functional", "Model"):
        assert names(read(model(*layers, output="out", kind=kind))) == ["a", ["sum", [], ["b", "c"]], "out"]


def test_sequential_models_of_any_age():
    conv = {"class_name": "Conv2D", "config": {"name": "a", "batch_input_shape": [None, 8, 8, 3]}}
    plain = [conv, {"class_name": "Dense", "config": {"name": "b"}}]
    for config in (plain, {"layers": plain}, {"layers": [INPUT, *plain]}):
        graph = read_graph({"class_name": "Sequential", "config": config}, "file")
        assert graph.nodes[graph.input].config["batch_input_shape" if config == {"layers": [INPUT, *plain]} else
                                               "batch_shape"] == [None, 8, 8, 3]  # fmt: skip
        assert names(as_series(graph, "file")) == ["a", "b"]


def test_models_within_models_are_read_in_place():
    inner = {**model(layer("Conv2D", "x", "in"), layer("Conv2D", "y", "x"), output="y"), "name": "inner",
             "inbound_nodes": [[["a", 0, 0, {}]]]}  # fmt: skip
    graph = read_graph(model(layer("Conv2D", "a", "in"), inner, layer("Dense", "out", "inner"), output="out"), "file")
    assert names(as_series(graph, "file")) == ["a", "x", "y", "out"]
    assert [node.key for node in graph.nodes] == ["input_layer", "conv2d", "functional/conv2d", "functional/conv2d_1",
                                                  "dense"]  # fmt: skip


TENSOR = {"class_name": "__keras_tensor__", "config": {"keras_history": ["in", 0, 0]}}
MANY = [INPUT] + [{"class_name": "ReLU"}] * 6000
BAD = {
    "own class": ({"class_name": "Sequential", "config": [INPUT, {"class_name": "Conv2D", "module": "mine"}]},
                  "of the class mine.Conv2D, which runs code of its own"),
    "keywords": (model({**layer("Dense", "a", "in"), "inbound_nodes": [[["in", 0, 0, {"scale": 2}]]]}, output="a"),
                 r"'a' \(Dense\), called with \[2\]"),
    "numbers": (model({**layer("Dense", "a"), "inbound_nodes": [{"args": [TENSOR, 3.0], "kwargs": {}}]}, output="a"),
                r"'a' \(Dense\), called with \[3\.0\]"),
    "reversed": (model({**layer("Subtract", "a"), "inbound_nodes": [{"args": [3.0, TENSOR]}]}, output="a"),
                 r"'a' \(Subtract\), called with"),
    "circle": (model(layer("A", "a", "b"), layer("B", "b", "a"), output="a"), "depends on itself"),
    "nowhere": (model(layer("A", "a", "nothing"), output="a"), "an input 'nothing' that is no layer"),
    "no source": (model(layer("A", "a"), output="a"), "layer 'a' without an input"),
    "subclass": ({"class_name": "MyModel", "config": {}}, "a model of the class 'MyModel', whose layers"),
    "text": ("model", "expected the config of a Keras model"),
    "no class": ({"config": {}}, "expected the config of a Keras model"),
    "layers": ({"class_name": "Sequential", "config": {"layers": [3]}}, "expected the config of a Keras model"),
    "deep": (None, "models more than 8 deep"),
    "many": ({"class_name": "Sequential", "config": MANY}, "more than 5,000 layers"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_configs_that_are_no_graph_are_refused(case):
    config, message = BAD[case]
    if config is None:
        config = {"class_name": "Sequential", "config": [INPUT]}
        for _ in range(12):
            config = {"class_name": "Sequential", "config": [INPUT, config]}
    with pytest.raises(InputError, match=message):
        read(config)


@pytest.mark.parametrize(("kind", "args", "scale", "offset"), [
    ("TrueDivide", [TENSOR, 4], 0.25, 0), ("Subtract", [TENSOR, 1.5], 1, -1.5), ("Add", [3.0, TENSOR], 1, 3),
    ("Multiply", [TENSOR, 0.5], 0.5, 0),
])  # fmt: skip
def test_arithmetic_with_numbers_is_a_rescaling(kind, args, scale, offset):
    entry = {**layer(kind, "a"), "inbound_nodes": [{"args": args, "kwargs": {"training": False, "mask": None}}]}
    (node,) = read(model(entry, output="a"))
    assert (node.kind, node.config) == ("Rescaling", {"name": "a", "scale": scale, "offset": offset})


def given(kind, is_before_3=False, shape=(8, 8, 4), **config):
    return Given(kind, {"name": "x", **config}, "x", shape, is_before_3, "file")


def test_settings_of_keras_2_mean_the_same():
    assert convert(given("LeakyReLU", alpha=0.1)) == [Activation("leaky_relu", 0.1, name="x")]
    assert convert(given("LeakyReLU", alpha={"class_name": "__numpy__", "value": 0.5})) == [
        Activation("leaky_relu", 0.5, name="x")
    ]
    assert convert(given("LeakyReLU")) == [Activation("leaky_relu", 0.3, name="x")]
    assert convert(given("ReLU", max_value=6.0)) == [Activation("relu6", name="x")]
    assert convert(given("Activation", activation="relu6")) == [Activation("relu6", name="x")]
    (conv,) = convert(given("Convolution2D", filters=2, kernel_size=[3, 3], activation="relu"))
    assert conv == Conv(2, (3, 3), activation=Activation("relu"), name="x")
    with pytest.raises(InputError, match=r"hard_sigmoid of Keras 2, 0\.2·x \+ 0\.5"):
        convert(given("Activation", True, activation="hard_sigmoid"))
    assert convert(given("Activation", activation="hard_sigmoid")) == [Activation("hard_sigmoid", name="x")]


def test_names_have_the_characters_that_a_layer_here_may_have():
    assert layer_name("block/conv 1") == "block_conv_1"
    assert layer_name("-a") == "_-a"
    assert len(layer_name("a" * 500)) == 80
    assert snake_case("DepthwiseConv2D") == "depthwise_conv2d"
    assert snake_case("PReLU") == "p_re_lu"
    assert snake_case("BatchNormalization") == "batch_normalization"
    assert WEIGHTED - {"Normalization"} <= set(LAYERS)
    assert Paths(((), ())).join == "add"


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ((("CenterCrop", {"height": 4, "width": 4}), ("Resizing", {"height": 8, "width": 8})), "before cutting out"),
        ((("Rescaling", {"scale": [1, 2]}), ("Rescaling", {"scale": [1, 2, 3]})), "expected 1 or 3"),
        ((("Rescaling", {"scale": [0, 1, 1]}),), "0 or infinite"),
    ],
)
def test_front_that_inputs_cannot_be_made_by_is_refused_by_its_layer(layers, reason):
    nodes = tuple(Node(kind, {"name": kind, **config}, (0,), kind) for kind, config in layers)
    with pytest.raises(InputError, match=f"layer '{layers[-1][0]}'.*{reason}"):
        take_front(nodes, Front((16, 16), 3), {}, "model.keras")
