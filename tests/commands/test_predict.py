"""`engine predict`: predictions as a table and as CSV, of files and of tables of pixels."""

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import engine
from engine.commands import predict as predict_module
from engine.data.decoded.dataset import Dataset
from engine.data.load import load_splits
from engine.inference.classifier import Prediction
from engine.report.predictions import (
    csv_file,
    picture_header,
    picture_row,
    predictions_table,
    shown_progress,
    submission_rows,
)
from engine.report.progress import Silent
from tests.commands.test_command_line import python
from tests.commands.test_data import command, mistake
from tests.conftest import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """An untrained model of fashion_mnist_12k, to be trained with flips."""
    data = engine.DataConfig(split="train[:256]", test_split=None, validation_fraction=0, cache_dir=cache_dir)
    augment = engine.AugmentConfig(horizontal_flip=True)
    config = engine.RunConfig("r", TINY, data, engine.TrainConfig(epochs=0), augment=augment)
    directory = tmp_path_factory.mktemp("runs") / "r"
    engine.run(config, directory, reporter=Silent())
    return directory


@pytest.fixture(scope="module")
def test_data(cache_dir: Path) -> Dataset:
    test = load_splits(engine.DataConfig(test_split="test[:50]", cache_dir=cache_dir), 0).test
    assert test is not None
    return test


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch):
    """Keeps the settings of a command's own process out of the tests'."""
    monkeypatch.setattr(predict_module, "set_up_process", lambda: None)


@pytest.fixture
def files(in_tmp: Path, test_data: Dataset) -> list[str]:
    """Five pictures, one of them with a comma in its name."""
    names = ["0.png", "1.png", "2, the third.png", "3.png", "4.png"]
    for name, image in zip(names, test_data.images[:5], strict=True):
        Image.fromarray(image[..., 0]).save(name)
    return names


def table_of(path: Path, images: np.ndarray, labels: np.ndarray | None = None) -> Path:
    """A table of pixels as Kaggle's digit recognizer has it."""
    rows = images.reshape(len(images), -1).tolist()
    names = [f"pixel{i}" for i in range(len(rows[0]))]
    if labels is not None:
        names, rows = ["label", *names], [[label, *row] for label, row in zip(labels, rows, strict=True)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return path


def rows_of(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


# Files


def test_files_are_written_with_label_and_probability(capsys, run, files):
    shown = command(capsys, "predict", run, *files, "--csv", "out.csv")
    classifier = engine.restore(run)
    header, *rows = rows_of(Path("out.csv"))
    assert header == ["image", "label", "probability", "error"]
    assert [row[0] for row in rows] == files
    for row, prediction in zip(rows, classifier.predict(files), strict=True):
        assert row[1:] == [prediction.label, f"{prediction.probability:.6f}", ""]
    assert '"2, the third.png"' in Path("out.csv").read_text()
    assert "5 predictions: out.csv" in shown
    assert [path.name for path in Path().iterdir() if path.name not in files] == ["out.csv"]


def test_top_classes_have_numbered_columns(capsys, run, files):
    command(capsys, "predict", run, ".", "--csv", "out.csv", "--top", "3")
    header, *rows = rows_of(Path("out.csv"))
    assert header == ["image", "label", "probability", "label_2", "probability_2", "label_3", "probability_3", "error"]
    with pytest.warns(UserWarning, match=r"passed over 1 \.csv"):
        predictions = engine.restore(run).predict(".", top=3)
    for row, prediction in zip(rows, predictions, strict=True):
        assert tuple(row[1:-1:2]) == tuple(label for label, _ in prediction.top)


def test_test_time_augmentation_is_that_of_the_classifier(capsys, run, files):
    command(capsys, "predict", run, *files, "--csv", "out.csv", "--tta", "4")
    expected = engine.restore(run).predict(files, tta=4)
    assert [row[2] for row in rows_of(Path("out.csv"))[1:]] == [f"{p.probability:.6f}" for p in expected]
    assert [p.probability for p in expected] != [p.probability for p in engine.restore(run).predict(files)]


def test_all_files_are_shown_but_only_the_first_where_they_are_written(capsys, run, in_tmp, test_data):
    for i, image in enumerate(test_data.images[:25]):
        Image.fromarray(image[..., 0]).save(f"{i:02}.png")
    assert command(capsys, "predict", run, ".").count(".png") == 25
    shown = command(capsys, "predict", run, ".", "--csv", "out.csv")
    assert shown.count(".png") == 20
    assert "the first 20 of 25" in shown
    assert len(rows_of(Path("out.csv"))) == 26


# Tables of pixels


@pytest.mark.parametrize("with_labels", [False, True])
def test_table_of_pixels_is_written_as_a_submission(with_labels, capsys, run, in_tmp, test_data):
    table = table_of(in_tmp / "test.csv", test_data.images[:], test_data.labels if with_labels else None)
    shown = command(capsys, "predict", run, table, "--csv", "submission.csv")
    expected = engine.restore(run).predict(test_data.images[:])
    header, *rows = rows_of(Path("submission.csv"))
    assert header == ["ImageId", "Label"]
    assert rows == [[str(number), prediction.label] for number, prediction in enumerate(expected, 1)]
    assert "the first 20 of 50" in shown
    assert "50 predictions: submission.csv" in shown


def test_table_of_pixels_is_only_shown_where_no_file_is_named(capsys, run, in_tmp, test_data):
    shown = command(capsys, "predict", run, table_of(in_tmp / "t.csv", test_data.images[:30]), "--top", "2")
    assert "the first 20 of 30" in shown
    assert re.search(r"│ 20 +│ .* 0\.\d{3} .*│ .* 0\.\d{3}", shown)
    assert "│ 21" not in shown
    assert [path.name for path in in_tmp.iterdir()] == ["t.csv"]


def test_process_predicts_a_table(run, tmp_path, test_data):
    table = table_of(tmp_path / "t.csv", test_data.images[:3])
    done = python("-m", "engine", "predict", str(run), str(table), "--csv", str(tmp_path / "s.csv"))
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "s.csv")) == 4


# Texts


def prediction(label: str) -> Prediction:
    return Prediction(label, 0.5, ((label, 0.5),))


def test_cells_with_commas_quotes_and_odd_bytes_are_written_so_that_they_are_read_back(tmp_path):
    labels = ["cat, tabby", 'the "dog"', "é\nü", "plain"]
    names = ["a,b.png", 'c".png', "d\udcff.png", "日本.png"]
    with csv_file(tmp_path / "a.csv") as file:
        file.writerows(picture_row(name, prediction(label), 1) for name, label in zip(names, labels, strict=True))
        file.writerow(picture_row("e\udcff.png", engine.InputError("e\udcff.png: got no picture"), 1))
        assert not (tmp_path / "a.csv").exists()
    *rows, last = rows_of(tmp_path / "a.csv")
    assert [row[1] for row in rows] == labels
    assert [row[0] for row in rows] == [*names[:2], r"d\xff.png", names[3]]
    assert last == [r"e\xff.png", "", "", "got no picture"]
    assert list(submission_rows([prediction("a")])) == [["ImageId", "Label"], ["1", "a"]]


def test_file_that_is_not_finished_leaves_what_was_there(tmp_path):
    (tmp_path / "a.csv").write_text("precious")
    with pytest.raises(ZeroDivisionError), csv_file(tmp_path / "a.csv") as file:
        file.writerows([["half"], *([1 / 0] for _ in range(1))])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.csv", "precious")]


def test_nothing_is_an_empty_table():
    assert picture_header(1) == ["image", "label", "probability", "error"]
    assert picture_header(1, True) == ["image", "labels", "label", "probability", "error"]
    several = Prediction("a", 0.75, (("a", 0.75),), ("a", "b"))
    assert picture_row("x.png", several, 1, True) == ["x.png", "a|b", "a", "0.750000", ""]
    assert len(picture_row("x.png", engine.InputError("bad"), 1, True)) == 5
    assert predictions_table([("x.png", several)], "image", 1).columns[1].header == "labels"
    assert list(submission_rows([several]))[1] == ["1", "a|b"]
    assert predictions_table([], "image", 0).row_count == 0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_progress_is_shown_live_or_in_lines_and_changes_no_answer(is_terminal, monkeypatch: pytest.MonkeyPatch):
    for name in ("LINE_SECONDS", "SHOWN_SECONDS"):
        monkeypatch.setattr(f"engine.report.predictions.{name}", 0)
    console = Console(file=io.StringIO(), force_terminal=is_terminal, width=110)
    assert list(shown_progress(iter(range(2000)), 2000, console)) == list(range(2000))
    assert re.search(r"[12],\d{3}/2,000 images .*[\d,]+ images/s  ETA 0:00", console.file.getvalue())


# Bad files


def test_folder_with_bad_files_is_predicted_but_for_these_which_are_told(capsys, run, files):
    Path("1b.png").write_text("no image")
    Path("3b.jpg").write_bytes(Path("0.png").read_bytes()[:60])
    with pytest.raises(SystemExit, match="1"):
        command(capsys, "predict", run, ".", "--out", "out.csv")
    said = capsys.readouterr()
    first, *lines = said.err.splitlines()
    assert first == "2 of 7 could not be predicted (column error of out.csv):"
    assert [line.split(":")[0] for line in lines] == ["1b.png", "3b.jpg"]
    assert "5 predictions: out.csv" in said.out
    rows = {row[0]: row[1:] for row in rows_of(Path("out.csv"))[1:]}
    assert list(rows) == sorted([*files, "1b.png", "3b.jpg"])
    for name, answer in zip(files, engine.restore(run).predict(files), strict=True):
        assert rows[name][0::2] == [answer.label, ""]
        assert float(rows[name][1]) == pytest.approx(answer.probability, abs=2e-6)
    assert rows["1b.png"][:2] == ["", ""]
    assert rows["1b.png"][2].startswith("got a file that is not an image; expected")


def test_bad_files_are_told_where_no_file_is_written(capsys, run, files):
    Path("bad.png").write_text("no image")
    with pytest.raises(SystemExit, match="1"):
        command(capsys, "predict", run, *files, "bad.png")
    said = capsys.readouterr()
    assert said.out.count(".png") == 5
    assert said.err.startswith("1 of 6 could not be predicted:\nbad.png: got a file that is not an image")


def test_first_ten_of_only_bad_files_are_named(capsys, run, in_tmp):
    for i in range(12):
        Path(f"{i:02}.png").write_text("x")
    with pytest.raises(SystemExit, match="2"):
        command(capsys, "predict", run, ".", "--out", "out.csv")
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(".png")[0][-2:] for line in lines[:10]] == [f"{i:02}" for i in range(10)]
    assert lines[10:] == ["… and 2 more"]
    assert not Path("out.csv").exists()


# Mistakes


def test_file_that_is_there_is_replaced_only_if_asked(capsys, run, files):
    out = Path("out.csv")
    out.write_text("precious")
    said = mistake(capsys, "predict", run, *files, "--csv", out)
    assert said == "error: out: got out.csv, which exists; expected a new file. Add --overwrite, or another name."
    assert out.read_text() == "precious"
    command(capsys, "predict", run, *files, "--csv", out, "--overwrite")
    assert len(rows_of(out)) == 6


def test_file_is_left_alone_if_predicting_fails(capsys, run, in_tmp):
    Path("bad.png").write_text("x")
    Path("out.csv").write_text("precious")
    said = mistake(capsys, "predict", run, "bad.png", "--csv", "out.csv", "--overwrite")
    assert "bad.png: got a file that is not an image" in said
    assert Path("out.csv").read_text() == "precious"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), r"images: got none; expected at least one file or folder"),
        (
            ("0.png", "--csv", "no/out.csv"),
            r"out: got no/out.csv; expected a file in a directory that exists.*mkdir",
        ),
        (("0.png", "--csv", "."), r"out: got \., a directory; expected the name of a file, like out.csv"),
        (("0.png", "--csv", "out.txt"), r"out: got out.txt; expected a name that ends in .csv. Name it out.csv"),
        (("t.csv", "--csv", "t.csv", "--overwrite"), r"out: got t.csv, which is read; expected another file"),
        (("t.csv", "0.png"), r"images: got t.csv beside 1 more; expected a table alone"),
        (("none.csv",), r"none.csv: got No such file"),
        (("small.csv",), r"small.csv: got .* columns .*; expected 784 columns of pixels, the model's input of 28×28×1"),
        (("0.png", "--top", "0"), r"top: got 0; expected a whole number of at least 1"),
        (("0.png", "--tta", "-1"), r"tta: got -1; expected"),
        (("none.png",), r"none.png: got No such file"),
    ],
)
def test_mistake_is_told_in_one_line(arguments, expected, capsys, run, files, test_data):
    table_of(Path("t.csv"), test_data.images[:2])
    table_of(Path("small.csv"), test_data.images[:2][:, :8, :8])
    before = sorted(path.name for path in Path().iterdir())
    assert re.search(expected, mistake(capsys, "predict", run, *arguments))
    assert sorted(path.name for path in Path().iterdir()) == before
