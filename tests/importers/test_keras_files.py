"""Names of arrays in files of Keras of any age, whatever their order."""

import json
import zipfile

import h5py
import numpy as np
import pytest

from engine import InputError
from engine.importers.read import read_weights


def write_legacy(path, groups, root="", **attributes):
    """A file of Keras 1 or 2: {layer: {name of a weight: array}}."""
    with h5py.File(path, "w") as file:
        place = file.create_group(root) if root else file
        place.attrs["layer_names"] = [name.encode() for name in groups]
        for layer, weights in groups.items():
            group = place.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, array in weights.items():
                group.create_dataset(name, data=array)
        for name, value in attributes.items():
            file.attrs[name] = value
    return path


def ones(*shape):
    return np.ones(shape, np.float32)


NAMES = {
    "Keras 1": ({"block1_conv1": {"block1_conv1_W_1:0": ones(3), "block1_conv1_b_1:0": ones(1)},
                 "bn": {"bn_gamma_1:0": ones(2), "bn_running_mean_1:0": ones(2), "bn_running_std_1:0": ones(2)}},
                ["block1_conv1/kernel", "block1_conv1/bias", "bn/gamma", "bn/moving_mean", "bn/moving_variance"]),
    "Keras 2": ({"conv1": {"conv1/kernel:0": ones(3)}, "conv_dw_1": {"conv_dw_1/depthwise_kernel:0": ones(3)}},
                ["conv1/kernel", "conv_dw_1/depthwise_kernel"]),
    "numbered": ({"conv1": {"conv1_2/kernel:0": ones(3), "conv1_2/bias:0": ones(1)}}, ["conv1/kernel", "conv1/bias"]),
    "Keras 3": ({"c1": {"sequential/c1/kernel": ones(3)}, "pool": {}}, ["c1/kernel"]),
    "nested": ({"base": {"b/gamma:0": ones(1), "a/kernel:0": ones(2)}, "out": {"out/kernel:0": ones(3)}},
               ["b/gamma", "a/kernel", "out/kernel"]),
    "nested twice": ({"x": {"a/kernel": ones(1), "b/kernel": ones(2)}, "y": {"a/kernel": ones(3), "c/kernel": ones(1)}},
                     ["a/kernel", "b/kernel", "y/a/kernel", "c/kernel"]),
}  # fmt: skip


@pytest.mark.parametrize("age", NAMES)
@pytest.mark.parametrize("root", ["", "model_weights"])
def test_names_are_those_of_today(tmp_path, age, root):
    groups, names = NAMES[age]
    found = read_weights(write_legacy(tmp_path / "a.h5", groups, root))
    assert (found.format, list(found.arrays)) == ("keras h5", names)


def test_layer_names_of_many_parts_are_joined(tmp_path):
    path = write_legacy(tmp_path / "a.h5", {f"layer_{n}": {"kernel:0": ones(1)} for n in range(30)})
    with h5py.File(path, "r+") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        for number in range(3):
            file.attrs[f"layer_names{number}"] = names[10 * number : 10 * number + 10]
    assert len(read_weights(path).arrays) == 30


def test_whole_models_say_what_they_are_and_optimizers_are_left_out(tmp_path):
    groups = {"out": {"out/kernel:0": ones(3)}}
    config = json.dumps({"class_name": "Sequential"})
    path = write_legacy(tmp_path / "a.h5", groups, "model_weights", model_config=config, keras_version="2.11.0")
    with h5py.File(path, "r+") as file:
        file.create_dataset("optimizer_weights/adam", data=np.full(3, np.nan))
    found = read_weights(path)
    assert found.about == {"model_config": {"class_name": "Sequential"}, "keras_version": "2.11.0"}
    assert (list(found.arrays), found.notes) == (["out/kernel"], ())


def test_arrays_that_no_list_names_are_left_out_and_counted(tmp_path):
    path = write_legacy(tmp_path / "a.h5", {"a": {"a/kernel:0": ones(3)}})
    with h5py.File(path, "r+") as file:
        file.create_dataset("a/extra", data=ones(2))
    assert read_weights(path).notes == ("not listed by layer_names and left out: 1 array (a/extra)",)


def test_lists_that_name_what_is_not_there_are_refused(tmp_path):
    path = write_legacy(tmp_path / "a.h5", {"a": {"a/kernel:0": ones(3)}})
    with h5py.File(path, "r+") as file:
        del file["a/a/kernel:0"]
    with pytest.raises(InputError, match="no array a/a/kernel:0, which its weight_names list"):
        read_weights(path)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("w", data=ones(3))
    with pytest.raises(InputError, match="an HDF5 file of another program"):
        read_weights(tmp_path / "b.h5")


def write_weights_h5(path, layers, with_names=True, container="layers"):
    """Keras 3's own: {class and number: (name, arrays)}."""
    with h5py.File(path, "w") as file:
        for place, (name, arrays) in layers.items():
            group = file.create_group(f"{container}/{place}/vars")
            if with_names:
                group.attrs["name"] = name
            for number, array in enumerate(arrays):
                group.create_dataset(str(number), data=array)
    return path


LAYERS = {
    "conv2d": ("stem", [ones(3), ones(1)]),
    "batch_normalization_1": ("norm", [ones(1), ones(2), ones(3), ones(4)]),
    "batch_normalization": ("unscaled", [ones(1), ones(2), ones(3)]),
    "batch_normalization_2": ("plain", [ones(1), ones(2)]),
    "functional/layers/conv2d": ("inner", [ones(5)]),
    "mine": ("own", [ones(6)]),
}


def test_weights_h5_have_names_since_3_6(tmp_path):
    found = read_weights(write_weights_h5(tmp_path / "a.weights.h5", LAYERS))
    assert found.format == "keras weights.h5"
    assert {name: len(array) for name, array in found.arrays.items()} == {
        "stem/kernel": 3, "stem/bias": 1, "norm/gamma": 1, "norm/beta": 2, "norm/moving_mean": 3,
        "norm/moving_variance": 4, "unscaled/beta": 1, "unscaled/moving_mean": 2, "unscaled/moving_variance": 3,
        "plain/moving_mean": 1, "plain/moving_variance": 2, "inner/kernel": 5, "own/0": 6,
    }  # fmt: skip


@pytest.mark.parametrize("container", ["layers", "_layer_checkpoint_dependencies"])
def test_weights_h5_before_3_6_go_by_class_and_order_which_is_noted(tmp_path, container):
    found = read_weights(write_weights_h5(tmp_path / "a.weights.h5", LAYERS, False, container))
    assert found.is_by_order
    assert found.notes == ("the file has no names of layers, but their order within each class",)
    assert {"conv2d/kernel", "functional/conv2d/kernel", "batch_normalization_1/gamma"} <= set(found.arrays)


def write_keras(path, weights, how=zipfile.ZIP_STORED, config='{"class_name": "Sequential"}'):
    with zipfile.ZipFile(path, "w", how) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.9.0"}')
        archive.writestr("config.json", config)
        archive.write(weights, "model.weights.h5")
    return path


def test_keras_files_hold_weights_config_and_version(tmp_path):
    weights = write_weights_h5(tmp_path / "a.weights.h5", LAYERS)
    found = read_weights(write_keras(tmp_path / "a.keras", weights))
    assert (found.format, found.about["keras_version"]) == ("keras", "3.9.0")
    assert found.about["model_config"] == {"class_name": "Sequential"}
    assert found.arrays.keys() == read_weights(weights).arrays.keys()


def test_keras_files_that_are_packed_again_or_damaged_are_answered(tmp_path):
    weights = write_weights_h5(tmp_path / "a.weights.h5", LAYERS)
    with pytest.raises(InputError, match="compressed weights; expected entries stored as they are"):
        read_weights(write_keras(tmp_path / "a.keras", weights, zipfile.ZIP_DEFLATED))
    for config in ("{", "[" * 10_000, '{"a": 1e400000'):
        with pytest.raises(InputError, match=r"a config\.json that is not JSON"):
            read_weights(write_keras(tmp_path / "b.keras", weights, config=config))
    whole = write_keras(tmp_path / "c.keras", weights).read_bytes()
    (tmp_path / "c.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="a damaged archive"):
        read_weights(tmp_path / "c.keras")
