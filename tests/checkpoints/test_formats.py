"""Runs that engines of earlier formats saved (see checkpoints/make.py) open, answer and go on as they did then."""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.checkpoints.changes import in_terms_of
from engine.checkpoints.packing import opened, pack, unpack
from engine.checkpoints.record import FORMAT_VERSION
from engine.checkpoints.run_directory import open_run
from engine.checkpoints.steps import check_step, choose_step, read_record
from engine.config import RunConfig, TrainConfig
from engine.data.decoded.dataset import Splits
from engine.host.clock import Clock
from engine.models import Activation, Conv, Dense, Flatten, Sequential
from engine.report.progress import Silent
from engine.runs.inputs import follow_source
from engine.runs.loop import run, train
from tests.checkpoints.make import MODEL, dataset

STORED = Path(__file__).parents[1] / "checkpoints"
NAMES = sorted(path.stem for path in STORED.glob("*.engine"))


def record_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("checkpoints/*/record/metadata"))


def read_stored(name: str) -> dict[str, np.ndarray]:
    with np.load(STORED / f"{name}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_every_format_has_a_stored_run_of_its_time(version: int):
    with opened(STORED / f"version_{version}.engine") as directory:
        assert [json.loads(file.read_text())["format_version"] for file in record_files(directory)] == [version]


@pytest.mark.parametrize("name", NAMES)
def test_stored_run_gives_the_numbers_it_gave_then(name: str):
    stored = read_stored(name)
    classifier = engine.restore(STORED / f"{name}.engine")
    np.testing.assert_allclose(classifier.outputs(stored["held_images"]), stored["outputs"], rtol=1e-4, atol=1e-6)
    assert classifier.class_names == ("top", "middle", "bottom")


@pytest.mark.parametrize("name", NAMES)
def test_stored_run_goes_on_as_it_did_then(name: str, tmp_path: Path):
    stored, directory = read_stored(name), tmp_path / "run"
    unpack(STORED / f"{name}.engine", directory)
    config = read_record(directory, choose_step(directory, "last")).config
    config = replace(config, train=replace(config.train, epochs=2))
    splits = Splits(dataset(stored["images"], stored["labels"]), dataset(stored["held_images"], stored["held_labels"]))
    record = open_run(directory, config, resume=True, overwrite=False)
    result = train(config, splits, directory, Clock(), Silent(), record)
    assert [row["epoch"] for row in result.history] == [1, 2]
    later = engine.restore(directory, step="last").outputs(stored["held_images"])
    np.testing.assert_allclose(later, stored["later"], rtol=1e-3, atol=1e-5)
    assert np.abs(later - stored["outputs"]).max() > 1e-3  # or the comparison says nothing
    last = choose_step(directory, "last")
    check_step(directory, last)
    file = directory / "checkpoints" / str(last) / "record" / "metadata"
    assert json.loads(file.read_text())["format_version"] == FORMAT_VERSION


def test_run_of_before_is_resumed_by_the_script_that_began_it_and_keeps_the_meaning_of_its_names(tmp_path: Path):
    """The script says Adam and gelu, as it did then; the run goes on with what these were then."""
    stored, directory, said = read_stored("version_3"), tmp_path / "run", []
    unpack(STORED / "version_3.engine", directory)
    script = RunConfig("version_3", MODEL, train=TrainConfig(epochs=2, batch_size=10))
    assert script.optim.rules == "keras"
    splits = Splits(dataset(stored["images"], stored["labels"]), dataset(stored["held_images"], stored["held_labels"]))
    reporter = Silent()
    reporter.say = said.append  # type: ignore[method-assign]
    run(script, directory, splits=splits, resume=True, reporter=reporter)
    later = engine.restore(directory, step="last")
    assert later.record.config.optim.rules == "optax"
    assert any("optim.rules optax" in line for line in said)
    np.testing.assert_allclose(later.outputs(stored["held_images"]), stored["later"], rtol=1e-3, atol=1e-5)
    again = replace(script, train=replace(script.train, epochs=3), optim=replace(script.optim, beta_1=0.8))
    with pytest.raises(engine.InputError, match=r"optim\.beta_1: stored 0\.9, given 0\.8"):
        run(again, directory, splits=splits, resume=True, reporter=reporter)


def test_run_that_starts_from_one_of_before_means_its_activations_as_that_did():
    gelu = Sequential((Conv(3, 3, activation="gelu"), Activation("leaky_relu"), Flatten(), Dense()))
    record, script = engine.restore(STORED / "version_4.engine").record, RunConfig("v", gelu)
    of_before = replace(record, config=script.in_terms_of_version_1("model", "optim"))
    config, notes = follow_source(script, of_before)
    assert config.model == of_before.config.model != script.model
    assert config.optim == script.optim  # of the run that starts
    assert [note.split(" mean ")[0] for note in notes] == ["activations"]
    assert in_terms_of(replace(record, config=config), script) == config  # --resume by the same script
    assert follow_source(script, replace(record, config=script)) == (script, [])


def test_layers_that_compute_something_else_than_those_they_start_from_are_named():
    source = engine.restore(STORED / "version_4.engine").record
    model = source.config.model
    assert isinstance(model, Sequential)
    place = next(i for i, layer in enumerate(model.layers) if getattr(layer, "activation", None) is not None)
    changed = replace(model.layers[place], activation="tanh")  # type: ignore[call-arg]
    ours = Sequential((*model.layers[:place], changed, *model.layers[place + 1 :]))
    config, notes = follow_source(RunConfig("v", ours), source)
    assert config.model == ours
    assert len(notes) == 1
    assert f"warning: {model.layer_names[place]} is not as in the run to start from: activation tanh here, " in notes[0]


@pytest.mark.parametrize("name", NAMES)
def test_stored_run_can_be_packed_again(name: str, tmp_path: Path):
    pack(STORED / f"{name}.engine", tmp_path / "again.engine")
    assert (tmp_path / "again.engine").read_bytes() == (STORED / f"{name}.engine").read_bytes()


@pytest.mark.parametrize("is_packed", [False, True])
def test_newer_format_is_refused_with_both_versions(tmp_path: Path, is_packed: bool):
    run = tmp_path / "run"
    unpack(STORED / "version_2.engine", run)
    for file in record_files(run):
        value = json.loads(file.read_text())
        file.write_text(json.dumps({**value, "format_version": FORMAT_VERSION + 1, "more": ["it", "knows"]}))
    if is_packed:
        files = [path for path in run.rglob("*") if path.is_file()]
        with zipfile.ZipFile(tmp_path / "run.engine", "w") as archive:
            for path in files:
                archive.write(path, path.relative_to(run))
        shutil.rmtree(run)
        run = tmp_path / "run.engine"
    expected = rf"^{run}.*: got checkpoint format {FORMAT_VERSION + 1}; expected {FORMAT_VERSION} or older\. Install"
    with pytest.raises(engine.InputError, match=expected):
        engine.restore(run)


def test_stored_runs_stay_small():
    assert all(path.stat().st_size < 60_000 for path in STORED.glob("version_*"))
