"""One door: arrays and labels of any form are read alike by every way in, or refused with advice that works."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import engine
from engine.config.data import DataConfig
from engine.data.decoded.dataset import Dataset, split_by_fraction
from engine.data.sources.array_files import open_arrays
from engine.errors import InputError
from tests.conftest import TINY, make_dataset

DRAW = np.random.default_rng(0)
LEVELS = DRAW.integers(0, 256, (12, 8, 8, 3), np.uint8)
LEVELS[0, 0, 0], LEVELS[0, 0, 1] = 0, 255  # so that every range is used to its ends
Y = np.tile([2, 0, 1], 4)
TEXT = np.array(["ant", "bee", "cow"])[Y]
NAMES = ("ant", "bee", "cow")


class Tensor:
    """What PyTorch's and TensorFlow's arrays are to NumPy."""

    def __init__(self, array: np.ndarray, fails: bool = False):
        self.array, self.fails = array, fails

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self.fails:
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        return self.array

    def detach(self) -> "Tensor":
        return self


class Frame(Tensor):
    """What pandas's data frames are to NumPy."""

    def __init__(self, array: np.ndarray, columns: list[str]):
        super().__init__(array)
        self.columns = columns


def from_npz(images: Any, labels: Any, path: Path, said: list[str] | None = None, **config: Any) -> Dataset:
    np.savez(path / "a.npz", images=images, labels=labels)
    config = {"cache_dir": path / "cache", **config}
    return open_arrays(DataConfig(path=path / "a.npz", **config), (said if said is not None else []).append).load(
        "train", "data.split"
    )


def said_in(capsys: pytest.CaptureFixture[str]) -> str:
    return "".join(capsys.readouterr())


# Labels

NUMBERS = {
    "int64": Y,
    "uint8": Y.astype(np.uint8),
    "column": Y[:, None],
    "column of floats": Y[:, None].astype(np.float32),
    "float16": Y.astype(np.float16),
    "float64": Y.astype(np.float64),
    "one-hot of int": np.eye(3, dtype=int)[Y],
    "one-hot of float": np.eye(3, dtype=np.float32)[Y],
    "one-hot of bool": np.eye(3, dtype=bool)[Y],
}
OBJECTS = {
    "list": Y.tolist(),
    "list of lists": Y[:, None].tolist(),
    "objects": Y.astype(object),
    "float objects": Y.astype(float).astype(object),
    "jax": jnp.asarray(Y),
    "bfloat16": jnp.asarray(Y, jnp.bfloat16),
    "tensor": Tensor(Y),
    "list of numbers of NumPy": list(Y),
    "masked with nothing masked": np.ma.masked_array(Y, np.zeros(12, bool)),
}
TEXTS = {
    "text": TEXT,
    "column of text": TEXT[:, None],
    "bytes": TEXT.astype("S"),
}
OBJECT_TEXTS = {
    "list": TEXT.tolist(),
    "objects": TEXT.astype(object),
    "StringDType": TEXT.astype(np.dtypes.StringDType()),
    "data frame of one column": Frame(TEXT[:, None].astype(object), ["animal"]),
    "dummies": Frame(np.eye(3, dtype=bool)[Y], ["ant", "bee", "cow"]),
}


@pytest.mark.parametrize("kind", NUMBERS | OBJECTS)
def test_numbers_of_every_form_are_the_same_classes(kind: str, tmp_path: Path):
    labels = (NUMBERS | OBJECTS)[kind]
    found = [engine.dataset(LEVELS, labels)]
    if kind in NUMBERS:
        found.append(from_npz(LEVELS, labels, tmp_path))
    for data in found:
        assert (data.labels.tolist(), data.labels.dtype) == (Y.tolist(), np.int32)
        assert data.class_names == ("0", "1", "2")
        assert data.fingerprint == engine.dataset(LEVELS, Y).fingerprint


@pytest.mark.parametrize("kind", TEXTS | OBJECT_TEXTS)
def test_texts_of_every_form_name_the_classes(kind: str, tmp_path: Path):
    labels = (TEXTS | OBJECT_TEXTS)[kind]
    found = [engine.dataset(LEVELS, labels)]
    if kind in TEXTS:
        found.append(from_npz(LEVELS, labels, tmp_path))
    for data in found:
        assert (data.labels.tolist(), data.class_names) == (Y.tolist(), NAMES)


def test_truth_values_are_two_classes_in_objects_too():
    for labels in (Y > 0, (Y > 0).tolist(), (Y > 0).astype(object), (Y > 0)[:, None]):
        assert engine.dataset(LEVELS, labels).class_names == ("0", "1")


def test_pandas_and_torch_are_taken_where_they_are_installed():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"animal": TEXT, "number": Y})
    categories = table["animal"].astype("category")
    for labels in (table["animal"], table[["animal"]], categories, table["animal"].astype("string")):
        assert engine.dataset(LEVELS, labels).class_names == NAMES
    assert engine.dataset(LEVELS, table["number"].astype("Int64")).labels.tolist() == Y.tolist()
    dummies = engine.dataset(LEVELS, pandas.get_dummies(table["animal"]))
    assert (dummies.class_names, dummies.labels.tolist()) == (NAMES, Y.tolist())
    missing = table["animal"].where(table.index != 3)
    with pytest.raises(InputError, match=r"labels of example 3: got no label; expected a label for each"):
        engine.dataset(LEVELS, missing)


def test_class_names_say_what_texts_stand_for_and_how_wide_one_hot_is():
    assert engine.dataset(LEVELS, TEXT, ["cow", "bee", "ant"]).labels.tolist() == (2 - Y).tolist()
    with pytest.raises(InputError, match=r"labels of example 0: got 'cow'; expected .*\(ant, bee\)"):
        engine.dataset(LEVELS, TEXT, ["ant", "bee"])
    assert engine.dataset(LEVELS, np.eye(3)[Y], NAMES).class_names == NAMES
    with pytest.raises(InputError, match=r"one-hot labels of 3 columns; expected 2"):
        engine.dataset(LEVELS, np.eye(3)[Y], ["ant", "bee"])


class Frame:
    """One-hot labels with the names of their columns, as a data frame has them."""

    def __init__(self, *columns: Any):
        self.columns = columns

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.eye(3, dtype=dtype or int)[Y]


def test_names_of_one_hot_columns_are_matched_in_whatever_order_class_names_has_them():
    for names in (["cow", "bee", "ant"], {"cow": 0, "bee": 1, "ant": 2}, ["cow", "bee", "ant", "dog"]):
        assert engine.dataset(LEVELS, Frame(*NAMES), names).labels.tolist() == (2 - Y).tolist()
    assert engine.dataset(LEVELS, Frame(*NAMES), dict(zip(NAMES, "xyz", strict=True))).class_names == ("x", "y", "z")
    assert engine.dataset(LEVELS, Frame(*NAMES), ["x", "y", "z"]).labels.tolist() == Y.tolist()
    assert engine.dataset(LEVELS, Frame(1, 2, 10)).class_names == ("1", "2", "10")
    for unnamed in (Frame(0, 1, 2), np.eye(3)[Y]):
        assert engine.dataset(LEVELS, unnamed, ["2", "1", "0"]).labels.tolist() == Y.tolist()
    with pytest.raises(InputError, match=r"labels of example 0: got 'cow'; expected .*\(bee, ant\)"):
        engine.dataset(LEVELS, Frame(*NAMES), ["bee", "ant"])


def test_classes_of_one_hot_labels_are_its_columns_where_one_has_no_example():
    assert engine.dataset(LEVELS, np.eye(5)[Y]).num_classes == 5


@pytest.mark.parametrize("shape", [(12, 1, 3), (12, 3, 1)])
def test_axes_of_one_place_in_one_hot_labels_are_left_out(shape: tuple[int, ...]):
    assert engine.dataset(LEVELS, np.eye(3)[Y].reshape(shape)).labels.tolist() == Y.tolist()


SEVERAL = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]])[Y]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_several_labels_a_picture_are_recognised_and_refused_by_losses_of_classes(dtype: Any, tmp_path: Path):
    labels = SEVERAL.astype(dtype)
    expected = r"12×3 with 1 to 2 ones a row \(several labels a picture\).*binary_cross_entropy"
    with pytest.raises(InputError, match=expected):
        engine.fit(TINY, (LEVELS, labels), verbose=False)
    for data in (from_npz(LEVELS, labels, tmp_path), engine.dataset(LEVELS, labels)):
        assert data.task == "labels"
        with pytest.raises(
            InputError, match=r"train\.loss: got softmax_cross_entropy with several labels.*binary_cross"
        ):
            engine.fit(TINY, data, verbose=False)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (Y[None], r"labels of 1×12; expected one a picture.*labels\[0\]"),
        (np.stack([Y, Y], 1), r"labels of 12×2; .*labels\[:, 0\]"),
        (np.zeros((12, 8, 8), int), r"labels of 12×8×8; .*one class for each picture"),
        (np.array([*TEXT[:11], None], object), r"labels of example 11: got no label"),
        (np.array([*TEXT[:11], 3], object), r"several kinds \(int, str\); expected all numbers or all text"),
        (np.where(np.arange(12) == 5, np.nan, Y), r"labels of example 5: got NaN or infinity"),
        (Y.astype(complex), r"complex128 labels; expected whole numbers or text"),
        (np.array([b"\xff"] * 12), r"not UTF-8; .*latin-1"),
        (np.ma.masked_equal(Y, 1), r"a masked array with 4 masked values"),
        (iter(Y), r"labels: got .*iterator; expected an array, or a list"),
        (Tensor(Y, fails=True), r"a tensor that NumPy cannot take \(can't convert cuda.*\.detach\(\)\.cpu\(\)"),
        (SimpleNamespace(toarray=None), r"a sparse SimpleNamespace; expected a dense array\. .*\.toarray\(\)"),
        ([[0], [0, 1]] * 6, r"lists of 1 to 2 labels \(several labels a picture\); .*binary_cross_entropy"),
        (np.array([[0], [0, 1]] * 6, object), r"lists of 1 to 2 labels"),
        (SEVERAL.tolist(), r"12×3 with 1 to 2 ones a row .*binary_cross_entropy"),
        ([[1, 2]] * 12, r"labels of 12×2; .*like np\.asarray\(labels\)\[:, 0\]"),
        (3, r"a single value; expected one a picture"),
        ([10**30] * 12, r"numbers beyond 32 bits"),
        (np.eye(3)[Y] * 2 - 1, r"one 1 a row beside -1; .*labels\.argmax\(1\)"),
        (np.eye(3, dtype=np.uint8)[Y] * 255, r"one 255 a row beside 0; .*labels\.argmax\(1\)"),
        (
            np.eye(3)[Y] * (np.arange(12) != 7)[:, None],
            r"labels of example 7: .*no 1 in 1 rows; .*Leave those examples",
        ),
        (np.eye(3)[Y].T, r"labels of 3×12, one 1 a column; .*labels\.T"),
        (np.array([["a.png", 1]] * 12, object), r"labels of 12×2; .*np\.asarray\(labels\)\[:, 0\]"),
    ],
)
def test_labels_that_name_no_class_are_answered_for_what_they_are(labels: Any, message: str):
    with pytest.raises(InputError, match=message):
        engine.fit(TINY, (LEVELS, labels), verbose=False)


def test_floats_are_targets_for_a_regression_and_classes_for_a_classifier():
    targets = Y.astype(np.float32)
    data = engine.dataset(LEVELS, targets)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 4, "validation": None, "verbose": False}
    assert engine.fit(TINY, data, **options).classifier.class_names == ("0", "1", "2")
    for given in (data, (LEVELS, targets), (LEVELS, Y)):
        regression = engine.fit(TINY, given, loss="mean_squared_error", **options).classifier
        assert (regression.class_names, regression.record.num_outputs) == ((), 1)
        assert regression.evaluate(data)["n"] == regression.evaluate((LEVELS, Y))["n"] == 12
    two = engine.fit(TINY, (LEVELS, (Y > 0).astype(np.float32)), loss="binary_cross_entropy", **options)
    assert two.classifier.record.num_outputs == 1
    assert engine.dataset(LEVELS, Y * 0.5).class_names == ()
    with pytest.raises(InputError, match=r"float targets with fractions; expected class labels.*mean_squared_error"):
        engine.fit(TINY, engine.dataset(LEVELS, Y * 0.7), **options)


# Images


def as_ints(dtype: Any, high: int) -> np.ndarray:
    return np.round(LEVELS.astype(np.float64) * (high / 255)).astype(dtype)


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (as_ints(np.uint16, 65535), "0 black, 65535 white"),
        (as_ints(np.uint16, 4095), "0 black, 4095 white"),
        (as_ints(np.int16, 1023), "0 black, 1023 white"),
        (as_ints(np.int32, 16383), "0 black, 16383 white"),
        (LEVELS.astype(np.int64), None),
        (LEVELS.astype(np.uint16), None),
        (LEVELS.astype(np.int16) - 128, "-128 black"),
        ((LEVELS > 128), "0 black, 1 white"),
        ((LEVELS > 128).astype(np.int32), "0 black, 1 white"),
    ],
)
def test_whole_numbers_become_levels_by_the_bits_they_have(
    images: np.ndarray, text: str | None, tmp_path: Path, capsys
):
    if images.min() < 0:
        images = images.astype(np.int8)
    data = engine.dataset(images, Y)
    expected = (LEVELS > 128) * 255 if images.max() <= 1 else LEVELS
    np.testing.assert_array_equal(data.images, expected)
    out = said_in(capsys)
    assert out == "" if text is None else text in out
    said: list[str] = []
    stored = from_npz(images, Y, tmp_path, said)
    np.testing.assert_array_equal(stored.images[:], expected)
    assert stored.value_range == data.value_range
    assert any(text in line for line in said) if text else len(said) == 1
    again = from_npz(images, Y, tmp_path)  # from the cache
    assert again.value_range == data.value_range


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_shown_as_they_are_in_memory_and_become_levels_in_files(dtype: Any, tmp_path: Path):
    images = (LEVELS / 255).astype(dtype)
    data = engine.dataset(images, Y)
    np.testing.assert_array_equal(data.images, images.astype(np.float32))
    assert data.images.dtype == np.float32
    np.testing.assert_array_equal(engine.dataset(images, Y, value_range=(0, 1)).images, LEVELS)
    said: list[str] = []
    np.testing.assert_array_equal(from_npz(images, Y, tmp_path, said).images[:], LEVELS)
    assert said[0] == f"a.npz images: {np.dtype(dtype)} is read as levels, 0 black, 1 white"


@pytest.mark.parametrize("scale", [(0, 1), (-1, 1), (0, 4095), (-1000, 400)])
def test_stated_range_decides(scale: tuple[float, float]):
    images = LEVELS / 255 * (scale[1] - scale[0]) + scale[0]
    data = engine.dataset(images, Y, value_range=scale)
    np.testing.assert_array_equal(data.images, LEVELS)
    with pytest.raises(InputError, match=r"images: got float64 from .*; expected values from .*, the value_range"):
        engine.dataset(images * 1.2, Y, value_range=scale)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (as_ints(np.int32, 70000), r"int32 images from 0 to 70000; expected .*value_range=\(black, white\)"),
        (LEVELS.astype(np.int16) - 300, r"int16 images from -300 to -45; expected .*value_range"),
        (["a.png"] * 12, r"images: got text; expected arrays of pixels\. .*a table with the columns path and label"),
        (np.ma.masked_less(LEVELS, 3), r"images: got a masked array with \d+ masked values; .*filled\(0\)"),
        ([np.ma.masked_less(one, 3) for one in LEVELS], r"images: got a masked array"),
        (np.moveaxis(LEVELS, 0, -1), r"8 images and 12 labels; expected as many.*np\.moveaxis\(images, -1, 0\)"),
    ],
)
def test_images_are_answered_for_what_they_are(images: Any, message: str):
    with pytest.raises(InputError, match=message):
        engine.dataset(images, Y)


def test_masked_pictures_are_refused_by_prediction_too(classifier):
    masked = np.ma.masked_less(make_dataset(4).images, 99)
    for pictures in (masked, [masked[0]], masked[0]):
        with pytest.raises(InputError, match=r"masked array with \d+ masked values"):
            classifier.predict(pictures)


@pytest.fixture(scope="module")
def classifier() -> engine.Classifier:
    return engine.fit(TINY, make_dataset(60), epochs=1, batch_size=20, verbose=False).classifier


def test_lists_tensors_and_pictures_are_images(capsys):
    pictures = [Image.fromarray(one) for one in LEVELS]
    for images in (LEVELS.tolist(), list(LEVELS), jnp.asarray(LEVELS), Tensor(LEVELS), pictures):
        np.testing.assert_array_equal(engine.dataset(images, Y).images, LEVELS)
    floats = engine.dataset(jnp.asarray(LEVELS / 255, jnp.bfloat16), Y).images
    assert (floats.dtype, floats.shape) == (np.float32, LEVELS.shape)
    assert said_in(capsys) == ""


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_channels_first_is_turned_by_every_door_and_said(dtype: Any, channels: int, tmp_path: Path, capsys):
    images = LEVELS[..., :channels].astype(dtype)
    first = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    data = engine.dataset(first, Y)
    np.testing.assert_array_equal(data.images, images)
    assert f"images: 12×{channels}×8×8 is read as channels first" in said_in(capsys)
    result = engine.fit(TINY, (first, Y), epochs=1, batch_size=4, validation=(first, Y))
    assert result.classifier.input_spec.shape == (8, 8, channels)
    assert "validation images: 12×" in said_in(capsys)
    assert result.evaluate((first, Y)) == result.evaluate((images, Y))
    said: list[str] = []
    assert from_npz(first, Y, tmp_path, said).images.shape == images.shape
    assert "channels first" in said[0]


def test_layout_decides_where_the_shape_leaves_doubt(tmp_path: Path, capsys):
    images = DRAW.integers(0, 256, (12, 3, 5, 3), np.uint8)
    assert engine.dataset(images, Y).input_shape == (3, 5, 3)
    assert engine.dataset(images, Y, layout="channels_first").input_shape == (5, 3, 3)
    assert from_npz(images, Y, tmp_path).input_shape == (3, 5, 3)
    assert from_npz(images, Y, tmp_path, layout="channels_first").input_shape == (5, 3, 3)
    signals = np.zeros((12, 1, 100, 22), np.float32)
    assert engine.dataset(signals, Y).input_shape == (1, 100, 22)
    assert 'layout="channels_first" turns it' in said_in(capsys)
    assert engine.dataset(LEVELS.transpose(0, 3, 1, 2), Y, layout="channels_last").input_shape == (3, 8, 8)
    with pytest.raises(InputError, match=r"layout: got 'first'; expected one of auto, channels_last, channels_first"):
        engine.dataset(images, Y, layout="first")  # type: ignore[arg-type]


# Ranges held against those of training


def test_deep_arrays_keep_their_range_in_the_contract(tmp_path: Path):
    train, dim = as_ints(np.uint16, 4095), as_ints(np.uint16, 900)
    result = engine.fit(TINY, (train, Y), epochs=1, batch_size=4, validation=(dim, Y), verbose=False)
    classifier = engine.restore(result.save(tmp_path / "run"))
    assert classifier.input_spec.value_range == (0, 4095)
    levels = np.asarray(engine.dataset(dim, Y, value_range=(0, 4095)).images)
    np.testing.assert_array_equal(classifier.predict_proba(dim), classifier.predict_proba(levels))
    assert classifier.evaluate((dim, Y)) == classifier.evaluate((levels, Y)) == result.metrics["validation"]
    with pytest.raises(InputError, match=r"the value range \(0, 1023\); expected \(0, 4095\).*value_range=\(0, 4095\)"):
        classifier.evaluate(engine.dataset(dim, Y))
    tuned = engine.finetune(classifier, (dim, Y), epochs=1, batch_size=4, verbose=False)
    assert tuned.classifier.input_spec.value_range == (0, 4095)


def rescaled(floats: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    return (floats * (scale[1] - scale[0]) + scale[0]).astype(np.float32)


@pytest.mark.parametrize(
    ("trained", "given", "remedy"),
    [
        ((0, 1), (0, 255), r"Divide them by 255"),
        ((0, 1), (0, 1 / 255), r"Multiply them by 255"),
        ((0, 1), (-1, 1), r"\(images \+ 1\) / 2"),
        ((0, 1), (0, 1.01), "in the same way"),
        ((0, 255), (0, 1), r"Multiply them by 255"),
        ((0, 255), (-1, 1), r"127\.5"),
        ((0, 255), (0, 257), "in the same way"),
        ((-1, 1), (0, 255), r"images / 127\.5 - 1"),
        ((-1, 1), (0, 1), r"images \* 2 - 1"),
        ((-2.1, 2.6), (0, 255), "in the same way"),
        ((-2.1, 2.6), (0, 1), "in the same way"),
        ((0, 1), (np.nan, np.nan), "NaN or infinity"),
    ],
)
def test_floats_of_another_scale_are_refused_by_every_door(trained: Any, given: Any, remedy: str):
    count = 20
    floats = np.random.default_rng(3).random((count, 8, 8, 1))
    floats[0, 0, :2, 0] = 0, 1
    labels = np.arange(count) % 3
    right, wrong = rescaled(floats, trained), rescaled(floats, given)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 4, "verbose": False}
    classifier = engine.fit(TINY, (right, labels), validation=(right, labels), **options).classifier
    assert classifier.evaluate((right, labels))["n"] == count
    doors = [
        lambda: classifier.predict(wrong),
        lambda: classifier.evaluate((wrong, labels)),
        lambda: classifier.evaluate(engine.dataset(wrong, labels)),
        lambda: engine.fit(TINY, (right, labels), validation=(wrong, labels), **options),
        lambda: engine.Splits(engine.dataset(right, labels), engine.dataset(wrong, labels)),
        lambda: engine.finetune(classifier, (wrong, labels), **options),
    ]
    for door in doors:
        with pytest.raises(InputError, match=remedy):
            door()


def test_levels_where_floats_were_trained_on_are_answered_by_their_type(classifier):
    floats = engine.fit(TINY, (LEVELS / 255, Y), epochs=1, batch_size=4, verbose=False).classifier
    with pytest.raises(
        InputError,
        match=r"uint8 images; expected float32, .*Convert them: images\.astype\(np\.float32\)\. Divide",
    ):
        floats.evaluate((LEVELS, Y))
    data = make_dataset(30)
    scaled = np.asarray(data.images) / 255
    with pytest.raises(InputError, match=r"float32 images; expected uint8.*value_range=\(0, 1\)"):
        classifier.evaluate((scaled, data.labels))
    assert classifier.evaluate((scaled, data.labels), value_range=(0, 1)) == classifier.evaluate(data)


@pytest.mark.parametrize("white", [1, 15])
def test_levels_of_the_range_before_they_became_levels_are_refused_by_every_door(white: int, tmp_path: Path):
    raw = (LEVELS // (256 // (white + 1))).astype(np.uint8)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 4, "validation": None, "verbose": False}
    of_range: dict[str, Any] = {"value_range": (0, white)}
    classifier = engine.fit(TINY, (raw, Y), **of_range, **options).classifier
    expected = rf"uint8 up to {white}; expected levels up to 255.*value_range=\(0, {white}\).*\(0, 255\)"
    for ask in (
        lambda: classifier.predict(raw),
        lambda: classifier.predict([raw[0]]),
        lambda: classifier.evaluate((raw, Y)),
        lambda: classifier.evaluate(engine.dataset(raw, Y)),
        lambda: engine.finetune(classifier, (raw, Y), **options),
        lambda: engine.fit(TINY, engine.dataset(raw, Y, **of_range), **options | {"validation": (raw, Y)}),
    ):
        with pytest.raises(InputError, match=expected):
            ask()
    levels = engine.dataset(raw, Y, **of_range).images
    whole = classifier.evaluate((levels, Y))
    assert classifier.evaluate((raw, Y), **of_range) == classifier.evaluate((raw.astype(int), Y)) == whole
    assert classifier.evaluate((raw, Y), value_range=(0, 255))["n"] == len(
        classifier.predict(raw, value_range=(0, 255))
    )
    np.testing.assert_array_equal(classifier.predict_proba(raw, **of_range), classifier.predict_proba(levels))
    np.testing.assert_array_equal(from_npz(raw, Y, tmp_path, levels=(0, white)).images[:], levels)


def test_pictures_almost_black_are_reported_by_every_door(tmp_path: Path, capsys):
    engine.dataset((LEVELS > 9).astype(np.uint8), Y)
    assert "warning: images: uint8 from 0 to 1" in said_in(capsys)
    engine.dataset(LEVELS / 255 / 255, Y)
    assert "divided by 255 twice" in said_in(capsys)
    said: list[str] = []
    from_npz((LEVELS > 9).astype(np.uint8), Y, tmp_path, said)
    assert "uint8 from 0 to 1" in said[-1]
    pixels = [f"p{i}" for i in range(64)]
    rows = "".join(f"{k}{',1,0' * 32}\n" for k in Y)
    (tmp_path / "t.csv").write_text(",".join(["label", *pixels]) + "\n" + rows)
    engine.fit(TINY, tmp_path / "t.csv", epochs=0, batch_size=4, validation=None)
    assert "uint8 from 0 to 1" in said_in(capsys)


# Paths


def test_fit_takes_a_path_of_any_form_and_answers_one_that_is_missing(in_tmp: Path):
    for name, data in {"cat": LEVELS[:6], "dog": LEVELS[6:]}.items():
        (in_tmp / "flowers" / name).mkdir(parents=True)
        for i, levels in enumerate(data):
            Image.fromarray(levels).save(in_tmp / "flowers" / name / f"{i}.png")
    options: dict[str, Any] = {"epochs": 1, "batch_size": 4, "verbose": False}
    for data in ("flowers", "flowers/", "./flowers", str(in_tmp / "flowers"), Path("flowers")):
        result = engine.fit(TINY, data, validation=0.25, **options)
        assert (result.classifier.class_names, result.metrics["validation"]["n"]) == (("cat", "dog"), 3)
    assert engine.finetune(result.classifier, "flowers", **options).classifier.class_names == ("cat", "dog")
    for data in ("nowhere/", Path("nowhere"), "nowhere.csv"):
        with pytest.raises(InputError, match=r"data\.path: got nowhere.*; expected a folder or file that exists"):
            engine.fit(TINY, data, **options)


def test_data_that_are_neither_path_nor_arrays_are_answered():
    with pytest.raises(InputError, match=r"data: got ''; expected a tfds name, .*or a path"):
        engine.fit(TINY, "")
    with pytest.raises(InputError, match=r"two pairs, .*Pass the first, and evaluate on the second"):
        engine.fit(TINY, ((LEVELS, Y), (LEVELS, Y)))
    with pytest.raises(InputError, match=r"got 'flowers'; expected fashion_mnist_12k .*Did you mean tf_flowers"):
        engine.fit(TINY, (LEVELS, Y), validation="flowers", verbose=False)
    with pytest.raises(InputError, match=r"value_range, layout: got one with Dataset"):
        engine.fit(TINY, engine.dataset(LEVELS, Y), value_range=(0, 1))


def test_advice_for_pictures_of_another_type_or_of_other_channels_fits_what_came():
    options: dict[str, Any] = {"epochs": 0, "batch_size": 4, "validation": None, "verbose": False}
    of_floats = engine.fit(TINY, ((LEVELS / 255).astype(np.float32), Y), **options).classifier
    convert = r"images\.astype\(np\.float32\)\."
    for images, message in ((LEVELS, rf"{convert} Divide them by 255"), (LEVELS / 255, rf"{convert}$")):
        with pytest.raises(InputError, match=message):
            of_floats.predict(images)
    of_levels = engine.fit(TINY, (LEVELS, Y), **options).classifier
    with pytest.raises(InputError, match=r"8×8×1; expected 8×8×3.*np\.repeat"):
        of_levels.evaluate((LEVELS[..., 0], Y))


def test_pictures_whose_numbers_are_places_in_a_palette_are_refused():
    picture = Image.new("RGB", (4, 4), (200, 0, 0)).quantize(4)
    with pytest.raises(InputError, match=r'2 PIL images with a palette .*picture\.convert\("RGB"\)'):
        engine.dataset([picture, picture], [0, 1])
    assert engine.dataset([picture.convert("RGB")] * 2, [0, 1]).input_shape == (4, 4, 3)


def test_column_of_lists_of_labels_is_as_a_list_of_them():
    labels = [["a", "b"], ["a"], []]
    images = np.zeros((3, 4, 4, 1), np.uint8)
    np.testing.assert_array_equal(
        engine.dataset(images, pd.Series(labels)).labels, engine.dataset(images, labels).labels
    )


def test_groups_are_not_parted_for_equal_shares_of_classes():
    data = engine.dataset(np.zeros((8, 4, 4, 1), np.uint8), np.arange(8) % 2).grouped(np.arange(8) // 2)
    with pytest.raises(InputError, match=r"data\.stratified: got True; expected off where groups stay together"):
        split_by_fraction(data, 0.5, 0, stratified=True)


def test_share_that_is_none_is_reported_by_the_argument_that_sets_it():
    with pytest.raises(InputError, match=r"^validation: got 0.1; .* Give another share, or 0\.$"):
        engine.fit(engine.mlp(()), (np.zeros((3, 4, 4, 1), np.uint8), [0, 1, 1]), verbose=False)
