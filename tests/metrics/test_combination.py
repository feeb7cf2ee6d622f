"""Combinations against scipy and scikit-learn: what each method computes, what is fitted, dead members."""

import json
import tracemalloc
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss

from engine.config import CombinationKind
from engine.errors import InputError
from engine.metrics.combination import (
    FITTED_WEIGHTS,
    GREEDY_ROUNDS,
    METHODS,
    MOST_TEMPERATURE,
    TIE_BREAK,
    Combination,
    fit,
    fit_scaling,
    mean_probabilities,
)
from engine.records import from_json, to_json
from tests.further import choose_examples

SETTINGS = settings(max_examples=choose_examples(15, 40), derandomize=True, deadline=None, database=None)
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 12), st.integers(2, 6))  # m n k
LOGITS = SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=st.floats(-60, 60, width=32)))
TIED_LOGITS = SHAPES.flatmap(lambda shape: arrays(np.float32, shape, elements=st.sampled_from((0.0, 0.5, 1.0))))


def uniform(m: int) -> tuple[float, ...]:
    return (1 / m,) * m


def task(m: int = 4, n: int = 400, k: int = 3, seed: int = 0, noise: float = 1.5) -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities of members, the later ones right less often, and labels."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, k, n)
    spread = noise * (1 + 0.1 * np.arange(m))[:, None, None]
    logits = 2 * np.eye(k)[labels] + spread * draw.normal(size=(m, n, k))
    return log_softmax(logits, axis=-1).astype(np.float32), labels


def loss_of(combination: Combination, logs: np.ndarray, labels: np.ndarray) -> float:
    return log_loss(labels, combination.combine(logs), labels=np.arange(logs.shape[-1]))


@SETTINGS
@given(LOGITS, st.data())
def test_mean_and_logits_equal_weighted_means_of_what_they_name(logits: np.ndarray, data: st.DataObject):
    m = len(logits)
    raw = np.array(data.draw(st.lists(st.sampled_from((0.0, 0.5, 1.0, 2.0)), min_size=m, max_size=m).filter(any)))
    weights, logs = raw / raw.sum(), log_softmax(logits, axis=-1)
    mean = Combination("mean", tuple(weights)).combine(logs)
    np.testing.assert_allclose(mean, np.average(softmax(logits, axis=-1), axis=0, weights=weights), atol=1e-6)
    geometric = Combination("logits", tuple(weights)).combine(logs)
    expected = softmax(np.average(logits.astype(np.float64), axis=0, weights=weights), axis=-1)
    np.testing.assert_allclose(geometric, expected, atol=2e-5)
    for combined in (mean, geometric):
        np.testing.assert_allclose(combined.sum(axis=-1), 1, rtol=1e-12)


@SETTINGS
@given(TIED_LOGITS)
def test_vote_is_the_share_of_votes_and_ties_go_to_the_larger_mean_probability(logits: np.ndarray):
    m, _, k = logits.shape
    logs = log_softmax(logits, axis=-1)
    votes = np.eye(k)[logits.argmax(axis=-1)].sum(axis=0)  # [n k]
    combined, mean = Combination("vote", uniform(m)).combine(logs), mean_probabilities(logs, np.array(uniform(m)))
    np.testing.assert_allclose(combined, votes / m, atol=TIE_BREAK)
    np.testing.assert_allclose(combined.sum(axis=-1), 1, rtol=1e-12)
    for row, count, probability in zip(combined, votes, mean, strict=True):
        winners = np.flatnonzero(count == count.max())
        assert row.argmax() in winners
        assert probability[row.argmax()] >= probability[winners].max() - 1e-12
    clear = (votes == votes.max(axis=-1, keepdims=True)).sum(axis=-1) == 1
    mode = scipy.stats.mode(logits.argmax(axis=-1), axis=0).mode
    np.testing.assert_array_equal(combined.argmax(axis=-1)[clear], mode[clear])


def test_vote_is_overturned_by_no_probability_when_members_are_many():
    m = 4001
    logs = np.log(np.tile(np.array([0.5 + 1e-6, 0.5 - 1e-6]), (m, 1, 1)))
    logs[m // 2 + 1 :] = np.log([1e-9, 1 - 1e-9])  # one vote less, and every bit as sure as can be
    assert Combination("vote", uniform(m)).combine(logs)[0].argmax() == 0


@SETTINGS
@given(LOGITS, st.sampled_from(get_args(CombinationKind)), st.booleans(), st.data())
def test_dead_members_change_nothing(logits: np.ndarray, method: CombinationKind, tempered: bool, data: st.DataObject):
    m, n, k = logits.shape
    alive = np.array(data.draw(st.lists(st.booleans(), min_size=m, max_size=m).filter(any)))
    labels = data.draw(arrays(np.int32, n, elements=st.integers(0, k - 1)))
    logs = log_softmax(logits, axis=-1)
    without = fit(method, logs[alive], labels, tempered, np.ones(alive.sum(), bool))
    logs_with_dead = np.where(alive[:, None, None], logs, np.float32(np.nan))
    with_dead = fit(method, logs_with_dead, labels, tempered, alive)
    assert (np.array(with_dead.weights) > 0)[~alive].sum() == 0
    np.testing.assert_array_equal(np.array(with_dead.weights)[alive], without.weights)
    assert with_dead.temperature == without.temperature
    np.testing.assert_array_equal(with_dead.combine(logs_with_dead), without.combine(logs[alive]))


@pytest.mark.parametrize("tempered", [False, True])
@pytest.mark.parametrize("method", get_args(CombinationKind))
def test_probabilities_are_finite_when_logarithms_are_not(method: CombinationKind, tempered: bool):
    probabilities = [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0, 1, 0]], [[0.5, 0.5, 0], [0.2, 0, 0.8]]]
    with np.errstate(divide="ignore"):
        logs = np.log(np.array(probabilities, np.float32))
    combined = fit(method, logs, np.array([1, 0]), tempered, np.ones(3, bool)).combine(logs)
    assert np.isfinite(combined).all()
    np.testing.assert_allclose(combined.sum(axis=-1), 1, rtol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_weighted_reaches_the_least_loss_that_a_solver_of_scipy_finds(seed: int):
    logs, labels = task(m=2 + seed, n=300, k=2 + seed % 3, seed=seed)
    found = fit("weighted", logs, labels, False, np.ones(len(logs), bool))
    own = np.exp(logs[:, np.arange(len(labels)), labels].astype(np.float64))
    reference = scipy.optimize.minimize(
        lambda weights: -np.log(weights @ own).mean(),
        uniform(len(logs)),
        method="SLSQP",
        bounds=[(1e-9, 1)] * len(logs),
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert reference.success
    assert loss_of(found, logs, labels) == pytest.approx(reference.fun, abs=1.5e-5)
    np.testing.assert_allclose(found.weights, reference.x, atol=0.02)


@SETTINGS
@given(LOGITS, st.data())
def test_fitted_weights_are_never_worse_than_the_best_member_and_weighted_is_never_worse_than_greedy(
    logits: np.ndarray, data: st.DataObject
):
    m, n, k = logits.shape
    labels = data.draw(arrays(np.int32, n, elements=st.integers(0, k - 1)))
    logs, alive = log_softmax(logits.astype(np.float64), axis=-1), np.ones(m, bool)

    def loss(weights: tuple[float, ...]) -> float:
        own = logs[:, np.arange(n), labels]
        return (
            -np.log(np.average(np.exp(own - own.max(axis=0)), axis=0, weights=weights)).mean() - own.max(axis=0).mean()
        )

    greedy, weighted = (fit(method, logs, labels, False, alive).weights for method in ("greedy", "weighted"))
    best = min(loss(tuple(np.eye(m)[i])) for i in range(m))
    assert loss(greedy) <= best + 1e-9
    # Stopped 1e-5 nats above the least loss, or, where one of a few examples decides, by its number of rounds.
    assert loss(weighted) <= min(loss(greedy), loss(uniform(m))) + 1e-3
    counts = np.array(greedy) * np.arange(1, GREEDY_ROUNDS + 1)[:, None]
    assert (np.abs(counts - counts.round()).max(axis=1) < 1e-9).any(), "shares of no number of rounds"


def test_greedy_takes_the_best_alone_when_the_others_only_harm():
    logs, labels = task(m=3, noise=0.2)
    logs[1:] = logs[1:, :, ::-1]  # of an even more confident, reversed opinion
    assert fit("greedy", logs, labels, False, np.ones(3, bool)).weights == (1, 0, 0)


@pytest.mark.parametrize("seed", range(4))
def test_greedy_is_the_best_of_the_bags_that_grow_by_the_member_that_helps_most(seed: int):
    logs, labels = task(m=4, n=60, seed=seed)
    own, bags = np.exp(logs[:, np.arange(60), labels].astype(np.float64)), [[]]

    def loss_with(bag: list[int]) -> float:
        return -np.log(own[bag].mean(axis=0)).mean()

    for _ in range(GREEDY_ROUNDS):
        bags.append(min(([*bags[-1], i] for i in range(4)), key=loss_with))
    best = min(bags[1:], key=loss_with)
    found = fit("greedy", logs, labels, False, np.ones(4, bool))
    np.testing.assert_allclose(found.weights, np.bincount(best, minlength=4) / len(best))
    assert 0 < max(found.weights) < 1, "a case in which one is enough shows less"


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose features are the logits."""

    def fit(self, logits: np.ndarray, labels: np.ndarray) -> "Given":
        self.classes_ = np.arange(logits.shape[1])
        return self

    def decision_function(self, logits: np.ndarray) -> np.ndarray:
        return logits

    def predict(self, logits: np.ndarray) -> np.ndarray:
        return logits.argmax(axis=1)


@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("method", ["mean", "logits", "weighted"])
def test_temperature_equals_that_of_scikit_learn(method: CombinationKind, sharpness: float):
    logs, labels = task(m=3, n=500, k=4)
    logs = log_softmax(sharpness * logs, axis=-1)
    found = fit(method, logs, labels, True, np.ones(3, bool))
    combined = np.log(replace(found, temperature=1.0).combine(logs))
    reference = CalibratedClassifierCV(FrozenEstimator(Given().fit(combined, labels)), method="temperature")
    reference.fit(combined, labels)
    np.testing.assert_allclose(found.combine(logs), reference.predict_proba(combined), atol=2e-3)
    assert loss_of(found, logs, labels) <= log_loss(labels, reference.predict_proba(combined)) + 1e-7


def test_temperature_undoes_the_sharpening_that_made_logits_too_sure():
    draw = np.random.default_rng(0)
    true = softmax(2 * draw.normal(size=(40_000, 5)), axis=-1)
    labels = (true.cumsum(axis=-1) < draw.random((len(true), 1))).sum(axis=-1)
    assert fit_scaling(softmax(3 * np.log(true), axis=-1), labels) == pytest.approx(3, rel=0.03)


def test_temperature_keeps_the_order_of_classes_and_its_range():
    logs, labels = task()
    plain, tempered = (fit("mean", logs, labels, scale, np.ones(4, bool)) for scale in (False, True))
    np.testing.assert_array_equal(plain.combine(logs).argsort(axis=-1), tempered.combine(logs).argsort(axis=-1))
    right, wrong = np.log([[0.6, 0.4]] * 9), np.zeros(9, int)
    assert fit_scaling(np.exp(right), wrong) == pytest.approx(1 / MOST_TEMPERATURE, rel=1e-3)  # always right: surer
    assert fit_scaling(np.exp(right), wrong + 1) == pytest.approx(MOST_TEMPERATURE, rel=1e-3)  # always wrong: even odds


@pytest.mark.parametrize("data", ["none", "empty"])
def test_fit_without_validation_data_names_the_field_that_wants_it(data: str):
    logs, labels = (None, None) if data == "none" else (np.zeros((2, 0, 3), np.float32), np.zeros(0, int))
    alive = np.array([True, True])
    for method in get_args(CombinationKind):
        if method in FITTED_WEIGHTS:
            with pytest.raises(InputError, match=rf"ensemble.combine: got '{method}' and no validation data; expected"):
                fit(method, logs, labels, False, alive)
        else:
            assert fit(method, logs, labels, False, alive) == Combination(method, (0.5, 0.5))
            with pytest.raises(InputError, match=r"ensemble.temperature: got True and no validation data; expected"):
                fit(method, logs, labels, True, alive)


def test_fit_refuses_an_unknown_method_and_an_ensemble_without_a_member():
    logs, labels = task()
    with pytest.raises(InputError, match=r"ensemble.combine: got 'median'; expected one of mean, logits, vote"):
        fit("median", logs, labels, False, np.ones(4, bool))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"train.members: got no member of 4 with a finite loss; expected at least"):
        fit("mean", logs, labels, False, np.zeros(4, bool))


@pytest.mark.parametrize("weights", [(), (0.5, 0.4), (1.5, -0.5), (float("nan"), 1.0)])
def test_combination_refuses_weights_that_are_no_shares(weights: tuple[float, ...]):
    with pytest.raises(InputError, match=r"combination.weights"):
        Combination("mean", weights)


def test_combination_refuses_a_temperature_that_is_not_positive():
    with pytest.raises(InputError, match=r"combination.temperature: got 0.0; expected a positive number"):
        Combination("mean", (1.0,), 0.0)


@pytest.mark.parametrize("method", get_args(CombinationKind))
def test_combination_turns_to_json_and_back(method: CombinationKind):
    logs, labels = task()
    found = fit(method, logs, labels, True, np.ones(4, bool))
    assert from_json(Combination, json.loads(json.dumps(to_json(found)))) == found


def test_every_method_of_the_config_has_a_function():
    assert tuple(METHODS) == get_args(CombinationKind)


@pytest.mark.parametrize("method", get_args(CombinationKind))
def test_fitting_and_combining_take_no_more_memory_than_the_outputs(method: CombinationKind):
    logs, labels = task(m=10, n=20_000, k=10)
    tracemalloc.start()
    try:
        fit(method, logs, labels, True, np.ones(10, bool)).combine(logs)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * logs.nbytes


@pytest.mark.parametrize("method", ["weighted", "greedy", "mean"])
def test_weighted_examples_count_as_often(method):
    draw = np.random.default_rng(0)
    logs = log_softmax(2 * draw.standard_normal((3, 40, 4)), axis=-1)
    labels, counted = draw.integers(0, 4, 40), draw.integers(0, 4, 40)
    often, alive = np.repeat(np.arange(40), counted), np.ones(3, bool)
    weighted, repeated = (
        fit(method, *given, True, alive, own)
        for given, own in (((logs, labels), counted), ((logs[:, often], labels[often]), None))
    )
    np.testing.assert_allclose(weighted.weights, repeated.weights, atol=1e-9)
    assert weighted.temperature == pytest.approx(repeated.temperature, rel=1e-4)
    assert weighted.weights != fit(method, logs, labels, True, alive).weights or method == "mean"


@pytest.mark.parametrize("method", ["weighted", "greedy", "mean"])
def test_shares_of_classes_count_as_so_many_examples_of_each(method):
    draw = np.random.default_rng(0)
    logs, counts = log_softmax(2 * draw.standard_normal((3, 30, 4)), axis=-1), draw.multinomial(5, [0.25] * 4, 30)
    examples, classes = np.nonzero(counts)
    often, alive = np.repeat(examples, counts[examples, classes]), np.ones(3, bool)
    labels = np.repeat(classes, counts[examples, classes])
    found, expected = fit(method, logs, counts / 5, True, alive), fit(method, logs[:, often], labels, True, alive)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-9)
    assert found.temperature == pytest.approx(expected.temperature, rel=1e-4)
