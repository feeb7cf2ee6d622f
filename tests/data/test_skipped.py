"""What a folder holds beside readable pictures is said, counted and kept: in a run, its record, and beside n."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import engine
from engine.checkpoints.steps import choose_step, read_record
from engine.config.data import DataConfig
from engine.data.kinds import open_source
from engine.report.progress import Reporter
from tests.commands.test_data import command
from tests.conftest import TINY


def spoilt(root: Path) -> Path:
    """Twenty pictures of two classes, six bad ones and three files of other kinds."""
    for name, level in (("ant", 0), ("bee", 200)):
        (root / name).mkdir(parents=True)
        for i in range(10):
            Image.new("L", (8, 8), level + i).save(root / name / f"{i}.png")
    for i in range(6):
        (root / "bee" / f"bad{i}.png").touch()
    for name in ("ant/1.mp4", "bee/2.mp4", ".DS_Store"):
        (root / name).touch()
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The directory of a run on such a folder, and what it said."""
    place, said = tmp_path_factory.mktemp("skipped"), list[str]()
    data = DataConfig(
        path=spoilt(place / "insects"), on_bad_file="skip", color="grayscale", validation_fraction=0.2,
        cache_dir=place / "cache",
    )  # fmt: skip

    class Listening(Reporter):
        def say(self, text: Any) -> None:
            said.append(str(text))

    config = engine.RunConfig("skipped", TINY, data, engine.TrainConfig(1, 4))
    engine.run(config, place / "run", reporter=Listening())
    return place / "run", said


def test_run_says_what_it_passed_over_and_skipped_and_keeps_both_in_its_record(run: tuple[Path, list[str]]):
    directory, said = run
    assert said[0] == "insects: passed over 2 .mp4 (ant/1.mp4 first), 1 hidden or system (.DS_Store)"
    first = f"{directory.parent / 'insects' / 'bee' / 'bad0.png'}: an empty file"
    assert f"insects: skipped 6 unreadable files of 26, first {first}" in said
    record = read_record(directory, choose_step(directory, "last"))
    assert record.passed_over == {".mp4": 2, "hidden or system": 1}
    assert record.skipped == {"train": 6}
    assert len((directory / "skipped.txt").read_text().splitlines()) == 6
    assert "skipped" not in json.loads((directory / "result.json").read_text())["metrics"]["validation"]


def test_evaluation_says_so_beside_n(run: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]):
    directory, _ = run
    shown = command(capsys, "eval", directory, "--data.split", "train")
    assert "20 of 26" in shown
    data = DataConfig(path=directory.parent / "insects", on_bad_file="skip", color="grayscale")
    dataset = open_source(data, lambda text: None).load("train", "data.split")
    metrics = engine.restore(directory).evaluate(dataset)
    assert (metrics["n"], metrics["skipped"]) == (20, 6)
