"""Damaged pictures through prediction: each is predicted or reported; and the harness tells what is neither."""

import warnings
from collections import Counter
from random import Random

import numpy as np
import pytest
from PIL import Image

import engine

pytest.importorskip("skimage", reason="needs the photographs of scikit-image")

from tests.faults.pictures import DAMAGES, STORED, damaged, outcome_of, outcomes, sort_of, stored, table_of, untrained

pytestmark = pytest.mark.filterwarnings("ignore:.*several frames or pages")

NUMBERS = range(96)  # four of each kind and damage


@pytest.fixture(scope="module")
def classifier() -> engine.Classifier:
    return untrained()


def test_each_damaged_picture_is_predicted_or_reported(classifier: engine.Classifier):
    found = [outcome_of(classifier, number, damaged(0, number), 10, 600) for number in NUMBERS]
    counts = Counter(outcome.name for outcome in found)
    assert set(counts) == {"predicted", "reported"}, [o for o in found if o.name not in ("predicted", "reported")]
    assert min(counts.values()) > 10


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # of odd TIFF directories
def test_stream_of_damaged_pictures_gives_each_the_answer_it_has_alone(classifier: engine.Classifier):
    pictures = [damaged(1, number) for number in NUMBERS[:48]]
    answers = [answer for _, answer in classifier.stream(pictures, resize="stretch")]
    for picture, answer in zip(pictures, answers, strict=True):
        if isinstance(answer, engine.InputError):
            with pytest.raises(engine.InputError) as alone:
                classifier.predict(picture, resize="stretch")
            assert str(answer) == str(alone.value)
        else:
            np.testing.assert_allclose(
                answer.probability, classifier.predict_proba(picture, resize="stretch").max(), rtol=1e-5
            )


@pytest.mark.parametrize("kind", STORED)
def test_undamaged_pictures_are_predicted(classifier: engine.Classifier, kind: str):
    pictures = [stored(kind, Random(number)) for number in range(12)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", ".*several frames or pages")
        assert classifier.predict_proba(pictures, resize="stretch").shape == (12, 3)


def test_pictures_are_functions_of_seed_and_number_and_every_pair_has_its_turn():
    assert damaged(0, 30) == damaged(0, 30) != damaged(1, 30)
    assert {sort_of(number) for number in range(24)} == {(kind, damage) for kind in STORED for damage in DAMAGES}


class Wrong:
    """A classifier that answers in a given way."""

    def __init__(self, answer):
        self._answer = answer

    def predict_proba(self, data: bytes, resize: str) -> np.ndarray:
        return self._answer()


def raising(error: BaseException):
    raise error


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: np.full((1, 3), np.nan), "no probabilities"),
        (lambda: np.full((1, 3), 0.5), "no probabilities"),
        (lambda: raising(ZeroDivisionError("once")), "ZeroDivisionError: once"),
        (lambda: raising(SystemExit(3)), "SystemExit: 3"),
        (lambda: raising(Image.DecompressionBombError("big")), "DecompressionBombError: big"),
    ],
)
def test_any_other_answer_is_a_fault(answer, words: str):
    outcome = outcome_of(Wrong(answer), 0, b"", 10, 600)  # type: ignore[arg-type]
    assert outcome.name == "crashed"
    assert outcome.words.startswith(words)
    assert outcome_of(Wrong(lambda: np.full((1, 4), 0.25)), 0, b"", 0, 600).name == "slow"  # type: ignore[arg-type]


@pytest.mark.parametrize("end", ["os._exit(7)", "time.sleep(3600)"])
def test_process_that_dies_or_hangs_is_told_and_replaced(end: str, monkeypatch: pytest.MonkeyPatch):
    program = (
        "import os, sys, time; first, last = map(int, sys.argv[-2:]); print('ready', flush=True)\n"
        "for number in range(first, last):\n"
        f"    if number == 2: {end}\n"
        "    print('predicted', '', sep='\\t', flush=True)"
    )
    monkeypatch.setattr("tests.faults.pictures.WORKER", ("-c", program))
    monkeypatch.setattr(
        "tests.faults.pictures.GRACE_SECONDS", 5
    )  # also for a busy machine, of which it only ends the hang
    found = list(outcomes(0, range(5), 0.1, 600))
    assert [outcome.name for outcome in found] == ["predicted", "predicted", "crashed", "predicted", "predicted"]
    assert found[2].words.startswith("the process ended with 7" if "exit" in end else "no end")
    assert table_of(0, found).row_count == 1 + len(STORED) * len(DAMAGES)
