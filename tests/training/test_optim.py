"""Every optimizer crossed with the properties all must have; schedules and single steps against arithmetic."""

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tyro

from engine.config import OptimConfig
from engine.config.optim import BY_OPTAX
from engine.config.optim import OPTIMIZERS as FACTS
from engine.errors import InputError
from engine.models import Custom, custom
from engine.records import from_json, to_json
from engine.training import optim
from engine.training.optim import optimizer
from engine.training.schedules import schedule

OPTIMIZERS = tuple(FACTS)
RATE = 0.01
KERNEL, BIAS = np.array([[1.0, -2], [3, 0.5]]), np.array([1.5, -1])
FIRST, SECOND = np.array([[0.3, -0.1], [2, -4]]), np.array([[-0.5, 0.2], [1, 0.03]])


def params_of(kernel: np.ndarray = KERNEL, bias: np.ndarray = BIAS) -> dict[str, jax.Array]:
    return {"kernel": jnp.asarray(kernel, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}


def after_steps(config: OptimConfig, gradients: list[dict[str, jax.Array]]) -> dict[str, np.ndarray]:
    """The parameters of `params_of()` after one update a gradient."""
    chain, params = optimizer(config, 10, 10), params_of()
    state, update = chain.init(params), jax.jit(chain.update)
    for gradient in gradients:
        updates, state = update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return jax.tree.map(np.asarray, params)


def zeros() -> dict[str, jax.Array]:
    return jax.tree.map(jnp.zeros_like, params_of())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_lowers_a_quadratic(name: str):
    rate = {"lars": 0.9, "muon": 0.1}.get(name, 0.02)  # their steps on kernels are a share of these
    chain, params = optimizer(OptimConfig(name, rate), 10, 10), params_of()

    def height(params: dict[str, jax.Array]) -> jax.Array:
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(params))

    def step(carry: tuple, _: None) -> tuple:
        params, state = carry
        updates, state = chain.update(jax.grad(height)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (lower, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, None, 400))((params, chain.init(params)))
    assert height(lower) < 0.01 * height(params)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_moves_nothing_when_gradient_and_decay_are_zero(name: str):
    got = after_steps(OptimConfig(name, RATE, weight_decay=0.0), [zeros(), zeros()])
    np.testing.assert_array_equal(got["kernel"], KERNEL.astype(np.float32))
    np.testing.assert_array_equal(got["bias"], BIAS.astype(np.float32))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_takes_its_share_off_all_arrays(name: str):
    got = after_steps(OptimConfig(name, RATE, weight_decay=0.1), [zeros(), zeros()])
    np.testing.assert_allclose(got["kernel"], (1 - 0.1 * RATE) ** 2 * KERNEL, rtol=1e-6)
    np.testing.assert_allclose(got["bias"], (1 - 0.1 * RATE) ** 2 * BIAS, rtol=1e-6)


@pytest.mark.parametrize("name", BY_OPTAX)
def test_weight_decay_by_the_rules_of_before_shrinks_kernels_and_leaves_biases_alone(name: str):
    got = after_steps(OptimConfig(name, RATE, weight_decay=0.1, rules="optax"), [zeros()])
    assert np.all(np.abs(got["kernel"]) < np.abs(KERNEL))
    np.testing.assert_array_equal(got["bias"], BIAS.astype(np.float32))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_clip_norm_makes_a_large_gradient_one_of_that_norm(name: str):
    config = OptimConfig(name, RATE, weight_decay=0.0, clip_norm=0.5)
    large = params_of(100 * FIRST, np.array([300.0, -50]))
    norm = np.sqrt(sum(np.sum(np.square(np.asarray(leaf, np.float64))) for leaf in large.values()))
    clipped = jax.tree.map(lambda leaf: leaf * np.float32(0.5 / norm), large)
    small = jax.tree.map(lambda leaf: leaf * np.float32(0.4 / norm), large)
    unclipped = replace(config, clip_norm=None)
    for given, expected in ((large, clipped), (small, small)):
        got, same = after_steps(config, [given, given]), after_steps(unclipped, [expected, expected])
        for leaf in ("kernel", "bias"):
            np.testing.assert_allclose(got[leaf], same[leaf], rtol=1e-5)


def test_clip_norm_is_that_of_all_gradients_together():
    gradient = params_of(np.full((2, 2), 4.0), np.full(2, 3.0))  # norm √(4 · 16 + 2 · 9)
    got = after_steps(OptimConfig("sgd", 1.0, clip_norm=1.0), [gradient])
    moved = np.concatenate([(KERNEL - got["kernel"]).ravel(), BIAS - got["bias"]])
    assert np.linalg.norm(moved) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(moved, np.array([4, 4, 4, 4, 3, 3]) / np.sqrt(82), rtol=1e-5)


def sgd(w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    for g in gradients:
        w = w - RATE * g
    return w


def momentum(w: np.ndarray, gradients: list[np.ndarray], is_nesterov: bool = False) -> np.ndarray:
    velocity = 0
    for g in gradients:
        velocity = 0.9 * velocity - RATE * g
        w = w + (0.9 * velocity - RATE * g if is_nesterov else velocity)
    return w


def nesterov(w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    return momentum(w, gradients, is_nesterov=True)


def rmsprop(w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    square = 0
    for g in gradients:
        square = 0.9 * square + 0.1 * g**2
        w = w - RATE * g / np.sqrt(square + 1e-7)
    return w


def adam(w: np.ndarray, gradients: list[np.ndarray], decay: float = 0.0) -> np.ndarray:
    mean = square = 0
    for t, g in enumerate(gradients, 1):
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        step = mean * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) / (np.sqrt(square) + 1e-7)
        w = w - RATE * (step + decay * w)
    return w


def adamw(w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    return adam(w, gradients, decay=0.004)  # what the config says of weight_decay=None


def lion(w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    mean = 0
    for g in gradients:
        w = w - RATE * np.sign(0.9 * mean + 0.1 * g)
        mean = 0.99 * mean + 0.01 * g
    return w


def lamb(w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    mean = square = 0
    for t, g in enumerate(gradients, 1):
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2
        step = mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-7)
        w = w - RATE * np.linalg.norm(w) / np.linalg.norm(step) * step
    return w


def lars(w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    velocity = 0
    for g in gradients:
        velocity = 0.9 * velocity - RATE * 0.001 * np.linalg.norm(w) / np.linalg.norm(g) * g
        w = w + velocity
    return w


def muon(w: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    mean = 0
    for t, g in enumerate(gradients, 1):
        mean = 0.95 * mean + 0.05 * g
        x = 0.95 * mean / (1 - 0.95 ** (t + 1)) + 0.05 * g / (1 - 0.95**t)
        x = x / np.linalg.norm(x)
        for _ in range(5):  # Newton and Schulz, with the coefficients of Jordan et al. 2024
            x = 3.4445 * x + (-4.775 * x @ x.T + 2.0315 * x @ x.T @ x @ x.T) @ x
        w = w - RATE * 0.2 * np.sqrt(max(w.shape)) * x
    return w


CLOSED_FORMS: dict[str, Callable] = {
    "sgd": sgd, "momentum": momentum, "rmsprop": rmsprop, "adam": adam, "adamw": adamw,
    "lion": lion, "lamb": lamb, "lars": lars, "muon": muon,
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_steps_equal_the_closed_form(name: str):
    got = after_steps(OptimConfig(name, RATE), [params_of(FIRST), params_of(SECOND)])
    np.testing.assert_allclose(got["kernel"], CLOSED_FORMS[name](KERNEL, [FIRST, SECOND]), rtol=1e-6)


def test_biases_of_lars_take_plain_steps_and_of_muon_those_of_adam():
    gradients = [params_of(FIRST, FIRST[0]), params_of(SECOND, SECOND[0])]
    got = {name: after_steps(OptimConfig(name, RATE), gradients)["bias"] for name in ("lars", "muon")}
    np.testing.assert_allclose(got["lars"], momentum(BIAS, [FIRST[0], SECOND[0]]), rtol=1e-6)
    params, chain = params_of()["bias"], optax.nadamw(RATE, eps=1e-8, weight_decay=0.0)
    state = chain.init(params)
    for gradient in gradients:
        updates, state = chain.update(gradient["bias"], state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(got["muon"], params, rtol=1e-6)


def test_muon_takes_the_kernel_of_a_convolution_as_a_matrix():
    draw = np.random.default_rng(0)
    kernel, gradient = draw.normal(size=(3, 3, 2, 5)), draw.normal(size=(3, 3, 2, 5))
    chain = optimizer(OptimConfig("muon", RATE), 10, 10)
    params, given = ({"kernel": jnp.asarray(array, jnp.float32)} for array in (kernel, gradient))
    updates, _ = chain.update(given, chain.init(params), params)
    expected = muon(np.zeros((18, 5)), [gradient.reshape(18, 5)])
    np.testing.assert_allclose(np.asarray(updates["kernel"]).reshape(18, 5), expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if "momentum" in facts.options])
def test_momentum_may_be_that_of_a_member(name: str):
    gradients, config = [params_of(FIRST), params_of(SECOND)], OptimConfig(name, RATE, momentum=0.5)

    def train(momentum: jax.Array) -> dict[str, jax.Array]:
        own, params = copy(config), params_of()
        object.__setattr__(own, "momentum", momentum)  # as engine.training.member_settings does
        chain = optimizer(own, 10, 10)
        state = chain.init(params)
        for gradient in gradients:
            updates, state = chain.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
        return params

    got, expected = jax.jit(train)(jnp.float32(0.5)), after_steps(config, gradients)
    np.testing.assert_allclose(got["kernel"], expected["kernel"], rtol=1e-5)


def test_nesterov_is_an_option():
    for config in (OptimConfig("momentum", RATE, nesterov=True), OptimConfig("sgd", RATE, 0.9, nesterov=True)):
        got = after_steps(config, [params_of(FIRST), params_of(SECOND)])
        np.testing.assert_allclose(got["kernel"], nesterov(KERNEL, [FIRST, SECOND]), rtol=1e-6)


def test_momentum_is_what_the_config_says():
    got = after_steps(OptimConfig("momentum", RATE, momentum=0.5, nesterov=True), [params_of(FIRST)])
    np.testing.assert_allclose(got["kernel"], KERNEL - RATE * 1.5 * FIRST, rtol=1e-6)


# What `optimizer` was, line by line, before optimizers were those of Keras: that runs of then go on with it.
BEFORE: dict[str, Callable[[OptimConfig, Callable], optax.GradientTransformation]] = {
    "sgd": lambda config, rate: optax.sgd(rate),
    "momentum": lambda config, rate: optax.sgd(rate, momentum=config.momentum, nesterov=True),
    "rmsprop": lambda config, rate: optax.rmsprop(rate, decay=0.9, eps=1e-7),
    "adam": lambda config, rate: optax.adam(rate, eps=1e-7),
    "adamw": lambda config, rate: optax.adamw(
        rate, eps=1e-7, weight_decay=1e-4 if config.weight_decay is None else config.weight_decay, mask=are_kernels
    ),
}


def are_kernels(params: dict[str, jax.Array]) -> dict[str, bool]:
    return jax.tree.map(lambda array: array.ndim > 1, params)


def chain_of_before(config: OptimConfig) -> optax.GradientTransformation:
    parts = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm is not None else []
    if config.name != "adamw" and config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=are_kernels))
    return optax.chain(*parts, BEFORE[config.name](config, schedule(config, 10, 10)))


def of_before(**fields: Any) -> OptimConfig:
    """The config of a record of before: without any of the fields that came later."""
    shared = {"learning_rate": RATE, "momentum": 0.9, "weight_decay": None, "clip_norm": None, "schedule": "cosine"}
    return from_json(OptimConfig, {"kind": "OptimConfig", **shared, **fields})


@pytest.mark.parametrize("weight_decay", [None, 0.3])
@pytest.mark.parametrize("name", BY_OPTAX)
def test_config_of_before_gives_the_bits_of_before(name: str, weight_decay: float | None):
    config = of_before(name=name, weight_decay=weight_decay, clip_norm=3.0)
    assert config.rules == "optax"
    got, expected = optimizer(config, 10, 10), chain_of_before(config)
    assert jax.tree.structure(got.init(params_of())) == jax.tree.structure(expected.init(params_of()))
    states = []
    for chain in (got, expected):
        carry, update = (params_of(), chain.init(params_of())), jax.jit(chain.update)
        for gradient in (params_of(FIRST), params_of(SECOND), params_of(FIRST)):
            updates, state = update(gradient, carry[1], carry[0])
            carry = optax.apply_updates(carry[0], updates), state
        states.append(carry)
    jax.tree.map(np.testing.assert_array_equal, *states)
    keras = optimizer(replace(config, rules="keras"), 10, 10)
    assert name in ("sgd", "rmsprop") or jax.tree.structure(keras.init(params_of())) != jax.tree.structure(states[0][1])


def test_config_is_the_same_after_json_whatever_its_rules():
    for config in (of_before(name="momentum"), OptimConfig("momentum"), OptimConfig("adam", rules="optax")):
        assert from_json(OptimConfig, to_json(config)) == config
    assert of_before(name="momentum").nesterov
    assert of_before(name="adam").momentum is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "sgd", "amsgrad": True}, r"optim\.amsgrad: got True; expected False with sgd.*use adam or adamw\."),
        ({"name": "adam", "rho": 0.5}, r"optim\.rho: got 0\.5; expected 0\.9 with adam.*use rmsprop\."),
        ({"name": "adam", "momentum": 0.5}, r"optim\.momentum: got 0\.5; expected None with adam"),
        ({"name": "sgd", "nesterov": True}, r"optim\.nesterov: got True; expected a momentum with it"),
        ({"name": "adam", "beta_2": 1.0}, r"optim\.beta_2: got 1\.0; expected 0 ≤ beta_2 < 1"),
        ({"name": "adam", "epsilon": 0.0}, r"optim\.epsilon: got 0\.0; expected a positive number"),
        ({"name": "lion", "beta_2": 0.9}, r"optim\.beta_2: got 0\.9; expected 0\.999 with lion, which has no such"),
        ({"name": "lion", "rules": "optax"}, r"optim\.rules: got optax with lion; expected keras"),
    ],
)
def test_option_that_an_optimizer_has_not_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        OptimConfig(**fields)


def test_record_of_a_later_version_is_refused():
    with pytest.raises(InputError, match=r"record\.version: got 3; expected 1 to 2\. Install a newer engine"):
        from_json(OptimConfig, {**to_json(OptimConfig()), "version": 3})


def test_rate_is_that_of_the_optimizer_when_none_is_given():
    rates = [0.01, 0.01, 0.001, 0.001, 0.001, 0.001, 0.001, 0.1, 0.001]
    assert [OptimConfig(name).learning_rate for name in OPTIMIZERS] == rates


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_follows_its_schedule(name: str):
    config = OptimConfig(name, RATE, schedule="cosine", warmup_epochs=1)
    first, second = (after_steps(config, [params_of(FIRST)] * n)["kernel"] for n in (1, 2))
    np.testing.assert_array_equal(first, KERNEL.astype(np.float32))  # the rate rises from 0
    assert np.all(second != first)


def lookahead_free(rate: Callable, beta: float = 0.5) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=beta)


def number(*given: Any) -> int:
    return 3


def test_every_name_of_the_config_has_a_factory():
    assert tuple(optim.OPTIMIZERS) == tuple(FACTS)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (custom(optax.lion, b1=0.8, weight_decay=0.0), optax.lion(RATE, b1=0.8, weight_decay=0.0)),
        (custom(lookahead_free, beta=0.7), optax.sgd(RATE, momentum=0.7)),
    ],
)
def test_own_optimizer_takes_the_steps_of_its_transformation(name: Custom, expected: optax.GradientTransformation):
    config = from_json(OptimConfig, to_json(OptimConfig(name, RATE)))
    params, state = params_of(), expected.init(params_of())
    for gradient in (params_of(FIRST), params_of(SECOND)):
        updates, state = expected.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    got = after_steps(config, [params_of(FIRST), params_of(SECOND)])
    np.testing.assert_allclose(got["kernel"], params["kernel"], rtol=1e-6)
    decayed = after_steps(replace(config, weight_decay=0.1), [zeros()])
    np.testing.assert_allclose(decayed["kernel"], (1 - 0.1 * RATE) * KERNEL, rtol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "adamw2"}, r"optim\.name: got 'adamw2'; expected one of sgd, .* Did you mean 'adamw'\?"),
        ({"schedule": "cosin"}, r"optim\.schedule: got 'cosin'; .* Did you mean 'cosine'\?"),
        ({"name": optax.lion}, r"optim\.name: got <function lion.*; .* Pass engine\.custom\(it\)"),
        ({"name": custom(optax.lion), "beta_1": 0.5}, r"optim\.beta_1: got 0\.5; expected 0\.9 with .*:lion, which"),
    ],
)
def test_names_and_options_that_mean_nothing_are_refused(fields: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        OptimConfig(**fields)


def test_own_code_that_gives_something_else_is_refused():
    with pytest.raises(InputError, match=r"optim\.name: got .*:number, .*; expected a factory that returns an optax"):
        optimizer(OptimConfig(custom(number)), 10, 10)
    with pytest.raises(InputError, match=r"optim\.name: got .*:lion: .*'power'.*; expected a function that takes"):
        optimizer(OptimConfig(custom(optax.lion, power=2)), 10, 10)


def test_own_code_is_named_on_the_command_line():
    arguments = ["--name", "optax:lion", "--schedule", "cosine"]
    parsed = tyro.cli(OptimConfig, args=arguments, default=OptimConfig())
    assert parsed == OptimConfig(Custom("optax:lion"), schedule="cosine")
    assert tyro.cli(OptimConfig, args=[], default=OptimConfig(custom(optax.lion, b1=0.5))).name.arguments == {"b1": 0.5}  # type: ignore[union-attr]
