"""Checkpoints that cannot be used are refused with a reason; those that can open anywhere."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import engine
from engine.checkpoints.checksums import SUMS, write_sums
from engine.checkpoints.record import FORMAT_VERSION, Record
from engine.checkpoints.run_directory import claimed, open_run
from engine.checkpoints.saving import Checkpoints, kept_steps
from engine.checkpoints.steps import best_step, choose_step, find_steps, read_record, restore_arrays
from engine.config.contract import InputSpec
from engine.config.plan import Plan
from engine.data.decoded.dataset import Splits
from engine.host.clock import Clock
from engine.records import from_json, to_json
from engine.report.progress import Silent
from engine.runs.loop import train
from tests.conftest import TINY, make_dataset


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run; tests copy it before they hurt it."""
    directory = tmp_path_factory.mktemp("finished")
    config = engine.RunConfig("tiny", TINY, train=engine.TrainConfig(1, 64))
    train(config, Splits(make_dataset(), make_dataset(50, 1)), directory, Clock(), Silent())
    return directory


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


IMAGES = make_dataset(5, 3).images


def test_arrays_larger_than_a_data_file_are_saved_in_several_and_restored_bit_for_bit(tmp_path, monkeypatch):
    config, draw = engine.RunConfig("tiny", TINY), np.random.default_rng(3)
    tree = {
        "large": draw.integers(0, 2**32, (3, 100, 700), dtype=np.uint32).view(np.float32),  # NaNs of all kinds too
        "scalar": np.array(7, np.int32), "half": np.ones(5, np.float16), "empty": {},
    }  # fmt: skip
    record = Record(config, InputSpec((8, 8, 1)), ("x", "y"), 2, "content", 1, 4, 0.5, Plan("xla"), history=())
    monkeypatch.setattr("engine.checkpoints.saving.FILE_BYTES", 100_000)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(record, model=tree)
    sizes = [file.stat().st_size for file in (tmp_path / "checkpoints" / "1" / "model").rglob("d/*")]
    assert sum(sizes) > 800_000
    assert max(sizes) < 400_000
    restored = restore_arrays(tmp_path, read_record(tmp_path, 1), model=tree)["model"]
    assert jax.tree.map(lambda leaf: (leaf.dtype, leaf.tobytes()), restored) == jax.tree.map(
        lambda leaf: (leaf.dtype, leaf.tobytes()), tree
    )


def test_record_survives_json(run):
    record = read_record(run, 4)
    assert from_json(Record, json.loads(json.dumps(to_json(record)))) == record
    assert record.class_names == ("band 0", "band 1", "band 2")
    assert record.input_spec.shape == (8, 8, 1)
    assert record.versions["jax"]


def test_restore_needs_only_the_directory_wherever_it_was_copied(run, tmp_path):
    before = engine.restore(run).outputs(IMAGES)
    moved = Path(shutil.move(run, tmp_path / "elsewhere"))
    np.testing.assert_array_equal(engine.restore(moved).outputs(IMAGES), before)
    np.testing.assert_array_equal(engine.restore(moved / "checkpoints").outputs(IMAGES), before)


def test_restored_model_gives_the_same_numbers_in_another_process(run, tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import engine, numpy as np, sys; run, folder = sys.argv[1:];"
        "np.save(folder + '/out.npy', engine.restore(run).outputs(np.load(folder + '/images.npy')))"
    )
    subprocess.run([sys.executable, "-c", code, str(run), str(tmp_path)], check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), engine.restore(run).outputs(IMAGES))


def test_directory_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(engine.InputError, match=r"nowhere: got no such directory; expected the directory of a run"):
        engine.restore(tmp_path / "nowhere")


def test_empty_directory_is_refused(tmp_path):
    with pytest.raises(engine.InputError, match=r"got no checkpoint; expected at least one complete checkpoint"):
        engine.restore(tmp_path)


def test_half_written_checkpoint_is_refused(run):
    (run / "checkpoints" / "4").rename(run / "checkpoints" / "4.orbax-checkpoint-tmp-0")
    assert find_steps(run) == []
    with pytest.raises(engine.InputError, match=r"got only half-written checkpoints"):
        engine.restore(run)


def test_newer_format_is_refused_with_both_versions(run):
    file = run / "checkpoints" / "4" / "record" / "metadata"
    value = json.loads(file.read_text())
    assert value["format_version"] == FORMAT_VERSION
    file.write_text(json.dumps({**value, "format_version": 99}))
    with pytest.raises(engine.InputError, match=rf"got checkpoint format 99; expected {FORMAT_VERSION} or older"):
        engine.restore(run)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format_version": 1}', '{"format_version": 1, "step": "four"}'])
def test_damaged_record_is_refused_with_its_file(run, text):
    (run / "checkpoints" / "4" / "record" / "metadata").write_text(text)
    with pytest.raises(engine.InputError, match="record"):
        engine.restore(run)


@pytest.mark.parametrize("name", ["model/manifest.ocdbt", "model/_METADATA", "model"])
def test_missing_files_are_refused_with_the_checkpoint(run, name):
    target = run / "checkpoints" / "4" / name
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    with pytest.raises(engine.InputError, match=rf"checkpoints/4/{name}[^:]*: got nothing: the file is missing"):
        engine.restore(run)


def test_unknown_step_lists_the_known(run):
    with pytest.raises(engine.InputError, match=r"step: got 3; expected one of 4"):
        engine.restore(run, step=3)
    assert choose_step(run, 4) == 4


def test_nothing_is_pickled(run):
    for path in run.rglob("*"):
        if path.is_file():
            assert not path.read_bytes().startswith((b"\x80\x04", b"\x80\x05")), path


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_flipped_bytes_are_noticed(run, share):
    largest = max((run / "checkpoints" / "4" / "model").rglob("d/*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    for i in range(3):
        data[int(len(data) * share) + i] ^= 0xFF
    largest.write_bytes(bytes(data))
    with pytest.raises(engine.InputError, match=rf"{largest.name}: got content that is not what was saved"):
        engine.restore(run)


@pytest.mark.parametrize("name", ["/etc/hostname", "record/../../../../outside", "record/meta\0data"])
def test_sums_of_files_elsewhere_are_refused(run, name):
    file = run / "checkpoints" / "4" / SUMS
    file.write_text(file.read_text() + f"{'0' * 128}  {name}\n")
    with pytest.raises(engine.InputError, match=rf"{SUMS}: got a name that leads elsewhere"):
        engine.restore(run)


def test_record_that_is_nested_without_end_is_refused(run):
    (run / "checkpoints" / "4" / "record" / "metadata").write_text("[" * 100_000)
    with pytest.raises(engine.InputError, match="expected a complete record"):
        engine.restore(run)


def test_model_that_no_memory_holds_is_refused(run):
    record = read_record(run, 4)
    with pytest.raises(engine.InputError, match="expected arrays of the shapes that the record describes"):
        restore_arrays(run, record, model=jax.ShapeDtypeStruct((2**50,), np.float32))


def test_step_under_the_number_of_another_is_refused(run):
    shutil.move(run / "checkpoints" / "4", run / "checkpoints" / "5")
    with pytest.raises(
        engine.InputError, match=r"5/record/metadata: got the record of step 4; expected that of step 5"
    ):
        engine.restore(run, step=5)


def test_step_whose_record_is_gone_is_refused_by_its_file(run):
    (run / "checkpoints" / "4" / "record" / "metadata").unlink()
    with pytest.raises(engine.InputError, match=r"4/record/metadata: got .*No such file"):
        engine.restore(run, step=4) if find_steps(run) else read_record(run, 4)


def test_every_changed_byte_of_a_record_is_noticed(run):
    """A number that a model is made or shown with would else be another one, silently."""
    file = run / "checkpoints" / "4" / "record" / "metadata"
    text = file.read_text()
    for before, after in (('"scale": 0.00392', '"scale": 0.00492'), ('"band 1"', '"band 7"'), ('n": 4,', 'n": 2,')):
        assert before in text
        file.write_text(text.replace(before, after))
        with pytest.raises(engine.InputError, match=r"record/metadata: got content that is not what was saved"):
            engine.restore(run)


def test_record_without_the_sums_of_its_format_is_refused(run):
    (run / "checkpoints" / "4" / SUMS).unlink()
    with pytest.raises(engine.InputError, match=rf"checkpoints/4/{SUMS}: got nothing: the file is missing"):
        engine.restore(run)


def test_best_step_may_be_the_untrained_one(run):
    source = run / "checkpoints"
    shutil.copytree(source / "4", source / "0")
    for step, score in ((0, 0.9), (4, 0.1)):
        file = source / str(step) / "record" / "metadata"
        file.write_text(json.dumps({**json.loads(file.read_text()), "step": step, "score": score}))
        write_sums(source / str(step))
    assert choose_step(run, "best") == 0


def test_path_that_orbax_takes_for_a_pattern_is_refused(tmp_path):
    with pytest.raises(engine.InputError, match=r"run_dir: got .*a\[b\]; expected a path without \[ \]"):
        engine.run(engine.RunConfig("tiny", TINY), tmp_path / "a[b]", reporter=Silent())


def test_second_process_in_a_run_directory_is_refused_with_the_first_one_s_number(tmp_path):
    with (
        claimed(tmp_path),
        pytest.raises(engine.InputError, match=rf"in which process {os.getpid()} on .* is training"),
    ):
        engine.run(engine.RunConfig("tiny", TINY), tmp_path, reporter=Silent())
    with claimed(tmp_path):
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()


def test_failure_to_save_says_what_is_left(run, monkeypatch):
    checkpoints = Checkpoints(run)
    monkeypatch.setattr(
        checkpoints._manager, "wait_until_finished", lambda: (_ for _ in ()).throw(OSError("disk full"))
    )
    with pytest.raises(engine.InputError, match=r"disk full.*Complete checkpoints there: step 4.*--resume"):
        checkpoints.wait()
    monkeypatch.undo()
    checkpoints.close()


def test_damaged_checkpoint_is_one_line_on_the_command_line(run, tmp_path):
    Image.fromarray(IMAGES[0, ..., 0]).save(tmp_path / "a.png")
    for path in (run / "checkpoints" / "4" / "model").rglob("d/*"):
        path.write_bytes(path.read_bytes()[:20])
    command = [sys.executable, "-m", "engine", "predict", str(run), str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"error: .*checkpoints/4.*: got .*; expected the files as they were saved.*\n", done.stderr)


def test_step_without_a_record_is_moved_aside_rather_than_hiding_later_saves(run):
    (run / "checkpoints" / "4000").mkdir()
    said = []
    Checkpoints(run, say=said.append).close()
    assert find_steps(run) == [4]
    (moved,) = (run / "damaged").iterdir()
    assert said[0].startswith(f"step 4000 is damaged and now in {moved}")


@pytest.mark.parametrize(
    ("last", "best", "kept"),
    [(1, 1, {3, 5}), (2, 1, {3, 4, 5}), (1, 2, {2, 3, 5}), (9, 1, {1, 2, 3, 4, 5}), (1, 9, {1, 2, 3, 5})],
)
def test_newest_and_best_steps_are_kept(last: int, best: int, kept: set[int]):
    ranks = {1: (0.1, 0.0), 2: (0.5, -1.0), 3: (0.5, -1.0), 4: None, 5: (0.3, 0.0)}
    assert kept_steps([1, 2, 3, 4, 5], ranks, last, best) == kept


def test_of_equal_scores_the_lower_loss_is_the_best_and_then_the_later_step(run: Path):
    record = read_record(run, 4)
    row = {**record.history[-1], "validation_loss": 0.25}
    assert replace(record, history=(row,), score=0.5).rank == (0.5, -0.25)
    assert replace(record, history=({**row, "step": 3},), score=0.5).rank == (0.5, 0.0)
    assert replace(record, history=({**row, "validation_loss": "?"},), score=0.5).rank == (0.5, 0.0)
    assert replace(record, score=None).rank is None
    assert best_step({1: (0.5, -0.3), 2: (0.5, -0.2), 3: (0.5, -0.2), 4: (0.4, -0.1), 5: None}) == 3
    assert best_step({1: None}) is None


def saves(directory: Path) -> list[int]:
    """The steps that a run's log tells were saved."""
    lines = (directory / "log.txt").read_text().splitlines()
    return [int(line.removeprefix("saved step ")) for line in lines if line.startswith("saved step ")]


@pytest.mark.parametrize(
    ("checkpoint", "saved", "kept"),
    [
        ({}, [4, 8, 12], [8, 12]),
        ({"every_epochs": 2}, [8, 12], [8, 12]),
        ({"every_steps": 3, "keep_last": 3}, [3, 4, 6, 8, 9, 12], [8, 9, 12]),
        ({"every_seconds": 1e-9}, list(range(1, 13)), [11, 12]),
        ({"every_epochs": 5}, [12], [12]),
    ],
)
def test_run_is_saved_as_often_and_keeps_as_much_as_the_config_says(checkpoint, saved, kept, tmp_path):
    keep = engine.CheckpointConfig(**checkpoint)
    plan, train_config = engine.PlanConfig(chunk_steps=1), engine.TrainConfig(3, 64, best_by="loss")
    config = engine.RunConfig("tiny", TINY, train=train_config, plan=plan, checkpoint=keep)
    train(config, Splits(make_dataset()), tmp_path, Clock(), Silent())
    assert saves(tmp_path) == saved
    assert find_steps(tmp_path) == kept


def test_resume_goes_on_from_the_step_before_a_damaged_one_and_says_what_is_lost(tmp_path):
    config = engine.RunConfig("tiny", TINY, train=engine.TrainConfig(4, 64))
    splits = Splits(make_dataset(), make_dataset(50, 1))

    def run_to(directory: Path, epochs: int) -> list[str]:
        said: list[str] = []
        wanted = replace(config, train=replace(config.train, epochs=epochs))
        record = open_run(directory, wanted, resume=True, overwrite=False, say=said.append)
        train(wanted, splits, directory, Clock(), Silent(), record)
        return said

    whole, hurt = tmp_path / "whole", tmp_path / "hurt"
    run_to(whole, 4)
    run_to(hurt, 3)
    (hurt / "checkpoints" / "12" / "model" / "_METADATA").write_text("{}")
    said = run_to(hurt, 4)
    assert "step 12 is damaged" in said[0]
    assert "model/_METADATA: got content" in said[0]
    assert said[1] == "resuming from step 8: 4 steps are lost and trained again"
    ours, theirs = (engine.restore(path, step="last").outputs(IMAGES) for path in (hurt, whole))
    np.testing.assert_array_equal(ours, theirs)
    for step in find_steps(hurt):
        (hurt / "checkpoints" / str(step) / "record" / "metadata").write_text("{")
    with pytest.raises(engine.InputError, match=r"whose checkpoints are all damaged; expected .* --overwrite"):
        run_to(hurt, 4)


@pytest.mark.parametrize("step", ["", ".", "..", "best ", "4/record", None, 5])
def test_words_that_are_no_step_are_refused(run, step):
    with pytest.raises(engine.InputError, match="expected one of 4"):
        engine.restore(run, step=step)


@pytest.mark.parametrize("path", [None, 5])
def test_path_that_is_none_is_refused(path):
    with pytest.raises(engine.InputError, match="expected the directory or packed file of a run"):
        engine.restore(path)
