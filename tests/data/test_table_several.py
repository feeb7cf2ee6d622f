"""Tables whose rows have several labels, or say how much they count."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.config.data import DataConfig
from engine.data.decoded.dataset import Dataset
from engine.data.kinds import open_source
from engine.errors import InputError

MARKS = [[1, 1, 0], [0, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0]]
CELLS = ["ant|bee", "bee | cow", "", "ant", "bee"]
NAMES = [f"{number}.png" for number in range(5)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(5):
        pixels = np.full((4, 4, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    return tmp_path


def read(path: Path, said: list[str] | None = None, **settings: Any) -> Dataset:
    config = DataConfig(path=path, cache_dir=path.parent / "cache", **settings)
    return open_source(config, (said if said is not None else []).append).load("train", "data.split")


def write(path: Path, header: str, *columns: Any) -> Path:
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_cells_with_several_labels_and_a_column_of_weights(folder: Path):
    table, said = write(folder / "t.csv", "path,tags,w", NAMES, CELLS, [1, 0.5, 2, 0, 1]), list[str]()
    for _ in range(2):  # the second time from the cache
        data = read(table, said, label_column="tags", label_separator="|", weight_column="w")
        assert (data.task, data.class_names, data.labels.tolist()) == ("labels", ("ant", "bee", "cow"), MARKS)
        assert data.weights is not None
        assert data.weights.tolist() == [1, 0.5, 2, 0, 1]
        assert data.images[:][:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160]
    assert any("3 labels (ant, bee, cow), up to 2 a picture, none in 1 rows" in line for line in said)


def test_labels_and_weights_follow_when_bad_files_are_skipped(folder: Path):
    (folder / "1.png").write_bytes(b"no picture")
    table = write(folder / "t.csv", "path,label,w", NAMES, list("ababa"), range(1, 6))
    data = read(table, weight_column="w", on_bad_file="skip")
    assert (len(data), data.class_names, data.labels.tolist()) == (4, ("a", "b"), [0, 0, 1, 0])
    assert data.weights is not None
    assert data.weights.tolist() == [1, 3, 4, 5]


def test_columns_of_zeros_and_ones_are_labels_where_rows_have_several(folder: Path):
    table, said = write(folder / "t.csv", "path,ant,bee,cow", NAMES, *np.array(MARKS).T), list[str]()
    data = read(table, said)
    assert (data.task, data.class_names, data.labels.tolist()) == ("labels", ("ant", "bee", "cow"), MARKS)
    assert any("of which a picture may have several" in line for line in said)


def test_table_of_pixels_has_several_labels_and_weights(tmp_path: Path):
    pixels = np.arange(45).reshape(5, 9)
    header = "label,w," + ",".join(f"pixel{k}" for k in range(9))
    table = write(tmp_path / "t.csv", header, CELLS, range(5), *pixels.T)
    data = read(table, label_separator="|", weight_column="w")
    assert (data.input_shape, data.labels.tolist()) == ((3, 3, 1), MARKS)
    assert data.weights is not None
    assert data.weights.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_array_equal(np.asarray(data.images).reshape(5, 9), pixels)


def test_label_that_is_not_listed_and_weight_that_is_none_are_named(folder: Path):
    table = write(folder / "t.csv", "path,label,w", NAMES, CELLS, [1, 1, 1, -2, 1])
    with pytest.raises(InputError, match=r"label of example 1: got 'cow'; expected one of ant, bee\."):
        read(table, label_separator="|", class_names=("ant", "bee"))
    assert read(table, label_separator="|", class_names=("cow", "bee", "ant")).labels.tolist()[0] == [0, 1, 1]
    with pytest.raises(InputError, match=r"t\.csv line 5, column 3 \(w\): got '-2'; expected a number of 0 or more"):
        read(table, label_separator="|", weight_column="w")
    with pytest.raises(InputError, match=r"data\.weight_column: got 'x'; expected one of path, label, w"):
        read(table, weight_column="x")


def test_labels_that_look_joined_are_pointed_out(folder: Path):
    table, said = write(folder / "t.csv", "path,label", NAMES, ["a|b", "a", "b", "a", "b"]), list[str]()
    assert read(table, said).class_names == ("a", "a|b", "b")
    assert any(
        "labels like a|b look like several labels a picture; --data.label-separator '|'" in line for line in said
    )


def test_several_columns_of_numbers_are_the_targets_of_a_regression(folder: Path):
    x, y, said = [0.5, -1, 2, 3, 1e-3], [1, 2, 3, 4, 5], list[str]()
    table = write(folder / "t.csv", "path,x,y,note,w", NAMES, x, y, "abcde", range(1, 6))
    for _ in range(2):  # the second time from the cache
        data = read(table, said, label_column="x,y", weight_column="w")
        assert (data.task, data.class_names) == ("numbers", ())
        np.testing.assert_array_equal(data.labels, np.transpose([x, y]).astype(np.float32))
        assert data.images[:][:, 0, 0, 0].tolist() == [0, 40, 80, 120, 160]
    assert any("the columns x, y are 2 numbers to predict: a regression" in line for line in said)
    (folder / "1.png").write_bytes(b"no picture")
    data = read(table, label_column="y,x", on_bad_file="skip")
    np.testing.assert_array_equal(data.labels, np.transpose([y, x])[[0, 2, 3, 4]].astype(np.float32))


def test_several_targets_of_a_table_of_pixels_or_without_a_header(tmp_path: Path):
    pixels = [range(number, number + 5) for number in range(9)]
    table = write(tmp_path / "p.csv", "u,v," + ",".join(f"pixel{k}" for k in range(9)), "12345", "54321", *pixels)
    data = read(table, label_column="u,v")
    assert data.labels.tolist() == [[1, 5], [2, 4], [3, 3], [4, 2], [5, 1]]
    assert data.images.shape == (5, 3, 3, 1)


@pytest.mark.parametrize(
    ("column", "cells", "settings", "message"),
    [
        ("x,z", "123", {}, r"data.label_column: got 'z'; expected one of path, x, y"),
        ("x,x", "123", {}, r"data.label_column: got x,x, one of them twice; expected columns of numbers"),
        ("x,y", "123", {"label_separator": "|"}, r"data.label_column: got x,y with a separator of labels"),
        ("x,y", ("1", "two", "3"), {}, r"t.csv line 3, column 3 \(y\): got 'two'; expected a number to predict"),
        ("x,y", ("1", "", "3"), {}, r"t.csv line 3, column 3 \(y\): got ''; expected a number to predict"),
        ("x,y", ("1", "2", "1e39"), {}, r"t.csv line 4, column 3 \(y\): got '1e39'; expected a number to predict"),
    ],
)
def test_columns_that_are_no_targets_are_refused(column: str, cells: Any, settings: Any, message: str, folder: Path):
    table = write(folder / "t.csv", "path,x,y", NAMES[:3], "123", cells)
    with pytest.raises(InputError, match=message):
        read(table, label_column=column, **settings)
