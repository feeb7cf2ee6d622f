"""Cropping: what is left out is what no output depends on, and no less of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engine.errors import InputError
from engine.models import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Crop,
    Dense,
    DepthwiseConv,
    Dropout,
    Flatten,
    GlobalAveragePool,
    LayerNorm,
    MaxPool,
    Rescale,
    SeparableConv,
    Sequential,
    ZeroPad,
    cnn,
)  # fmt: skip
from engine.models.cropping import inputs_that_count
from engine.models.layer import Layer
from engine.networks.build import SequentialModule, build

PADDINGS = st.sampled_from(["valid", "same", 0, 1])
SIZES = st.tuples(st.integers(2, 3), st.integers(2, 3))
STRIDES = st.integers(1, 3)
IMAGE_LAYERS = st.lists(
    st.one_of(
        st.builds(
            Conv, st.integers(1, 3), st.integers(1, 3), STRIDES, PADDINGS, st.integers(1, 2),
            activation=st.sampled_from([None, "tanh", "softmax"]),
        ),
        st.builds(DepthwiseConv, st.integers(1, 3), STRIDES, PADDINGS, st.integers(1, 2), st.integers(1, 2)),
        st.builds(SeparableConv, st.integers(1, 3), st.integers(1, 3), STRIDES, PADDINGS, st.integers(1, 2)),
        st.builds(MaxPool, SIZES, st.none() | STRIDES, PADDINGS),
        st.builds(AveragePool, SIZES, st.none() | STRIDES, PADDINGS),
        st.sampled_from([Activation("silu"), Rescale(2.0, 1.0), BatchNorm(), Dropout(0.0)]),
        st.sampled_from([LayerNorm(), ZeroPad(), Crop()]),
    ),
    min_size=1,
    max_size=5,
)  # fmt: skip
SHAPE = (15, 14, 2)


def shapes_of(spec: Sequential, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [shape, *(row.output_shape for row in spec.rows(shape))]


def test_convnet_computes_what_its_pools_reach():
    spec = cnn((32, 64, 128)).with_outputs(10)
    counted = inputs_that_count(spec.layers, shapes_of(spec, (28, 28, 1)))
    assert counted == [(26, 26, 1), (24, 24, 32), (12, 12, 32), (10, 10, 64), (5, 5, 64), (3, 3, 128), (1152,)]


@pytest.mark.parametrize("layer", [BatchNorm(), Dropout(0.1), Conv(2, 3, padding="same"), Conv(2, 3, padding=1)])
def test_statistics_draws_and_padding_need_the_whole_image(layer: Layer):
    spec = Sequential((Conv(2, 3), layer, MaxPool(2), Flatten()))
    counted = inputs_that_count(spec.layers, shapes_of(spec, (9, 9, 1)))
    assert counted[:3] == [(9, 9, 1), (7, 7, 2), (6, 6, 2)]


def plainly(module: SequentialModule, x: jax.Array) -> jax.Array:
    """The layers one after the other, on all that each gives."""
    for layer in module.layers:
        x = layer(x)  # type: ignore[operator]
    return x


@settings(deadline=None, max_examples=6)
@given(IMAGE_LAYERS, st.booleans())
def test_outputs_and_gradients_are_those_of_the_whole_images(body: list[Layer], flat: bool):
    spec = Sequential((*body, Flatten() if flat else GlobalAveragePool(), Dense(3)))
    try:
        shapes = shapes_of(spec, SHAPE)
    except InputError:
        assume(False)
    module = nnx.jit(lambda: build(spec, SHAPE, 3, nnx.Rngs(0)))()
    assert isinstance(module, SequentialModule)
    images = jnp.asarray(np.random.default_rng(1).normal(size=(2, *SHAPE)), jnp.float32)

    def loss(call, module: SequentialModule, images: jax.Array) -> jax.Array:
        return jnp.sum(jnp.sin(call(module, images)))

    both = []
    for call in (SequentialModule.__call__, plainly):
        copied = nnx.clone(module)
        of_both = nnx.value_and_grad(lambda m, x, c=call: loss(c, m, x), argnums=(0, 1))
        both.append(nnx.jit(of_both)(copied, images))
        both[-1] = (both[-1], nnx.state(copied, nnx.BatchStat))
    for ours, theirs in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    # Where something was left out, nothing depends on it.
    counted = inputs_that_count(spec.layers, shapes)[0]
    gradient = np.array(jax.tree.leaves(both[1][0][1][1])[0])
    gradient[:, : counted[0], : counted[1]] = 0
    np.testing.assert_array_equal(gradient, 0)
