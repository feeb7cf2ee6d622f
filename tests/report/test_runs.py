"""`engine runs`: lists, chooses, sorts and compares what runs have left; and directories of the next number."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.checkpoints.run_directory import make_numbered
from engine.commands.process import command_again, restate
from engine.errors import InputError
from engine.report.runs import choose, find_runs, read_run, sort_runs
from tests.commands.test_data import command, mistake
from tests.conftest import make_dataset


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs: two rates in a directory, an ensemble in a folder of it; and what is none."""
    root, data = tmp_path_factory.mktemp("many") / "runs", make_dataset(60)
    splits = engine.Splits(data, make_dataset(30, 1), make_dataset(20, 2))
    for name, settings in (("slow", {"learning_rate": 1e-5}), ("fast", {"learning_rate": 1e-2, "epochs": 2})):
        engine.fit(engine.mlp(()), splits, **{"epochs": 1, **settings}, run_dir=root / name, verbose=False)
    engine.fit(engine.mlp(()), splits, epochs=1, members=2, run_dir=root / "more" / "two", verbose=False)
    (root / "empty").mkdir()
    (root / "link").symlink_to(root / "slow")
    return root


def read(place: Path):
    return [read_run(path) for path in find_runs(place)]


def test_runs_are_found_with_the_scores_of_their_best_epoch(place: Path):
    runs = read(place)
    assert [run.path.name for run in runs] == ["fast", "two", "slow"]
    fast = runs[0]
    history = engine.restore(fast.path).record.history
    assert fast.values["epochs"] == 2
    assert fast.values["accuracy"] == max(row["validation_accuracy"] for row in history)
    result = json.loads((fast.path / "result.json").read_text())
    assert fast.values["test_accuracy"] == result["metrics"]["test"]["accuracy"]
    assert find_runs(place / "slow") == [place / "slow"]


def test_runs_are_chosen_by_scores_and_settings(place: Path):
    runs = read(place)
    assert [run.path.name for run in choose(runs, ["optim.learning-rate=0.01"])] == ["fast"]
    assert [run.path.name for run in choose(runs, ["members>=2", "data.name=arrays"])] == ["two"]
    assert [run.path.name for run in choose(runs, ["epochs<2", "train.members=1"])] == ["slow"]
    assert choose(runs, ["optim.name=sgd"]) == []
    for condition, message in (
        ("accuracy", "where: got 'accuracy'; expected FIELD=VALUE"),
        ("acuracy>1", "where: got"),
    ):
        with pytest.raises(InputError, match=message):
            choose(runs, [condition])


def test_metrics_are_sorted_the_best_first(place: Path):
    runs = read(place)
    for name in ("accuracy", "loss", "epochs", "changed", "optim.learning_rate"):
        found = [run.find(name) for run in sort_runs(runs, name)]
        assert found == sorted(found, reverse=name in ("accuracy", "changed"))
    with pytest.raises(InputError, match=r"sort: got 'acuracy'.*accuracy"):
        sort_runs(runs, "acuracy")


def test_command_lists_and_compares(place: Path, capsys, tmp_path: Path):
    said = command(capsys, "runs", place, "--where", "train.members=1", "--compare", "--sort", "accuracy")
    assert "2 runs" in said
    assert "optim.learning_rate" in said
    assert "1e-05" in said
    assert "train.batch_size" not in said
    assert "no runs for which this holds" in command(capsys, "runs", place, "--where", "epochs>5")
    assert "no runs in" in command(capsys, "runs", tmp_path)
    assert "compare: got 1 runs; expected 2 to 8" in mistake(capsys, "runs", place / "slow", "--compare")


def test_run_that_cannot_be_read_is_left_out_and_named(place: Path, capsys, tmp_path: Path):
    (tmp_path / "bad" / "checkpoints" / "4" / "record").mkdir(parents=True)
    (tmp_path / "bad" / "checkpoints" / "4" / "record" / "metadata").write_text("{")
    capsys.readouterr()
    command_output = command(capsys, "runs", tmp_path, place / "slow")
    assert "slow" in command_output


def test_numbered_directories_go_on_after_all_that_are_there(tmp_path: Path):
    (tmp_path / "mine-7").mkdir()
    (tmp_path / "mine-x").mkdir()
    assert make_numbered(tmp_path / "mine").name == "mine-8"
    assert make_numbered(tmp_path / "mine").name == "mine-9"
    assert make_numbered(tmp_path / "new" / "other").name == "other-1"


def test_suggested_commands_name_the_numbered_directory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["engine", "train", "mlp", "--run-dir", "a b", "--numbered", "--train.epochs=2"])
    restate("--run-dir=a b-1", "--numbered")
    assert command_again("--resume").endswith("train mlp --train.epochs=2 --run-dir 'a b-1' --resume")


def test_run_is_kept_in_a_numbered_directory_with_its_page(in_tmp: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    np.savez("data.npz", x_train=make_dataset(40).images, y_train=make_dataset(40).labels)
    data = engine.DataConfig(path=in_tmp / "data.npz")
    config = engine.RunConfig("numbered", engine.mlp(()), data, engine.TrainConfig(epochs=1))
    for hook in ("excepthook", "unraisablehook"):
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    monkeypatch.setattr(sys, "argv", ["numbered.py", "--numbered", "--report"])
    engine.main(config)
    said = capsys.readouterr().out
    assert "saved in runs/numbered-1: report.html" in said
    assert "engine report" not in said
    assert "Confusion matrix" in (in_tmp / "runs" / "numbered-1" / "report.html").read_text("utf-8")
    monkeypatch.setattr(sys, "argv", ["numbered.py", "--numbered", "--resume"])
    with pytest.raises(SystemExit):
        engine.main(config)
    assert "resume: got True; expected off with --numbered" in capsys.readouterr().err
