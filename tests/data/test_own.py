"""Data of the user's own: a function in the config, and a kind of data in the table."""

from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import engine
from engine.__main__ import main
from engine.checkpoints.steps import choose_step, read_record
from engine.config.data import DataConfig
from engine.data import kinds
from engine.data.decoded.dataset import Dataset, Splits
from engine.data.kinds import KINDS, Kind, find_kind, open_source
from engine.data.load import load_splits
from engine.data.sources.source import Source
from engine.errors import InputError
from engine.records.custom import check_trust, custom
from tests.conftest import make_dataset

MLP = engine.mlp((8,))


def arrays(count: int = 60):
    data = make_dataset(count)
    return data.images, data.labels


def both() -> Splits:
    return Splits(make_dataset(60), test=make_dataset(20, 5))


@dataclass(frozen=True)
class Numbers(Source):
    name: str = "numbers"

    @property
    def split_names(self) -> tuple[str, ...]:
        return ("train",)

    def load(self, split: str, field: str) -> Dataset:
        return make_dataset(30)


def numbers() -> Source:
    return Numbers()


def nothing() -> str:
    return "no data"


def of_function(function, **config) -> DataConfig:
    return DataConfig(source=custom(function), test_split=config.pop("test_split", None), **config)


def test_a_function_may_return_arrays_splits_or_a_source():
    assert len(load_splits(of_function(arrays, validation_fraction=0.5), 0, str).train) == 30
    splits = load_splits(of_function(both, test_split="test"), 0, str)
    assert [len(part) for part in splits.named.values()] == [54, 6, 20]
    assert len(load_splits(of_function(numbers), 0, str).train) == 27
    assert len(load_splits(DataConfig(source=custom(arrays, count=40)), 0, str).train) == 36
    with pytest.raises(InputError, match=r"data\.source: got str; expected a function that returns Splits"):
        load_splits(of_function(nothing), 0, str)


def test_its_pictures_are_brought_to_the_size_and_classes_of_the_config():
    names = both().train.class_names[:2]
    train = load_splits(of_function(both, image_size="5x7", color="rgb", class_names=names), 0, str).train
    assert train.input_shape == (5, 7, 3)
    assert train.class_names == names


def test_it_is_recorded_resumed_and_opened_without_running_it(tmp_path: Path, capsys, monkeypatch):
    config = engine.RunConfig("own", MLP, of_function(both), engine.TrainConfig(epochs=1, batch_size=16))
    engine.run(config, tmp_path / "run")
    record = read_record(tmp_path / "run", choose_step(tmp_path / "run"))
    assert record.config.data.source == custom(both)
    assert record.config.data.name == "both"
    engine.run(replace(config, train=engine.TrainConfig(epochs=2, batch_size=16)), tmp_path / "run", resume=True)
    monkeypatch.setattr("tests.data.test_own.both", None)
    assert engine.restore(tmp_path / "run", "last").record.config.train.epochs == 2
    check_trust(record.config.without_source, "run", trust=False)  # as `engine plan`, which opens no data, asks for
    with pytest.raises(SystemExit):
        main(["eval", str(tmp_path / "run"), "--data.split", "train"])
    assert "data.source: got code of its author's own (tests.data.test_own:both)" in " ".join(
        capsys.readouterr().err.split()
    )


def test_options_that_it_would_ignore_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"data\.suffix: got \.png; expected no such option with a source of your own"):
        open_source(of_function(both, suffix=".png"))
    with pytest.raises(InputError, match=r"data\.path: got .*; expected none beside data\.source"):
        of_function(both, path=tmp_path)


def test_a_kind_of_data_is_one_entry_of_the_table(tmp_path: Path, monkeypatch):
    (tmp_path / "a.nbr").touch()
    with pytest.raises(
        InputError, match=r"data\.path: got .*a\.nbr; expected a folder of images, a table \(\.csv, \.tsv\), arrays \("
    ):
        find_kind(DataConfig(path=tmp_path / "a.nbr"))
    kind = Kind("numbers", lambda config, say: Numbers(), endings=(".nbr",))
    monkeypatch.setattr(kinds, "KINDS", {"numbers": kind, **KINDS})
    config = DataConfig(path=tmp_path / "a.nbr", test_split=None)
    assert len(load_splits(config, 0, str).train) == 27
    with pytest.raises(InputError, match=r"data\.suffix: got \.png; expected no such option with numbers"):
        open_source(replace(config, suffix=".png"))
