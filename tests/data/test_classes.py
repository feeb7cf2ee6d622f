"""Class names: their order, how they are given, and how the classes of two sides are matched wherever they meet."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import engine
from engine import InputError, RunConfig, Splits, TrainConfig
from engine.config.data import DataConfig
from engine.data.classes.matching import match, same_classes, unlike_in_form
from engine.data.classes.names import composed, ordered
from engine.data.classes.reading import classes_of, read_names
from engine.data.coverage import check_several_classes, class_notes
from engine.data.decoded.dataset import Dataset, combined_fingerprint
from engine.data.load import load_splits
from engine.exporting.graph import graph_of
from engine.models import Dense, Flatten, Sequential
from tests.conftest import make_dataset

DENSE = Sequential((Flatten(), Dense()))
TWELVE = tuple(map(str, range(12)))
LETTERS = st.characters(codec="utf-8", exclude_categories=("C", "Z"))
NAMES = st.lists(st.text(LETTERS, min_size=1, max_size=4), unique_by=composed, max_size=12)


def spots(root: Path, classes: dict[str, int], count: int = 6, first: int = 0) -> Path:
    """A folder of grey pictures; class k is a white spot at place k of 12."""
    for name, k in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(first, first + count):
            Image.fromarray(spot(k, i)).save(root / name / f"{i:03}.png")
    return root


def spot(k: int, i: int) -> np.ndarray:
    image = np.random.default_rng(1000 * k + i).integers(0, 60, (6, 8, 1), np.uint8).repeat(3, -1)
    y, x = divmod(k, 4)
    image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2] = 255
    return image


def spot_arrays(classes: int = 12, count: int = 5, first: int = 100) -> tuple[np.ndarray, np.ndarray]:
    images = np.stack([spot(k, first + i) for k in range(classes) for i in range(count)])
    return images, np.repeat(np.arange(classes), count)


def trained(data, **how) -> engine.Result:
    return engine.fit(DENSE, data, **{"epochs": 30, "batch_size": 12, "learning_rate": 0.02, "verbose": False, **how})


# Order


def test_numbers_sort_as_numbers_and_other_names_as_text():
    assert ordered(["10", "2", "1", "2"]) == ("1", "2", "10")
    assert ordered(["205", "001", "101"]) == ("001", "101", "205")
    assert ordered(["10", "9.5", "-1", "1.0", "1"]) == ("-1", "1", "1.0", "9.5", "10")
    assert ordered(["10", "2", "other"]) == ("10", "2", "other")


def test_a_number_of_thousands_of_digits_is_a_name_like_others():
    assert ordered(["9" * 6000, "10", "9"]) == ("9", "10", "9" * 6000)


# Labels and given names


@pytest.mark.parametrize(
    ("labels", "class_names", "names", "indices"),
    [
        ([2, 0, 1], None, ("0", "1", "2"), [2, 0, 1]),
        ([1, 3, 2], None, ("1", "2", "3"), [0, 2, 1]),
        ([205, 101, 205], None, ("101", "205"), [1, 0, 1]),
        (["10", "9", "10"], None, ("9", "10"), [1, 0, 1]),
        (["001", "1", "01"], None, ("001", "01", "1"), [0, 2, 1]),
        (["e\u0301", "\u00e9"], None, ("\u00e9",), [0, 0]),
        ([2, 0, 1], ["ant", "bee", "cow"], ("ant", "bee", "cow"), [2, 0, 1]),
        ([0, 0], ["ant", "bee"], ("ant", "bee"), [0, 0]),
        ([0, 2], ["2", "1", "0"], ("2", "1", "0"), [0, 2]),
        ([0, 2], [7, 8, 9], ("7", "8", "9"), [0, 2]),
        (["cow", "ant"], ["cow", "ant"], ("cow", "ant"), [0, 1]),
        ([3, 1], {1: "ant", 3: "cow"}, ("ant", "cow"), [1, 0]),
        ([10, 9], {10: "b", 9: "a"}, ("a", "b"), [1, 0]),
        (["x7", "x1"], {"x1": "ant", "x7": "bee"}, ("ant", "bee"), [1, 0]),
        ([1, 0], {"dog": 1, "cat": 0}, ("cat", "dog"), [1, 0]),
        (["dog", "cat"], {"dog": 1, "cat": 0}, ("cat", "dog"), [1, 0]),
    ],
)
def test_labels_become_indices_into_class_names(labels, class_names, names, indices):
    found, found_names = classes_of(np.array(labels), "labels", class_names)
    assert (found_names, found.tolist(), found.dtype) == (names, indices, np.int32)


def test_texts_in_a_list_are_read_as_those_in_an_array_and_truth_values_as_numbers():
    for texts, names in ((["b", "a", "b"], None), (["10", "9", "e\u0301"], None), (["b", "a"], ["b", "a", "c"])):
        of_list, of_array = classes_of(texts, "labels", names), classes_of(np.array(texts), "labels", names)
        assert (of_list[0].tolist(), of_list[1]) == (of_array[0].tolist(), of_array[1])
    assert classes_of(np.array([True, False]), "labels")[1] == ("0", "1")
    with pytest.raises(InputError, match="labels: got a class name of 100,000 letters; expected at most 1,000"):
        classes_of(["a"] * 1000 + ["b" * 100_000], "labels")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20), st.data())
def test_every_label_has_the_name_it_is_written_as(labels: list[int], data: st.DataObject):
    indices, names = classes_of(np.array(labels), "labels")
    assert [names[k] for k in indices] == [str(label) for label in labels]
    assert list(map(int, names)) == sorted(set(labels))
    mapping = {label: f"class {label}" for label in data.draw(st.permutations(sorted(set(labels))))}
    indices, names = classes_of(np.array(labels), "labels", mapping)
    assert [names[k] for k in indices] == [f"class {label}" for label in labels]


@pytest.mark.parametrize(
    ("labels", "class_names", "message"),
    [
        ([0, 1], {"ant", "bee"}, r"class_names: got a set, which has no order; expected a list"),
        ([0, 1], "ab", r"class_names: got 'ab'; expected a list of names"),
        ([0, 1], [], r"class_names: got no names"),
        ([0, 1], ["ant", None], r"class_names: got None; expected names that are text or whole numbers"),
        ([0, 1], ["ant", " "], r"class_names: got a class named ' '"),
        ([0, 1], ["ant", "b\nee"], r"class_names: got a class named 'b\\nee'"),
        ([0, 1], ["ant", "bee", "ant"], r"class_names: got ant more than once"),
        ([0, 1], ["\u00e9", "e\u0301"], r"class_names: got \u00e9 more than once"),
        ([0, 1], {0: "ant", 1: "ant"}, r"class_names: got ant more than once"),
        ([0, 1], {"ant": 0, "bee": 0}, r"class_names: .* expected an index of its own"),
        (
            [0, 1, 2],
            ["ant", "bee"],
            r"example 2: got 2; expected 0 to 1 for 2 class names .*Give every label",
        ),
        (
            [1, 2],
            ["ant", "bee"],
            r"example 1: got 2; .*Name them by label: class_names=\{1: 'ant', 2: 'bee', …",
        ),
        ([1, 3], ["1", "2", "3"], r"example 1: got 3; expected 0 to 2 for 3 class names .*Leave class_names out"),
        ([0, -1], ["ant", "bee"], r"labels of example 1: got -1; expected 0 to 1"),
        ([0, -1], None, r"labels of example 1: got -1; expected 0 or more\. Leave out examples without a label"),
        (["0", "-1"], None, r"labels of example 1: got -1; expected 0 or more"),
        (["ant", "cow"], ["ant", "bee"], r"labels of example 1: got 'cow'; expected one of the labels"),
        ([0, 5], {0: "ant", 1: "bee"}, r"labels of example 1: got '5'; expected one of the labels"),
        (["ant", ""], None, r"labels: got a class named ''"),
    ],
)
def test_labels_and_names_that_do_not_go_together_are_refused(labels, class_names, message):
    with pytest.raises(InputError, match=message):
        classes_of(np.array(labels), "labels", class_names)


def test_advice_for_labels_from_1_works():
    images = make_dataset(9).images
    labels = np.arange(9) % 3 + 1
    named = engine.dataset(images, labels, {1: "ant", 2: "bee", 3: "cow"})
    assert named.class_names == ("ant", "bee", "cow")
    assert named.labels.tolist() == (labels - 1).tolist()
    assert engine.dataset(images, labels).class_names == ("1", "2", "3")


def test_names_may_come_from_any_list_in_order():
    pandas = pytest.importorskip("pandas")
    for names in (
        ("a", "b"),
        np.array(["a", "b"]),
        {"a": 0, "b": 1}.keys(),
        pandas.Index(["a", "b"]),
        iter(["a", "b"]),
    ):
        assert read_names(names) == ("a", "b")


# Matching


@settings(max_examples=30, deadline=None)
@given(NAMES, st.randoms())
def test_classes_are_found_by_name_whatever_the_order(names: list[str], random):
    theirs = random.sample(names, len(names))
    found = match(tuple(theirs), tuple(names), "data", "the model")
    assert same_classes(tuple(theirs), tuple(names))
    assert [names[k] for k in found.positions] == theirs
    assert not found.note


def test_names_that_differ_in_form_are_matched_and_that_is_said():
    for theirs, ours in (
        ("Cat", "cat"),
        ("ＣＡＴ", "cat"),
        ("STRASSE", "straße"),
        ("1", "001"),
        ("big  cat", "Big cat"),
    ):
        found = match((theirs, "dog"), ("dog", ours), "data", "the model")
        assert found.positions.tolist() == [1, 0]
        assert found.note == f"warning: data: class names that differ only in form: {theirs} is taken for {ours}"
    assert match(("e\u0301", "a"), ("a", "\u00e9"), "data", "the model").note == ""


def test_names_that_differ_in_form_are_not_guessed_where_there_are_two():
    for theirs, ours in (
        (("CAT",), ("cat", "Cat")),
        (("Cat", "CAT"), ("cat", "dog")),
        (("Cat", "cat"), ("cat", "dog")),
    ):
        with pytest.raises(InputError, match="data: got classes that the model lacks"):
            match(theirs, ours, "data", "the model")
    assert match(("Cat", "cat"), ("cat", "Cat"), "data", "the model").positions.tolist() == [1, 0]


def test_numbers_in_other_digits_are_matched_as_numbers_and_never_by_their_order_as_text():
    numerals = {k: str(k).translate({ord("0") + d: 0x0660 + d for d in range(10)}) for k in range(12)}
    theirs = tuple(sorted(numerals.values()))
    found = match(theirs, TWELVE, "data", "the model")
    assert [numerals[k] for k in found.positions] == list(theirs)
    assert "differ only in form" in found.note
    with pytest.raises(InputError, match=r"classes that the model lacks \(0e0, 10e0, .*Rename these classes"):
        match(tuple(sorted(f"{k}e0" for k in range(12))), TWELVE, "data", "the model")
    assert match(("ant", "nan"), ("0", "1"), "data", "the model").positions.tolist() == [0, 1]
    assert unlike_in_form(("Cat", "dog", "cat", "01", "1")) == [("Cat", "cat"), ("01", "1")]


@pytest.mark.parametrize(
    ("theirs", "ours", "positions"),
    [
        (("0", "1"), ("ant", "bee", "cow"), [0, 1]),
        (("2",), ("ant", "bee", "cow"), [2]),
        (("ant", "bee"), ("0", "1"), [0, 1]),
    ],
)
def test_only_classes_without_names_are_compared_by_index_and_that_is_said(theirs, ours, positions):
    found = match(theirs, ours, "data", "the model")
    assert found.positions.tolist() == positions
    assert "compared by index, because those of " in found.note


@pytest.mark.parametrize(
    ("theirs", "ours", "message"),
    [
        (("0", "1", "2"), ("1", "2", "3"), r"lacks \(0\); expected those of the model \(1, 2, 3\)\. Number the labels"),
        (
            ("1", "2", "3"),
            ("ant", "bee", "cow"),
            r"lacks \(1, 2, 3\).*Name the labels as there, in Python .*, class_names=\{1: 'a",
        ),
        (("ant", "bee"), ("0", "1", "2"), r"lacks \(ant, bee\)"),
        (("ant", "dog"), ("ant", "bee"), r"lacks \(dog\); expected those of the model \(ant, bee\)\. Rename"),
        (("ant", "0"), ("ant", "bee"), r"lacks \(0\).*Rename these classes as there"),
    ],
)
def test_classes_that_the_other_side_lacks_are_refused(theirs, ours, message):
    with pytest.raises(InputError, match=message):
        match(theirs, ours, "data", "the model")


def test_classes_without_examples_may_be_missing_on_the_other_side():
    assert match(("ant", "bee"), ("bee",), "data", "the model", [False, True]).positions.tolist() == [-1, 0]


def test_relabelled_data_have_the_fingerprint_of_their_new_labels():
    data = make_dataset(30)
    hashes = np.arange(30, dtype=np.uint64)
    known = replace(data, hashes=hashes, fingerprint=combined_fingerprint(data.input_shape, hashes, data.labels))
    turned = known.in_classes(tuple(reversed(data.class_names)), "test")
    assert turned.labels.tolist() == (2 - data.labels).tolist()
    assert turned.fingerprint == combined_fingerprint(data.input_shape, hashes, turned.labels) != known.fingerprint
    assert turned.in_classes(data.class_names, "test").fingerprint == known.fingerprint


# Runs


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, engine.Result]:
    """A folder of the classes 0 to 11, and a model of it."""
    root = spots(tmp_path_factory.mktemp("data") / "num", {name: k for k, name in enumerate(TWELVE)})
    return root, trained(DataConfig(path=root, validation_fraction=0.0))


def test_model_of_numbered_folders_is_scored_by_name_on_every_kind_of_data(numbered, tmp_path: Path, capsys):
    root, result = numbered
    classifier = result.classifier
    assert classifier.class_names == TWELVE
    images, labels = spot_arrays()
    np.savez(tmp_path / "a.npz", x_train=images, y_train=labels)
    texts = labels.astype(str)
    np.savez(tmp_path / "t.npz", x_train=images, y_train=texts)
    table = [f"{root}/{name}/000.png,{name}" for name in reversed(TWELVE)]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(table) + "\n")
    sources = [load_splits(DataConfig(path=path, validation_fraction=0.0), 0, lambda text: None).train
               for path in (root, tmp_path / "a.npz", tmp_path / "t.npz", tmp_path / "t.csv")]  # fmt: skip
    for data in (*sources, engine.dataset(images, labels), engine.dataset(images, 11 - labels, TWELVE[::-1])):
        assert classifier.evaluate(data)["accuracy"] > 0.9, data.name
    assert capsys.readouterr().err == ""
    assert classifier.evaluate(engine.dataset(images, labels, [f"c{k}" for k in range(12)]))["accuracy"] > 0.9
    assert "compared by index" in capsys.readouterr().err


def test_data_that_lack_classes_are_scored_and_that_is_said(numbered, tmp_path: Path, capsys):
    root = spots(tmp_path / "some", {"3": 3, "10": 10}, first=50)
    data = load_splits(DataConfig(path=root, validation_fraction=0.0), 0, lambda text: None).train
    metrics = numbered[1].classifier.evaluate(data)
    assert (metrics["n"], metrics["accuracy"]) == (12, 1.0)
    assert capsys.readouterr().err == "some has no examples of 0, 1, 2, 4, … (10 of 12 classes)\n"


@pytest.mark.parametrize("kind", ["folder", "npz", "gaps"])
def test_run_of_before_is_resumed_with_the_order_it_has(kind: str, tmp_path: Path, capsys):
    names = tuple(sorted(TWELVE))
    path = spots(tmp_path / "num", {name: k for k, name in enumerate(TWELVE)}, 3)
    if kind != "folder":
        images, labels = spot_arrays(count=3)
        path = tmp_path / "a.npz"
        np.savez(path, images=images, labels=labels.astype(str) if kind == "npz" else labels * 2)
        names = names if kind == "npz" else tuple(map(str, range(23)))
    data = DataConfig(path=path, validation_fraction=0.25)
    config = RunConfig("old", DENSE, data, TrainConfig(epochs=1, batch_size=9))
    old = engine.run(config, tmp_path / "run", splits=load_splits(data, 0, print, lambda found: names))
    assert old.classifier.class_names == names
    longer = replace(config, train=replace(config.train, epochs=2))
    resumed = engine.run(longer, tmp_path / "run", resume=True)
    whole = engine.run(longer, tmp_path / "whole", splits=load_splits(data, 0, print, lambda found: names))
    assert resumed.classifier.class_names == names
    assert resumed.history[-1]["loss"] == whole.history[-1]["loss"]
    assert load_splits(data, 0, print).train.class_names != names


def test_files_of_numbered_folders_are_in_the_order_of_before(tmp_path: Path):
    root = spots(tmp_path / "num", {name: k for k, name in enumerate(TWELVE)}, 1)
    data = load_splits(DataConfig(path=root, validation_fraction=0.0), 0, lambda text: None).train
    assert [data.class_names[k] for k in data.labels] == sorted(TWELVE)


def test_finetuning_on_the_same_classes_in_another_order_keeps_the_head_and_its_order(numbered):
    classifier = numbered[1].classifier
    images, labels = spot_arrays()
    backwards = (images, 11 - labels)
    tuned = engine.finetune(classifier, backwards, class_names=TWELVE[::-1], epochs=0, verbose=False, batch_size=8)
    assert tuned.classifier.class_names == TWELVE
    np.testing.assert_allclose(tuned.classifier.outputs(images), classifier.outputs(images), rtol=1e-5)
    assert tuned.metrics["validation"]["accuracy"] > 0.8
    splits = Splits(engine.dataset(*backwards, TWELVE[::-1]), engine.dataset(images, labels))
    again = engine.finetune(classifier, splits, epochs=0, verbose=False, batch_size=8, validation=None)
    assert again.classifier.class_names == TWELVE
    assert again.metrics["validation"]["accuracy"] > 0.9
    others = engine.finetune(classifier, engine.dataset(*spot_arrays(3)), epochs=0, verbose=False, batch_size=8)
    assert others.classifier.class_names == ("0", "1", "2")


def test_run_that_starts_from_another_takes_over_its_order_and_is_resumed(numbered, tmp_path: Path):
    root, _ = numbered
    names, data = tuple(sorted(TWELVE)), DataConfig(path=root, validation_fraction=0.25)
    config = RunConfig("one", DENSE, data, TrainConfig(epochs=1, batch_size=9))
    engine.run(config, tmp_path / "source", splits=load_splits(data, 0, print, lambda found: names))
    tuned = replace(config, name="two", finetune=engine.FineTuneConfig(init=tmp_path / "source"))
    first = engine.run(tuned, tmp_path / "tuned")
    assert first.classifier.class_names == names
    longer = replace(tuned, train=replace(tuned.train, epochs=2))
    assert engine.run(longer, tmp_path / "tuned", resume=True).history[0] == first.history[0]


def test_models_with_classes_in_several_orders_are_joined_by_name(numbered):
    images, labels = spot_arrays()
    first = numbered[1].classifier
    second = trained((images, 11 - labels), class_names=TWELVE[::-1], validation=None).classifier
    assert second.class_names == TWELVE[::-1]
    joined = engine.join([first, second])
    assert joined.class_names == TWELVE
    expected = (first.outputs(images).astype(np.float64) + second.outputs(images)[:, ::-1]) / 2
    np.testing.assert_allclose(joined.outputs(images), expected, atol=1e-6)
    assert joined.evaluate(engine.dataset(images, labels))["accuracy"] > 0.9
    np.testing.assert_allclose(graph_of(joined)(images), expected, atol=1e-5)
    np.testing.assert_allclose(engine.join([joined, second]).outputs(images)[:3].sum(1), 1, rtol=1e-5)
    with pytest.raises(InputError, match=r"source: got members with their classes in several orders"):
        engine.finetune(joined, (images, labels), epochs=1, batch_size=8, verbose=False)
    three = trained(make_dataset(60)).classifier
    with pytest.raises(InputError, match=r"parts: got 3 classes \(band 0, band 1, band 2\); expected 12 classes"):
        engine.join([first, three])


# What training cannot make up for


def data_of(counts: dict[str, int], name: str = "data") -> Dataset:
    labels = np.repeat(np.arange(len(counts), dtype=np.int32), list(counts.values()))
    return Dataset(np.zeros((len(labels), 2, 2, 1), np.uint8), labels, tuple(counts), name, "")


@pytest.mark.parametrize(
    ("train", "held_out", "notes"),
    [
        ({"ant": 5, "bee": 5}, {"ant": 2, "bee": 1}, []),
        ({"ant": 5, "bee": 5}, {"bee": 1}, ["validation has no examples of ant (1 of 2 classes)"]),
        (
            {"ant": 5, "bee": 5, "cow": 0},
            {"ant": 1, "bee": 1, "cow": 1},
            [
                "warning: no training examples of cow (1 of 3 classes), which the model cannot learn; their examples "
                "are in validation, where stratified would set aside the same share of each"
            ],
        ),
        (
            {"0": 3, "1": 3, "2": 0, "3": 0, "4": 0, "5": 0, "6": 0},
            {"0": 1, "1": 1},
            [
                "warning: no training examples of 2, 3, 4, 5, … (5 of 7 classes), which the model cannot learn",
                "warning: 7 classes, more than the 6 examples to train on",
            ],
        ),
        (
            {"1": 2, "2": 1, "3": 1},
            {"1": 1, "2": 1, "3": 1},
            [
                "3 classes, named by their labels: 1, 2, 3, the outputs in this order",
                "warning: a single training example of 2, 3 (2 of 3 classes)",
            ],
        ),
        (
            {name: 3 for letter in "abcde" for name in (letter, letter.upper())},
            {name: 1 for letter in "abcde" for name in (letter, letter.upper())},
            [
                *(f"warning: {letter} and {letter.upper()} are 2 classes" for letter in "abc"),
                "warning: 2 more groups of class names that differ only in form",
            ],
        ),
        ({"Cat": 5, "cat": 5}, {"Cat": 1, "cat": 1}, ["warning: Cat and cat are 2 classes"]),
        (
            {"ant": 5, "bee": 0},
            {"ant": 1},
            [
                "warning: one class only to train on, ant",
                "warning: no training examples of bee (1 of 2 classes), which the model cannot learn",
            ],
        ),
    ],
)
def test_what_classes_lack_is_said_in_a_line_each(train, held_out, notes):
    assert class_notes(Splits(data_of(train), data_of(held_out))) == notes


def test_regressions_have_no_classes_to_lack():
    targets = Dataset(np.zeros((4, 2, 2, 1), np.uint8), np.zeros((4, 1), np.float32), (), "targets", "")
    assert class_notes(Splits(targets, targets)) == []
    check_several_classes(targets)


@pytest.mark.parametrize("kind", ["arrays", "named arrays", "npz", "table", "splits"])
def test_one_class_only_is_refused_in_every_source(kind: str, tmp_path: Path, in_tmp: Path):
    images = np.zeros((20, 4, 4, 1), np.uint8)
    np.savez("a.npz", images=images, labels=np.full(20, 7))
    Path("a.csv").write_text("label,a,b,c,d\n" + "7,1,2,3,4\n" * 20)
    data, names = {
        "arrays": ((images, np.full(20, 7)), None),
        "named arrays": ((images, np.zeros(20, int)), ["7", "8"]),
        "npz": (DataConfig(path=Path("a.npz")), None),
        "table": (DataConfig(path=Path("a.csv")), None),
        "splits": (Splits(engine.dataset(images, np.full(20, 7))), None),
    }[kind]
    remedy = "Choose a split that has 8 too" if names else "Add examples of other classes"
    with pytest.raises(InputError, match=rf"got one class only \(7\) in .* to train on; .*{remedy}"):
        engine.fit(DENSE, data, class_names=names, epochs=1, batch_size=4, verbose=False)


def test_what_classes_lack_is_said_before_training_and_kept_in_the_log(tmp_path: Path, capsys):
    root = spots(tmp_path / "bad", {"ant": 0, "bee": 5}, 8)
    (root / "zebra").mkdir()
    for i in range(4):
        (root / "zebra" / f"{i}.jpg").touch()
    data = DataConfig(path=root, on_bad_file="skip", validation_fraction=0.25)
    result = engine.fit(DENSE, data, epochs=1, batch_size=4)
    line = "warning: no training examples of zebra (1 of 3 classes), which the model cannot learn; skipped: 4 files"
    said = capsys.readouterr().out
    assert said.index(line) < said.index("epoch 1/1")
    assert line in (result.directory / "log.txt").read_text(encoding="utf-8")


def test_labels_with_gaps_make_no_empty_classes(capsys):
    images = np.zeros((20, 4, 4, 1), np.uint8)
    images[::2] = 200
    result = engine.fit(DENSE, (images, np.arange(20) % 2 * 400), epochs=1, batch_size=4)
    assert result.classifier.class_names == ("0", "400")
    assert "2 classes, named by their labels: 0, 400, the outputs in this order" in capsys.readouterr().out
    assert json.loads((result.directory / "result.json").read_text())["metrics"]["validation"]["n"] == 2
    how = {"loss": "binary_cross_entropy"}
    two = engine.fit(DENSE, (images, np.arange(20) % 2 + 1), epochs=1, batch_size=4, verbose=False, **how)
    assert two.classifier.class_names == ("1", "2")


def test_warnings_are_said_even_where_nothing_else_is(capsys):
    images = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 1), np.uint8)
    validation, how = (images[:3], np.arange(3)), {"epochs": 0, "batch_size": 6, "verbose": False}
    data = engine.dataset(images, np.arange(24) % 3, ["ant", "bee", "Bee"])
    engine.fit(DENSE, data, validation=validation, **how)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "warning: validation arrays: classes are compared by index, because those of validation arrays have no names: "
        "0 is taken for ant, 1 is taken for bee, 2 is taken for Bee",
        "warning: bee and Bee are 2 classes",
        "warning: 0 epochs: nothing is trained; the model is evaluated and saved as it starts",
    ]


def test_validation_labels_are_read_as_those_of_training(capsys):
    images = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 1), np.uint8)
    pairs = itertools.product((None, {1: "ant", 2: "bee", 3: "cow"}, ["-", "ant", "bee", "cow"]), (True, False))
    for names, is_subset in pairs:
        held_out = np.array([1, 3] if is_subset else [3, 2, 1])
        validation = (images[: len(held_out)], held_out)
        how = {"class_names": names, "validation": validation, "epochs": 1, "batch_size": 6, "verbose": False}
        result = engine.fit(DENSE, (images, np.arange(24) % 3 + 1), **how)
        expected = result.classifier.evaluate(engine.dataset(*validation, names))
        assert result.metrics["validation"] == expected


@pytest.mark.parametrize("names", [("ant", "ant"), {"ant", "bee"}, {0: "ant"}, "ab", ["\u00e9", "e\u0301"]])
def test_dataset_of_ones_own_has_a_name_for_each_class(names):
    with pytest.raises(InputError, match="class_names: got"):
        Dataset(np.zeros((2, 2, 2, 1), np.uint8), np.array([0, 1], np.int32), names, "own", "")


def test_names_in_scripts_that_join_letters_and_wide_blanks_are_names(tmp_path: Path):
    spots(tmp_path / "words", {"می\u200cشود": 0, "क्\u200dष": 1, "黒\u3000猫": 2}, 2)
    assert load_splits(DataConfig(path=tmp_path / "words", validation_fraction=0.0), 0, print).train.num_classes == 3
    for odd in ("a\x1b[2J", "a\u202eb", "a\nb"):
        with pytest.raises(InputError, match="expected a printable name"):
            engine.dataset(np.zeros((2, 2, 2, 1), np.uint8), np.array([0, 1]), ["ant", odd])


def test_finetuning_on_classes_that_differ_in_form_keeps_the_head_and_says_so(numbered, capsys):
    classifier = numbered[1].classifier
    names = [f"{k:02}" for k in range(12)]
    tuned = engine.finetune(classifier, spot_arrays(), class_names=names, epochs=0, batch_size=8)
    assert tuned.classifier.class_names == TWELVE
    assert "class names that differ only in form: 00 is taken for 0" in capsys.readouterr().out


def test_columns_are_answered_with_the_loss_that_takes_them():
    images = np.zeros((4, 4, 4, 1), np.uint8)
    numbers = np.random.default_rng(0).normal(size=(4, 2))
    for labels, loss in ((numbers, "mean_squared_error"), ([["a", "b"]] * 4, "binary_cross_entropy")):
        with pytest.raises(InputError, match=f'got labels of 4×2; .* set loss="{loss}"'):
            engine.fit(engine.mlp(()), (images, labels), epochs=0, verbose=False)
