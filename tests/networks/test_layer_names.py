"""Which layer an array belongs to, at any depth."""

from flax import nnx

from engine.networks.build import build
from engine.networks.layer_names import layers_of
from tests.models.test_blocks import SHAPE, nested


def test_every_array_has_a_layer_and_a_name_of_its_own():
    spec = nested()
    module = nnx.eval_shape(lambda: build(spec, SHAPE, 3, nnx.Rngs(0)))
    layers = layers_of(spec, module)
    flat = dict(nnx.to_flat_state(nnx.state(module)))
    named = {layers.parts(path): leaf for path, leaf in flat.items()}
    assert len(named) == len(flat)
    by_name = {each.name: each.layer for each in spec.named}
    assert {name for name, *_ in named} == {n for n, layer in by_name.items() if layer.has_params and n in layers.names}
    assert named["block.paths_1.conv_2", "kernel"].shape == (1, 1, 2, 4)
    assert named["block.batch_norm_1", "mean"].shape == (4,)
    assert named["paths_3.conv_1", "bias"].shape == (3,)


def test_path_that_is_no_layer_is_empty():
    layers = layers_of(nested(), None)
    assert layers.of(("other", 1)) == layers.of(()) == ""
    assert layers.of(("layers", 0)) == "block"
    assert layers.of(("layers", 0, "layer", "paths", 0, "layers", 1)) == "block.batch_norm_1"
