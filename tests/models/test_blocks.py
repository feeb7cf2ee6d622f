"""Blocks: their shapes, counts, names and records, and numbers beside those of Keras's functional models."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from engine.errors import InputError
from engine.models import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    DepthwiseConv,
    DropPath,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    Layer,
    LayerScale,
    MaxPool,
    Paths,
    Sequential,
    SpatialDropout,
    inverted_residual,
    residual,
    squeeze_excite,
)
from engine.models.blocks import MOST_DEPTH
from engine.models.specs import MOST_LAYERS
from engine.networks.build import build
from engine.networks.network import network_of
from engine.records import from_json, to_json
from tests.further import further

SHAPE = (9, 8, 4)


def nested() -> Sequential:
    """Blocks of all joins, two deep."""
    bottleneck = (Conv(4, 1, activation="relu"), BatchNorm(), Conv(4, 3, padding="same"), squeeze_excite(4, 2))
    towers = ((MaxPool(3, 2, 1),), (Conv(3, 3, 2, ((1, 1), (1, 1)), activation=Activation("relu", name="folded")),))
    return Sequential(
        (residual(bottleneck, name="block"), inverted_residual(4, 4, 2), Paths(towers, "concat"), Flatten(), Dense(3))
    )


def test_shapes_and_counts_are_those_of_the_module():
    spec = nested()
    module = nnx.eval_shape(lambda: build(spec, SHAPE, 3, nnx.Rngs(0)))
    for kind, count in ((nnx.Param, spec.num_params), (nnx.BatchStat, spec.num_statistics)):
        assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, kind))) == count(SHAPE) > 0
    assert [row.output_shape for row in spec.rows(SHAPE)] == [SHAPE, SHAPE, (5, 4, 7), (140,), (3,)]
    outputs, _ = nnx.jit(lambda: (build(spec, SHAPE, 3, nnx.Rngs(0))(jnp.ones((2, *SHAPE))), 0))()
    assert outputs.shape == (2, 3)


def test_records_give_the_same_blocks_back_and_have_no_empty_names():
    text = json.dumps(to_json(nested()))
    assert from_json(Sequential, json.loads(text)) == nested()
    assert '"name": null' not in text
    assert text.count('"name"') == 2
    assert "use_scale" not in text


def test_names_are_those_given_or_by_kind_within_the_block():
    spec = Sequential((Conv(4, name="stem"), *nested().layers[:1], Conv(4)))
    assert spec.layer_names == ("stem", "block", "conv_2")
    assert [each.name for each in spec.named][2:5] == ["block.conv_1", "block.batch_norm_1", "block.conv_2"]
    inner = next(each for each in spec.named if each.name == "block.paths_1.conv_2")
    assert inner.position == (1, 0, 3, 1, 2)
    assert inner.answers_to == ("block", "block.paths_1", "block.paths_1.conv_2")
    folded = next(each for each in nested().named if each.also)
    assert folded.answers_to == ("paths_3", "paths_3.conv_1", "folded")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sequential((Conv(2, name="a"), Conv(2, name="a"))), "'a' twice"),
        (lambda: Sequential((Conv(2), residual((Conv(2, name="conv_1"),)))), "'conv_1' twice"),
        (lambda: Conv(2, name="a b"), "layer name: got 'a b'"),
        (lambda: Conv(2, name="a*"), "layer name"),
        (lambda: Paths(()), "0 paths"),
        (lambda: Paths(((Conv(2),), (3,))), "got 3; expected layers"),
        (lambda: Paths((Conv(2), Conv(3))), "brackets"),
        (lambda: Paths(((), ()), "sum"), "add, concat, multiply"),
        (lambda: Sequential((residual((Conv(3),)),)).rows((9, 9, 3)), "paths_1|7×7×3, 9×9×3; expected equal shapes"),
        (lambda: Sequential((residual((Conv(3), MaxPool(9, name="far"))),)).rows((9, 9, 3)), "MaxPool far: got 7×7"),
        (lambda: Sequential((Paths(((Conv(3),), ()), "concat"),)).rows((9, 9, 3)), "differ in channels alone"),
        (lambda: Sequential((Paths(((Conv(3),), ()), "multiply"),)).rows((9, 9, 3)), "1 pixel"),
        (lambda: Sequential((Paths(((Flatten(),), ()), "add"),)).rows((9, 9, 3)), "equal shapes"),
        (lambda: Sequential((residual((Conv(1),) * MOST_LAYERS),)), "at all depths"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, message: str):
    with pytest.raises(InputError, match=message):
        make()


def test_depth_is_bounded():
    block: Layer = residual(())
    for _ in range(MOST_DEPTH - 1):
        block = residual((block,))
    value = to_json(Sequential((block,)))
    assert from_json(Sequential, value).layers == (block,)
    with pytest.raises(InputError, match=f"got {MOST_DEPTH + 1} blocks; expected at most {MOST_DEPTH}"):
        residual((block,))
    value["layers"] = [{"kind": "Paths", "paths": [value["layers"]]}]
    with pytest.raises(InputError, match="within each other"):
        from_json(Sequential, value)


@pytest.mark.parametrize("make", [GlobalAveragePool, GlobalMaxPool])
def test_global_pool_may_keep_its_axes(make: Any):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4, 3)), jnp.float32)
    short, kept = (build(Sequential((make(keep_axes=k), Flatten())), (5, 4, 3), 3, nnx.Rngs(0)) for k in (False, True))
    np.testing.assert_array_equal(short(x), kept(x))
    assert make(keep_axes=True).output_shape((5, 4, 3)) == (1, 1, 3)


@pytest.mark.parametrize("pads", [((0, 1), (2, 0)), ((1, 1), (0, 2)), ((0, 0), (0, 0))])
def test_sides_are_padded_and_pools_do_not_count_them(pads: Any):
    x = np.random.default_rng(0).normal(size=(2, 7, 6, 2)).astype(np.float32)
    layers = (MaxPool(3, 2, pads), AveragePool(3, 2, pads), Conv(2, 3, 2, pads), DepthwiseConv(3, 2, pads))
    wide = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (1, 2))[:, ::2, ::2]  # [b y x c i j]
    for layer in layers:
        module: Any = build(Sequential((layer, Flatten())), x.shape[1:], int(np.prod(windows.shape[1:4])), nnx.Rngs(0))
        got = np.asarray(module.layers[0](jnp.asarray(x)))
        if isinstance(layer, MaxPool):
            expected = np.nanmax(windows, (4, 5))
        elif isinstance(layer, AveragePool):
            expected = np.nanmean(windows, (4, 5))
        else:
            kernel = np.asarray(module.layers[0].kernel[...])
            letters = "byxcij,ijco->byxo" if isinstance(layer, Conv) else "byxcij,ijc->byxc"
            flat = kernel if isinstance(layer, Conv) else kernel[:, :, 0]
            expected = np.einsum(letters, np.nan_to_num(windows), flat)
        np.testing.assert_allclose(got, expected, atol=1e-5)
        assert layer.output_shape(x.shape[1:]) == got.shape[1:]


@pytest.mark.parametrize("padding", [((0, 1),), ((0, -1), (0, 0)), (1, 2), ((0, True), (0, 0)), ((0, 1, 2), (0,))])
def test_padding_of_another_form_is_refused(padding: Any):
    for make in (Conv, MaxPool):
        with pytest.raises(InputError, match=r"\(\(top, bottom\), \(left, right\)\)"):
            make(3, padding=padding)


def test_pool_padded_by_its_window_is_refused():
    with pytest.raises(InputError, match="less than the window"):
        MaxPool(2, padding=((0, 0), (0, 2)))


@pytest.mark.parametrize("shape", [(5, 4, 3), (6, 3), (7,)])
def test_drop_path_leaves_out_whole_examples(shape: tuple[int, ...]):
    network, init = network_of(Sequential((DropPath(0.4), Flatten())), shape, int(np.prod(shape)), "xla")
    params, state = init(jnp.uint32(0))
    x = jnp.ones((400, *shape))
    trained = np.asarray(network.apply(params, state, x, None, jax.random.key(1))[0])
    kept = trained[:, 0] > 0
    assert np.isclose(trained, np.where(kept[:, None], 1 / 0.6, 0)).all()
    assert 0.5 < kept.mean() < 0.7
    np.testing.assert_array_equal(network.apply(params, state, x, None, None)[0], 1)


def test_layer_scale_multiplies_each_channel():
    module: Any = build(Sequential((LayerScale(0.5), Flatten())), (2, 2, 3), 12, nnx.Rngs(0))
    module.layers[0].scale[...] = jnp.arange(3.0)
    np.testing.assert_array_equal(module(jnp.ones((1, 2, 2, 3))), np.tile(np.arange(3.0), 4)[None])
    assert LayerScale().num_params((5, 5, 3)) == 3


@pytest.mark.parametrize(("scale", "offset"), [(True, False), (False, True), (False, False)])
def test_batch_norm_may_lack_scale_or_offset(keras, scale: bool, offset: bool):
    layer = BatchNorm(use_scale=scale, use_offset=offset)
    theirs = keras.layers.BatchNormalization(scale=scale, center=offset)
    module: Any = build(Sequential((layer, Flatten())), (3, 2, 4), 24, nnx.Rngs(0))
    x = jnp.asarray(np.random.default_rng(0).normal(2, 3, (5, 3, 2, 4)), jnp.float32)
    with jax.numpy_rank_promotion("allow"):
        expected = theirs(x, training=True)
    np.testing.assert_allclose(module(x), expected.reshape(5, -1), atol=1e-5)
    assert layer.num_params((3, 2, 4)) == 4 * (scale + offset)
    assert len(jax.tree.leaves(nnx.state(module, nnx.Param))) == scale + offset


def test_padding_of_a_batch_is_left_out_of_the_statistics_within_blocks():
    spec = Sequential((residual((BatchNorm(), squeeze_excite(3, 2), BatchNorm())), GlobalAveragePool()))
    network, init = network_of(spec, (4, 4, 3), 3, "xla")
    params, state = init(jnp.uint32(0))
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 4, 3)), jnp.float32)
    padded = jnp.concatenate([x, 9 * x])
    mask = jnp.arange(8) < 4
    apart, after = network.apply(params, state, x, None, jax.random.key(0))
    both, after_padded = network.apply(params, state, padded, mask, jax.random.key(0))
    np.testing.assert_allclose(both[:4], apart, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after, after_padded)


def test_members_with_blocks_are_each_that_of_its_seed():
    spec = nested()
    network, init = network_of(spec, SHAPE, 3, "xla")
    seeds, x = jnp.arange(3, dtype=jnp.uint32), jnp.ones((2, *SHAPE))
    params, state = init(seeds)

    def train_mode(p: Any, s: Any) -> Any:
        return network.apply(p, s, x, jnp.array([True, False]), jax.random.key(0))

    outputs, after = jax.jit(jax.vmap(train_mode))(params, state)
    for member in range(3):
        alone = init(seeds[member])
        jax.tree.map(lambda a, b, m=member: np.testing.assert_allclose(a[m], b, atol=1e-6), params, alone[0])
        got, stats = train_mode(*alone)
        np.testing.assert_allclose(outputs[member], got, atol=1e-5)
        jax.tree.map(lambda a, b, m=member: np.testing.assert_allclose(a[m], b, atol=1e-5), after, stats)


def test_block_is_random_and_has_a_kernel_if_what_is_in_it_is():
    assert residual((squeeze_excite(3, 1),)).has_kernel
    assert not residual((BatchNorm(),)).has_kernel
    assert residual((residual((SpatialDropout(0.1),)),)).is_random
    assert not residual(()).has_params
    assert residual((residual((BatchNorm(),)),)).takes_mask


JOINED = {"add": "Add", "concat": "Concatenate", "multiply": "Multiply"}


def of_keras(keras: Any, layers: Any, x: Any, made: list[Any]) -> Any:
    """Our layers as Keras's functional model; `made` gets those with weights, in the order of our arrays."""
    k = keras.layers
    for layer in layers:
        if isinstance(layer, Paths):
            outputs = [of_keras(keras, path, x, made) for path in layer.paths]
            x = getattr(k, JOINED[layer.join])()(outputs)
            x = k.Activation(layer.activation)(x) if layer.activation else x
            continue
        match layer:
            case Conv():
                new = k.Conv2D(layer.filters, layer.kernel_size, padding=layer.padding, activation=layer.activation)
            case DepthwiseConv():
                new = k.DepthwiseConv2D(layer.kernel_size, padding=layer.padding)
            case BatchNorm():
                new = k.BatchNormalization()
            case MaxPool():
                new = k.MaxPooling2D(layer.size, layer.strides, layer.padding)
            case GlobalAveragePool():
                new = k.GlobalAveragePooling2D(keepdims=layer.keep_axes)
            case Dense():
                new = k.Dense(layer.units)
            case _:
                raise NotImplementedError(layer)
        made.append(new)
        x = new(x)
    return x


def random_block(draw: np.random.Generator, channels: int, depth: int) -> Paths:
    """Paths of one or two layers and of blocks, which keep the size of images."""
    options = [
        lambda: Conv(channels, int(draw.integers(1, 4)), padding="same", activation="tanh"),
        lambda: DepthwiseConv(3, padding="same"),
        lambda: BatchNorm(),
        lambda: MaxPool(3, 1, "same"),
        lambda: squeeze_excite(channels, 2, "tanh"),
    ]

    def path() -> tuple[Layer, ...]:
        inner = (random_block(draw, channels, depth - 1),) if depth and draw.random() < 0.6 else ()
        return (*(options[draw.integers(len(options))]() for _ in range(draw.integers(1, 3))), *inner)

    paths = tuple(path() for _ in range(draw.integers(1, 3)))
    join: Any = draw.choice(["add", "concat", "multiply"]).item()
    block = Paths((*paths, ()), join, "tanh")
    return Paths(((block, Conv(channels, 1)),) * 1 + ((),)) if join == "concat" else block


@pytest.mark.parametrize("seed", [*range(2), *further(range(2, 7))])
def test_random_blocks_give_outputs_and_gradients_of_keras(keras, seed: int):
    lowering: Any = "direct" if seed % 2 else "xla"
    draw = np.random.default_rng(seed)
    spec = Sequential((Conv(4, 3), random_block(draw, 4, 2), MaxPool(2, 2, "valid"), GlobalAveragePool(), Dense(3)))
    made: list[Any] = []
    images = keras.Input(SHAPE)
    with jax.numpy_rank_promotion("allow"):
        theirs = keras.Model(images, of_keras(keras, spec.layers, images, made))
    graph, params, rest = nnx.split(nnx.jit(lambda: build(spec, SHAPE, 3, nnx.Rngs(0), lowering))(), nnx.Param, ...)
    flat = nnx.to_flat_state(params)
    kinds = ("kernel", "scale", "bias")
    order = sorted(range(len(flat)), key=lambda n: (*_numbers(flat[n][0]), kinds.index(flat[n][0][-1])))
    variables = [v for layer in made for v in layer.trainable_variables]
    assert len(variables) == len(flat)
    values = [draw.normal(0.1, 0.4, v.shape).astype(np.float32) for v in variables]
    filled = {flat[n][0]: jnp.asarray(v.reshape(flat[n][1].shape)) for n, v in zip(order, values, strict=True)}
    params = nnx.from_flat_state([(path, variable.replace(filled[path])) for path, variable in flat])
    x = jnp.asarray(draw.normal(0, 1, (3, *SHAPE)), jnp.float32)

    def of_ours(params: Any) -> Any:
        return jnp.sum(jnp.sin(nnx.merge(graph, params, rest, copy=True)(x)))

    def of_theirs(values: Any) -> Any:
        by_variable = {id(v): value for v, value in zip(variables, values, strict=True)}
        trained = [by_variable[id(v)] for v in theirs.trainable_variables]
        fixed = [v.value for v in theirs.non_trainable_variables]
        return jnp.sum(jnp.sin(theirs.stateless_call(trained, fixed, x, training=True)[0]))

    got, gradients = jax.jit(jax.value_and_grad(of_ours))(params)
    with jax.numpy_rank_promotion("allow"):
        expected, their_gradients = jax.jit(jax.value_and_grad(of_theirs))([jnp.asarray(v) for v in values])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)
    ours = dict(nnx.to_flat_state(gradients))
    for n, theirs_one in zip(order, their_gradients, strict=True):
        scale = max(1.0, float(jnp.abs(theirs_one).max()))
        np.testing.assert_allclose(
            ours[flat[n][0]][...].reshape(theirs_one.shape) / scale, theirs_one / scale, atol=2e-4
        )


def _numbers(path: tuple[Any, ...]) -> tuple[int, ...]:
    return tuple(part for part in path if isinstance(part, int))
