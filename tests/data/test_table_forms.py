"""Tables as they come: encodings, delimiters, columns, paths of other systems, splits in a column, kinds of labels."""

import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import engine
from engine.config.data import DataConfig
from engine.data.decoded.dataset import Dataset
from engine.data.kinds import open_source
from engine.data.load import load_splits
from engine.data.sources.table import open_table
from engine.errors import InputError
from engine.host.encodings import encoding_of
from tests.commands.test_data import command

ROWS = [(f"img/{name}/{i:02}.png", name) for name in ("cat", "dog") for i in range(4)]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with eight grey pictures in img/, of levels 0 to 7."""
    for level, (name, _) in enumerate(ROWS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), level).save(tmp_path / name)
    return tmp_path


def table(place: Path, text: str, encoding: str = "utf-8", name: str = "t.csv") -> Path:
    path = place / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def lines(header: str, rows: list[tuple[str, ...]] = ROWS, delimiter: str = ",") -> str:  # type: ignore[assignment]
    return "\n".join([header] * bool(header) + [delimiter.join(row) for row in rows]) + "\n"


def read(path: Path, messages: list[str] | None = None, split: str = "train", **config: Any) -> Dataset:
    said = messages if messages is not None else list[str]()
    data = DataConfig(path=path, color="grayscale", cache_dir=path.parent / "cache", **config)
    return open_source(data, said.append).load(split, "data.split")


def levels(dataset: Dataset) -> list[int]:
    return np.asarray(dataset.images)[:, 0, 0, 0].tolist()


# Encodings


@pytest.mark.parametrize(
    ("encoding", "names", "codec"),
    [
        ("utf-8", ("Bär", "кот"), "utf-8-sig"),
        ("utf-8-sig", ("犬", "猫"), "utf-8-sig"),
        ("utf-16", ("Bär", "кот"), "utf-16"),
        ("utf-32", ("Bär", "кот"), "utf-32"),
        ("utf-16-le", ("cat", "dog"), "utf-16-le"),
        ("utf-16-be", ("cat", "dog"), "utf-16-be"),
        ("cp1252", ("Bär", "Bör"), "cp1252"),
        ("cp1252", ("château", "forêt"), "cp1252"),
        ("cp1252", ("l’été", "Éléphant"), "cp1252"),
        ("cp1252", ("smørrebrød", "rødgrød"), "cp1252"),
        ("cp1251", ("кот", "пёс"), "cp1251"),
        ("cp1251", ("Москва", "Казань"), "cp1251"),
        ("cp1251", ("їжак", "БЕЛКА"), "cp1251"),
        ("shift_jis", ("犬", "猫"), "cp932"),
        ("shift_jis", ("りんご", "バナナ"), "cp932"),
        ("cp932", ("Tシャツ", "東京"), "cp932"),
    ],
)
def test_encoding_is_found_and_a_guess_is_said(place: Path, encoding: str, names: tuple[str, str], codec: str):
    rows = [(path, names[label == "dog"]) for path, label in ROWS]
    path, messages = table(place, lines("path,label", rows), encoding), list[str]()
    assert encoding_of(path).codec == codec
    dataset = read(path, messages)
    assert dataset.class_names == tuple(sorted(names))
    assert [dataset.class_names[k] for k in dataset.labels] == [names[k // 4] for k in range(8)]
    guesses = [message for message in messages if "--data.encoding" in message]
    assert len(guesses) == (codec.startswith("cp"))
    assert all(f"read as {'Shift-JIS' if codec == 'cp932' else codec}" in message for message in guesses)


@pytest.mark.parametrize(
    ("encoding", "names"),
    [("cp1250", ("pies", "kościół")), ("koi8-r", ("кот", "пёс")), ("gbk", ("猫", "狗")), ("cp850", ("Bär", "Bör"))],
)
def test_text_that_is_clear_in_no_encoding_is_refused_and_read_in_the_one_named(
    place: Path, encoding: str, names: tuple[str, str]
):
    path = table(place, lines("path,label", [(path, names[label == "dog"]) for path, label in ROWS]), encoding)
    with pytest.raises(
        InputError, match=r"t\.csv: got text that is not UTF-8 .* name its encoding, like --data\.encoding"
    ):
        read(path)
    assert read(path, encoding=encoding).class_names == tuple(sorted(names))


def test_bytes_that_are_not_of_the_encoding_named_are_refused_and_never_replaced(place: Path):
    path = table(place, lines("path,label", [(path, "Bär") for path, _ in ROWS]), "cp1252")
    with pytest.raises(
        InputError, match=r"t\.csv: got bytes that are no utf-8 \(e4 72.*; expected text in one encoding"
    ):
        read(path, encoding="utf-8")
    path = table(place, lines("path,label"))
    with pytest.raises(InputError, match=r"t\.csv: got bytes that are not of its encoding .*BOM"):
        read(path, encoding="utf-16")
    with pytest.raises(InputError, match=r"data\.encoding: got 'klingon'; expected an encoding that Python knows"):
        DataConfig(encoding="klingon")
    with pytest.raises(InputError, match=r"data\.encoding: got 'base64'"):
        DataConfig(encoding="base64")


def test_late_bytes_of_another_encoding_are_found_however_long_the_table_is(tmp_path: Path):
    text = b"path,label\n" + b"a.png,cat\n" * 300_000 + "a.png,Bär\n".encode("cp1252")
    (tmp_path / "t.csv").write_bytes(text)
    assert encoding_of(tmp_path / "t.csv").codec == "cp1252"


def test_binary_files_are_no_tables(tmp_path: Path):
    (tmp_path / "t.csv").write_bytes(bytes(range(256)) * 4)
    with pytest.raises(InputError, match="bytes that are not text"):
        open_table(DataConfig(path=tmp_path / "t.csv"), print)


def test_labels_are_the_same_class_in_either_unicode_form(place: Path):
    forms = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    rows = [(path, forms[i % 2] if label == "cat" else "x") for i, (path, label) in enumerate(ROWS)]
    dataset = read(table(place, lines("path,label", rows)))
    assert dataset.class_names == ("x", "é")


# Delimiters and columns


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("has_header", [True, False])
def test_delimiters_and_missing_headers_are_found(place: Path, delimiter: str, has_header: bool):
    header = delimiter.join(("path", "label")) if has_header else ""
    dataset = read(table(place, lines(header, ROWS, delimiter)))
    assert (levels(dataset), dataset.class_names) == (list(range(8)), ("cat", "dog"))


def test_tables_of_pixels_may_have_other_delimiters_an_index_and_text_labels(tmp_path: Path):
    text = ";label;a;b;c;d\n0;cat;1;2;3;4\n1;dog;5;6;7;8\n"
    dataset = read(table(tmp_path, text))
    assert np.asarray(dataset.images).reshape(2, 4).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert dataset.class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "header", ["filepath,label", "image_id,dx", "filename,category", "Image Path,Class Name", "x,y", "img,species"]
)
def test_usual_and_unusual_names_of_two_columns_are_told_apart(place: Path, header: str):
    dataset = read(table(place, lines(header)))
    assert (levels(dataset), dataset.class_names) == (list(range(8)), ("cat", "dog"))


def test_columns_are_chosen_by_option_by_name_or_number(place: Path):
    rows = [(path, label, f"{label}{i % 2}", str(i)) for i, (path, label) in enumerate(ROWS)]
    path = table(place, lines("path,label,breed,age", rows))
    assert read(path).class_names == ("cat", "dog")
    assert read(path, label_column="breed").class_names == ("cat0", "cat1", "dog0", "dog1")
    assert read(path, label_column="Age").num_classes == 8
    with pytest.raises(InputError, match=r"data\.label_column: got 'bred'; .*Did you mean 'breed'"):
        read(path, label_column="bred")
    bare = table(place, lines("", rows), name="bare.csv")
    assert read(bare, path_column="1", label_column="3").class_names == ("cat0", "cat1", "dog0", "dog1")


def test_labels_among_several_columns_are_asked_for_and_the_remedy_works(place: Path):
    rows = [(path, label, str(i)) for i, (path, label) in enumerate(ROWS)]
    path = table(place, lines("path,animal,age", rows))
    with pytest.raises(InputError, match=r"Set --data\.label-column to one of animal, age, or"):
        read(path)
    assert read(path, label_column="animal").class_names == ("cat", "dog")


# Paths


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda path: path.replace("/", "\\"), "8 found with / for \\"),
        (lambda path: path.upper(), "8 found in another case or Unicode form"),
        (lambda path: path.removesuffix(".png"), "8 found with a suffix added"),
        (lambda path: f"./{path}", ""),
    ],
)
def test_paths_of_other_systems_are_found_and_that_is_said(place: Path, change: Any, said: str):
    messages: list[str] = []
    dataset = read(table(place, lines("path,label", [(change(path), label) for path, label in ROWS])), messages)
    assert levels(dataset) == list(range(8))
    found = [message for message in messages if "found" in message]
    assert found == ([f"{place / 't.csv'}: {said}"] if said else [])


def test_unicode_forms_of_paths_do_not_matter(place: Path):
    Image.new("L", (2, 2), 9).save(place / unicodedata.normalize("NFD", "é.png"))
    dataset = read(table(place, "path,label\né.png,a\nimg/cat/00.png,b\n"))
    assert levels(dataset) == [9, 0]


def test_absolute_paths_are_read_and_those_of_another_machine_below_the_folder_named(place: Path, tmp_path: Path):
    here = table(place, lines("path,label", [(str(place / path), label) for path, label in ROWS]))
    assert levels(read(here)) == list(range(8))
    for start in ("C:\\Users\\me\\data\\", "/content/drive/data/", "\\\\server\\share\\"):
        rows = [(start + path.replace("/", "\\" if "\\" in start else "/"), label) for path, label in ROWS]
        elsewhere = table(place, lines("path,label", rows), name="other.csv")
        with pytest.raises(InputError, match=r"got 8 of 8 files that are not there; .*--data\.image-directory"):
            read(elsewhere)
        messages: list[str] = []
        assert levels(read(elsewhere, messages, image_directory=place)) == list(range(8))
        assert "8 found by the end of their paths" in "".join(messages)


def test_files_are_found_in_one_folder_beside_the_table_or_in_the_one_named(place: Path, in_tmp: Path):
    rows = [(path.removeprefix("img/").removesuffix(".png"), label) for path, label in ROWS]
    path, messages = table(place, lines("id,breed", rows)), list[str]()
    assert levels(read(path, messages)) == list(range(8))
    assert f"files found in {place / 'img'}" in "".join(messages)
    (place / "copy").mkdir()
    (place / "img").rename(place / "copy" / "img")
    assert levels(read(path, image_directory=place / "copy" / "img")) == list(range(8))
    assert levels(read(path, image_directory=Path("copy/img"), suffix=".png")) == list(range(8))
    with pytest.raises(InputError, match=r"data\.image_directory: got .*nowhere; expected a folder"):
        read(path, image_directory=Path("nowhere"))


def test_names_that_stand_for_several_files_or_folders_are_refused_with_the_option(place: Path):
    Image.new("L", (2, 2), 9).save(place / "img" / "cat" / "00.jpg")
    path = table(place, lines("path,label", [(path.removesuffix(".png"), label) for path, label in ROWS]))
    with pytest.raises(
        InputError, match=r"data\.suffix: got '00' for 00\.jpg, 00\.png in .*img/cat; .*Set --data\.suffix"
    ):
        read(path)
    assert levels(read(path, suffix=".png")) == list(range(8))
    (place / "other" / "cat").mkdir(parents=True)
    Image.new("L", (2, 2), 9).save(place / "other" / "cat" / "01.png")
    path = table(place, "path,label\ncat/01.png,a\ncat/01.png,b\n")
    with pytest.raises(InputError, match=r"data\.image_directory: .*Name it with --data\.image-directory"):
        read(path)


# Splits in a column


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("split", ("train", "train", "val", "test")), ("Usage", ("Training", "Training", "validation", "PublicTest")),
        ("part", ("TRAIN", "train", "dev", "holdout")), ("set", ("train", "training", "valid", "testing")),
    ],
)  # fmt: skip
def test_column_of_splits_divides_the_table_and_that_is_said(place: Path, name: str, values: tuple[str, ...]):
    rows = [(path, label, values[i % 4]) for i, (path, label) in enumerate(ROWS)]
    data = DataConfig(path=table(place, lines(f"path,label,{name}", rows)), color="grayscale", cache_dir=place / "c")
    messages: list[str] = []
    splits = load_splits(data, 0, messages.append)
    assert splits.validation is not None
    assert splits.test is not None
    assert [levels(split) for split in splits.named.values()] == [[0, 1, 4, 5], [2, 6], [3, 7]]
    assert f"the column {name} divides it into train, validation, test" in messages[0]


@pytest.mark.parametrize(("name", "rest"), [("is_valid", "validation"), ("is_test", "test"), ("valid", "validation")])
def test_column_of_yes_and_no_divides_the_table(place: Path, name: str, rest: str):
    rows = [(path, label, str(i % 4 == 3)) for i, (path, label) in enumerate(ROWS)]
    path = table(place, lines(f"path,label,{name}", rows))
    assert levels(read(path)) == [0, 1, 2, 4, 5, 6]
    assert levels(read(path, split=rest)) == [3, 7]


def test_rows_of_pixels_are_divided_too(tmp_path: Path):
    path = table(tmp_path, "label,split,a,b,c,d\ncat,train,1,2,3,4\n\ndog,test,5,6,7,8\ndog,train,9,9,9,9\n")
    assert np.asarray(read(path).images).reshape(2, 4).tolist() == [[1, 2, 3, 4], [9, 9, 9, 9]]
    assert np.asarray(read(path, split="test").images).reshape(1, 4).tolist() == [[5, 6, 7, 8]]


def test_column_of_splits_that_cannot_be_used_is_refused(place: Path):
    rows = [(path, label, str(i % 4)) for i, (path, label) in enumerate(ROWS)]
    with pytest.raises(
        InputError, match=r"the column fold with '0', '1', '2', '3'; expected train, validation or test"
    ):
        read(table(place, lines("path,label,fold", rows)))
    for name in ("kfold", "K-Fold", "cv fold"):
        with pytest.raises(InputError, match=r"the column .* with '0', '1', '2', '3'; expected train"):
            read(table(place, lines(f"path,label,{name}", rows)))
    rows = [(path, label, "train", "test") for path, label in ROWS]
    with pytest.raises(InputError, match=r"the columns split, phase; expected one column"):
        read(table(place, lines("path,label,split,phase", rows)))


# Kinds of labels


def test_numbers_with_fractions_are_targets_of_a_regression_and_that_is_said(place: Path):
    rows = [(path, f"{i / 4:.2f}") for i, (path, _) in enumerate(ROWS)]
    messages: list[str] = []
    dataset = read(table(place, lines("path,age", rows)), messages)
    assert dataset.class_names == ()
    assert dataset.labels.dtype == np.float32
    np.testing.assert_array_equal(dataset.labels[:, 0], np.arange(8) / 4)
    assert "age has numbers from 0 to 1.75: a regression (--train.loss mean_squared_error)" in "".join(messages)
    comma = [(path, f"{i / 4:.2f}".replace(".", ",")) for i, (path, _) in enumerate(ROWS)]
    again = read(table(place, lines("path;age", comma, ";")))
    np.testing.assert_array_equal(again.labels, dataset.labels)


def test_whole_numbers_are_classes_also_with_the_fractions_of_pandas(place: Path):
    for form in ("{}", "{}.0"):
        rows = [(path, form.format(2 + 9 * (label == "dog"))) for path, label in ROWS]
        messages: list[str] = []
        assert read(table(place, lines("path,label", rows)), messages).class_names == ("2", "11")
        assert "label has 2 classes (2, 11)" in "".join(messages)


@pytest.mark.parametrize("odd", ["nan", "NaN", "inf", "1e400", "4e38"])
def test_targets_that_are_no_numbers_are_refused_and_counted(place: Path, odd: str):
    rows = [(path, odd if i == 2 else f"{i / 4}") for i, (path, _) in enumerate(ROWS)]
    with pytest.raises(InputError, match=f"t.csv age: got 1 of 8 labels like {odd}; expected numbers"):
        read(table(place, lines("path,age", rows)))
    rows = [(path, "nan" if i == 2 else f"{i % 2}.0") for i, (path, _) in enumerate(ROWS)]
    with pytest.raises(InputError, match="1 of 8 labels like nan"):  # what pandas writes of a class that is missing
        read(table(place, lines("path,label", rows)))
    assert read(table(place, lines("path,label", [(path, label[:1] + "an") for path, label in ROWS]))).class_names


def test_numbers_of_any_size_are_names_of_classes(place: Path):
    rows = [(path, "99999999999999999999.0" if i % 2 else "5.0") for i, (path, _) in enumerate(ROWS)]
    assert read(table(place, lines("path,label", rows))).class_names == ("5.0", "99999999999999999999.0")


# data.class-names


def test_class_names_give_the_order_and_leave_others_out(place: Path):
    path, messages = table(place, lines("path,label", [*ROWS, ("img/cat/00.png", "emu")])), list[str]()
    dataset = read(path, messages, class_names=("dog", "cat"))
    assert (dataset.class_names, dataset.labels.tolist()) == (("dog", "cat"), [1] * 4 + [0] * 4)
    assert "left out 1 examples of classes that are not in data.class-names (emu)" in messages[-1]
    with pytest.raises(InputError, match=r"data\.class_names: got 'dgo'; .*Did you mean 'dog'"):
        read(path, class_names=("dgo", "cat"))


def test_class_names_order_folders_and_arrays_and_name_numbers(place: Path):
    folder = read(place / "img", class_names=("dog", "cat"))
    assert (folder.class_names, folder.labels.tolist()) == (("dog", "cat"), [1] * 4 + [0] * 4)
    images = np.arange(6, dtype=np.uint8).reshape(6, 1, 1) * np.ones((6, 2, 2), np.uint8)
    np.savez(place / "a.npz", x_train=images, y_train=np.array([0, 1, 2, 0, 1, 2]))
    named = read(place / "a.npz", class_names=("ant", "bee", "cow"))
    assert (named.class_names, named.labels.tolist()) == (("ant", "bee", "cow"), [0, 1, 2, 0, 1, 2])
    turned = read(place / "a.npz", class_names=("2", "0"))
    assert (levels(turned), turned.labels.tolist()) == ([0, 2, 3, 5], [1, 0, 1, 0])


# Options of other sources


@pytest.mark.parametrize(
    ("source", "option", "message"),
    [
        ("t.csv", {"label_feature": "breed"}, r"data\.label_feature: got breed; .*Set --data\.label-column instead"),
        ("t.csv", {"image_feature": "x"}, r"data\.image_feature: got x; .*Set --data\.path-column instead"),
        ("t.csv", {"follow_links": "off"}, r"data\.follow_links: got off; .*Leave it out"),
        ("img", {"label_column": "x"}, r"data\.label_column: got x; expected no such option with a folder of images"),
        ("img", {"suffix": ".png"}, r"data\.suffix: got \.png; .*Leave it out"),
        ("img", {"label_feature": "x"}, r"data\.label_feature: got x; .*Leave it out"),
        ("a.npz", {"on_bad_file": "skip"}, r"data\.on_bad_file: got skip; expected no such option with arrays"),
        ("a.npz", {"split_as": "keras"}, r"data\.split_as: got keras"),
        ("img", {"data_dir": Path("x")}, r"data\.data_dir: got x"),
    ],
)
def test_options_that_a_source_would_ignore_are_refused(place: Path, source: str, option: dict[str, Any], message: str):
    table(place, lines("path,label"))
    np.savez(place / "a.npz", x_train=np.zeros((2, 2, 2), np.uint8), y_train=np.array([0, 1]))
    with pytest.raises(InputError, match=message):
        open_source(DataConfig(path=place / source, **option), lambda text: None)


def test_options_of_tables_are_refused_with_tfds_data():
    with pytest.raises(InputError, match=r"data\.label_column: got x; .*Set --data\.label-feature instead"):
        open_source(DataConfig(label_column="x"), lambda text: None)


# Commands


def test_table_of_numbers_is_shown(place: Path, capsys: pytest.CaptureFixture[str]):
    rows = [(path, f"{i / 4:.2f}") for i, (path, _) in enumerate(ROWS)]
    path = table(place, lines("path,age", rows))
    shown = command(capsys, "data", path, "--data.validation-fraction", "0", "--out", place / "a.png")
    assert re.search(r"train +│ +0 │ +0\.875 │ +1\.75", shown)


def test_table_of_paths_is_predicted_and_a_run_is_evaluated_on_a_table(place: Path, capsys: pytest.CaptureFixture[str]):
    data = DataConfig(path=place / "img", color="grayscale", validation_fraction=0.0, cache_dir=place / "cache")
    engine.fit(engine.mlp((4,)), data, epochs=1, batch_size=4, verbose=False).save(place / "run")
    bare = table(place, "id;note\n" + "".join(f"{path.removesuffix('.png')};x\n" for path, _ in ROWS) + "gone;x\n")
    with pytest.raises(SystemExit, match="1"):
        command(capsys, "predict", place / "run", bare, "--csv", place / "p.csv")
    said = (place / "p.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in said[1:]] == [str(place / path) for path, _ in ROWS] + [str(place / "gone")]
    assert "No such file" in said[-1]
    labels = table(place, lines("what,file", [(label, path) for path, label in ROWS]), name="labels.tsv")
    shown = command(capsys, "eval", place / "run", "--data.path", labels, "--data.split", "train")
    assert re.search(r"labels\.tsv +│ +8 │", shown)


def test_line_of_blanks_is_none_of_a_table_with_a_column_of_splits(place: Path):
    rows = [(path, label, "train") for path, label in ROWS]
    file = table(place, lines("path,label,split", rows) + "   \n")
    assert len(read(file)) == len(ROWS)


# Columns of 0 and 1, lines before the table, names twice


def one_hot(of: list[int], count: int = 3) -> list[str]:
    return [",".join("1" if k == label else "0" for k in range(count)) for label in of]


def test_one_hot_columns_are_classes_in_their_order(place: Path):
    messages = list[str]()
    text = "path,dog,cat,bird\n" + "".join(f"{ROWS[k % 2][0]},{row}\n" for k, row in enumerate(one_hot([0, 1, 1, 2])))
    found = read(table(place, text), messages)
    assert (found.class_names, found.labels.tolist()) == (("dog", "cat", "bird"), [0, 1, 1, 2])
    assert any("dog, cat, bird are one-hot labels of 3 classes" in line for line in messages)
    pixels = "cat,dog,pixel0,pixel1,pixel2,pixel3\n1,0,0,1,1,0\n0,1,9,8,7,6\n"
    found = read(table(place, pixels))
    assert (found.class_names, found.labels.tolist(), found.input_shape) == (("cat", "dog"), [0, 1], (2, 2, 1))


@pytest.mark.parametrize(
    ("late", "message"),
    [("1,1,0", r"got 2 ones \(a, b\).* like a\|b, with --data\.label-separator"), ("0,0,0", "got no 1")],
)
def test_row_of_one_hot_columns_without_exactly_one_is_refused_by_its_line(place: Path, late: str, message: str):
    text = "path,a,b,c\n" + "".join(f"{ROWS[0][0]},{row}\n" for row in [*one_hot([0, 1, 2] * 10), late])
    with pytest.raises(InputError, match=rf"t\.csv line 32: {message}"):
        read(table(place, text))


@pytest.mark.parametrize(
    ("before", "delimiter"),
    [
        ("sep=;\n", ";"),
        ('"sep=\t"\n', "\t"),
        ("# made by me, 2020\n# and more\n\n", ","),
        ("\n\n", ","),
        ("# x\nsep=,\n", ","),
    ],
)
def test_lines_before_the_columns_are_passed_over_and_that_is_said(place: Path, before: str, delimiter: str):
    messages, text = list[str](), before + lines(f"path{delimiter}label", ROWS, delimiter)
    assert (
        read(table(place, text), messages).class_names
        == read(table(place, lines("path,label"), name="u.csv")).class_names
    )
    assert any("ignored before the columns" in line for line in messages) == bool(before.strip())
    bad = text + delimiter.join(("a", "b", "c")) + "\n"
    with pytest.raises(InputError, match=rf"t\.csv line {bad.count(chr(10))}: got 3 columns"):
        read(table(place, bad))


def test_comment_that_names_the_columns_is_their_header(place: Path):
    found = read(table(place, "# label,p0,p1,p2,p3\n1,0,1,2,3\n2,4,5,6,7\n"))
    assert (found.class_names, found.input_shape) == (("1", "2"), (2, 2, 1))
    found = read(table(place, lines("#,path,label", [("1", *ROWS[0]), ("2", *ROWS[1])])))
    assert len(found) == 2


def test_column_that_is_there_twice_is_refused_and_the_remedy_works(place: Path):
    file = table(place, lines("path,label,Label", [(*row, "x") for row in ROWS]))
    with pytest.raises(InputError, match=r"got 2 columns named label, 2, 3; .*--data\.label-column 2\."):
        read(file)
    assert read(file, label_column="2").class_names != ("x",)
    with pytest.raises(InputError, match=r"got 2 columns named path, 1, 2; expected one column for the path"):
        read(table(place, lines("path,path,label", [(row[0], *row) for row in ROWS])))


# Paths of elsewhere


def test_web_addresses_are_counted_with_what_to_do(place: Path):
    rows = [(f"https://example.org/{ROWS[0][0]}", "cat"), *ROWS]
    file = table(place, lines("path,label", rows))
    with pytest.raises(InputError, match=r"got 1 of 9 files that are web addresses; .*Download them"):
        read(file)
    skipped = read(file, on_bad_file="skip").skipped
    assert skipped == (f"https://example.org/{ROWS[0][0]}: a web address",)
    with pytest.raises(InputError, match=r"data\.path: got https:.*Download it first"):
        read(Path("https://example.org/a.csv"))


def test_paths_in_the_home_directory_are_found_and_that_is_said(place: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(place))
    messages = list[str]()
    found = read(table(place, lines("path,label", [(f"~/{name}", label) for name, label in ROWS])), messages)
    assert len(found) == 8
    assert any("8 found in the home directory (~)" in line for line in messages)
