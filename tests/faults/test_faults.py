"""The harness that hurts runs, in its shortest form, and that it notices what it is there to notice."""

import dataclasses
import json
import os
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest

from tests.conftest import QUICK_FLAGS
from tests.faults.__main__ import main
from tests.faults.alone import plan
from tests.faults.comparison import Left, content_differences, differences
from tests.faults.corruptions import DAMAGES
from tests.faults.disks import NotPermitted, read_only, small_disk
from tests.faults.kills import KILLS
from tests.faults.processes import moment, reported_steps
from tests.faults.rounds import Place, Reference, Round
from tests.faults.troubles import TROUBLES
from tests.further import further


@pytest.mark.parametrize("damaged", [[], *further([["newest damaged"]])])
def test_hurt_runs_end_as_if_nothing_had_happened(damaged, tmp_path, capsys, monkeypatch):
    """One kill and one corruption of every file; the harness alone has 200 and all."""
    monkeypatch.setenv("XLA_FLAGS", f"{QUICK_FLAGS} {os.environ.get('XLA_FLAGS', '')}")  # for some ten processes
    only = ["killed at a file", *damaged]
    options = ["--cases", "mlp", "--rounds", "1", "--corruptions", "1", "--jobs", "2", "--seed", "1"]
    places = ["--directory", str(tmp_path / "work"), "--json", str(tmp_path / "faults.json")]
    code = main([*options, *places, "--only", *only])
    told, found = capsys.readouterr().out, json.loads((tmp_path / "faults.json").read_text())
    assert code == found["failures"] == 0, told
    assert Counter(each["scenario"] for each in found["rounds"]) == dict.fromkeys(only, 1)
    assert [each["lost"] for each in found["rounds"]] == [0] * len(only)
    (corruptions,) = found["corruptions"]
    assert corruptions["outcomes"]["refused"] + corruptions["outcomes"].get("identical", 0) > 10
    assert corruptions["outcomes"]["earlier"] > 10
    for name in only:
        assert name in told


def test_kills_are_spread_evenly_and_each_trouble_has_its_share():
    jobs = plan(200, ["mlp", "convnet", "ensemble"], [""], Random(0))
    counts = Counter(job.scenario for job in jobs)
    assert sum(counts[name] for name in KILLS) == 200
    assert {counts[name] for name in KILLS} <= {22, 23}
    assert {counts[name] for name in TROUBLES} == {10}
    cases = Counter(job.case for job in jobs)
    assert max(cases.values()) - min(cases.values()) <= 1


def content(value: float, step: int = 8) -> dict:
    return {"model[0]": np.full(3, value, np.float32), "record.score": 0.5, "record.step": step}


def left(value: float, best: int = 4) -> Left:
    steps = {"last": 8, "best": best}
    return Left(steps, {"last": content(value), "best": content(1.0, best)}, {"best_step": best}, np.ones((2, 3)))


def test_any_difference_is_noticed():
    assert differences(left(1.0), left(1.0)) == []
    assert differences(left(1.0), left(np.nextafter(np.float32(1), 2))) == ["last step, model[0]"]
    assert differences(left(0.0), left(-0.0)) == ["last step, model[0]"]
    assert any("best step: 4 became 6" in text for text in differences(left(1.0), left(1.0, best=6)))
    assert content_differences(content(1.0), {**content(1.0), "optimizer[0]": 1}) == ["optimizer[0] is in one only"]
    other = dataclasses.replace(left(1.0), outputs=np.zeros((2, 3)))
    assert differences(left(1.0), other) == ["the restored classifier's outputs"]


@pytest.fixture
def one_round(tmp_path: Path) -> Round:
    """A round of a run whose best step is 4 of 8."""
    scores = {2: None, 4: 0.9, 6: None, 8: 0.5}
    steps = {step: {"record.score": score} for step, score in scores.items()}
    place = Place(tmp_path)
    each = Round(place, Reference("mlp", tmp_path, left(1.0), steps, [], 1.0), "round", Random(0))
    each.run_dir.mkdir(parents=True)
    return each


@pytest.mark.parametrize(
    ("reported", "found", "lost"),
    [
        ([2, 4, 6, 8], {4, 6, 8}, set()),  # 2 was removed by rule
        ([2, 4, 6, 8], {6, 8}, {4}),  # the best one is gone
        ([2, 4, 6, 8], {4, 6}, {8}),
        ([2, 4], {2, 4, 6}, set()),  # 6 was saved and not yet reported
        ([2, 4], {4, 6, 8}, set()),
        ([], set(), set()),
    ],
)
def test_saved_step_counts_as_lost_unless_newer_ones_took_its_place(one_round, reported, found, lost):
    (one_round.run_dir / "log.txt").write_text("".join(f"saved step {step}\n" for step in reported))
    assert one_round.lost_steps(found) == lost


def test_steps_are_read_from_what_a_run_says():
    assert reported_steps("saved step 4\nsaved step 1,200", "stopped and saved at step 7 of 24. To go on: x") == {
        4,
        7,
        1200,
    }


def test_moment_of_a_kill_is_read_from_the_trace(tmp_path):
    assert moment([], tmp_path) == "importing"
    assert moment(["ready", "> train", "> compile"], tmp_path) == "compiling"
    assert moment(["ready", "> train", "< train"], tmp_path) == "between these"
    removal = ["ready", "> train", "file remove checkpoints/4/record/metadata"]
    assert moment(removal, tmp_path) == "training while a checkpoint is removed"
    (tmp_path / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir(parents=True)
    assert moment(["ready", "> eval"], tmp_path) == "evaluating while a checkpoint is written"


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("data", [b"", b"x", bytes(range(200))])
def test_damages_change_a_file(name, data):
    results = {DAMAGES[name](Random(seed), data, b"of another file" * 20) for seed in range(20)}
    assert results - {data} or not data  # of an empty file nothing can be cut off


def test_small_and_read_only_disks_refuse_to_be_written(tmp_path):
    try:
        with small_disk(tmp_path / "disk", 64):
            with pytest.raises(OSError, match="No space left"):
                (tmp_path / "disk" / "file").write_bytes(bytes(2**17))
            with read_only(tmp_path / "disk"), pytest.raises(OSError, match="Read-only"):
                (tmp_path / "disk" / "other").touch()
    except NotPermitted:
        pytest.skip("needs the permission to mount")
    assert list((tmp_path / "disk").iterdir()) == []
