"""A workload in plain Flax, as any of its users writes it: one jitted call a step. See benchmarks/peers.py."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from benchmarks.peers_worker import Job, Unavailable
from engine.models import Conv, Dense, Dropout, Flatten, MaxPool, Sequential
from engine.models.shapes import pair


class PlainNetwork(nnx.Module):
    """The layers of a spec as Flax's own."""

    def __init__(self, spec: Sequential, input_shape: tuple[int, ...], dtype: Any, rngs: nnx.Rngs):
        shapes = [input_shape, *(row.output_shape for row in spec.rows(input_shape))]
        layers = [_layer(layer, shape, dtype, rngs) for layer, shape in zip(spec.layers, shapes, strict=False)]
        self.layers = nnx.List(layers)
        self.is_rectified = [getattr(layer, "activation", None) == "relu" for layer in spec.layers]

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b k]."""
        for layer, is_rectified in zip(self.layers, self.is_rectified, strict=True):
            x = layer(x)
            x = nnx.relu(x) if is_rectified else x
        return x


class Pool(nnx.Module):
    """nnx.max_pool as a layer."""

    def __init__(self, size: tuple[int, int], strides: tuple[int, int]):
        self.size, self.strides = size, strides

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b y x c]."""
        return nnx.max_pool(x, self.size, self.strides)


class Rows(nnx.Module):
    """Flattening as a layer."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b h w c] → [b d]."""
        return x.reshape(len(x), -1)


def _layer(layer: Any, shape: tuple[int, ...], dtype: Any, rngs: nnx.Rngs) -> nnx.Module:
    match layer:
        case Conv(filters, kernel_size, strides, padding):
            assert isinstance(padding, str)
            assert layer.groups == 1
            return nnx.Conv(
                shape[2], filters, pair(kernel_size), pair(strides),
                padding=padding.upper(), use_bias=layer.use_bias, dtype=dtype, rngs=rngs,
            )  # fmt: skip
        case MaxPool(size, strides, padding):
            assert padding == "valid"
            return Pool(pair(size), pair(strides or size))
        case Flatten():
            return Rows()
        case Dropout(rate):
            return nnx.Dropout(rate, rngs=rngs)
        case Dense(units):
            assert units is not None
            return nnx.Linear(shape[0], units, use_bias=layer.use_bias, dtype=dtype, rngs=rngs)
    raise TypeError(f"no counterpart of {layer}")


class FlaxPeer:
    """uint8 images on the device; each step gathers its batch, converts it and updates a donated state."""

    def __init__(self, job: Job):
        self.job = job
        set_precision(job.precision)
        workload = job.workload
        dtype = jnp.bfloat16 if job.precision == "bfloat16" else jnp.float32
        module = PlainNetwork(workload.model(), workload.input_shape, dtype, nnx.Rngs(0))
        graph, params, rest = nnx.split(module, nnx.Param, ...)
        self.num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
        config, is_binary = workload.config(), workload.num_outputs == 1
        chain = _optimizer(config.optim.name, config.optim.learning_rate)

        def objective(params: Any, rest: Any, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, Any]:
            network = nnx.merge(graph, params, rest, copy=True)  # dropout counts its draws
            outputs = network(images.astype(jnp.float32) / 255).astype(jnp.float32)
            if is_binary:
                losses = optax.sigmoid_binary_cross_entropy(outputs[:, 0], labels)
            else:
                losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
            return losses.mean(), nnx.split(network, nnx.Param, ...)[2]

        def step(state: tuple, images: jax.Array, labels: jax.Array, chosen: jax.Array) -> tuple[tuple, jax.Array]:
            params, rest, opt_state = state
            value_and_gradients = jax.value_and_grad(objective, has_aux=True)
            (loss, rest), gradients = value_and_gradients(params, rest, images[chosen], labels[chosen])
            updates, opt_state = chain.update(gradients, opt_state, params)
            return (optax.apply_updates(params, updates), rest, opt_state), loss

        def probabilities(params: Any, rest: Any, images: jax.Array) -> jax.Array:
            network = nnx.merge(graph, params, rest)
            network.eval()
            outputs = network(images.astype(jnp.float32) / 255).astype(jnp.float32)
            if is_binary:
                positive = jax.nn.sigmoid(outputs)
                return jnp.concatenate([1 - positive, positive], axis=-1)
            return jax.nn.softmax(outputs)

        self._state: Any = (params, rest, chain.init(params))
        self._step, self._probabilities = jax.jit(step, donate_argnums=0), jax.jit(probabilities)
        if not job.inference:
            data = workload.images(job.num_images)
            self._images, self._labels = jax.device_put((np.asarray(data.images), data.labels))
        self._draw = np.random.default_rng(0)

    def train(self, epochs: int) -> None:
        """Trains; returns when the device is done."""
        for _ in range(epochs):
            order = self._draw.permutation(self.job.num_images).astype(np.int32)
            for chosen in order.reshape(-1, self.job.workload.batch_size):
                self._state, _ = self._step(self._state, self._images, self._labels, chosen)
        jax.block_until_ready(self._state)

    def predict(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """uint8[n h w c] → float32[n k], in batches."""
        params, rest, _ = self._state
        starts = range(0, len(images), batch_size)
        return np.concatenate([self._probabilities(params, rest, images[i : i + batch_size]) for i in starts])


def set_precision(precision: str) -> None:
    """What JAX makes of a float32 product: on GPUs its default is TF32."""
    if jax.default_backend() == "cpu":
        if precision == "tf32":
            raise Unavailable("TF32 needs an NVIDIA GPU")
        return
    chosen = {"float32": "highest", "tf32": "tensorfloat32", "bfloat16": None}[precision]
    jax.config.update("jax_default_matmul_precision", chosen)


def build(job: Job) -> FlaxPeer:
    """The only variant."""
    return FlaxPeer(job)


def _optimizer(name: str, learning_rate: float) -> optax.GradientTransformation:
    if name == "adam":
        return optax.adam(learning_rate, eps=1e-7)
    assert name == "rmsprop"
    return optax.rmsprop(learning_rate, decay=0.9, eps=1e-7)
