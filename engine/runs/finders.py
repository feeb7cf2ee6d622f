"""find_learning_rate(model, data), find_batch_size(model, data): what to train with, for notebooks."""

from engine.augment.config import AugmentConfig
from engine.config import OptimConfig, RunConfig, TrainConfig, check_model
from engine.config.scoring import takes_numbers
from engine.config.train import Precision
from engine.data.decoded.dataset import Splits
from engine.data.in_memory import Reading
from engine.inference.data_in import Examples
from engine.models.specs import Model
from engine.report.progress import Reporter, Silent
from engine.runs.batch_finder import LARGEST, SMALLEST, BatchSearch, search_batch_sizes
from engine.runs.fit import Own, as_named, read_optimizer
from engine.runs.fit_data import Data, Given
from engine.runs.lr_finder import HIGHEST, LOWEST, NUM_RATES, RateSearch, search_rates


def find_learning_rate(
    model: Model,
    data: Data,
    *,
    batch_size: int = 64,
    optimizer: Own | OptimConfig = "adam",
    loss: Own = "softmax_cross_entropy",
    validation: float | Examples | None = 0.1,
    augment: AugmentConfig | None = None,
    precision: Precision = "float32",
    low: float = LOWEST,
    high: float = HIGHEST,
    num_rates: int = NUM_RATES,
    seed: int = 0,
    verbose: bool = True,
) -> RateSearch:
    """Trains one step at each of `num_rates` rates from `low` to `high`; suggests the one where the loss falls fastest.

    A rate to start from, for `fit` with the same other arguments, which are as there; `engine.dataset` makes data of
    arrays that need more said. What the OptimConfig says of rate, schedule and warm-up does not count.
    """
    config, splits, reporter = _read(
        model, data, validation, TrainConfig(1, batch_size, as_named(loss, "loss"), seed=seed, precision=precision),
        read_optimizer(optimizer, None), augment, verbose,
    )  # fmt: skip
    return search_rates(config, splits, reporter.say, low, high, num_rates)


def find_batch_size(
    model: Model,
    data: Data,
    *,
    smallest: int = SMALLEST,
    largest: int = LARGEST,
    optimizer: Own | OptimConfig = "adam",
    loss: Own = "softmax_cross_entropy",
    validation: float | Examples | None = 0.1,
    augment: AugmentConfig | None = None,
    precision: Precision = "float32",
    members: int = 1,
    verbose: bool = True,
) -> BatchSearch:
    """Trains a moment with `smallest` examples a batch and its doubles, until these do not fit, or are all.

    Gives the memory of a step and the images a second of each. Other arguments are as of `fit`.
    """
    config, splits, reporter = _read(
        model, data, validation, TrainConfig(1, loss=as_named(loss, "loss"), precision=precision, members=members),
        read_optimizer(optimizer, None), augment, verbose,
    )  # fmt: skip
    return search_batch_sizes(config, splits, reporter.say, smallest, largest)


def _read(
    model: Model,
    data: Data,
    validation: float | Examples | None,
    train: TrainConfig,
    optim: OptimConfig,
    augment: AugmentConfig | None,
    verbose: bool,
) -> tuple[RunConfig, Splits, Reporter]:
    """The config and the data of the run that `fit` would start."""
    check_model(model)
    reporter = Reporter() if verbose else Silent()
    given = Given(data, validation, None, Reading(None, are_targets=takes_numbers(train.loss)))
    config = RunConfig("find", model, given.make_config(), train, optim, augment=augment or AugmentConfig())
    return config, given.load(config, reporter.say, None, None), reporter
