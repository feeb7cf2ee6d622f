"""Each schedule against arithmetic, Keras or the numbers of PyTorch; their names and options."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from engine.config import OptimConfig
from engine.config.optim import SCHEDULES as FACTS
from engine.errors import InputError
from engine.models import custom
from engine.records import from_json, to_json
from engine.training.schedules import SCHEDULES, schedule


# Ten epochs of ten steps each.
@pytest.mark.parametrize(
    ("config", "step", "expected"),
    [
        (OptimConfig(), 0, 1),
        (OptimConfig(), 99, 1),
        (OptimConfig(warmup_epochs=2), 0, 0),
        (OptimConfig(warmup_epochs=2), 5, 0.25),
        (OptimConfig(warmup_epochs=2), 19, 0.95),
        (OptimConfig(warmup_epochs=2), 20, 1),
        (OptimConfig(warmup_epochs=0.5), 4, 0.8),
        (OptimConfig(warmup_epochs=0.5), 5, 1),
        (OptimConfig(warmup_epochs=50), 50, 0.1),  # longer than the run, which may go on
        (OptimConfig(schedule="cosine", warmup_epochs=50), 50, 0.5),  # longer than the run: rises to its end
        (OptimConfig(schedule="cosine"), 0, 1),
        (OptimConfig(schedule="cosine"), 25, (1 + np.cos(np.pi / 4)) / 2),
        (OptimConfig(schedule="cosine"), 50, 0.5),
        (OptimConfig(schedule="cosine"), 100, 0),
        (OptimConfig(schedule="cosine", final_fraction=0.2), 50, 0.6),
        (OptimConfig(schedule="cosine", final_fraction=0.2), 100, 0.2),
        (OptimConfig(schedule="cosine", warmup_epochs=2), 10, 0.5),
        (OptimConfig(schedule="cosine", warmup_epochs=2), 20, 1),
        (OptimConfig(schedule="cosine", warmup_epochs=2), 60, 0.5),
        (OptimConfig(schedule="cosine", warmup_epochs=2), 100, 0),
        (OptimConfig(schedule="linear"), 0, 1),
        (OptimConfig(schedule="linear"), 25, 0.75),
        (OptimConfig(schedule="linear", final_fraction=0.2), 50, 0.6),
        (OptimConfig(schedule="linear", final_fraction=0.2), 100, 0.2),
        (OptimConfig(schedule="linear", warmup_epochs=5), 75, 0.5),
        (OptimConfig(schedule="polynomial", power=2), 50, 0.25),
        (OptimConfig(schedule="polynomial", power=2, warmup_epochs=2), 20, 1),
        (OptimConfig(schedule="exponential", step_epochs=4), 20, 0.1**0.5),
        (OptimConfig(schedule="exponential", step_epochs=4, step_factor=0.5), 120, 0.125),
        (OptimConfig(schedule="cosine_restarts", step_epochs=2), 10, 0.5),
        (OptimConfig(schedule="cosine_restarts", step_epochs=2), 40, 1),
        (OptimConfig(schedule="cosine_restarts", step_epochs=2, warmup_epochs=1), 30, 1),
        (OptimConfig(schedule="cosine_restarts", step_epochs=2, restart_factor=2), 20, 1),
        (OptimConfig(schedule="cosine_restarts", step_epochs=2, restart_factor=2), 40, 0.5),
        (OptimConfig(schedule="one_cycle"), 0, 1 / 25),
        (OptimConfig(schedule="one_cycle"), 30, 1),
        (OptimConfig(schedule="one_cycle"), 100, 4e-6),
        (OptimConfig(schedule="plateau"), 99, 1),  # as long as the history says nothing else
        (OptimConfig(schedule="step", step_epochs=3), 29, 1),
        (OptimConfig(schedule="step", step_epochs=3), 30, 0.1),
        (OptimConfig(schedule="step", step_epochs=3), 59, 0.1),
        (OptimConfig(schedule="step", step_epochs=3), 60, 0.01),
        (OptimConfig(schedule="step", step_epochs=3, step_factor=0.5), 90, 0.125),
        (OptimConfig(schedule="step", step_epochs=3, warmup_epochs=1), 39, 1),
        (OptimConfig(schedule="step", step_epochs=3, warmup_epochs=1), 40, 0.1),
    ],
)
def test_schedule_gives_the_rate_computed_by_hand(config: OptimConfig, step: int, expected: float):
    rate = schedule(replace(config, learning_rate=0.4), 10, 10)(step)
    assert float(rate) == pytest.approx(0.4 * expected, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("epochs", [0, 1])
@pytest.mark.parametrize("name", [name for name in FACTS if name != "one_cycle"])
def test_every_schedule_starts_at_the_rate_when_the_run_is_short(name: str, epochs: int):
    assert float(schedule(OptimConfig(schedule=name), 1, epochs)(0)) == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("config", "name", "arguments"),
    [
        (OptimConfig(schedule="polynomial", power=1.7, final_fraction=0.1), "PolynomialDecay",
         {"decay_steps": 100, "end_learning_rate": 0.04, "power": 1.7}),
        (OptimConfig(schedule="exponential", step_epochs=3, step_factor=0.6), "ExponentialDecay",
         {"decay_steps": 30, "decay_rate": 0.6}),
        (OptimConfig(schedule="cosine_restarts", step_epochs=2, restart_factor=2, final_fraction=0.1),
         "CosineDecayRestarts", {"first_decay_steps": 20, "t_mul": 2.0, "alpha": 0.1}),
        (OptimConfig(schedule="cosine_restarts", step_epochs=2), "CosineDecayRestarts",
         {"first_decay_steps": 20, "t_mul": 1.0}),
    ],
)  # fmt: skip
def test_schedule_is_that_of_keras(keras: Any, config: OptimConfig, name: str, arguments: dict[str, Any]):
    theirs = getattr(keras.optimizers.schedules, name)(0.4, **arguments)
    ours = schedule(replace(config, learning_rate=0.4), 10, 10)
    steps = [step for step in range(100) if step % 20]  # at its restarts, Keras's logarithm may round down
    np.testing.assert_allclose([ours(step) for step in steps], [theirs(step) for step in steps], rtol=1e-4, atol=1e-6)


def test_one_cycle_is_that_of_pytorch():
    # torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, total_steps=101, pct_start=31/101), PyTorch 2.15.
    pytorch = {
        0: 0.016,
        1: 0.0170518,
        10: 0.112,
        20: 0.304,
        29: 0.3989482,
        30: 0.4,
        50: 0.3246983,
        75: 0.1132244,
        99: 0.0002029859,
        100: 1.6e-06,
    }
    rate = schedule(OptimConfig(schedule="one_cycle", learning_rate=0.4), 10, 10)
    for step, expected in pytorch.items():
        assert float(rate(step)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("epochs", [0, 1, 2])
def test_one_cycle_of_a_few_steps_stays_below_the_rate(epochs: int):
    rates = [
        float(schedule(OptimConfig(schedule="one_cycle", learning_rate=1.0), 1, epochs)(step)) for step in range(3)
    ]
    assert np.isfinite(rates).all()
    assert 0 < min(rates) <= max(rates) <= 1


def test_cosine_restarts_go_on_for_as_long_as_a_run_may():
    rate = schedule(OptimConfig("sgd", 1.0, schedule="cosine_restarts", step_epochs=1, restart_factor=2), 1, 1)
    starts = [2**k - 1 for k in range(1, 31)]
    np.testing.assert_array_equal([float(rate(start)) for start in starts], 1)
    assert float(rate(2**31 - 2)) < 1e-6


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "cosine", "power": 1.0}, r"optim\.power: got 1\.0; expected 2\.0 with cosine.*use polynomial\."),
        ({"restart_factor": 2}, r"optim\.restart_factor: got 2; expected 1 with constant.*use cosine_restarts\."),
        ({"schedule": "one_cycle", "warmup_epochs": 1}, r"optim\.warmup_epochs: got 1.*; expected 0 with one_cycle"),
        ({"schedule": "polynomial", "power": 0}, r"optim\.power: got 0.*; expected a positive number"),
        ({"schedule": "cosine_restarts", "restart_factor": 0}, r"optim\.restart_factor: got 0; expected a whole"),
    ],
)
def test_option_that_a_schedule_has_not_is_refused(fields: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        OptimConfig(**fields)


def test_records_have_the_new_fields_only_where_they_are_used():
    plain, used = to_json(OptimConfig()), OptimConfig(schedule="polynomial", power=3.0)
    assert not {"power", "restart_factor", "sam_radius", "scale_rate_with"} & set(plain)
    assert to_json(used)["power"] == 3.0
    assert from_json(OptimConfig, to_json(used)) == used


@pytest.mark.parametrize(
    ("name", "batch_size", "factor"),
    [("sgd", 1024, 4), ("momentum", 64, 1 / 4), ("lars", 32768, 128), (custom(optax.sgd), 512, 2), ("adam", 1024, 2),
     ("lamb", 16384, 8), ("rmsprop", 256, 1), ("lion", 64, 1 / 2), ("muon", 4096, 4)],
)  # fmt: skip
def test_rate_grows_with_the_batch_or_by_its_root(name: Any, batch_size: int, factor: float):
    config = OptimConfig(name, 0.3, scale_rate_with="batch", schedule="linear")
    scaled = config.scaled_to(batch_size)
    assert scaled.learning_rate == pytest.approx(0.3 * factor)
    # The gradual warm-up of Goyal et al., where the rate is above that of a batch of 256, and a line down to 0.
    warmup = 5 if factor > 1 else 0
    rates = [float(schedule(scaled, 10, 20)(step)) for step in range(0, 201, 20)]
    by_hand = np.interp(range(0, 201, 20), [0, 10 * warmup, 200], [0 if warmup else 1, 1, 0])
    np.testing.assert_allclose(rates, 0.3 * factor * by_hand, rtol=1e-5, atol=1e-7)


def test_scaled_rate_keeps_a_warm_up_of_its_own_and_of_the_schedule():
    scaled = partial(OptimConfig, "sgd", scale_rate_with="batch")
    assert scaled(warmup_epochs=0.5).scaled_to(4096).warmup_epochs == 0.5
    assert scaled(schedule="one_cycle").scaled_to(4096).warmup_epochs == 0
    assert OptimConfig("sgd").scaled_to(4096) == OptimConfig("sgd")


def test_every_name_of_the_config_has_a_factory():
    assert tuple(SCHEDULES) == tuple(FACTS)


def triangle(steps: int, floor: float = 0.0) -> Callable:
    return lambda step: floor + (1 - floor) * (1 - jnp.abs(2 * step / steps - 1))


def test_own_schedule_is_a_share_of_the_rate_after_warm_up():
    config = OptimConfig("sgd", 0.4, schedule=custom(triangle, floor=0.5), warmup_epochs=2)
    assert not config.is_open_ended
    rates = [float(schedule(config, 10, 10)(step)) for step in (10, 20, 60, 100)]
    np.testing.assert_allclose(rates, [0.2, 0.2, 0.4, 0.2], rtol=1e-6)


def number(*given: Any) -> int:
    return 3


def test_own_code_that_gives_something_else_is_refused():
    with pytest.raises(InputError, match=r"optim\.schedule: got .*:number, .*; expected a factory that returns a func"):
        schedule(OptimConfig(schedule=custom(number)), 10, 10)
