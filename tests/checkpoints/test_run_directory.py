"""The directory of a run: what it may be, when it is gone on with, and that nothing else is touched."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine import DataConfig, InputError, OptimConfig, PlanConfig, RunConfig, TrainConfig, mlp
from engine.checkpoints import run_directory
from engine.checkpoints.checksums import write_sums
from engine.checkpoints.record import FORMAT_VERSION, Record
from engine.checkpoints.run_directory import FILES, clear_run, open_run, write_config
from engine.commands.process import errors_as_lines
from engine.config.contract import InputSpec
from engine.config.plan import Plan
from engine.host.storage import write_atomically
from engine.records import to_json

CONFIG = RunConfig("a", mlp((4,)), train=TrainConfig(epochs=3), optim=OptimConfig(learning_rate=0.5))
STEPS_PER_EPOCH = 4


def with_epochs(epochs: int, schedule: Any = "constant") -> RunConfig:
    return replace(CONFIG, train=TrainConfig(epochs=epochs), optim=OptimConfig(learning_rate=0.5, schedule=schedule))


def store_record(path: Path, step: int, config: RunConfig = CONFIG) -> Record:
    """Writes the record of a step as a run does, without arrays."""
    record = Record(
        config, InputSpec((8, 8, 1)), ("x", "y"), 2, "content", step, STEPS_PER_EPOCH, 0.5, Plan("xla"),
        history=({"epoch": 1, "loss": 0.25},),
    )  # fmt: skip
    file = path / "checkpoints" / str(step) / "record" / "metadata"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"format_version": FORMAT_VERSION, **to_json(record)}), encoding="utf-8")
    write_sums(file.parents[1])
    return record


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of CONFIG that saved after its first epoch and in the middle of its third."""
    path = tmp_path / "run"
    open_run(path, CONFIG, resume=False, overwrite=False)
    write_config(path, CONFIG)
    store_record(path, 4)
    store_record(path, 10)
    return path


@pytest.mark.parametrize(("resume", "overwrite"), [(False, False), (True, False), (False, True)])
def test_run_starts_in_a_new_directory(resume: bool, overwrite: bool, tmp_path: Path):
    path = tmp_path / "runs" / "a run"
    assert open_run(path, CONFIG, resume, overwrite) is None
    assert list(path.iterdir()) == []


def test_resume_and_overwrite_together_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"overwrite: got both it and resume; expected one of them"):
        open_run(tmp_path, CONFIG, resume=True, overwrite=True)


def test_overwrite_is_refused_where_other_files_and_no_run_are(tmp_path: Path):
    (tmp_path / "config.json").write_text("mine")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"which contains other files"):
        open_run(tmp_path, CONFIG, resume=False, overwrite=True)
    assert (tmp_path / "config.json").read_text() == "mine"


def test_run_starts_in_an_empty_directory(tmp_path: Path):
    assert open_run(tmp_path, CONFIG, resume=False, overwrite=False) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("overwrite", [False, True])
def test_run_is_refused_when_its_directory_is_a_file(overwrite: bool, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"run_dir: got .*file, a file; expected a directory\. .*--run-dir"):
        open_run(tmp_path / "file", CONFIG, resume=not overwrite, overwrite=overwrite)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("overwrite", [False, True])
def test_run_is_refused_when_its_parent_is_a_file(overwrite: bool, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"run_dir: got .*run \(Not a directory\); expected a directory that can be"):
        open_run(tmp_path / "file" / "run", CONFIG, resume=False, overwrite=overwrite)


@pytest.mark.parametrize("resume", [False, True])
def test_run_is_refused_when_the_directory_holds_other_files(resume: bool, tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match=r"run_dir: got .*, which contains other files; expected an empty or new"):
        open_run(tmp_path, CONFIG, resume=resume, overwrite=False)
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("resume", [False, True])
def test_run_starts_where_one_was_killed_before_its_first_checkpoint(resume: bool, tmp_path: Path):
    write_config(tmp_path, replace(CONFIG, train=TrainConfig(seed=9)))
    (tmp_path / ".config.json.12345").touch()
    (tmp_path / "log.txt").touch()
    (tmp_path / "checkpoints" / "4.orbax-checkpoint-tmp").mkdir(parents=True)
    assert open_run(tmp_path, CONFIG, resume, overwrite=False) is None


def test_run_is_refused_without_a_flag_when_one_is_unfinished(run: Path):
    before = sorted(run.rglob("*"))
    with pytest.raises(InputError) as raised:
        open_run(run, CONFIG, resume=False, overwrite=False)
    message = str(raised.value)
    assert f"{run}, which contains an unfinished run (2 of 3 epochs, step 10); expected a new directory" in message
    assert "--resume" in message
    assert "--overwrite" in message
    assert "--run-dir" in message
    assert sorted(run.rglob("*")) == before


def test_run_is_refused_without_a_flag_when_one_is_finished(run: Path):
    store_record(run, 12)
    with pytest.raises(InputError, match=r"which contains a finished run \(3 of 3 epochs, step 12\)"):
        open_run(run, CONFIG, resume=False, overwrite=False)


def test_run_is_refused_without_a_flag_when_one_of_another_config_is_there(run: Path):
    with pytest.raises(
        InputError, match=r"which contains a run of another config; .*\n  train\.seed: stored 0, given 1"
    ):
        open_run(run, replace(CONFIG, train=TrainConfig(epochs=3, seed=1)), resume=False, overwrite=False)


def test_resume_gives_the_last_record(run: Path):
    record = open_run(run, CONFIG, resume=True, overwrite=False)
    assert record is not None
    assert record.step == 10
    assert record.history == ({"epoch": 1, "loss": 0.25},)


def test_resume_passes_over_a_checkpoint_that_was_not_finished(run: Path):
    (run / "checkpoints" / "11").mkdir()
    (run / "checkpoints" / "12.orbax-checkpoint-tmp").mkdir()
    record = open_run(run, CONFIG, resume=True, overwrite=False)
    assert record is not None
    assert record.step == 10


def test_resume_is_refused_with_the_fields_that_differ(run: Path):
    other = RunConfig(
        "a", mlp((5,)), DataConfig(mean=(0.5,)), TrainConfig(epochs=3, batch_size=32), OptimConfig(learning_rate=0.25)
    )
    with pytest.raises(InputError) as raised:
        open_run(run, other, resume=True, overwrite=False)
    first, *changes = str(raised.value).splitlines()
    assert "which contains a run of another config; expected the config it was started with." in first
    assert changes[0].startswith("  model.layers")
    assert changes[1:] == [
        "  data.mean: stored None, given [0.5]",
        "  train.batch_size: stored 64, given 32",
        "  optim.learning_rate: stored 0.5, given 0.25",
    ]
    assert RunConfig.read(run / "config.json") == CONFIG


@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_resume_goes_on_for_more_epochs_when_no_schedule_depends_on_them(schedule: str, tmp_path: Path):
    store_record(tmp_path, 12, with_epochs(3, schedule))
    record = open_run(tmp_path, with_epochs(5, schedule), resume=True, overwrite=False)
    assert record is not None
    assert record.step == 12


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_resume_is_refused_for_more_epochs_when_the_schedule_depends_on_them(schedule: str, tmp_path: Path):
    store_record(tmp_path, 12, with_epochs(3, schedule))
    with pytest.raises(InputError, match=r"\n  train\.epochs: stored 3, given 5$"):
        open_run(tmp_path, with_epochs(5, schedule), resume=True, overwrite=False)


def test_resume_does_not_ask_where_data_lies_nor_for_the_length_of_a_call(run: Path, tmp_path: Path):
    data = DataConfig(data_dir=tmp_path / "a", manual_dir=tmp_path / "b", cache_dir=tmp_path / "c")
    moved = replace(CONFIG, name="b", data=data, plan=PlanConfig(chunk_steps=7))
    assert open_run(run, moved, resume=True, overwrite=False) is not None


def test_resume_is_refused_when_the_lowering_is_another(run: Path):
    with pytest.raises(InputError, match=r"\n  plan\.lowering: stored 'auto', given 'xla'$"):
        open_run(run, replace(CONFIG, plan=PlanConfig("xla")), resume=True, overwrite=False)


def test_run_goes_on_from_the_step_before_a_damaged_one(run: Path):
    (run / "checkpoints" / "10" / "record" / "metadata").write_text("{")
    with pytest.raises(InputError, match=r"metadata: got .*; expected a complete record"):
        open_run(run, CONFIG, resume=False, overwrite=False)
    said: list[str] = []
    record = open_run(run, CONFIG, resume=True, overwrite=False, say=said.append)
    assert record is not None
    assert record.step == 4
    assert said[0].startswith("step 10 is damaged")
    assert said[1] == "resuming from step 4: 6 steps are lost and trained again"
    assert open_run(run, CONFIG, resume=False, overwrite=True) is None


def test_overwrite_removes_the_files_of_the_run_and_no_others(run: Path):
    for name in FILES:
        if name != "checkpoints":
            (run / name).write_text("of the old run")
    (run / "notes.txt").write_text("mine")
    (run / "sub").mkdir()
    (run / "sub" / "result.json").write_text("mine")
    assert open_run(run, CONFIG, resume=False, overwrite=True) is None
    assert (run / "result.json").exists()
    clear_run(run)
    assert sorted(path.name for path in run.iterdir()) == ["notes.txt", "sub"]
    assert (run / "notes.txt").read_text() == (run / "sub" / "result.json").read_text() == "mine"


def refuse_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes creating a file fail as in a read-only directory; root would be allowed to write there."""

    def refuse(directory: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("engine.checkpoints.run_directory.check_can_write", refuse)


@pytest.mark.parametrize(("resume", "overwrite"), [(True, False), (False, True)])
def test_run_is_left_alone_when_its_directory_cannot_be_written(
    resume: bool, overwrite: bool, run: Path, monkeypatch: pytest.MonkeyPatch
):
    before = sorted(run.rglob("*"))
    refuse_to_write(monkeypatch)
    with pytest.raises(InputError, match=r"run_dir: got .*\(Permission denied\); expected a directory that can be wri"):
        open_run(run, CONFIG, resume, overwrite)
    assert sorted(run.rglob("*")) == before


def test_new_run_is_refused_when_its_directory_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    refuse_to_write(monkeypatch)
    with pytest.raises(InputError, match=r"run_dir: got .*\(Permission denied\)"):
        open_run(tmp_path, CONFIG, resume=False, overwrite=False)


def test_new_run_is_refused_when_its_directory_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path, *arguments: Any, **options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(InputError, match=r"run_dir: got .*new \(Permission denied\)"):
        open_run(tmp_path / "new", CONFIG, resume=False, overwrite=False)


def test_config_is_left_in_the_directory(tmp_path: Path):
    write_config(tmp_path, CONFIG)
    assert RunConfig.read(tmp_path / "config.json") == CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_write_atomically_replaces_the_text_and_leaves_nothing_else(tmp_path: Path):
    file = tmp_path / "result.json"
    for text in ("old and longer", "neu ü"):
        write_atomically(file, text)
        assert file.read_text(encoding="utf-8") == text
    assert list(tmp_path.iterdir()) == [file]


def test_write_atomically_keeps_the_old_text_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "result.json"
    write_atomically(file, "old")

    def fill_up(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, "new")
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("is_run", [False, True])
def test_disk_that_fills_up_elsewhere_in_a_run_is_told_with_the_way_to_go_on(is_run, capsys):
    with pytest.raises(SystemExit) as stop, errors_as_lines(is_run):
        raise OSError(errno.ENOSPC, "No space left on device")
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert said.startswith("error: No space left on device. What was saved before stays.")
    assert ("Fix this, then run: " in said and "--resume" in said) is is_run


def test_file_system_without_locks_is_reported_and_used(tmp_path, monkeypatch, capsys):
    def no_locks(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(run_directory.fcntl, "flock", no_locks)
    with run_directory.claimed(tmp_path / "run") as path:
        assert path.is_dir()
    assert "has no locks (Function not implemented)" in capsys.readouterr().err
