"""Packed runs of ours are files of weights too."""

import numpy as np
import pytest

import engine
from engine import InputError
from engine.checkpoints.packing import pack
from engine.importers.read import read_weights
from engine.models import BatchNorm, Conv, Dense, Flatten, Sequential

DATA = (np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8), np.arange(12) % 3)


def packed(tmp_path, **settings):
    model = Sequential((Conv(2, 3), BatchNorm(), Flatten(), Dense()))
    result = engine.fit(model, DATA, epochs=1, batch_size=4, verbose=False, **settings)
    result.save(tmp_path / "run")
    pack(tmp_path / "run", tmp_path / "run.engine")
    return result


def test_a_packed_run_gives_its_arrays_by_layer(tmp_path):
    result = packed(tmp_path)
    found = read_weights(tmp_path / "run.engine")
    assert found.format == "engine"
    assert set(found.arrays) == {
        "conv_1/kernel", "conv_1/bias", "batch_norm_1/scale", "batch_norm_1/bias", "batch_norm_1/mean",
        "batch_norm_1/var", "dense_1/kernel", "dense_1/bias",
    }  # fmt: skip
    np.testing.assert_array_equal(found.arrays["dense_1/kernel"], result.classifier.params["layers"][3]["kernel"])
    assert found.about["record"]["class_names"] == ["0", "1", "2"]


def test_a_packed_ensemble_is_no_single_file_of_weights(tmp_path):
    packed(tmp_path, members=2)
    with pytest.raises(InputError, match="an ensemble; expected a single model"):
        read_weights(tmp_path / "run.engine")
