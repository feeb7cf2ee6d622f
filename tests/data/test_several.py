"""Several labels a picture, and shares of classes, in every form they are given in."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine
from engine.config.data import DataConfig
from engine.data.decoded.dataset import Splits, split_by_fraction
from engine.data.in_memory import as_task
from engine.data.load import load_splits
from engine.errors import InputError

MARKS = np.array([[1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0]], np.uint8)
LISTS = [["ant", "bee"], ["bee", "cow"], [], ["ant"]]
IMAGES = np.arange(4 * 16, dtype=np.uint8).reshape(4, 4, 4, 1)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (MARKS, ("0", "1", "2")),
        (MARKS.astype(np.float32), ("0", "1", "2")),
        (MARKS > 0, ("0", "1", "2")),
        (MARKS.tolist(), ("0", "1", "2")),
        (LISTS, ("ant", "bee", "cow")),
        ([set(labels) for labels in LISTS], ("ant", "bee", "cow")),
        (np.array(LISTS, object), ("ant", "bee", "cow")),
        ([[10, 2], [2, 33], [], [10]], ("2", "10", "33")),
    ],
)
def test_labels_of_every_form_are_read(given: Any, names: tuple[str, ...]):
    data = engine.dataset(IMAGES, given)
    assert (data.task, data.class_names, data.labels.dtype) == ("labels", names, np.uint8)
    order = [1, 0, 2] if names[0] == "2" else [0, 1, 2]
    np.testing.assert_array_equal(data.labels[:, order], MARKS)
    np.testing.assert_array_equal(data.class_counts[order], [2, 2, 1])


def test_labels_that_no_line_can_show_are_refused():
    shares = np.array([[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1], [1, 0, 0]])
    for given in (MARKS, shares):
        with pytest.raises(InputError, match="expected a printable name"):
            engine.dataset(IMAGES, given, class_names=["a\x1b[31m", "b", "c"])


def test_names_of_columns_and_of_lists_are_those_given():
    assert engine.dataset(IMAGES, MARKS, ["x", "y", "z"]).class_names == ("x", "y", "z")
    assert engine.dataset(IMAGES, LISTS, ["cow", "bee", "ant"]).labels.tolist() == MARKS[:, ::-1].tolist()
    with pytest.raises(InputError, match=r"labels of example 1: got 'cow'; expected one of ant, bee"):
        engine.dataset(IMAGES, LISTS, ["ant", "bee"])
    with pytest.raises(InputError, match=r"labels of 3 columns; expected 2"):
        engine.dataset(IMAGES, MARKS, ["x", "y"])


def test_labels_are_matched_by_name_and_follow_their_examples():
    train, other = engine.dataset(IMAGES, LISTS), engine.dataset(IMAGES, LISTS, ["cow", "bee", "ant", "dog"])
    splits = Splits(train, other)  # of a label without examples nothing is lost
    assert splits.validation is not None
    np.testing.assert_array_equal(splits.validation.labels, MARKS)
    rest, share = split_by_fraction(train, 0.5, 0)
    assert share is not None
    assert (rest.task, share.task, len(share)) == ("labels", "labels", 2)
    with pytest.raises(InputError, match=r"data\.stratified"):
        split_by_fraction(train, 0.5, 0, stratified=True)


def test_classes_serve_as_labels_and_columns_as_numbers():
    classes = engine.dataset(IMAGES, ["ant", "cow", "bee", "ant"])
    assert as_task(classes, "labels").labels.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]]
    numbers = as_task(engine.dataset(IMAGES, MARKS), "numbers")
    assert (numbers.task, numbers.labels.dtype) == ("numbers", np.float32)


def test_kinds_of_labels_that_differ_are_refused():
    with pytest.raises(InputError, match="got one class a picture; expected several labels a picture like"):
        Splits(engine.dataset(IMAGES, MARKS), engine.dataset(IMAGES, [0, 1, 2, 0]))


def test_archive_of_marks_has_several_labels(tmp_path: Path, cache_dir: Path):
    np.savez(tmp_path / "multi.npz", train_images=np.resize(IMAGES, (8, 4, 4, 1)), train_labels=np.tile(MARKS, (2, 1)))
    said: list[str] = []
    config = DataConfig(path=tmp_path / "multi.npz", cache_dir=cache_dir, validation_fraction=0)
    for _ in range(2):  # the second time from the cache
        train = load_splits(config, 0, said.append).train
        assert (train.task, train.labels.tolist()) == ("labels", np.tile(MARKS, (2, 1)).tolist())
    assert any("several labels a picture" in line for line in said)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shares_are_classes_to_a_loss_of_classes_and_numbers_to_others(dtype: Any):
    shares = np.array([[0.5, 0.5, 0], [0.1, 0.2, 0.7], [1, 0, 0], [0, 0.25, 0.75]], dtype)
    data = engine.dataset(IMAGES, shares)
    assert data.task == "numbers"
    soft = as_task(data, "classes")
    assert (soft.task, soft.class_numbers.tolist(), soft.class_counts.tolist()) == ("classes", [0, 2, 0, 2], [2, 0, 2])
    np.testing.assert_allclose(soft.labels.sum(1), 1, rtol=1e-6)
    assert as_task(engine.dataset(IMAGES, shares * 2), "classes").task == "numbers"


def test_shares_with_names_are_classes():
    shares = np.array([[0.5, 0.5, 0], [0.1, 0.2, 0.7], [1, 0, 0], [0, 0.25, 0.75]], np.float32)
    data = engine.dataset(IMAGES, shares, class_names=["a", "b", "c"])
    assert (data.class_names, data.task) == (("a", "b", "c"), "classes")
    np.testing.assert_allclose(data.labels, shares)
    assert engine.dataset(IMAGES, np.eye(3)[[0, 1, 2, 2]], class_names=["a", "b", "c"]).labels.tolist() == [0, 1, 2, 2]
    with pytest.raises(InputError, match=r"class_names: got 2 names; expected 3, one for each column of labels"):
        engine.dataset(IMAGES, shares, class_names=["a", "b"])
    with pytest.raises(InputError, match="class_names: got names; expected none, because the labels are numbers"):
        engine.dataset(IMAGES, shares * 2, class_names=["a", "b", "c"])
