"""Trackers: what a run logs is read back by TensorBoard's own reader, MLflow's client, and from W&B's offline file."""

import dataclasses
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.errors import InputError
from engine.host.interrupts import Interrupted
from engine.report.progress import Silent
from engine.trackers import table
from engine.trackers.tracker import flat_settings, numbers, sample, tag
from tests.conftest import TINY, make_dataset
from tests.runs.test_loop import StopsAt, without_seconds

SPLITS = engine.Splits(make_dataset(200), make_dataset(50, 1, name="held out"), make_dataset(70, 2, name="test"))
CONFIG = engine.RunConfig(
    "tiny", TINY, train=engine.TrainConfig(epochs=3, batch_size=64), plan=engine.PlanConfig(chunk_steps=1)
)  # 3 epochs of 4 steps, each a compiled call
TAGS = ("loss/training", "loss/validation", "accuracy/training", "accuracy/validation", "learning_rate", "seconds")


def run(directory, log, reporter=None, **kwargs):
    return engine.run(CONFIG, directory, splits=SPLITS, log=log, resume=True, reporter=reporter or Silent(), **kwargs)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The same run twice, with logs: whole, and stopped in its second epoch and resumed."""
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard: pip install 'engine-jax[tensorboard]'")
    folder = tmp_path_factory.mktemp("tracked")
    whole = run(folder / "whole", "tensorboard")
    with pytest.raises(Interrupted):
        run(folder / "parts", "tensorboard", StopsAt(6))
    return whole, run(folder / "parts", "tensorboard")


def read_events(directory: Path):
    """As TensorBoard reads it, with every value kept."""
    module = "tensorboard.backend.event_processing.event_accumulator"
    pytest.importorskip("tensorboard", reason="TensorBoard's own reader comes with the dev extra")
    reader = importlib.import_module(module)
    keep_all = {"scalars": 0, "histograms": 0, "images": 0}
    return reader.EventAccumulator(str(directory / "tensorboard"), keep_all).Reload()


def test_tensorboard_reads_the_history(results):
    whole, _ = results
    events = read_events(whole.directory)
    for name in TAGS:
        assert [each.step for each in events.Scalars(name)] == [4, 8, 12]
    for row, each in zip(whole.history, events.Scalars("loss/validation"), strict=True):
        assert np.float32(each.value) == np.float32(row["validation_loss"])
    assert [each.step for each in events.Scalars("loss/so_far")] == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert events.Scalars("accuracy/best_test")[0].value == np.float32(whole.metrics["test"]["accuracy"])
    assert [each.step for each in events.Histograms("conv_1/kernel")] == [4, 8, 12]
    found = events.Histograms("dense_1/kernel")[-1].histogram_value
    assert found.num == 36 * 3
    assert set(events.Tags()["images"]) >= {"curves", "predictions"}


def test_a_resumed_run_logs_each_step_once(results):
    whole, parts = results
    assert without_seconds(whole.history) == without_seconds(parts.history)
    events, expected = read_events(parts.directory), read_events(whole.directory)
    assert len(list((parts.directory / "tensorboard").iterdir())) == 2
    for name in set(expected.Tags()["scalars"]) - {"seconds"}:
        found, wanted = ([(each.step, each.value) for each in one.Scalars(name)] for one in (events, expected))
        assert found == wanted, name
    assert [each.step for each in events.Histograms("conv_1/kernel")] == [4, 8, 12]


def test_what_was_logged_after_the_saved_step_is_hidden_and_a_finished_run_logs_nothing_twice(results, tmp_path):
    shutil.copytree(results[0].directory, tmp_path / "run")
    for step in ("12", "8"):  # as if the process had been killed before these were saved
        shutil.rmtree(tmp_path / "run" / "checkpoints" / step, ignore_errors=True)
    (tmp_path / "run" / "result.json").unlink()
    for _ in range(2):
        run(tmp_path / "run", "tensorboard")
    events = read_events(tmp_path / "run")
    assert [each.step for each in events.Scalars("loss/validation")] == [4, 8, 12]
    assert len(events.Scalars("accuracy/best_test")) == len(events.Images("curves")) == 1


def test_tensorboard_reads_the_settings(results):
    events = read_events(results[0].directory)
    metadata = events.SummaryMetadata("_hparams_/session_start_info")
    from tensorboard.plugins.hparams import plugin_data_pb2

    found = plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert found["optim.learning_rate"].number_value == 0.001
    assert found["train.batch_size"].number_value == 64
    assert json.loads(found["model"].string_value.split(", {")[0] + "]}")["layers"][0]["kind"] == "Conv"


def test_tensorboard_reads_the_graph(results):
    nodes = {node.name: node for node in read_events(results[1].directory).Graph().node}
    assert list(nodes) == ["input", "conv_1", "max_pool_1", "dropout_1", "flatten_1", "dense_1"]
    assert list(nodes["dense_1"].input) == ["flatten_1"]
    assert nodes["conv_1"].attr["parameters"].i == 9 * 4 + 4
    assert [dim.size for dim in nodes["conv_1"].attr["_output_shapes"].list.shape[0].dim] == [-1, 6, 6, 4]


def test_logging_changes_no_bit_of_the_run(results, tmp_path):
    plain = run(tmp_path / "plain", ())
    assert without_seconds(plain.history) == without_seconds(results[0].history)


@pytest.mark.filterwarnings("ignore")  # of the packages that MLflow stands on
def test_mlflow_has_each_step_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow: pip install 'engine-jax[mlflow]'")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(Interrupted):
        run(tmp_path / "run", "mlflow", StopsAt(6))
    result = run(tmp_path / "run", "mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (found,) = client.search_runs([client.get_experiment_by_name("engine").experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["train.batch_size"] == "64"
    history = client.get_metric_history(found.info.run_id, "loss/validation")
    assert [(each.step, each.value) for each in history] == [
        (row["step"], row["validation_loss"]) for row in result.history
    ]
    paths = {each.path for place in (None, "step_12") for each in client.list_artifacts(found.info.run_id, place)}
    assert {"step_12/curves.png", "model.svg"} <= paths


def test_wandb_goes_on_offline_under_the_same_id(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the extra wandb: pip install 'engine-jax[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    with pytest.raises(Interrupted):
        run(tmp_path / "run", "wandb", StopsAt(6))
    run(tmp_path / "run", "wandb")
    files = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({path.name for path in files}) == 1
    assert b"loss/validation" in files[-1].read_bytes()


def test_a_tracker_that_cannot_be_is_refused_before_the_data(tmp_path, monkeypatch):
    missing = engine.DataConfig(path="nowhere")
    config = dataclasses.replace(CONFIG, data=missing)
    with pytest.raises(InputError, match=r"log: got 'tensorbord'; expected one of .*Did you mean 'tensorboard'"):
        engine.run(config, tmp_path / "run", log="tensorbord")
    monkeypatch.setattr(table, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"log: got mlflow without mlflow; .*pip install 'engine-jax\[mlflow\]'"):
        engine.run(config, tmp_path / "run", log=["mlflow"])
    monkeypatch.setattr(table, "find_spec", lambda name: name)
    with pytest.raises(InputError, match=r"log: got wandb without run_dir; .*Pass one: run_dir="):
        engine.fit(TINY, "nowhere", log="wandb")


def test_a_planted_link_is_not_written_through(tmp_path):
    pytest.importorskip("tensorboardX", reason="needs the extra tensorboard")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "tensorboard").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="a link; expected a directory of the run's own"):
        run(tmp_path / "run", "tensorboard")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_the_table_names_the_extras_and_loads_nothing():
    code = "import sys, engine.trackers.table; print({'tensorboardX', 'wandb', 'mlflow'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_names_and_numbers():
    rows = {"member_2_validation_loss": "loss/validation_member_2", "validation_top5": "top5/validation",
            "member_0_learning_rate": "learning_rate/member_0", "accuracy": "accuracy/training"}  # fmt: skip
    assert {name: tag(name) for name in rows} == rows
    row = {"n": 3, "loss": float("nan"), "changes": "optim", "accuracy": 1}
    assert numbers(row) == {"accuracy": 1.0}
    values = np.arange(10_000.0).reshape(100, 100)
    assert sample(values).size <= 4096
    assert sample(values)[[0, -1]].tolist() == [0, 9999]
    assert flat_settings(CONFIG)["plan.chunk_steps"] == 1


def test_a_callback_that_is_none_is_refused_before_the_data(tmp_path):
    with pytest.raises(InputError, match="callbacks: got the class Callback; expected an object"):
        engine.fit(TINY, "nowhere", callbacks=[engine.Callback])
    with pytest.raises(InputError, match="callbacks: got the class Callback; expected an object"):
        engine.run(dataclasses.replace(CONFIG, data=engine.DataConfig(path="nowhere")), callbacks=[engine.Callback])
