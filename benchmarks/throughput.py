"""How many images a second does each recipe train, and how does the convnet compare with plain Flax?

    python -m benchmarks.throughput

Prints for each 28×28 recipe: training rate with whole chunks compiled and with one call a step, compile seconds apart,
the share of this device's matrix-product peak; then the convnet side by side with the same Flax model the usual way:
nnx.Conv, nnx.max_pool and one jitted, donated call a step.
"""

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx
from rich.console import Console
from rich.table import Table

from benchmarks.measure import circumstances, interleaved, median_and_spread, product_peak, ratio, write_json
from engine.clock import Clock
from engine.config import RunConfig
from engine.data.dataset import Dataset
from engine.data.images import InputSpec
from engine.feed import choose_placement, make_feed
from engine.metrics import zero_metrics
from engine.models import Conv, Dense, Sequential
from engine.optim import optimizer
from engine.program import Executables, Plan, Program, choose_lowering, choose_plan
from engine.state import init_state, network_of
from engine.step import Task

RECIPES = ("mlp", "convnet_wide", "convnet", "convnet_no_pool", "convnet_dropout")
IMAGE, CLASSES = (28, 28, 1), 10


@dataclass(frozen=True)
class Options:
    """How long to measure."""

    rounds: int = 7
    """Rounds in which the variants take turns."""
    seconds: float = 1.0
    """About how long a variant runs in a round."""
    recipes: tuple[str, ...] = RECIPES
    """Recipes to measure."""
    smoke: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A few seconds, to see that everything runs; the figures mean nothing."""
    json: Path | None = None
    """Where to write the figures."""


class Training:
    """One recipe's program on random images; `rate()` trains a while and says how many images a second that were.

    The augmentation and the placement of the data are those of the config.
    """

    def __init__(self, config: RunConfig, num_steps: int, data: Dataset | None = None):
        self.batch_size, self.num_steps = config.train.batch_size, num_steps
        lowering, chain = choose_lowering(config.plan, jax.default_backend()), optimizer(config.optim, num_steps, 1)
        network, init = network_of(config.model, IMAGE, CLASSES, lowering)
        loss, smoothing = config.train.loss, config.train.label_smoothing
        task = Task(network, loss, smoothing, chain, InputSpec(IMAGE), config.augment)
        self.clock = Clock()
        self.state = jax.jit(lambda seed: init_state(*init(seed), chain))(np.uint32(0))
        data = data or random_images(num_steps * self.batch_size)
        placement = choose_placement(config.plan, data)
        self.plan: Plan = choose_plan(config.plan, lowering, jax.default_backend(), task, self.state, placement)
        self.program = Program(task, self.plan, 0, self.batch_size, Executables(self.clock))
        self.num_examples, self.epoch = len(data), 0
        self.feed = make_feed(placement, data, 0, self.batch_size, config.plan.readers)

    def rate(self, chunk_steps: int) -> float:
        """Images a second over an epoch, in calls of `chunk_steps` steps."""
        start, totals, first = time.perf_counter(), zero_metrics(), 0
        order = self.program.order(self.epoch, self.num_examples)
        while first < self.num_steps:
            window = self.feed.window(self.epoch, first)
            count = min(chunk_steps, window.end - first)
            place = (self.num_examples, order, first, count)
            self.state, totals, _ = self.program.train(self.state, window, *place, totals)
            first += count
        self.epoch += 1
        return self.num_steps * self.batch_size / (time.perf_counter() - start)


class PlainConvnet(nnx.Module):
    """The convnet as any Flax user writes it."""

    def __init__(self, rngs: nnx.Rngs):
        self.convs = nnx.List(
            [nnx.Conv(c, f, (3, 3), padding="VALID", rngs=rngs) for c, f in ((1, 32), (32, 64), (64, 128))]
        )
        self.dense = nnx.Linear(3 * 3 * 128, CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[b 28 28 1] → [b 10]."""
        for i, conv in enumerate(self.convs):
            x = nnx.relu(conv(x))
            x = nnx.max_pool(x, (2, 2), (2, 2)) if i < 2 else x
        return self.dense(x.reshape(x.shape[0], -1))


class PlainTraining:
    """The usual training: batches cut on the host, one jitted call a step with donated state, RMSprop."""

    def __init__(self, batch_size: int, num_steps: int):
        graph, params = nnx.split(PlainConvnet(nnx.Rngs(0)))
        chain = optax.rmsprop(1e-3)
        data = random_images(num_steps * batch_size)
        self.images, self.labels, self.batch_size = data.images, data.labels, batch_size

        def step(state: tuple, images: jax.Array, labels: jax.Array) -> tuple:
            def objective(params: Any) -> jax.Array:
                logits = nnx.merge(graph, params)(images.astype(jnp.float32) / 255)
                return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

            params, opt_state = state
            loss, gradients = jax.value_and_grad(objective)(params)
            updates, opt_state = chain.update(gradients, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        self.state, self.step = (params, chain.init(params)), jax.jit(step, donate_argnums=0)

    def rate(self) -> float:
        """Images a second over one shuffled epoch."""
        start = time.perf_counter()
        order = np.random.default_rng(0).permutation(len(self.images))
        for first in range(0, len(order), self.batch_size):
            chosen = order[first : first + self.batch_size]
            self.state, loss = self.step(self.state, self.images[chosen], self.labels[chosen])
        jax.block_until_ready((self.state, loss))
        return len(order) / (time.perf_counter() - start)


def random_images(count: int) -> Dataset:
    """Noise: what is in the images does not change how long they take."""
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (count, *IMAGE), dtype=np.uint8), draw.integers(0, CLASSES, count)
    return Dataset(images, labels.astype(np.int32), tuple(map(str, range(CLASSES))), "noise", "noise")


def operations(spec: Sequential) -> int:
    """Arithmetic of training on one image: 2 operations a multiply-add, forward and for both gradients, except that the
    first layer needs none for its input."""
    multiply_adds = []
    for row, layer in zip(spec.rows(IMAGE), spec.layers, strict=True):
        if isinstance(layer, Conv):
            places = row.output_shape[0] * row.output_shape[1]
            multiply_adds.append(places * (row.num_params - layer.use_bias * layer.filters))
        elif isinstance(layer, Dense):
            multiply_adds.append(row.num_params - layer.use_bias * row.output_shape[0])
    return 2 * (3 * sum(multiply_adds) - multiply_adds[0])


def measure_recipes(options: Options) -> dict[str, Any]:
    """The rates of every recipe, whole chunks against one call a step, taking turns."""
    variants: dict[str, Callable[[], float]] = {}
    trainings: dict[str, Training] = {}
    for name in options.recipes:
        config = importlib.import_module(f"experiments.{name}").config()
        num_steps = _steps_for(config, options)
        training = trainings[name] = Training(config, num_steps)
        whole = 1 if training.plan.is_stepwise else num_steps
        variants[name] = lambda training=training, whole=whole: training.rate(whole)
        variants[f"{name} stepwise"] = lambda training=training: training.rate(1)
    rates = interleaved(variants, options.rounds)
    figures = {}
    for name, training in trainings.items():
        spec = importlib.import_module(f"experiments.{name}").config().model.with_outputs(CLASSES)
        figures[name] = {
            "images_per_second": rates[name],
            "stepwise": rates[f"{name} stepwise"],
            "compile_seconds": training.clock.seconds["compile"],
            "operations_per_image": operations(spec),
            "batch_size": training.batch_size,
        }
    return figures


def measure_plain(options: Options) -> dict[str, list[float]]:
    """The convnet against plain Flax, taking turns."""
    config = importlib.import_module("experiments.convnet").config()
    num_steps = _steps_for(config, options)
    ours, plain = Training(config, num_steps), PlainTraining(config.train.batch_size, num_steps)
    return interleaved({"engine": lambda: ours.rate(num_steps), "plain": plain.rate}, options.rounds)


def main(options: Options) -> None:
    """Measures and prints."""
    if options.smoke:
        options = Options(rounds=1, seconds=0.02, recipes=("mlp", "convnet"), json=options.json)
    console = Console(width=120)
    for name, value in circumstances().items():
        console.print(f"{name}: {value}", highlight=False)
    peak = product_peak(256 if options.smoke else 2048)
    recipes, plain = measure_recipes(options), measure_plain(options)
    peak = max(peak, product_peak(256 if options.smoke else 2048))
    console.print(_table(recipes, peak, options.rounds))
    (ours, ours_spread), (theirs, theirs_spread) = (median_and_spread(plain[name]) for name in ("engine", "plain"))
    middle, low, high = ratio(plain["engine"], plain["plain"])
    console.print(
        f"convnet, batch 64: engine {ours:,.0f} images/s (±{ours_spread:.0%}), plain Flax, one jitted call a step "
        f"{theirs:,.0f} (±{theirs_spread:.0%}): {middle:.2f} times ({low:.2f} to {high:.2f})",
        highlight=False,
    )
    write_json(options.json, {"product_peak": peak, "recipes": recipes, "convnet_against_plain": plain})


def _steps_for(config: RunConfig, options: Options) -> int:
    """Steps that take about `options.seconds`, by a rate any machine roughly has; at least two."""
    work = operations(config.model.with_outputs(CLASSES)) * config.train.batch_size  # type: ignore[union-attr]
    return max(2, min(2000, int(options.seconds * 60e9 / work)))


def _table(figures: dict[str, Any], peak: float, rounds: int) -> Table:
    table = Table(
        title=f"training, float32; medians of {rounds} rounds, ± half the range; peak {peak / 1e9:,.0f} GFLOP/s"
    )
    for name in ("recipe", "batch", "images/s", "one call a step", "whole / stepwise", "share of peak", "compile s"):
        table.add_column(name, justify="left" if name == "recipe" else "right")
    for name, figure in figures.items():
        (whole, spread), (step, step_spread) = map(median_and_spread, (figure["images_per_second"], figure["stepwise"]))
        share = whole * figure["operations_per_image"] / peak
        gain = ratio(figure["images_per_second"], figure["stepwise"])[0]
        table.add_row(
            name, str(figure["batch_size"]), f"{whole:,.0f} ±{spread:.0%}", f"{step:,.0f} ±{step_spread:.0%}",
            f"{gain:.2f}", f"{share:.0%}", f"{figure['compile_seconds']:.1f}",
        )  # fmt: skip
    return table


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
