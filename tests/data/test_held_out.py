"""Data that a trained model is scored or validated on, named by a path."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import engine
from tests.conftest import TINY, make_dataset

TRAIN, OTHER = make_dataset(96), make_dataset(40, 3)


def write_npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def write_folder(path: Path) -> Path:
    for number, (image, label) in enumerate(zip(OTHER.images, OTHER.labels, strict=True)):
        folder = path / OTHER.class_names[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image)[..., 0]).save(folder / f"{number:03}.png")
    return path


@pytest.fixture(scope="module")
def result() -> engine.Result:
    return engine.fit(TINY, TRAIN, epochs=1, validation=0, verbose=False)


def test_a_file_or_folder_scores_as_the_same_arrays_do(result, tmp_path):
    expected = result.evaluate(OTHER)
    file = write_npz(tmp_path / "x.npz", images=OTHER.images, labels=np.array(OTHER.class_names)[OTHER.labels])
    for path in (file, str(file), write_folder(tmp_path / "folder")):
        assert result.evaluate(path) == pytest.approx(expected, rel=1e-5)


def test_of_several_splits_the_test_split_is_scored_and_named(result, tmp_path, capsys):
    names = np.array(OTHER.class_names)[OTHER.labels]
    splits = {"x_train": TRAIN.images, "y_train": np.array(TRAIN.class_names)[TRAIN.labels]}
    file = write_npz(tmp_path / "x.npz", **splits, x_test=OTHER.images, y_test=names)
    assert result.evaluate(file)["n"] == len(OTHER)
    assert "x.npz: the test split is used, of train, test" in "".join(capsys.readouterr())


def test_validation_data_are_named_by_a_path(tmp_path):
    path = write_folder(tmp_path / "folder")
    by_path, by_arrays = (
        engine.fit(TINY, TRAIN, epochs=1, validation=given, verbose=False).metrics["validation"]
        for given in (path, OTHER)
    )
    assert by_path == pytest.approx(by_arrays, rel=1e-5)


def test_what_is_no_data_is_answered_with_what_is(result, tmp_path):
    with pytest.raises(engine.InputError, match=r"data.path: got .*none.npz; expected a folder or file that exists"):
        result.evaluate(tmp_path / "none.npz")
    with pytest.raises(
        engine.InputError, match="data: got int; expected a path, a tfds name, a DataConfig, Splits, a Dataset or"
    ):
        result.evaluate(3)  # type: ignore[arg-type]


def test_whole_numbers_of_a_dataset_are_the_targets_of_a_regression():
    amounts = np.arange(96) % 7
    model = engine.models.Sequential((engine.models.Flatten(), engine.models.Dense(1)))
    data = engine.dataset(np.asarray(TRAIN.images), amounts)
    fitted = [
        engine.fit(model, given, loss="mean_squared_error", epochs=1, validation=0, verbose=False)
        for given in (data, (np.asarray(TRAIN.images), amounts))
    ]
    assert fitted[0].evaluate(data) == pytest.approx(fitted[1].evaluate((np.asarray(TRAIN.images), amounts)))
    assert data.num_classes == 7
