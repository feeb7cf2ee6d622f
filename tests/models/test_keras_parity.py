"""Layers, activations, initializers and optimizers beside those of Keras 3 of their names, on its JAX backend."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from engine.config import OptimConfig, TrainConfig
from engine.config.contract import InputSpec
from engine.metrics.losses import kernel_penalty, penalty
from engine.metrics.sums import make_scoring
from engine.models import (
    L1L2,
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    ConvTranspose,
    Crop,
    Dense,
    DepthwiseConv,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    LayerNorm,
    MaxPool,
    PReLU,
    Rescale,
    SeparableConv,
    Sequential,
    UpSample,
    ZeroPad,
    l2,
)
from engine.models.activations import ACTIVATIONS
from engine.models.layer import Layer
from engine.models.weights import INITIALIZERS, REGULARIZERS, initializer, regularizer_of
from engine.networks.build import build
from engine.networks.network import network_of
from engine.training.optim import optimizer
from engine.training.state import init_state
from engine.training.step import Batch, Objective, train_step
from tests.further import further

SHAPE, NUM_OUTPUTS, BATCH = (10, 11, 3), 4, 6


# Activations

NAMES_IN_KERAS = {"gelu_tanh": "gelu", "hard_swish": "hard_silu"}
SLOPE_IN_KERAS = {"leaky_relu": "negative_slope", "elu": "alpha", "celu": "alpha"}


@pytest.mark.parametrize(
    ("name", "slope"),
    [*((name, None) for name in ACTIVATIONS), *((n, 0.35) for n, kind in ACTIVATIONS.items() if kind.slope)],
)
def test_activation_is_that_of_keras(keras, name: str, slope: float | None):
    theirs = getattr(keras.activations, NAMES_IN_KERAS.get(name, name))
    named = {"approximate": True} if name == "gelu_tanh" else {}
    named |= {SLOPE_IN_KERAS[name]: slope} if slope is not None else {}
    values = jnp.asarray(np.random.default_rng(0).normal(0, 3, (5, 40)), jnp.float32)
    values = values.at[0].set(jnp.linspace(-9, 9, 40))
    ours = Activation(name, slope).apply
    np.testing.assert_allclose(ours(values), theirs(values, **named), rtol=1e-6, atol=1e-6)
    weights = jnp.cos(jnp.arange(200.0)).reshape(5, 40)
    got, expected = (jax.grad(lambda x, f=f: jnp.sum(weights * f(x)))(values) for f in (ours, partial(theirs, **named)))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


# Stacks of layers


def keras_layers(keras: Any, layer: Layer) -> list[Any]:
    """The layers of Keras that a layer of ours stands for."""
    k = keras.layers
    settings = {name: getattr(layer, name) for name in ("strides", "padding") if hasattr(layer, name)}
    activation = keras_activation(keras, getattr(layer, "activation", None))
    of_kernel = {"activation": activation, "use_bias": getattr(layer, "use_bias", None)}
    size = getattr(layer, "kernel_size", None)
    match layer:
        case Dense():
            return [k.Dense(layer.units, **of_kernel)]
        case Conv():
            grouped = {"groups": layer.groups, "dilation_rate": layer.dilation}
            return [k.Conv2D(layer.filters, size, **settings, **grouped, **of_kernel)]
        case DepthwiseConv():
            many = {"depth_multiplier": layer.multiplier, "dilation_rate": layer.dilation}
            return [k.DepthwiseConv2D(size, **settings, **many, **of_kernel)]
        case SeparableConv():
            many = {"depth_multiplier": layer.multiplier, "dilation_rate": layer.dilation}
            return [k.SeparableConv2D(layer.filters, size, **settings, **many, **of_kernel)]
        case ConvTranspose():
            return [k.Conv2DTranspose(layer.filters, size, **settings, **of_kernel)]
        case MaxPool():
            return [k.MaxPooling2D(layer.size, **settings)]
        case AveragePool():
            return [k.AveragePooling2D(layer.size, **settings)]
        case GlobalAveragePool():
            return [k.GlobalAveragePooling2D()]
        case GlobalMaxPool():
            return [k.GlobalMaxPooling2D()]
        case Flatten():
            return [k.Flatten()]
        case BatchNorm():
            return [k.BatchNormalization(momentum=layer.momentum, epsilon=layer.epsilon)]
        case LayerNorm():
            return [k.LayerNormalization(epsilon=layer.epsilon)]
        case GroupNorm():
            return [k.GroupNormalization(layer.groups, epsilon=layer.epsilon)]
        case PReLU():
            return [k.PReLU(shared_axes=layer.shared_axes or None)]
        case Activation():
            return [k.Activation(keras_activation(keras, layer))]
        case Rescale():
            return [k.Rescaling(layer.scale, layer.offset)]
        case UpSample():
            return [k.UpSampling2D(layer.size, interpolation=layer.interpolation)]
        case ZeroPad():
            return [k.ZeroPadding2D(layer.padding)]
        case Crop():
            return [k.Cropping2D(layer.cropping)]
    raise AssertionError(layer)


def keras_activation(keras: Any, activation: str | Activation | None) -> Any:
    if activation is None or isinstance(activation, str) or activation.slope is None:
        name = getattr(activation, "function", activation) or "linear"
        return partial(keras.activations.gelu, approximate=True) if name == "gelu_tanh" else name
    return partial(
        getattr(keras.activations, activation.function), **{SLOPE_IN_KERAS[activation.function]: activation.slope}
    )


IMAGE_LAYERS: list[Callable[[np.random.Generator], Layer]] = [
    lambda d: Conv(int(d.choice([2, 4, 6])), size_of(d), stride_of(d), padding_of(d), activation=activation_of(d)),
    lambda d: Conv(4, 3, 1, padding_of(d), dilation=2, use_bias=False, activation=activation_of(d)),
    lambda d: DepthwiseConv(size_of(d), 1, padding_of(d), int(d.integers(1, 4)), activation=activation_of(d)),
    lambda d: SeparableConv(4, size_of(d), 1, padding_of(d), int(d.integers(1, 3)), activation=activation_of(d)),
    lambda d: ConvTranspose(3, size_of(d), stride_of(d), padding_of(d), activation=activation_of(d)),
    lambda d: MaxPool(2, None, padding_of(d)),
    lambda d: AveragePool(int(d.integers(2, 4)), int(d.integers(1, 3)), padding_of(d)),
    lambda d: BatchNorm(),
    lambda d: LayerNorm(),
    lambda d: GroupNorm(int(d.integers(1, 4))),
    lambda d: PReLU((1, 2) if d.random() < 0.5 else ()),
    lambda d: as_layer(activation_of(d) or "mish"),
    lambda d: UpSample(2, "nearest" if d.random() < 0.5 else "bilinear"),
    lambda d: ZeroPad(((1, 0), (2, 1))),
    lambda d: Crop(((1, 0), (0, 1))),
    lambda d: Rescale(0.5, 0.1),
]


def size_of(draw: np.random.Generator) -> tuple[int, int]:
    return tuple(draw.integers(1, 4, 2).tolist())


def stride_of(draw: np.random.Generator) -> int:
    return int(draw.integers(1, 3))


def padding_of(draw: np.random.Generator) -> str:
    return str(draw.choice(["valid", "same"]))


def activation_of(draw: np.random.Generator) -> Any:
    smooth = [None, "relu", "gelu", "gelu_tanh", "silu", "selu", "tanh", "softplus", "hard_silu"]
    return Activation("leaky_relu", 0.15) if draw.random() < 0.1 else smooth[draw.integers(len(smooth))]


def as_layer(activation: str | Activation) -> Activation:
    return Activation(activation) if isinstance(activation, str) else activation


def random_stack(seed: int) -> Sequential:
    """Up to five layers of images with a head, that fit one another; each kind comes up again after sixteen seeds."""
    draw = np.random.default_rng(seed)
    while True:
        first = IMAGE_LAYERS[seed % len(IMAGE_LAYERS)](draw)
        rest = [IMAGE_LAYERS[draw.integers(len(IMAGE_LAYERS))](draw) for _ in range(draw.integers(1, 5))]
        # The gradient of jnp.max, which Keras takes, is NaN or worse where XLA fuses it with what is before it.
        largest = (Conv(5, 1), GlobalMaxPool())
        heads = [(Flatten(),), (GlobalAveragePool(),), largest, (GlobalAveragePool(), Dense(5, "selu"))]
        body = [rest[0], first, *rest[1:], *heads[draw.integers(len(heads))], Dense(NUM_OUTPUTS)]
        try:
            Sequential(tuple(body)).rows(SHAPE)
        except ValueError:
            continue
        return Sequential(tuple(body))


def weights_of_ours(module: nnx.Module, kinds: Any) -> list[Any]:
    """The variables of each layer in the order in which Keras has them."""
    order = ("depthwise", "pointwise", "kernel", "scale", "bias", "slope", "mean", "var")

    def place(path: tuple) -> tuple:
        names = [part for part in path if isinstance(part, str) and part in order]
        return (path[1], *(order.index(name) for name in names))

    flat = dict(nnx.to_flat_state(nnx.state(module, kinds)))
    return [flat[path] for path in sorted(flat, key=place)]


def in_float64(graph: Any, params: Any, rest: Any, images: jax.Array) -> np.ndarray:
    """What a module gives for images, computed in float64."""
    with jax.enable_x64(True):
        wide = [jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree) for tree in (params, rest, images)]
        return np.asarray(jax.jit(lambda p, r, x: nnx.merge(graph, p, r, copy=True)(x))(*wide))


@pytest.mark.parametrize("seed", [*range(6), *further(range(6, 30))])
def test_random_stack_gives_outputs_and_gradients_of_keras(keras, seed: int):
    spec, draw = random_stack(seed), np.random.default_rng(100 + seed)
    theirs = keras.Sequential([keras.Input(SHAPE), *(e for layer in spec.layers for e in keras_layers(keras, layer))])
    module = jax.jit(lambda: nnx.split(build(spec, SHAPE, NUM_OUTPUTS, nnx.Rngs(0))))
    graph, state = module()
    module = nnx.merge(graph, state)
    ours = weights_of_ours(module, nnx.Param)
    assert len(ours) == len(theirs.trainable_variables), spec
    values = []
    for variable, ref in zip(ours, theirs.trainable_variables, strict=True):
        assert variable.size == np.prod(ref.shape)
        drawn = draw.normal(0.1, 0.4, ref.shape).astype(np.float32)
        variable[...] = jnp.asarray(drawn.reshape(variable.shape))
        values.append(jnp.asarray(drawn))
    images = jnp.asarray(draw.normal(0.3, 1, (BATCH, *SHAPE)), jnp.float32)
    weights = jnp.asarray(draw.normal(0, 1, (BATCH, NUM_OUTPUTS)), jnp.float32)
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def of_ours(params: Any) -> tuple:
        merged = nnx.merge(graph, params, rest, copy=True)
        outputs = merged(images)
        return jnp.sum(weights * jnp.tanh(outputs)), (outputs, weights_of_ours(merged, nnx.BatchStat))

    def of_theirs(values: Any) -> tuple:
        fixed = [v.value for v in theirs.non_trainable_variables]
        outputs, after = theirs.stateless_call(values, fixed, images, training=True)
        return jnp.sum(weights * jnp.tanh(outputs)), (outputs, after)

    def both(params: Any, values: Any) -> tuple:
        return jax.value_and_grad(of_ours, has_aux=True)(params), jax.value_and_grad(of_theirs, has_aux=True)(values)

    with jax.numpy_rank_promotion("allow"):
        ((_, (got, stats)), gradients), ((_, (expected, their_stats)), their_gradients) = jax.jit(both)(params, values)
    has_batch_norm = any(isinstance(layer, BatchNorm) for layer in spec.layers)
    scale = max(1.0, float(np.abs(expected).max()))
    if has_batch_norm:
        # Keras computes x·factor + (bias − mean·factor), which loses digits far from 0 (stack 11: 1.6e-6).
        exact = in_float64(graph, params, rest, images)
        np.testing.assert_allclose(got / scale, exact / scale, rtol=0, atol=4e-7)
        np.testing.assert_allclose(expected / scale, exact / scale, rtol=0, atol=3e-6)
    else:
        np.testing.assert_allclose(got / scale, expected / scale, rtol=0, atol=1e-6)
    merged = nnx.merge(graph, gradients, rest)
    for own, ref in zip(weights_of_ours(merged, nnx.Param), their_gradients, strict=True):
        scale = max(1.0, float(np.abs(ref).max()))
        own = np.asarray(own).reshape(ref.shape)
        np.testing.assert_allclose(own / scale, ref / scale, rtol=0, atol=1e-4 if has_batch_norm else 1e-5)
    for own, ref in zip(stats, their_stats, strict=True):
        np.testing.assert_allclose(own, ref, rtol=1e-4, atol=1e-5)


# Optimizers

NUM_STEPS, RATE = 20, 0.02
# Ours, and the class of Keras with its arguments beside the learning rate.
OPTIMIZERS: dict[str, tuple[OptimConfig, str, dict[str, Any]]] = {
    "sgd": (OptimConfig("sgd", RATE), "SGD", {}),
    "sgd decayed": (OptimConfig("sgd", RATE, weight_decay=0.1), "SGD", {"weight_decay": 0.1}),
    "momentum": (OptimConfig("momentum", RATE), "SGD", {"momentum": 0.9}),
    "nesterov": (
        OptimConfig("sgd", RATE, momentum=0.8, nesterov=True, weight_decay=0.1),
        "SGD",
        {"momentum": 0.8, "nesterov": True, "weight_decay": 0.1},
    ),
    "rmsprop": (OptimConfig("rmsprop", RATE), "RMSprop", {}),
    "rmsprop centered": (
        OptimConfig("rmsprop", RATE, momentum=0.5, rho=0.8, epsilon=1e-4, centered=True, weight_decay=0.1),
        "RMSprop",
        {"momentum": 0.5, "rho": 0.8, "epsilon": 1e-4, "centered": True, "weight_decay": 0.1},
    ),
    "adam": (OptimConfig("adam", RATE), "Adam", {}),
    "adam epsilon": (
        OptimConfig("adam", RATE, epsilon=1e-3, beta_1=0.8, beta_2=0.99),
        "Adam",
        {"epsilon": 1e-3, "beta_1": 0.8, "beta_2": 0.99},
    ),
    "amsgrad": (OptimConfig("adam", RATE, amsgrad=True, beta_2=0.9), "Adam", {"amsgrad": True, "beta_2": 0.9}),
    "adam decayed": (OptimConfig("adam", RATE, weight_decay=0.1), "Adam", {"weight_decay": 0.1}),
    "adam clipped": (OptimConfig("adam", RATE, clip_norm=0.1), "Adam", {"global_clipnorm": 0.1}),
    "adamw": (OptimConfig("adamw", RATE), "AdamW", {}),
    "adamw amsgrad": (
        OptimConfig("adamw", RATE, weight_decay=0.3, amsgrad=True),
        "AdamW",
        {"weight_decay": 0.3, "amsgrad": True},
    ),
    "lion": (OptimConfig("lion", RATE, beta_1=0.8, weight_decay=0.1), "Lion", {"beta_1": 0.8, "weight_decay": 0.1}),
    "lamb": (OptimConfig("lamb", RATE), "Lamb", {}),
}
SCHEDULED = [(name, "cosine", False) for name in ("nesterov", "rmsprop centered", "adamw")]
CASES = [*((name, "constant", False) for name in OPTIMIZERS), *SCHEDULED, ("adam", "constant", True)]


def trained_by_keras(keras: Any, make: Callable[[], Any], values: list, batches: tuple, penalties: list) -> list:
    """The weights of an MLP with relu after NUM_STEPS steps."""
    layers = [keras.layers.Dense(5, "relu", kernel_regularizer=penalties[0]), keras.layers.Dense(3)]
    model, chain = keras.Sequential([keras.Input((4,)), *layers]), make()
    chain.build(model.trainable_variables)

    def loss(values: list, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        outputs, _, costs = model.stateless_call(values, [], inputs, training=True, return_losses=True)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, outputs) + sum(costs)

    def step(carry: tuple, batch: tuple) -> tuple:
        values, state = carry
        return chain.stateless_apply(state, jax.grad(loss)(values, *batch), values), None

    with jax.numpy_rank_promotion("allow"):
        start = (values, [variable.value for variable in chain.variables])
        ((values, _), _) = jax.jit(lambda start: jax.lax.scan(step, start, batches))(start)
    return [np.asarray(value) for value in values]


def trained_by_us(config: OptimConfig, values: list, batches: tuple, penalties: list) -> list:
    """As `trained_by_keras`."""
    spec = Sequential((Dense(5, "relu", kernel_regularizer=penalties[0]), Dense(3)))
    network, _ = network_of(spec, (4,), 3, "xla")
    params = {"layers": {0: {"layer": {"kernel": values[0], "bias": values[1]}}}}
    params["layers"][1] = {"kernel": values[2], "bias": values[3]}
    inputs = InputSpec(shape=(4,), dtype="float32", scale=1.0)
    chain = optimizer(config, NUM_STEPS, 1)
    scoring = make_scoring(TrainConfig(), 3, task="classes")
    objective = Objective(network, scoring, 0.0, chain, inputs, penalty=kernel_penalty(spec))

    def step(state: Any, batch: tuple) -> tuple:
        batch = Batch(*batch, jnp.ones(len(batch[1]), bool))
        return train_step(objective, state, batch, jax.random.key(0))[0], None

    state = init_state(nnx.State(params), nnx.State({}), chain)
    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, batches))(state)
    first, last = (state.params["layers"][number] for number in (0, 1))
    return [
        np.asarray(leaf) for leaf in (*(first["layer"][n] for n in ("kernel", "bias")), last["kernel"], last["bias"])
    ]


@pytest.mark.parametrize(("name", "course", "is_penalised"), CASES)
def test_twenty_whole_steps_are_those_of_keras(keras, name: str, course: str, is_penalised: bool):
    config, theirs, settings = OPTIMIZERS[name]
    draw = np.random.default_rng(3)
    shapes = [(4, 5), (5,), (5, 3), (3,)]
    values = [jnp.asarray(draw.normal(0, 0.5, shape), jnp.float32) for shape in shapes]
    inputs = draw.normal(0, 1, (NUM_STEPS, 8, 4)).astype(np.float32)
    batches = (jnp.asarray(inputs), jnp.asarray(draw.integers(0, 3, (NUM_STEPS, 8)), jnp.int32))
    rate = keras.optimizers.schedules.CosineDecay(RATE, NUM_STEPS) if course == "cosine" else RATE
    make = partial(getattr(keras.optimizers, theirs), rate, **settings)
    their_penalty = keras.regularizers.L1L2(0.01, 0.1) if is_penalised else None
    expected = trained_by_keras(keras, make, values, batches, [their_penalty])
    got = trained_by_us(replace(config, schedule=course), values, batches, [L1L2(0.01, 0.1) if is_penalised else None])
    for own, ref, start in zip(got, expected, values, strict=True):
        np.testing.assert_allclose(own, ref, rtol=0, atol=1e-5)
        assert np.abs(own - np.asarray(start)).max() > 1e-3


def test_default_rates_and_decay_are_those_of_keras(keras):
    for name, theirs in (
        ("sgd", "SGD"),
        ("rmsprop", "RMSprop"),
        ("adam", "Adam"),
        ("adamw", "AdamW"),
        ("lion", "Lion"),
    ):
        assert float(getattr(keras.optimizers, theirs)().learning_rate) == pytest.approx(
            OptimConfig(name).learning_rate
        )


# Initializers and regularizers


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initializer_draws_from_the_distribution_of_keras(keras, name: str):
    settings = {} if name in ("zeros", "ones") else {"seed": 2}
    theirs = getattr(keras.initializers, "".join(part.title() for part in name.split("_")))(**settings)
    for kind, shape in (("dense", (40, 60)), ("conv", (3, 3, 20, 30))):
        with jax.numpy_rank_promotion("allow"):
            pair = initializer(name)(jax.random.key(1), shape, jnp.float32), theirs(shape)
        ours, ref = (np.asarray(draw, np.float64) for draw in pair)
        assert ours.std() == pytest.approx(ref.std(), rel=0.05, abs=1e-7), kind
        assert abs(ours.mean() - ref.mean()) <= 0.1 * ref.std()
        assert np.abs(ours).max() == pytest.approx(np.abs(ref).max(), rel=0.25)


@pytest.mark.parametrize("name", ["glorot_uniform", "he_uniform"])
@pytest.mark.parametrize(
    ("layer", "theirs"),
    [
        (
            DepthwiseConv(3, multiplier=8),
            lambda k, n: k.DepthwiseConv2D(3, depth_multiplier=8, depthwise_initializer=n),
        ),
        (ConvTranspose(40, 3), lambda k, n: k.Conv2DTranspose(40, 3, kernel_initializer=n)),
        (Conv(40, 3, groups=2), lambda k, n: k.Conv2D(40, 3, groups=2, kernel_initializer=n)),
    ],
    ids=["depthwise", "transposed", "grouped"],
)
def test_kernel_has_the_bounds_of_keras(keras, layer: Layer, theirs: Callable, name: str):
    spec = Sequential((replace(layer, kernel_initializer=name), Flatten(), Dense(3)))
    module = build(spec, (5, 5, 24), 3, nnx.Rngs(0))
    twin = theirs(keras.layers, name)
    twin.build((None, 5, 5, 24))
    ours, ref = np.asarray(module.layers[0].kernel[...]), np.asarray(twin.kernel)
    assert ours.size == ref.size
    assert np.abs(ours).max() == pytest.approx(np.abs(ref).max(), rel=0.02)


@pytest.mark.parametrize("regularizer", [*REGULARIZERS, l2(0.3), L1L2(0.1, 0.2)])
def test_regularizer_costs_what_it_does_in_keras(keras, regularizer: Any):
    kernel = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5)), jnp.float32)
    spec = regularizer_of(regularizer)
    theirs = keras.regularizers.L1L2(spec.l1, spec.l2)
    np.testing.assert_allclose(penalty(spec, kernel), theirs(kernel), rtol=1e-6)
    if regularizer in ("l1", "l2"):
        np.testing.assert_allclose(penalty(spec, kernel), keras.regularizers.get(regularizer)(kernel), rtol=1e-6)
