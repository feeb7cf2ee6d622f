"""Weights of classes against scikit-learn's; weights of examples as they are given."""

from typing import Any

import numpy as np
import pytest

import engine
from engine.data.decoded.dataset import Dataset
from engine.data.weighing import class_draws, class_weights, weight_notes
from engine.errors import InputError

IMAGES = np.zeros((12, 4, 4, 1), np.uint8)
LABELS = np.array(["ant"] * 7 + ["bee"] * 4 + ["cow"])
WEIGHTS = np.linspace(0, 3, 12)


def animals(weights: object = None, names: object = None) -> Dataset:
    labels = LABELS if names is None else np.searchsorted(np.unique(LABELS), LABELS)
    return engine.dataset(IMAGES, labels, names, weights=weights)  # type: ignore[arg-type]


def test_balanced_weights_are_those_of_scikit_learn():
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    expected = compute("balanced", classes=np.unique(LABELS), y=LABELS)
    np.testing.assert_allclose(class_weights("balanced", animals()), expected)
    expected = compute("balanced", classes=np.unique(LABELS), y=LABELS, sample_weight=WEIGHTS.astype(np.float32))
    np.testing.assert_allclose(class_weights("balanced", animals(WEIGHTS)), expected, rtol=1e-6)


def test_balanced_weights_leave_out_a_class_without_examples():
    found = class_weights("balanced", animals(names=["ant", "bee", "cow", "dog"]))
    assert found == pytest.approx((12 / 21, 1.0, 4.0, 1.0))


@pytest.mark.parametrize(
    ("given", "expected"),
    [({"cow": 3.0, "ant": 0.5}, (0.5, 1, 3)), ({0: 1, 2: 4}, (1, 1, 4)), ({"2": 0.0}, (1, 1, 0)), (None, None)],
)
def test_weights_are_given_by_name_or_by_index(given: object, expected: object):
    config = engine.TrainConfig(class_weight=given)  # type: ignore[arg-type]
    assert class_weights(config.class_weight, animals()) == expected


def test_numbers_that_are_names_are_names():
    data = engine.dataset(IMAGES, [1] * 6 + [2] * 6)
    assert class_weights((("1", 5.0),), data) == (5.0, 1.0)
    assert weight_notes((("1", 5.0),), data) == ["the training loss counts by class: 1 5, 2 1"]
    assert "in each member by its own examples; by all of them:" in weight_notes("balanced", data, has_folds=True)[0]
    assert weight_notes((("0", 5.0),), data) == ["the training loss counts by class (by index): 1 5, 2 1"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bea": 1.0}, "train.class_weight: got 'bea'; expected one of ant, bee, cow"),
        ({"bee": 1.0, "dog": 2.0}, "got 'dog'"),
        ({3: 1.0}, "got '3'"),
        ({-1: 1.0}, "got '-1'"),
    ],
)
def test_class_that_does_not_exist_is_named(given: dict, message: str):
    with pytest.raises(InputError, match=message):
        class_weights(engine.TrainConfig(class_weight=given).class_weight, animals())  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [{"ant": -1.0}, {"ant": float("nan")}, {"ant": "heavy"}, {}, "balance", 3.0])
def test_weights_that_are_none_are_refused(given: object):
    with pytest.raises(InputError, match=r"train\.class_weight"):
        engine.TrainConfig(class_weight=given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [[0.5, 1.0, 3.0], np.array([0.5, 1.0, 3.0])])
def test_numbers_without_classes_say_how_they_are_given(given: Any):
    with pytest.raises(InputError, match=r"class_weight: got \[0\.5, 1\.0, 3\.0\]; .*dict\(enumerate\(numbers\)\)"):
        engine.TrainConfig(class_weight=given)
    config = engine.TrainConfig(class_weight=dict(enumerate(given)))
    assert class_weights(config.class_weight, animals()) == (0.5, 1.0, 3.0)


def test_weights_that_count_no_class_are_refused():
    given = engine.TrainConfig(class_weight={"ant": 0, "bee": 0, "cow": 0}).class_weight  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"train\.class_weight: got 0 for every class"):
        class_weights(given, animals())


def test_regression_has_no_class_weights_and_no_balanced_sampling():
    data = engine.dataset(IMAGES, np.linspace(0, 1, 12))
    with pytest.raises(InputError, match=r"train\.class_weight: got a regression"):
        class_weights("balanced", data)
    with pytest.raises(InputError, match=r"train\.sampling: got a regression"):
        class_draws(data)


def test_weights_follow_their_examples_and_belong_to_the_fingerprint():
    data, plain = animals(WEIGHTS), animals()
    assert data.weights is not None
    np.testing.assert_array_equal(data.take(np.array([3, 1]), "some").weights, WEIGHTS[[3, 1]].astype(np.float32))
    assert len({plain.fingerprint, data.fingerprint, animals(WEIGHTS[::-1]).fingerprint}) == 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (WEIGHTS[:5], r"weights: got float64 of 5; expected 12 numbers"),
        (-WEIGHTS, r"weights of example 1: got -0\.27"),
        (WEIGHTS * np.nan, "weights of example 0: got nan"),
        (WEIGHTS * 0, "weights: got 0 for every example"),
        (LABELS, "weights: got <?str"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights: np.ndarray, message: str):
    with pytest.raises(InputError, match=message):
        animals(weights)
