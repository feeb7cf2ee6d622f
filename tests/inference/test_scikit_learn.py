"""The scikit-learn face: scikit-learn's own tools take it, and say what ours say."""

import sys

import numpy as np
import pytest

import engine
from tests.conftest import TINY, make_dataset

sklearn = pytest.importorskip("sklearn", reason="scikit-learn comes with the dev extra")

from sklearn.base import clone, is_classifier  # noqa: E402
from sklearn.calibration import CalibratedClassifierCV  # noqa: E402
from sklearn.frozen import FrozenEstimator  # noqa: E402
from sklearn.metrics import ConfusionMatrixDisplay, get_scorer  # noqa: E402
from sklearn.utils.validation import check_is_fitted  # noqa: E402

DATA = make_dataset(150, 4)
NAMES = np.array(DATA.class_names)[DATA.labels]


@pytest.fixture(scope="module")
def classifier() -> engine.Classifier:
    return engine.fit(TINY, make_dataset(256), epochs=2, validation=0, verbose=False).classifier


def test_estimator_says_what_the_classifier_says(classifier):
    estimator = classifier.as_sklearn()
    check_is_fitted(estimator)
    assert is_classifier(estimator)
    assert estimator.classes_.tolist() == list(classifier.class_names)
    assert estimator.predict(DATA.images).tolist() == [p.label for p in classifier.predict(DATA.images)]
    np.testing.assert_array_equal(estimator.predict_proba(DATA.images), classifier.predict_proba(DATA.images))
    assert estimator.score(DATA.images, NAMES) == pytest.approx(classifier.evaluate(DATA)["accuracy"])
    assert get_scorer("neg_log_loss")(estimator, DATA.images, NAMES) == pytest.approx(
        -classifier.evaluate(DATA)["loss"], rel=1e-4
    )
    assert clone(estimator).predict(DATA.images[:3]).tolist() == estimator.predict(DATA.images[:3]).tolist()


def test_options_are_those_of_predict_proba(classifier):
    floats = DATA.images / np.float32(255)
    estimator = classifier.as_sklearn(value_range=(0, 1))
    np.testing.assert_array_equal(estimator.predict_proba(floats), classifier.predict_proba(DATA.images))


def test_calibration_and_displays_take_it(classifier):
    calibrated = CalibratedClassifierCV(FrozenEstimator(classifier.as_sklearn())).fit(DATA.images, NAMES)
    assert calibrated.predict_proba(DATA.images[:5]).shape == (5, 3)
    display = ConfusionMatrixDisplay.from_estimator(classifier.as_sklearn(), DATA.images, NAMES)
    assert display.confusion_matrix.sum() == 150


def test_columns_are_in_the_order_that_metrics_take_them_to_be_in(classifier):
    given = ["cow", "ant", "bee"]
    how = {"class_names": given, "epochs": 1, "validation": None, "verbose": False}
    named = engine.finetune(classifier, (DATA.images, DATA.labels), **how).classifier
    estimator, names = named.as_sklearn(), np.array(given)[DATA.labels]
    assert estimator.classes_.tolist() == ["ant", "bee", "cow"]
    assert estimator.predict(DATA.images).tolist() == [p.label for p in named.predict(DATA.images)]
    scored = named.evaluate(engine.dataset(DATA.images, DATA.labels, given))
    assert get_scorer("neg_log_loss")(estimator, DATA.images, names) == pytest.approx(-scored["loss"], rel=1e-4)
    numbered = engine.fit(TINY, (DATA.images, DATA.labels * 5 + 1), epochs=0, validation=0, verbose=False).classifier
    assert numbered.as_sklearn().classes_.tolist() == [1, 6, 11]


def test_classes_that_were_never_named_are_numbers():
    classifier = engine.fit(TINY, (DATA.images, DATA.labels), epochs=0, validation=0, verbose=False).classifier
    estimator = classifier.as_sklearn()
    assert estimator.classes_.tolist() == [0, 1, 2]
    assert 0 <= estimator.score(DATA.images, DATA.labels) <= 1


def test_what_it_cannot_do_is_refused(classifier, monkeypatch):
    with pytest.raises(
        engine.InputError, match=r"fit: got a call; expected none: the model is trained. .*FrozenEstimator"
    ):
        classifier.as_sklearn().fit(DATA.images, NAMES)
    monkeypatch.setitem(sys.modules, "engine.inference.scikit_learn", None)
    with pytest.raises(engine.InputError, match=r"as_sklearn: got no scikit-learn; .* pip install scikit-learn"):
        classifier.as_sklearn()


def test_pictures_that_do_not_fit_are_answered_with_what_to_do(classifier):
    images = np.asarray(DATA.images)
    wide = np.pad(images, ((0, 0), (0, 4), (0, 4), (0, 0)))
    for size in (wide, wide[..., 0]):
        with pytest.raises(engine.InputError, match=r"Resize to 8×8, or say how: resize=[\s\S]*as_sklearn") as told:
            classifier.as_sklearn().predict_proba(size)
        assert "Reshape" not in str(told.value)
    assert len(classifier.as_sklearn(resize="stretch").predict_proba(wide)) == len(DATA)
    with pytest.raises(engine.InputError, match=r"Reshape: images\.reshape\(-1, 8, 8, 1\)"):
        classifier.predict_proba(images.reshape(len(images), -1))
    with pytest.raises(engine.InputError, match=r"moveaxis\(images, 1, -1\)"):
        classifier.predict_proba(np.moveaxis(wide, -1, 1))


@pytest.mark.parametrize("scale", [lambda x: x / 255, lambda x: x / 127.5 - 1, lambda x: x.astype(np.float32)])
def test_floats_for_a_model_of_levels_are_answered_with_the_line_that_helps(classifier, scale):
    images = np.asarray(DATA.images)
    for ask in (classifier.predict, classifier.outputs, lambda given: classifier.evaluate((given, DATA.labels))):
        with pytest.raises(engine.InputError, match=r"round\(\)\.astype\(np\.uint8\), or pass value_range=") as told:
            ask(scale(images))
        line = str(told.value).split("uint8: ")[1].split(", or pass")[0]
        np.testing.assert_array_equal(eval(line, {"np": np, "images": scale(images)}), images)


def test_outputs_check_values_as_predictions_do():
    floats = np.asarray(DATA.images) / np.float32(255)
    run = engine.fit(TINY, (floats, DATA.labels), epochs=1, validation=0, verbose=False).classifier
    for ask in (run.outputs, run.predict_proba):
        with pytest.raises(
            engine.InputError, match=r"values like those the model was trained on, .*Divide them by 255"
        ):
            ask(np.float32(DATA.images))
        with pytest.raises(engine.InputError, match="NaN or infinity"):
            ask(np.where(floats > 0.5, np.float32(np.nan), floats))
    np.testing.assert_array_equal(run.outputs(floats), run.predict_proba(floats))
