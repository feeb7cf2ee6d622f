"""Layers of tokens, beside Keras's attention."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from engine.errors import InputError
from engine.models import (
    Attention,
    ClassToken,
    Conv,
    Dense,
    FirstToken,
    Flatten,
    LayerNorm,
    PositionEmbedding,
    Sequential,
    Tokens,
    residual,
)
from engine.networks.build import build


def vit() -> Sequential:
    """A vision transformer of one block."""
    mlp = (LayerNorm(1e-6), Dense(24, "gelu"), Dense(12))
    return Sequential(
        (
            *(Conv(12, 4, 4), Tokens(), ClassToken(), PositionEmbedding()),
            *(residual((LayerNorm(1e-6), Attention(3)), activation=None), residual(mlp, activation=None)),
            *(LayerNorm(1e-6), FirstToken(), Dense()),
        )
    )


def test_transformer_has_the_shapes_and_counts_of_its_module():
    spec = vit().with_outputs(5)
    rows = spec.rows((16, 12, 3))
    assert [row.output_shape for row in rows][1:5] == [(12, 12), (13, 12), (13, 12), (13, 12)]
    module = build(spec, (16, 12, 3), 5, nnx.Rngs(0))
    params = jax.tree.leaves(nnx.state(module, nnx.Param))
    assert sum(leaf.size for leaf in params) == spec.num_params((16, 12, 3))
    assert module(jnp.ones((2, 16, 12, 3))).shape == (2, 5)  # type: ignore[operator]


@pytest.mark.parametrize("use_bias", [True, False])
def test_attention_is_that_of_keras(keras, use_bias: bool):
    n, d, heads, draw = 7, 12, 3, np.random.default_rng(0)
    module: Any = build(Sequential((Attention(heads, use_bias), Flatten())), (n, d), n * d, nnx.Rngs(0)).layers[0]
    theirs = keras.layers.MultiHeadAttention(heads, d // heads, flash_attention=False)
    x = jnp.asarray(draw.normal(size=(2, n, d)), jnp.float32)
    with jax.numpy_rank_promotion("allow"):
        theirs(x, x)
        values = [draw.normal(0, 0.5, v.shape).astype(np.float32) for v in theirs.weights]
        for at in (1, 3, 5) if not use_bias else ():
            values[at] = np.zeros_like(values[at])
        theirs.set_weights(values)
        expected = theirs(x, x)
    q, bq, k, bk, v, bv, out, bias = values
    module.qkv.kernel[...] = jnp.concatenate([w.reshape(d, d) for w in (q, k, v)], axis=1)
    if use_bias:
        module.qkv.bias[...] = jnp.concatenate([b.reshape(d) for b in (bq, bk, bv)])
    module.projection.kernel[...], module.projection.bias[...] = jnp.asarray(out.reshape(d, d)), jnp.asarray(bias)
    np.testing.assert_allclose(module(x), expected, atol=2e-5)


def test_class_token_comes_first_and_positions_are_added():
    module: Any = build(Sequential((ClassToken(), PositionEmbedding(), Flatten())), (3, 2), 8, nnx.Rngs(0))
    module.layers[0].token[...] = jnp.full((1, 1, 2), 5.0)
    module.layers[1].embedding[...] = jnp.arange(8.0).reshape(1, 4, 2)
    got = module(jnp.ones((2, 3, 2))).reshape(2, 4, 2)
    np.testing.assert_array_equal(got[1], [[5, 6], [3, 4], [5, 6], [7, 8]])
    np.testing.assert_array_equal(FirstToken().apply(got), got[:, 0])


def test_tokens_are_pixels_row_by_row():
    x = jnp.arange(24.0).reshape(1, 3, 4, 2)
    np.testing.assert_array_equal(Tokens().apply(x)[0, 5], x[0, 1, 1])


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Attention(5), (7, 12), "multiple of 5"),
        (Attention(3), (7, 7, 12), "Put Tokens"),
        (ClassToken(), (12,), "Put Tokens"),
        (Dense(3), (7, 7, 12), "expected a vector"),
        (Tokens(), (7, 12), "got tokens of 7×12"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(layer: Any, shape: tuple[int, ...], message: str):
    with pytest.raises(InputError, match=message):
        layer.output_shape(shape)


@pytest.mark.parametrize("make", [lambda: Attention(0), lambda: Attention(2, kernel_initializer="best")])
def test_attention_checks_its_numbers(make: Any):
    with pytest.raises(InputError):
        make()
