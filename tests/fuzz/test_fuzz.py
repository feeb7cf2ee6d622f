"""A few seconds of `python -m tests.fuzz`: every reader, fed with damaged files."""

import os
import time

import pytest

from tests.fuzz.__main__ import OUTCOMES, input_of, outcome_of, seeds, table_of, target_of
from tests.fuzz.targets import TARGETS

LIMITS = (10.0, 500.0)  # seconds of the processor, megabytes
WHOLE = [(target, path) for target in TARGETS for path in seeds(target)]
NUMBERS = range(200)


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize(("target", "path"), WHOLE, ids=[f"{target} {path.name}" for target, path in WHOLE])
def test_files_of_the_corpus_are_read_and_those_that_were_faults_are_answered(target, path):
    outcome = outcome_of(0, target, TARGETS[target].name or path.name, path.read_bytes(), False, *LIMITS)
    assert outcome.name in (OUTCOMES if path.name.startswith("found-") else ("read",)), outcome


def test_damaged_files_are_read_or_refused():
    found = [outcome_of(number, target_of(number), *input_of(1, number), *LIMITS) for number in NUMBERS]
    assert not [outcome for outcome in found if outcome.name not in OUTCOMES]
    assert {outcome.name for outcome in found} == set(OUTCOMES)
    assert table_of(1, found).row_count == len(TARGETS) + 1


def test_inputs_are_functions_of_seed_and_number_and_of_every_kind(monkeypatch):
    numbers = range(300)
    first = [input_of(5, number) for number in numbers]
    monkeypatch.setattr("time.localtime", lambda *seconds: time.gmtime(10**9))
    assert first == [input_of(5, number) for number in numbers]
    assert first != [input_of(6, number) for number in numbers]
    assert {target_of(number) for number in range(sum(target.share for target in TARGETS.values()))} == set(TARGETS)


def test_any_other_answer_is_a_fault(monkeypatch):
    answers = {"crashed": lambda path: 1 / 0, "slow": lambda path: None, "large": lambda path: None}
    for name, read in answers.items():
        monkeypatch.setitem(TARGETS, "plan", type(TARGETS["plan"])(read))
        limits = {"slow": (-1.0, 500.0), "large": (10.0, -1.0)}.get(name, LIMITS)
        assert outcome_of(3, "plan", "plan.json", b"", False, *limits).name == name
