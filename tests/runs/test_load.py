"""`engine.load`: data by one word, as arrays."""

import numpy as np
import pytest
from PIL import Image

import engine


def test_data_at_a_path_is_loaded_as_splits_of_arrays_that_fit_takes(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.fromarray(rng.integers(0, 256, (9, 7, 3), np.uint8)).save(tmp_path / name / f"{number}.png")
    splits = engine.load(tmp_path, image_size=(6, 5), validation=0.2)
    assert splits.train.images.shape == (16, 6, 5, 3)
    assert np.asarray(splits.train.images).dtype == np.uint8
    assert splits.train.class_names == ("cat", "dog")
    assert splits.validation is not None
    assert len(splits.validation) == 4
    again = engine.load(str(tmp_path), image_size="6x5", validation=0.2)
    np.testing.assert_array_equal(again.train.labels, splits.train.labels)
    other = engine.load(tmp_path, image_size="6x5", validation=0.2, seed=1)
    assert other.train.fingerprint == splits.train.fingerprint
    assert not np.array_equal(np.asarray(other.train.images), np.asarray(splits.train.images))
    with pytest.raises(engine.InputError, match="validation, scale: got an argument beside a DataConfig"):
        engine.load(engine.DataConfig(path=tmp_path), validation=0.3)
