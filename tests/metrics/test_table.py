"""Every metric of the table against scikit-learn, in compiled batches and in NumPy; metrics and losses of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import TrainConfig
from engine.config.scoring import METRICS as FACTS
from engine.config.scoring import Task
from engine.errors import InputError
from engine.metrics.stopping import score
from engine.metrics.sums import make_scoring
from engine.metrics.table import METRICS, Metric, mean, score_outputs
from engine.models import custom
from tests.further import choose_examples

SETTINGS = settings(max_examples=choose_examples(6, 20), derandomize=True, deadline=None, database=None)
N, K = 40, 6
LABELS = np.arange(K)
TASKS: tuple[tuple[Task, str], ...] = (("classes", "softmax_cross_entropy"), ("numbers", "mean_squared_error"))


def top5(labels: np.ndarray, logits: np.ndarray) -> float:
    return float(sklearn.metrics.top_k_accuracy_score(labels, logits, k=5, labels=LABELS))


def shares(logits: np.ndarray) -> np.ndarray:
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


OF_SKLEARN = {
    "accuracy": lambda y, z: sklearn.metrics.accuracy_score(y, z.argmax(1)),
    "top5": top5,
    "balanced_accuracy": lambda y, z: sklearn.metrics.recall_score(
        y, z.argmax(1), labels=np.unique(y), average="macro", zero_division=0
    ),
    "f1_macro": lambda y, z: sklearn.metrics.f1_score(y, z.argmax(1), average="macro", zero_division=0),
    "nll": lambda y, z: sklearn.metrics.log_loss(y, shares(z), labels=LABELS),
    "brier": lambda y, z: sklearn.metrics.brier_score_loss(y, shares(z), labels=LABELS, scale_by_half=False),
    "mean_squared_error": sklearn.metrics.mean_squared_error,
    "mean_absolute_error": sklearn.metrics.mean_absolute_error,
}


def test_every_name_of_the_config_is_a_metric():
    assert set(METRICS) == {name for name, facts in FACTS.items() if facts.tasks != ("labels",)}
    assert set(OF_SKLEARN) == set(METRICS) - {"ece"}  # in tests/metrics/test_calibration.py


@SETTINGS
@given(st.integers(0, 10_000))
def test_metrics_equal_those_of_scikit_learn_in_batches_and_in_numpy(seed: int):
    draw = np.random.default_rng(seed)
    outputs, labels = draw.normal(0, 2, (N, K)).astype(np.float32), draw.integers(0, K, N).astype(np.int32)
    for task, loss in TASKS:
        names = tuple(name for name, facts in FACTS.items() if task in facts.tasks)
        targets = labels if task == "classes" else draw.normal(size=(N, K)).astype(np.float32)
        train = TrainConfig(loss=loss, metrics=names)
        scoring = make_scoring(train, K, task)
        totals = scoring.zeros()
        for start in range(0, N, 16):  # the last batch is padded, as in evaluation
            part = slice(start, start + 16)
            mask = np.arange(start, start + 16) < N
            batch = [np.resize(each[part], (16, *each.shape[1:])) for each in (outputs, targets)]
            totals = totals + jax.jit(scoring.measure)(*batch, np.zeros(16, np.float32), mask)
        found = scoring.means(totals)
        by_numpy = score_outputs({name: METRICS[name] for name in names}, outputs, targets)
        assert found["n"] == by_numpy["n"] == N
        for name in names:
            assert found[name] == pytest.approx(by_numpy[name], rel=2e-5, abs=1e-6)
            if name in OF_SKLEARN:
                assert by_numpy[name] == pytest.approx(OF_SKLEARN[name](targets, outputs.astype(float)), rel=1e-9)


def within(steps: int = 1) -> Metric:
    return mean(lambda outputs, labels: abs(outputs.argmax(-1) - labels) <= steps)


def hinge(outputs: jax.Array, labels: jax.Array, margin: float = 1.0) -> jax.Array:
    own = jnp.take_along_axis(outputs, labels[:, None], axis=-1)
    others = jnp.where(jnp.arange(outputs.shape[-1])[None] == labels[:, None], -jnp.inf, outputs)
    return jnp.maximum(0, margin + others.max(-1) - own[:, 0])


def mean_hinge(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    return hinge(outputs, labels).mean()


def failing(outputs: jax.Array, labels: jax.Array) -> jax.Array:
    return outputs @ labels


def no_metric() -> float:
    return 1.0


def test_own_loss_and_metric_are_those_of_their_functions():
    train = TrainConfig(loss=custom(hinge, margin=2.0), metrics=(custom(within, steps=2),))
    scoring, draw = make_scoring(train, K, task="classes"), np.random.default_rng(0)
    outputs, labels = draw.normal(size=(N, K)).astype(np.float32), draw.integers(0, K, N)
    losses = scoring.loss(jnp.asarray(outputs), jnp.asarray(labels), 0.0)
    expected = sklearn.metrics.hinge_loss(labels, outputs / 2, labels=LABELS) * 2
    assert float(losses.mean()) == pytest.approx(expected, rel=1e-5)
    found = scoring.means(scoring.measure(jnp.asarray(outputs), jnp.asarray(labels), losses, jnp.ones(N, bool)))
    assert list(found) == ["n", "loss", "accuracy", "top5", "within"]
    assert found["within"] == np.mean(abs(outputs.argmax(1) - labels) <= 2)


@pytest.mark.parametrize(
    ("fields", "num_outputs", "task", "message"),
    [
        (
            {"metrics": ("brier",), "loss": "mean_squared_error"},
            1,
            "numbers",
            r"train\.metrics: got brier; .*regression",
        ),
        (
            {"metrics": ("mean_squared_error",)},
            K,
            "classes",
            r"train\.metrics: got mean_squared_error; .*a metric of classes",
        ),
        (
            {"metrics": (custom(no_metric),)},
            K,
            "classes",
            r"train\.metrics: got .*no_metric, which returns something else",
        ),
        (
            {"loss": custom(mean_hinge)},
            K,
            "classes",
            r"train\.loss: got .*mean_hinge .*, which gives an array \[\] for 2",
        ),
        (
            {"loss": custom(failing)},
            K,
            "classes",
            r"train\.loss: got .*failing: .*expected a function that takes these",
        ),
        ({"loss": custom(hinge, slope=1)}, K, "classes", r"train\.loss: got .*hinge: .*slope"),
    ],
)
def test_what_does_not_fit_is_refused_when_the_run_starts(fields: dict, num_outputs: int, task: Task, message: str):
    with pytest.raises(InputError, match=message):
        make_scoring(TrainConfig(**fields), num_outputs, task)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "hinge"}, r"train\.loss: got 'hinge'; expected one of softmax_cross_entropy, "),
        ({"metrics": ("acuracy",)}, r"train\.metrics: got 'acuracy'; .* Did you mean 'accuracy'"),
        ({"best_by": "within"}, r"train\.best_by: got 'within'; expected one of loss, accuracy, "),
        ({"best_by": "within", "metrics": (custom(within),)}, r"train\.best_is: got None; expected highest or lowest"),
        (
            {"loss": custom(hinge), "label_smoothing": 0.1},
            r"train\.label_smoothing: got 0\.1; expected 0 with this loss",
        ),
    ],
)
def test_names_that_mean_nothing_are_refused(fields: dict, message: str):
    with pytest.raises(InputError, match=message):
        TrainConfig(**fields)


def test_best_is_by_the_direction_of_each_metric():
    validation = {"n": 5, "loss": 0.5, "accuracy": 0.75, "brier": 0.2, "within": 0.9}
    assert score(TrainConfig(best_by="brier"), validation) == -0.2
    assert score(TrainConfig(best_by="brier", best_is="highest"), validation) == 0.2
    own = TrainConfig(best_by="within", best_is="highest", metrics=(custom(within),))
    assert score(own, validation) == 0.9
    assert TrainConfig(best_by="brier").asked_metrics == ("brier",)
    assert own.shown_metrics == ("loss", "accuracy", "within")
