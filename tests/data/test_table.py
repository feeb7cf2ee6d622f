"""CSV tables of pixels and of file names become datasets, or are refused with file, line and column."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.config.data import DataConfig
from engine.data.decoded.dataset import Dataset
from engine.data.load import load_splits
from engine.data.pictures.images import fit_picture
from engine.data.sources import rows as rows_module
from engine.data.sources.table import TableSource, open_table, read_unlabelled_table
from engine.errors import InputError

DRAW = np.random.default_rng(0)
PIXELS = DRAW.integers(0, 256, (5, 16), dtype=np.uint8)
LABELS = [2, 0, 1, 2, 0]


def rows(pixels: np.ndarray, labels: list[Any] | None = None, last: bool = False) -> str:
    lines = [",".join(map(str, row)) for row in pixels.tolist()]
    if labels is not None:
        pairs = zip(labels, lines, strict=True)
        lines = [f"{line},{label}" if last else f"{label},{line}" for label, line in pairs]
    return "\n".join(lines) + "\n"


def header(count: int, label: str | None = "label", last: bool = False) -> str:
    names = [f"pixel{i}" for i in range(count)]
    if label:
        names.insert(len(names) if last else 0, label)
    return ",".join(names) + "\n"


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def opened(path: Path, messages: list[str] | None = None, **config: Any) -> TableSource:
    return open_table(DataConfig(path=path, **config), (messages if messages is not None else []).append)


def train(path: Path, messages: list[str] | None = None, **config: Any) -> Dataset:
    return opened(path, messages, **config).load("train", "data.split")


# Rows of pixels


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ["label", "Class", " TARGET "])
def test_rows_of_pixels_become_square_images(tmp_path: Path, last: bool, name: str):
    file = written(tmp_path / "digits.csv", header(16, name, last) + rows(PIXELS, LABELS, last))
    dataset = train(file)
    np.testing.assert_array_equal(dataset.images[:], PIXELS.reshape(5, 4, 4, 1))
    assert dataset.labels.tolist() == LABELS
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.name == "digits.csv"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    side=st.integers(2, 6), channels=st.sampled_from([1, 3]), count=st.integers(1, 9), seed=st.integers(0, 99),
    place=st.sampled_from([0, 1, -1]), chunk=st.integers(1, 4),
)  # fmt: skip
def test_table_holds_what_was_written(
    tmp_path: Path, side: int, channels: int, count: int, seed: int, place: int, chunk: int
):
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (count, side * side * channels))
    texts = draw.choice(["cat", "ä dog", "x"], count)
    place = place % (pixels.shape[1] + 1)
    table = np.insert(pixels.astype(object), place, texts, 1)
    names = np.insert(np.array([f"p{i}" for i in range(pixels.shape[1])], object), place, "class")
    lines = [",".join(map(str, row)) for row in [names, *table]]
    file = written(tmp_path / f"{seed} {count}.csv", "\r\n".join(lines))
    before, rows_module.CHUNK_ROWS = rows_module.CHUNK_ROWS, chunk
    try:
        dataset = train(file, cache_dir=tmp_path / f"{side} {channels} {count} {seed} {place}")
    finally:
        rows_module.CHUNK_ROWS = before
    np.testing.assert_array_equal(dataset.images[:], pixels.reshape(count, side, side, channels))
    assert [dataset.class_names[k] for k in dataset.labels] == texts.tolist()
    assert dataset.class_names == tuple(sorted(set(texts.tolist())))


def test_numbers_without_a_header_have_the_label_first(tmp_path: Path):
    dataset = train(written(tmp_path / "a.csv", rows(PIXELS, LABELS)))
    np.testing.assert_array_equal(dataset.images[:], PIXELS.reshape(5, 4, 4, 1))
    assert dataset.labels.tolist() == LABELS


@pytest.mark.parametrize("count", [4, 15])
def test_numbers_without_a_header_are_refused_when_the_label_is_not_clear(tmp_path: Path, count: int):
    file = written(tmp_path / "a.csv", rows(DRAW.integers(0, 9, (3, count))))
    with pytest.raises(
        InputError, match=rf"a\.csv: got {count} columns without names; .* which one is the label\. Add"
    ):
        train(file)


def test_numbers_without_a_header_have_no_label_when_all_make_a_picture(tmp_path: Path):
    written(tmp_path / "digits" / "train.csv", rows(PIXELS, LABELS))
    file = written(tmp_path / "digits" / "test.csv", rows(PIXELS))
    assert opened(tmp_path / "digits").split_names == ("train",)
    with pytest.raises(InputError, match=r"test\.csv with the columns pixel0, .*; expected columns label and pixels"):
        opened(file)


def test_blank_lines_quotes_and_spaces_do_not_matter(tmp_path: Path):
    text = '"label","a","b","c","d"\n\n"cat",1, 2,"3",4\n   \ndog,5,6,7,8\n\n'
    dataset = train(written(tmp_path / "a.csv", "\ufeff" + text))
    assert dataset.images[:].reshape(2, 4).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert dataset.class_names == ("cat", "dog")


def test_text_labels_may_hold_commas_in_quotes(tmp_path: Path):
    dataset = train(written(tmp_path / "a.csv", 'label,a,b,c,d\n"cat, big",1,2,3,4\n"cat",1,2,3,4\n'))
    assert dataset.class_names == ("cat", "cat, big")
    assert dataset.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("size", "shape", "count"),
    [("2x8", (2, 8, 1), 16), ("8x2", (8, 2, 1), 16), ("2x4", (2, 4, 3), 24), ("4x4", (4, 4, 3), 48)],
)
def test_size_that_the_pixels_have_exactly_is_their_shape(tmp_path: Path, size: str, shape: Any, count: int):
    pixels = DRAW.integers(0, 256, (3, count))
    dataset = train(written(tmp_path / "a.csv", header(count) + rows(pixels, [0, 1, 0])), image_size=size)
    np.testing.assert_array_equal(dataset.images[:], pixels.reshape(3, *shape))


def test_other_size_and_color_are_made_as_for_pictures(tmp_path: Path):
    file = written(tmp_path / "a.csv", header(16) + rows(PIXELS, LABELS))
    dataset = train(file, image_size="7x9", resize="pad", color="rgb")
    expected = [fit_picture(Image.fromarray(row.reshape(4, 4)), "rgb", (7, 9), "pad") for row in PIXELS]
    np.testing.assert_array_equal(dataset.images[:], np.stack(expected))


@pytest.mark.parametrize(
    ("scaled", "value_range", "said"),
    [
        (lambda pixels: (pixels / 255).round(5), (0, 1), "0 black, 1 white"),
        (lambda pixels: (pixels / 127.5 - 1).round(5), (-1, 1), "-1 black, 1 white"),
        (lambda pixels: pixels * 257, (0, 65535), "0 black, 65535 white"),
        (lambda pixels: pixels * 1.0, (0, 255), ""),
    ],
)
def test_pixels_of_another_range_become_levels_as_in_arrays(tmp_path: Path, scaled: Any, value_range: Any, said: str):
    pixels, messages = np.vstack([PIXELS, np.arange(16) * 17]), list[str]()
    file = written(tmp_path / "a.csv", header(16) + rows(scaled(pixels), [*LABELS, LABELS[0]]))
    config = DataConfig(path=file, validation_fraction=0, cache_dir=tmp_path / "cache")
    found = load_splits(config, 0, messages.append).train
    np.testing.assert_array_equal(found.images[:].reshape(-1, 16), pixels)
    assert found.value_range == value_range
    assert any(said in line and "levels" in line for line in messages) or not said
    again = list[str]()
    load_splits(config, 0, again.append)
    assert any(said in line for line in again) or not said


def test_range_of_pixels_is_that_of_the_training_table_or_stated(tmp_path: Path):
    written(tmp_path / "train.csv", header(16) + rows(PIXELS / 255, LABELS))
    written(tmp_path / "test.csv", header(16) + rows(PIXELS, LABELS))
    with pytest.raises(InputError, match=r"test\.csv: got numbers from .* 0 to 1.*Divide them by 255"):
        opened(tmp_path).load("test", "data.test_split")
    written(tmp_path / "test.csv", header(16) + rows(PIXELS // 128, LABELS))
    found = opened(tmp_path).load("test", "data.test_split")
    np.testing.assert_array_equal(found.images[:].reshape(-1, 16), PIXELS // 128 * 255)
    stated = train(written(tmp_path / "a.csv", header(16) + rows(PIXELS // 17, LABELS)), levels=(0.0, 15.0))
    np.testing.assert_array_equal(stated.images[:].reshape(-1, 16), PIXELS // 17 * 17)
    odd = written(tmp_path / "odd.csv", header(16) + rows(PIXELS * 3.5 - 200, LABELS))
    with pytest.raises(InputError, match=r"got numbers from .*--data\.levels BLACK WHITE"):
        train(odd)


def test_deep_numbers_after_the_first_rows_are_named_and_the_remedy_works(tmp_path: Path):
    few = np.full((40, 16), 7)
    few[-1] = 60_000
    file = written(tmp_path / "a.csv", header(16) + rows(few, [str(k % 2) for k in range(40)]))
    with pytest.raises(InputError, match=r"line 41, column 2 .* got '60000'; .*--data\.levels 0 65535"):
        train(file)
    assert train(file, levels=(0.0, 65535.0)).images[39].max() == 233


def test_table_to_be_classified_has_numbers_of_the_range_of_training(tmp_path: Path):
    file = written(tmp_path / "a.csv", header(16, None) + rows(PIXELS // 128))
    assert read_unlabelled_table(file, (4, 4, 1)).dtype == np.uint8
    assert read_unlabelled_table(file, (4, 4, 1), (0.0, 1.0)).dtype == np.float64
    file = written(tmp_path / "b.csv", header(16, None) + rows(PIXELS / 255))
    np.testing.assert_allclose(read_unlabelled_table(file, (4, 4, 1)).reshape(-1, 16), PIXELS / 255)


def test_number_of_pixels_that_is_no_square_is_refused_with_the_remedy(tmp_path: Path):
    file = written(tmp_path / "a.csv", header(14) + rows(PIXELS[:, :14], LABELS))
    with pytest.raises(InputError, match=r"a\.csv: got 14 columns of pixels; .*--data\.image-size"):
        train(file)
    with pytest.raises(InputError, match="got 14 columns of pixels"):
        train(file, image_size="3x4")
    assert train(file, image_size="7x2").input_shape == (7, 2, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,2,3,4", r"line 4: got 4 columns; expected 5, as the first line has"),
        ("1,2,3,4,5,6", r"line 4: got 6 columns; expected 5"),
        ("1,2,x,4,5", r"line 4, column 3 \(b\): got 'x'; expected a whole number from 0 to 255\. Correct it"),
        ("1,2,256,4,5", r"line 4, column 3 \(b\): got '256'"),
        ("1,2,99999999999999999999,4,5", r"line 4, column 3 \(b\): got '9999"),
        ("1,-1,3,4,5", r"line 4, column 2 \(a\): got '-1'"),
        ("1,2,3,4,", r"line 4, column 5 \(d\): got ''"),
        ("1,2.5,3,4,5", r"line 4, column 2 \(a\): got '2\.5'"),
        ("1,nan,3,4,5", r"line 4, column 2 \(a\): got 'nan'"),
        (",2,3,4,5", r"line 4, column 1 \(label\): got no label; expected one"),
    ],
)
@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_bad_cell_is_refused_with_line_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, message: str, chunk: int
):
    monkeypatch.setattr(rows_module, "CHUNK_ROWS", chunk)
    text = f"label,a,b,c,d\n\n0,1,2,3,4\n{line}\n1,1,2,3,4\n"
    with pytest.raises(InputError, match=rf"a\.csv {message}"):
        train(written(tmp_path / "a.csv", text), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.csv: got an empty file; expected a table of label and pixels .*path and label"),
        ("label,a,b,c,d\n", r"a\.csv: got no rows below the first line"),
        ("path,label\n\n", r"a\.csv: got no rows below the first line"),
        ("id,breed\n1,2\n", r"a\.csv: got the columns id, breed; expected columns label and .* --data\.label-column"),
        ("id,a,b,c,d\n1,1,1,1,1\n", r"data\.path: got .*with the columns id, a, b, c, …; expected columns label"),
        ("path,x,y\na.png,1,2\n", r"data\.path: got .*columns path, x, y; .*--data\.label-column to one of x, y"),
        ("label,a,b,c,d\n-1,1,1,1,1\n0,1,1,1,1\n", r"a\.csv label of example 0: got -1; expected 0 or more"),
        ("path,label\na.png,1\nb,c.png,1\n", r'a\.csv line 3: got 3 columns; expected 2, .* need "quotes"'),
        ("path,label\na.png,1\n,1\n", r"a\.csv line 3, column 1 \(path\): got nothing; expected a value"),
        ("path,label\na.png,\n", r"a\.csv line 2, column 2 \(label\): got nothing; expected a value"),
        ('path,label\n"' + "x" * 200_000, r"a\.csv: got field larger than field limit"),
    ],
)  # fmt: skip
def test_table_is_refused_when_it_is_none(tmp_path: Path, text: str, message: str):
    with pytest.raises(InputError, match=message):
        train(written(tmp_path / "a.csv", text), cache_dir=tmp_path)


# Files named in a table


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """A table of four pictures with odd names and ending lines as Excel does."""
    names = ["sub/a.png", "b, c.png", "ü.png", "d.png"]
    for i, name in enumerate(names):
        (tmp_path / "list" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), 50 * i, np.uint8)).save(tmp_path / "list" / name)
    lines = ["Image,note,Label", "sub/a.png,x,cat", '"b, c.png",,dog', "ü.png,y,cat", "d.png,,ant"]
    return written(tmp_path / "list" / "all.csv", "\ufeff" + "\r\n".join(lines) + "\r\n")


def test_files_named_in_a_table_are_read_from_beside_it(listed: Path, in_tmp: Path):
    dataset = train(listed)
    assert dataset.images[:].mean((1, 2, 3)).tolist() == [0, 50, 100, 150]
    assert dataset.class_names == ("ant", "cat", "dog")
    assert dataset.labels.tolist() == [1, 2, 1, 0]


def test_whole_numbers_as_labels_of_files_name_the_classes(listed: Path):
    written(listed, "path,label\nsub/a.png,3\nd.png,1\n")
    dataset = train(listed, image_size="2x2", color="grayscale")
    assert dataset.class_names == ("1", "3")
    assert dataset.labels.tolist() == [1, 0]
    assert dataset.input_shape == (2, 2, 1)


def test_missing_files_are_named_or_skipped(listed: Path, tmp_path: Path):
    written(listed, "path,label\nd.png,a\ngone.png,b\nsub,a\n")
    message = (
        r"got 1 of 3 files that are not there; expected paths that start at .*list\. Correct .*skip\.\n  gone\.png"
    )
    with pytest.raises(InputError, match=message):
        train(listed, cache_dir=tmp_path / "cache")
    assert len(train(listed, on_bad_file="skip").skipped) == 2


def test_files_are_decoded_anew_when_labels_or_files_change(listed: Path, tmp_path: Path):
    messages: list[str] = []
    for text in ("d.png,a\nü.png,b\n", "d.png,a\nü.png,b\n", "d.png,b\nü.png,a\n", "d.png,b\nü.png,c\n"):
        written(listed, "path,label\n" + text)
        train(listed, messages, cache_dir=tmp_path / "cache")
    assert len([message for message in messages if message.startswith("decoding")]) == 3


# Folders of tables


def test_folder_of_tables_has_their_splits(tmp_path: Path):
    for name, labels in (("Train", [0, 1, 2, 1, 0]), ("valid", [1] * 5), ("TEST", [2, 0, 0, 0, 0])):
        written(tmp_path / "digits" / f"{name}.csv", header(16) + rows(PIXELS, labels))
    source = opened(tmp_path / "digits")
    assert source.split_names == ("train", "validation", "test")
    test = source.load("test", "f")
    assert (test.name, test.class_names, test.labels.tolist()) == ("digits test", ("0", "2"), [1, 0, 0, 0, 0])
    splits = load_splits(DataConfig(path=tmp_path / "digits"), 0, lambda text: None)
    assert splits.test is not None
    assert splits.validation is not None
    assert (splits.test.class_names, splits.test.labels.tolist()) == (("0", "1", "2"), [2, 0, 0, 0, 0])
    assert splits.validation.labels.tolist() == [1] * 5
    with pytest.raises(InputError, match=r"data\.test_split: got 'tset'; .* Did you mean 'test'\?"):
        source.load("tset", "data.test_split")


def test_test_table_without_labels_is_left_out(tmp_path: Path):
    written(tmp_path / "digits" / "train.csv", header(16) + rows(PIXELS, LABELS))
    written(tmp_path / "digits" / "test.csv", header(16, None) + rows(PIXELS))
    written(tmp_path / "digits" / "sample_submission.csv", "ImageId,Label\n1,0\n")
    messages: list[str] = []
    assert opened(tmp_path / "digits", messages).split_names == ("train",)
    assert messages == [f"{tmp_path}/digits/test.csv: has no column of labels; this split is left out"]


def test_label_that_train_lacks_is_refused(tmp_path: Path):
    written(tmp_path / "digits" / "train.csv", header(16) + rows(PIXELS, list("abcab")))
    written(tmp_path / "digits" / "test.csv", header(16) + rows(PIXELS, list("abxab")))
    message = r"digits test: got classes that digits train lacks \(x\); expected those of digits train \(a, b, c\)"
    with pytest.raises(InputError, match=message):
        load_splits(DataConfig(path=tmp_path / "digits", validation_fraction=0.0), 0, lambda text: None)


def test_single_table_of_a_folder_is_for_training_and_others_are_refused(tmp_path: Path):
    written(tmp_path / "digits" / "all.csv", header(16) + rows(PIXELS, LABELS))
    assert len(train(tmp_path / "digits")) == 5
    written(tmp_path / "digits" / "more.csv", header(16) + rows(PIXELS, LABELS))
    with pytest.raises(InputError, match=r"data\.path: got .*digits with all\.csv, more\.csv; expected train\.csv"):
        train(tmp_path / "digits")


# The cache


def test_second_start_reads_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = written(tmp_path / "a.csv", header(16) + rows(PIXELS, LABELS))
    messages: list[str] = []
    first = train(file, messages, cache_dir=tmp_path)
    monkeypatch.setattr(TableSource, "_decode", None)
    again = train(file, messages, cache_dir=tmp_path)
    assert messages == [f"{file}: label has 3 classes (0, 1, 2)", "decoding a.csv: 5 images, once"]
    assert again.fingerprint == first.fingerprint
    monkeypatch.undo()
    train(file, messages, cache_dir=tmp_path, image_size="8x8")
    written(file, header(16) + rows(PIXELS[::-1], LABELS[::-1]) + "\n")
    train(file, messages, cache_dir=tmp_path)
    assert len([message for message in messages if message.startswith("decoding")]) == 3


# Tables to be classified


@pytest.mark.parametrize(
    "text",
    [
        header(16, None) + rows(PIXELS), header(16) + rows(PIXELS, LABELS), rows(PIXELS), rows(PIXELS, LABELS),
        header(16, "class", True) + rows(PIXELS, list("abcde"), True),
    ],
)  # fmt: skip
def test_table_to_be_classified_may_have_labels_and_names_or_not(tmp_path: Path, text: str):
    pixels = read_unlabelled_table(written(tmp_path / "a.csv", text), (4, 4, 1))
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, PIXELS.reshape(5, 4, 4, 1))
    wide = read_unlabelled_table(tmp_path / "a.csv", (2, 8, 1))
    np.testing.assert_array_equal(wide, PIXELS.reshape(5, 2, 8, 1))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (header(9) + rows(PIXELS[:, :9], LABELS), r"a\.csv: got 10 columns \(label, .*\); expected 16 .* of 4×4×1"),
        (rows(PIXELS[:, :14]), r"a\.csv: got 14 columns \(pixel0, .*\); expected 16 columns of pixels"),
        ("path,label\na.png,1\n", r"a\.csv: got 2 columns \(path, label\); expected 16"),
        (header(16, None), r"a\.csv: got no rows below the first line"),
        (header(16, None) + rows(PIXELS).replace(",", ",x", 1), r"a\.csv line 2, column 2 \(pixel1\): got 'x"),
        ("", r"a\.csv: got an empty file"),
    ],
)
def test_table_to_be_classified_is_refused_when_it_does_not_fit_the_model(tmp_path: Path, text: str, message: str):
    with pytest.raises(InputError, match=message):
        read_unlabelled_table(written(tmp_path / "a.csv", text), (4, 4, 1))


def test_missing_table_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"a\.csv: got No such file or directory; expected a table that can be read"):
        read_unlabelled_table(tmp_path / "a.csv", (4, 4, 1))


def test_column_of_paths_that_begin_with_a_split_is_no_column_of_splits(tmp_path):
    (tmp_path / "train").mkdir()
    for number in range(4):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / "train" / f"{number}.png")
    rows = "".join(f"train/{number}.png,{'ab'[number % 2]}\n" for number in range(4))
    (tmp_path / "list.csv").write_text(f"fname,kind\n{rows}")
    config = DataConfig(path=tmp_path / "list.csv", cache_dir=tmp_path / "cache")
    assert len(open_table(config, lambda text: None).load("train", "data.split")) == 4


@pytest.mark.parametrize(("labels", "listed"), [(("001", "1", "2"), ("a", "b", "c")), (("1e39", "2", "2"), None)])
def test_labels_that_only_look_like_numbers_stay_names(tmp_path, labels, listed):
    (tmp_path / "d.csv").write_text("label,a,b,c,d\n" + "".join(f"{label},1,2,3,4\n" for label in labels))
    source = open_table(DataConfig(path=tmp_path / "d.csv", class_names=listed, cache_dir=tmp_path / "c"), print)
    if listed is None:
        assert source.load("train", "data.split").targets is None  # beyond float32
    else:
        with pytest.raises(InputError, match=r"data\.class_names: got 'a'; expected one of 001, 1, 2"):
            source.load("train", "data.split")
