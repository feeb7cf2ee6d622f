"""Which fold an example is in, compared with scikit-learn's; what is said of folds that lack a class."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from engine import InputError, RunConfig, Splits, TrainConfig, mlp
from engine.config.data import DataConfig
from engine.data.folds import assign_folds, divide_in_folds
from engine.data.load import load_splits
from engine.errors import ignore
from tests.conftest import make_dataset


def count_classes(labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """[folds k]: the examples of each class in each fold."""
    counts = np.zeros((folds.max() + 1, labels.max() + 1), int)
    np.add.at(counts, (folds, labels), 1)
    return counts


@given(st.integers(0, 9), st.integers(2, 7), st.integers(20, 200), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_folds_have_the_class_counts_of_scikit_learns(seed: int, num_folds: int, num: int, num_classes: int):
    model_selection = pytest.importorskip("sklearn.model_selection", reason="scikit-learn comes with the dev extra")
    labels = np.random.default_rng(seed).integers(0, num_classes, num).astype(np.int32)
    folds = assign_folds(labels, num_folds, seed)
    ours = count_classes(labels, folds)
    assert np.ptp(ours.sum(axis=1)) <= 1
    assert np.ptp(ours, axis=0).max() <= 1
    if min(np.bincount(labels)[np.bincount(labels) > 0]) < num_folds:
        return  # scikit-learn warns of these
    split = model_selection.StratifiedKFold(num_folds, shuffle=True, random_state=seed).split(labels, labels)
    theirs = [np.bincount(labels[held_out], minlength=labels.max() + 1) for _, held_out in split]
    np.testing.assert_array_equal(np.sort(ours, axis=0), np.sort(theirs, axis=0))
    np.testing.assert_array_equal(np.sort(ours.sum(axis=1)), np.sort(np.sum(theirs, axis=1)))


def test_folds_are_a_function_of_the_seed_and_differ_between_seeds():
    labels = np.arange(60, dtype=np.int32) % 3
    assert np.array_equal(assign_folds(labels, 5, 1), assign_folds(labels, 5, 1))
    assert not np.array_equal(assign_folds(labels, 5, 1), assign_folds(labels, 5, 2))
    targets = np.linspace(0, 1, 61, dtype=np.float32)[:, None]
    assert np.ptp(np.bincount(assign_folds(targets, 5, 0))) == 1


@given(st.integers(0, 99), st.integers(2, 5))
@settings(deadline=None, max_examples=30)
def test_groups_stay_together_and_classes_are_as_even_as_scikit_learns(seed: int, num_folds: int):
    model_selection = pytest.importorskip("sklearn.model_selection", reason="scikit-learn comes with the dev extra")
    draw = np.random.default_rng(seed)
    groups = draw.integers(0, 40, 300).astype(np.int32)
    labels = ((groups + draw.integers(0, 2, 300)) % 3).astype(np.int32)
    folds = assign_folds(labels, num_folds, seed, groups)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups.tolist()))
    split = model_selection.StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    theirs = np.empty(300, int)
    for k, (_, held_out) in enumerate(split.split(labels, labels, groups)):
        theirs[held_out] = k
    spread = [count_classes(labels, each).std(axis=0).mean() for each in (folds, theirs)]
    assert spread[0] <= spread[1] + 2  # examples of a class, of 20 to 50 in a fold


def config(**train: int) -> RunConfig:
    return RunConfig("folded", mlp(()), train=TrainConfig(**train))


def test_one_fold_is_validation_and_the_others_are_trained_on():
    splits = Splits(make_dataset(100), make_dataset(10, 1))
    whole, notes = divide_in_folds(config(folds=4), splits)
    assert whole.folds is not None
    assert "the 10 validation images are not used" in notes[0]
    assert (whole.validation, whole.are_validated, whole.least_trained) == (None, True, 75)
    alone, _ = divide_in_folds(config(folds=4, fold=2), splits)
    assert alone.validation is not None
    np.testing.assert_array_equal(alone.validation.images, splits.train.images[whole.folds == 2])
    np.testing.assert_array_equal(alone.train.labels, splits.train.labels[whole.folds != 2])


def test_classes_that_folds_lack_are_said():
    data = make_dataset(60)
    rare = data.relabelled(np.where(np.arange(60) < 2, 2, data.labels % 2).astype(np.int32), data.class_names)
    _, notes = divide_in_folds(config(folds=5), Splits(rare))
    assert notes == ["warning: 3 of 5 folds have no examples of band 2, so they are validated without"]
    single = data.relabelled(np.where(np.arange(60) < 1, 2, data.labels % 2).astype(np.int32), data.class_names)
    _, notes = divide_in_folds(config(folds=5), Splits(single))
    assert "all examples of band 2 are in one fold" in notes[1]


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"folds": 1}, r"train\.folds: got 1; expected a whole number"),
        ({"folds": 5, "members": 3}, r"train\.members: got 3 from 0 on; expected the 5 of train\.folds"),
        ({"folds": 5, "fold": 5}, r"train\.fold: got 5"),
        ({"fold": 1}, r"train\.fold: got 1; expected none without train\.folds"),
    ],
)
def test_folds_that_cannot_be_are_refused(train: dict[str, int], message: str):
    with pytest.raises(InputError, match=message):
        TrainConfig(**train)


def test_more_folds_than_examples_are_refused():
    with pytest.raises(InputError, match=r"train\.folds: got 9; expected at most 8, the examples"):
        divide_in_folds(config(folds=9), Splits(make_dataset(8)))


def write_table(path: Path, num: int = 30) -> None:
    """A table of pixels of 2×2 pictures, with a column of six patients, five rows each."""
    draw = np.random.default_rng(0)
    lines = ["label,patient,p0,p1,p2,p3"]
    lines += [f"{k % 2},mr {k // 5},{','.join(map(str, draw.integers(0, 256, 4)))}" for k in range(num)]
    path.write_text("\n".join(lines) + "\n")


def test_rows_of_a_group_stay_in_one_fold_or_share(tmp_path: Path):
    write_table(tmp_path / "t.csv")
    data = DataConfig(
        path=tmp_path / "t.csv", group_column="patient", validation_fraction=0.4, cache_dir=tmp_path / "c"
    )
    splits = load_splits(data, 0, ignore)
    assert splits.validation is not None
    assert (splits.train.input_shape, len(splits.train), len(splits.validation)) == ((2, 2, 1), 20, 10)
    assert not set(splits.train.groups) & set(splits.validation.groups)
    run = RunConfig("folded", mlp(()), replace(data, validation_fraction=0.0), TrainConfig(folds=3))
    whole, notes = divide_in_folds(run, load_splits(run.data, 0, ignore))
    assert notes == []
    assert all(len(set(whole.folds[whole.train.groups == group])) == 1 for group in range(6))
    assert np.bincount(whole.folds).tolist() == [10, 10, 10]
    too_many = RunConfig("folded", mlp(()), run.data, TrainConfig(folds=7))
    with pytest.raises(InputError, match=r"train\.folds: got 7; expected at most 6, the groups of t"):
        divide_in_folds(too_many, load_splits(run.data, 0, ignore))


def test_groups_of_a_table_of_files_leave_out_those_that_were_skipped(tmp_path: Path):
    lines = ["path,label,place"]
    for k in range(6):
        Image.new("RGB", (4, 4), (40 * k, 0, 0)).save(tmp_path / f"{k}.png")
        lines.append(f"{k}.png,{'ab'[k % 2]},{'xyz'[k // 2]}")
    (tmp_path / "2.png").write_bytes(b"no picture")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    data = DataConfig(
        path=tmp_path / "t.csv", group_column="place", on_bad_file="skip", validation_fraction=0.0, cache_dir=tmp_path
    )
    train = load_splits(data, 0, ignore).train
    assert train.groups is not None
    assert train.groups.tolist() == [0, 0, 1, 2, 2]


def test_groups_that_cannot_be_are_refused(tmp_path: Path):
    write_table(tmp_path / "t.csv")
    (tmp_path / "gap.csv").write_text("label,patient,p0,p1,p2,p3\n0,,1,2,3,4\n")
    for name, column, message in (
        ("t.csv", "doctor", r"data\.group_column: got 'doctor'"),
        ("gap.csv", "patient", r"line 2, column 2 \(patient\): got nothing; expected a value"),
    ):
        with pytest.raises(InputError, match=message):
            load_splits(DataConfig(path=tmp_path / name, group_column=column, cache_dir=tmp_path), 0, ignore)
    with pytest.raises(InputError, match=r"groups: got int64 of 3; expected 8 numbers or texts"):
        make_dataset(8).grouped([1, 2, 3])
    with pytest.raises(InputError, match=r"data\.stratified: got True; expected off with data\.group_column"):
        DataConfig(group_column="patient", stratified=True)
