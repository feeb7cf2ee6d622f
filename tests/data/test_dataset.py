"""Data: what a Dataset may be, how it is split, what is embedded, prepared and cached."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

import engine
from engine import DataConfig, InputError, RunConfig, TrainConfig, mlp
from engine.data.arrays.stored import StoredImages
from engine.data.contract import input_spec
from engine.data.decoded.cache import content_key
from engine.data.decoded.dataset import Dataset, Splits, fingerprint_of, split_by_fraction
from engine.data.embedded import draw
from engine.data.load import load_splits, num_outputs
from engine.data.sources import tfds as tfds_source
from engine.data.sources.tfds import EMBEDDED, TfdsSource
from engine.host.storage import cache_directory
from tests.conftest import HANG_SECONDS, make_dataset

ROOT = Path(__file__).parents[2]
EMBEDDED_VERSION = EMBEDDED / "fashion_mnist_12k" / "1.0.0"


def load(split: str, messages: list[str] | None = None, **config: Any) -> Dataset:
    """A split, with what was said meanwhile in `messages`."""
    return TfdsSource(DataConfig(**config), (messages if messages is not None else []).append).load(split)


def assert_same(one: Dataset, other: Dataset) -> None:
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert (one.class_names, one.fingerprint) == (other.class_names, other.fingerprint)


def in_another_process(code: str, **environment: str) -> subprocess.Popen:
    """Python running `code` from the root of the repository."""
    return subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def output_of(process: subprocess.Popen) -> str:
    out, err = process.communicate(timeout=HANG_SECONDS)
    assert process.returncode == 0, err
    return out


# Dataset


def test_dataset_is_refused_when_empty():
    with pytest.raises(InputError, match=r"nothing: got 0 examples; expected at least one"):
        Dataset(np.zeros((0, 4, 4, 1), np.uint8), np.zeros(0, np.int32), ("a",), "nothing", "")


def test_dataset_is_refused_when_images_and_labels_differ_in_number():
    with pytest.raises(InputError, match=r"odd: got 3 images and 2 labels; expected as many of each"):
        Dataset(np.zeros((3, 4, 4, 1), np.uint8), np.zeros(2, np.int32), ("a",), "odd", "")


@pytest.mark.parametrize(("labels", "example", "label"), [([0, 1, 2, 1], 2, 2), ([0, 1, 1, -1], 3, -1)])
def test_dataset_is_refused_when_a_label_is_out_of_range(labels: list[int], example: int, label: int):
    rule = rf"two label of example {example}: got {label}; expected 0 to 1 for 2 classes"
    with pytest.raises(InputError, match=rule):
        Dataset(np.zeros((4, 4, 4, 1), np.uint8), np.array(labels, np.int32), ("a", "b"), "two", "")


def test_fingerprint_changes_with_images_labels_shape_and_order():
    whole = make_dataset(20)
    images, labels = whole.images, whole.labels
    other_image, other_label = images.copy(), labels.copy()
    other_image[7, 3, 3, 0] ^= 1
    other_label[7] = (labels[7] + 1) % 3
    variants = [
        (images, labels), (other_image, labels), (images, other_label), (images.reshape(20, 4, 16, 1), labels),
        (images[::-1], labels[::-1]),
    ]  # fmt: skip
    assert len({fingerprint_of(*variant) for variant in variants}) == len(variants)
    assert fingerprint_of(images.copy(), labels.copy()) == whole.fingerprint


# engine.dataset


def test_arrays_become_a_dataset_of_uint8_images_and_int32_labels():
    images, labels = np.zeros((4, 5, 6), np.uint8), np.array([0, 2, 1, 0], np.int64)
    dataset = engine.dataset(images, labels)
    assert dataset.images.shape == (4, 5, 6, 1)
    assert dataset.labels.dtype == np.int32
    assert dataset.class_names == ("0", "1", "2")
    assert engine.dataset(images, labels, ["a", "b", "c", "d"]).num_classes == 4


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3)])
def test_float_labels_become_targets_of_a_regression(shape: tuple[int, ...]):
    dataset = engine.dataset(np.zeros((4, 7)), np.full(shape, 0.7))
    assert dataset.images.dtype == dataset.labels.dtype == np.float32
    assert dataset.labels.shape == (4, shape[1] if len(shape) > 1 else 1)
    assert dataset.num_classes == 0


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.full((4, 5, 5), 99999), np.zeros(4, int), r"images: got int64 images from 99999 .*value_range"),
        (np.zeros(4, np.uint8), np.zeros(4, int), r"images: got rank 1; expected \[n h w c\]"),
        (np.zeros((4, 5, 5), np.uint8), np.full((4, 2), 3), r"labels: got labels of 4×2; expected one a picture"),
        (np.zeros((4, 5, 5), np.uint8), np.zeros(3, int), r"got 4 images and 3 labels"),
        (np.zeros((0, 5, 5), np.uint8), np.zeros(0, int), r"got 0 examples"),
        (np.zeros((0, 5)), np.zeros(0), r"got 0 examples"),
        (np.zeros((2, 5, 5), np.uint8), np.array([0, -1]), r"labels of example 1: got -1; expected 0 or more"),
    ],
)
def test_arrays_are_refused_when_they_are_no_dataset(images: np.ndarray, labels: np.ndarray, message: str):
    with pytest.raises(InputError, match=message):
        engine.dataset(images, labels)


# Splits


def test_splits_are_refused_when_image_shapes_differ():
    with pytest.raises(InputError, match=r"bigger: got images of 9×9×1; expected 8×8×1 like stripes"):
        Splits(make_dataset(9), test=make_dataset(9, size=9, name="bigger"))


def test_splits_are_refused_when_classes_differ():
    other = make_dataset(9, num_classes=4, name="more")
    message = r"more: got classes that stripes lacks \(band 3\); expected those of stripes \(band 0, band 1, band 2\)"
    with pytest.raises(InputError, match=message):
        Splits(make_dataset(9), validation=other)


def test_splits_have_the_classes_of_train_by_name_in_whatever_order():
    train = make_dataset(9)
    other = Dataset(train.images, train.labels, ("band 0", "band 2", "band 1"), "swapped", "")
    test = Splits(train, test=other).test
    assert test is not None
    assert test.class_names == train.class_names
    assert [test.class_names[k] for k in test.labels] == [other.class_names[k] for k in other.labels]


# The validation share


def numbered(count: int) -> Dataset:
    """Examples whose image says which they are, without classes."""
    images = np.arange(count, dtype=np.float32)[:, None]
    return Dataset(images, images, (), "numbered", "")


@given(count=st.integers(2, 300), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**32 - 1))
def test_split_by_fraction_is_deterministic_disjoint_and_complete(count: int, fraction: float, seed: int):
    if not 0 < round(count * fraction) < count:
        return
    rest, share = split_by_fraction(numbered(count), fraction, seed)
    again, share_again = split_by_fraction(numbered(count), fraction, seed)
    assert share is not None
    assert share_again is not None
    np.testing.assert_array_equal(rest.images, again.images)
    np.testing.assert_array_equal(share.images, share_again.images)
    assert len(share) == round(count * fraction)
    np.testing.assert_array_equal(np.sort(np.concatenate([rest.images, share.images])[:, 0]), np.arange(count))
    np.testing.assert_array_equal(rest.images, rest.labels)


@pytest.mark.parametrize(("seed", "chosen"), [(0, [0, 2, 9]), (1, [2, 3, 5])])
def test_split_by_fraction_draws_the_examples_it_always_drew(seed: int, chosen: list[int]):
    rest, share = split_by_fraction(numbered(10), 0.3, seed)
    assert share is not None
    assert share.images[:, 0].tolist() == chosen
    assert rest.images[:, 0].tolist() == [i for i in range(10) if i not in chosen]
    assert share.name == "numbered (validation share)"


def test_split_by_fraction_gives_all_and_none_when_it_is_zero():
    whole = numbered(10)
    assert split_by_fraction(whole, 0.0, 0) == (whole, None)


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_split_by_fraction_is_refused_when_it_leaves_nothing(fraction: float):
    with pytest.raises(
        InputError, match=rf"data\.validation_fraction: got {fraction}; expected a share .* 10 examples"
    ):
        split_by_fraction(numbered(10), fraction, 0)


# The embedded dataset


@pytest.mark.parametrize(("split", "count"), [("train", 10_000), ("test", 2_000)])
def test_embedded_dataset_has_as_many_examples_of_each_class(split: str, count: int):
    dataset = load(split)
    assert dataset.images.shape == (count, 28, 28, 1)
    assert dataset.images.dtype == np.uint8
    assert dataset.labels.dtype == np.int32
    assert np.bincount(dataset.labels).tolist() == [count // 10] * 10
    assert dataset.class_names == draw.CLASS_NAMES
    assert dataset.name == f"fashion_mnist_12k {split}"


def test_embedded_dataset_takes_at_most_8_megabytes():
    assert sum(path.stat().st_size for path in EMBEDDED.rglob("*") if path.is_file()) <= 8e6


def sorted_rows(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Label and pixels of each example, in an order of their own."""
    rows = np.concatenate([np.asarray(labels, np.uint8)[:, None], np.asarray(images).reshape(len(images), -1)], 1)
    return rows[np.lexsort(rows.T[::-1])]


@pytest.mark.parametrize("split", ["train", "test"])
def test_embedded_images_are_the_official_ones_at_the_drawn_indices(split: str, official_files: Path):
    images, labels = draw.read_official(official_files, draw.PREFIXES[split])
    chosen = draw.stratified(labels, draw.COUNTS[split], draw.SEED)
    if split == "test":
        assert chosen[:8].tolist() == [3, 10, 13, 24, 29, 31, 39, 43]
    dataset = load(split)
    np.testing.assert_array_equal(
        sorted_rows(dataset.images, dataset.labels), sorted_rows(images[chosen], labels[chosen])
    )


@pytest.mark.long
def test_draw_makes_the_embedded_dataset_again(official_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    embedded = load("train"), load("test")
    draw.draw(official_files, tmp_path / "drawn")
    monkeypatch.setattr(tfds_source, "EMBEDDED", tmp_path / "drawn")
    messages: list[str] = []
    for before, split in zip(embedded, ("train", "test"), strict=True):
        assert_same(load(split, messages, cache_dir=tmp_path / "cache"), before)
    assert len(messages) == 2  # both were decoded anew


# Splits in tfds notation


@pytest.mark.parametrize(
    ("split", "start", "stop"), [("train[:80%]", 0, 8000), ("train[80%:]", 8000, 10_000), ("train[5:7]", 5, 7)]
)
def test_slice_of_a_split_holds_the_examples_in_their_order(split: str, start: int, stop: int):
    whole, part = load("train"), load(split)
    np.testing.assert_array_equal(part.images, whole.images[start:stop])
    np.testing.assert_array_equal(part.labels, whole.labels[start:stop])


@pytest.mark.parametrize("split", ["train[:100]+test[:50]", "train[:100] + test[:50]"])
def test_sum_of_splits_holds_the_examples_of_both(split: str):
    both = load(split)
    expected = np.concatenate([load("train").images[:100], load("test").images[:50]])
    np.testing.assert_array_equal(both.images, expected)


@pytest.mark.parametrize(("split", "name"), [("tran", "tran"), ("tran[:80%]", "tran"), ("test+tran", "tran")])
def test_unknown_split_is_refused_with_the_known_and_the_nearest(split: str, name: str):
    with pytest.raises(InputError, match=rf"data\.split: got '{name}'; expected one of .*test.* Did you mean 'train'"):
        load(split)


@pytest.mark.parametrize(
    "split", ["train[:80", "train[abc]", "train[:200%]", "train+", "train[90000:]", "train[:0]", "train[5:2]", ""]
)
def test_bad_slice_is_refused_with_an_example_of_the_notation(split: str):
    pattern = rf"data\.split: got {re.escape(repr(split))}; expected .*(Write it like train\[:80%\]|Widen the slice)\."
    with pytest.raises(InputError, match=pattern):
        load(split)


@pytest.mark.parametrize("field", ["validation_split", "test_split"])
def test_unknown_split_is_refused_with_the_field_that_names_it(field: str):
    with pytest.raises(InputError, match=rf"data\.{field}: got 'tset'; expected one of .*Did you mean 'test'"):
        load_splits(DataConfig(split="train[:100]", **{field: "tset"}), 0, lambda text: None)


def test_load_splits_sets_the_share_aside_and_reads_the_test_split():
    splits = load_splits(DataConfig(split="train[:200]", test_split="test[:30]"), 0, lambda text: None)
    assert splits.validation is not None
    assert splits.test is not None
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (180, 20, 30)


def test_load_splits_reads_the_validation_split_when_one_is_named():
    config = DataConfig(split="train[:200]", validation_split="train[200:230]", test_split=None)
    splits = load_splits(config, 0, lambda text: None)
    assert splits.validation is not None
    assert splits.test is None
    assert (len(splits.train), len(splits.validation)) == (200, 30)
    np.testing.assert_array_equal(splits.validation.images, load("train").images[200:230])


# Names, versions and preparation


def test_unknown_dataset_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"data\.name: got 'fashion_mnst'; .* Did you mean fashion_mnist, "):
        load("train", name="fashion_mnst")


def test_folder_that_is_taken_for_a_dataset_is_named_with_how_it_is_written(in_tmp: Path):
    (in_tmp / "flowers").mkdir()
    (in_tmp / "My Photos").mkdir()
    (in_tmp / "digits.csv").touch()
    near = {"flowrs": "flowers/", "flowers": "flowers/", "my photo": "'My Photos/'", "digit.csv": "digits.csv"}
    for name, written in near.items():
        with pytest.raises(InputError) as raised:
            load("train", name=name)
        assert f"got {name!r}" in str(raised.value)
        assert f"Did you mean {written} (data of your own: --data.path {written}, or that path" in str(raised.value)
        assert "Or the dataset " in str(raised.value)
    with pytest.raises(
        InputError,
        match=r"Data of your own is .* --data\.path, in Python \./somewhere_else",
    ):
        load("train", name="somewhere_else")
    with pytest.raises(InputError, match=r"data\.path: got flowrs; .* Did you mean flowers\?"):
        load_splits(DataConfig(path=Path("flowrs")), 0, lambda text: None)


@pytest.mark.parametrize("name", ["", "a/b", "..", "*", "mnist:9.9.9"])
def test_dataset_is_refused_when_its_name_is_none(name: str):
    with pytest.raises(InputError, match=rf"data\.name: got {re.escape(repr(name))}; expected "):
        load("train", name=name)


def test_embedded_dataset_is_found_by_its_version():
    assert len(load("test[:10]", name="fashion_mnist_12k:1.0.0")) == 10


def test_newest_prepared_version_is_chosen_unless_one_is_named(tmp_path: Path):
    for version in ("1.2.0", "1.10.0", "1.9.9", "2.0.0.incompleteABC"):
        (tmp_path / "flowers" / version).mkdir(parents=True)
        for part in ("dataset_info.json", "features.json"):
            (tmp_path / "flowers" / version / part).touch()
    (tmp_path / "flowers" / "3.0.0").mkdir()
    chosen = [
        tfds_source._prepared_directory(DataConfig(name=name, data_dir=tmp_path))
        for name in ("flowers", "flowers:1.2.0", "flowers:4.0.0")
    ]
    assert chosen == [tmp_path / "flowers" / "1.10.0", tmp_path / "flowers" / "1.2.0", None]


def test_prepared_dataset_is_read_from_the_data_directory(tmp_path: Path):
    shutil.copytree(EMBEDDED_VERSION, tmp_path / "mine" / "1.0.0")
    mine = load("test[:20]", name="mine", data_dir=tmp_path)
    assert_same(mine, load("test[:20]"))
    assert mine.name == "mine test[:20]"


def test_dataset_without_random_access_is_refused_with_the_remedy(tmp_path: Path):
    directory = shutil.copytree(EMBEDDED_VERSION, tmp_path / "mine" / "1.0.0")
    info = json.loads((directory / "dataset_info.json").read_text())
    for file in directory.glob("*.array_record-*"):
        file.rename(directory / file.name.replace("array_record", "tfrecord"))
    (directory / "dataset_info.json").write_text(json.dumps({**info, "fileFormat": "tfrecord"}))
    with pytest.raises(
        InputError, match=r"data\.data_dir: got mine in a format without .*ArrayRecord.*--data\.data-dir"
    ):
        load("train", name="mine", data_dir=tmp_path)


def with_tensorflow(monkeypatch: pytest.MonkeyPatch, spec: object) -> None:
    """Makes TensorFlow look installed (any object) or not (None)."""

    def found(name: str, package: str | None = None) -> Any:
        return spec if name == "tensorflow" else find_spec(name, package)

    monkeypatch.setattr("importlib.util.find_spec", found)


def test_unprepared_dataset_asks_for_tensorflow_when_it_is_not_installed(monkeypatch: pytest.MonkeyPatch):
    with_tensorflow(monkeypatch, None)
    with pytest.raises(InputError, match=r"data\.name: got 'fashion_mnist', .*Run `pip install tensorflow-cpu`"):
        load("train", name="fashion_mnist")


def test_manual_directory_is_refused_when_it_does_not_exist(tmp_path: Path):
    with pytest.raises(InputError, match=r"data\.manual_dir: got .*nowhere; expected an existing directory"):
        load("train", name="fashion_mnist", manual_dir=tmp_path / "nowhere")


def test_failed_preparation_gives_the_reason_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    commands, messages = [], []

    def fail(command: list[str], **options: Any) -> Any:
        commands.append(command)
        return SimpleNamespace(returncode=1, stderr="Traceback …\nConnectionError: no route to host\n")

    with_tensorflow(monkeypatch, object())
    monkeypatch.setattr(tfds_source.subprocess, "run", fail)
    with pytest.raises(InputError, match=r"data\.name: got 'fashion_mnist'; .*no route to host.*--data\.manual-dir"):
        load("train", messages, name="fashion_mnist", data_dir=tmp_path / "tfds", manual_dir=tmp_path)
    assert commands[0][3:] == [
        "engine.data.sources.tfds_prepare",
        "fashion_mnist",
        str(tmp_path / "tfds"),
        str(tmp_path),
    ]
    assert len(messages) == 1
    assert re.match(r"preparing fashion_mnist in .*, once", messages[0])


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="preparing needs TensorFlow")
def test_fashion_mnist_is_prepared_from_official_files(official_files: Path, tmp_path: Path):
    messages: list[str] = []
    dataset = load("test", messages, name="fashion_mnist", data_dir=tmp_path, manual_dir=official_files)
    images, labels = draw.read_official(official_files, "t10k")
    np.testing.assert_array_equal(sorted_rows(dataset.images, dataset.labels), sorted_rows(images[..., None], labels))
    assert messages[0].startswith("preparing fashion_mnist")
    assert "tensorflow" not in sys.modules


# Size and colours


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        ({}, (28, 28, 1)),
        ({"image_size": "20x30"}, (20, 30, 1)),
        ({"color": "rgb"}, (28, 28, 3)),
        ({"color": "grayscale"}, (28, 28, 1)),
        ({"image_size": "14x14", "color": "rgb", "resize": "crop"}, (14, 14, 3)),
    ],
)
def test_images_have_the_size_and_colors_of_the_config(config: dict[str, Any], shape: tuple[int, ...]):
    dataset = load("test[:3]", **config)
    assert dataset.images.shape == (3, *shape)
    assert input_spec(DataConfig(**config), dataset).shape == shape


@pytest.mark.parametrize("rule", ["stretch", "crop", "pad"])
def test_images_are_resized_as_pillow_does_it(rule: Any):
    whole, resized = load("test[:5]"), load("test[:5]", image_size="20x40", resize=rule)
    resize = {
        "stretch": Image.Image.resize,
        "crop": ImageOps.fit,
        "pad": ImageOps.pad,
    }[rule]
    for pixels, image in zip(whole.images, resized.images, strict=True):
        expected = resize(Image.fromarray(pixels[..., 0]), (40, 20), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(image[..., 0], np.asarray(expected))


def test_input_contract_resizes_pictures_only_when_the_config_gives_a_size():
    dataset = load("test[:3]")
    assert input_spec(DataConfig(resize="pad"), dataset).resize is None
    assert input_spec(DataConfig(resize="pad", image_size="28x28"), dataset).resize == "pad"


@functools.cache  # tfds refuses a second class of the same name
def tiny_builder() -> Any:
    """A builder that writes whatever its class holds."""
    import tensorflow_datasets as tfds

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        features: ClassVar[dict[str, Any]] = {}
        examples: ClassVar[list[dict[str, Any]]] = []

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(self.features))

        def _split_generators(self, dl_manager: object) -> Any:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Any:
            yield from enumerate(self.examples)

    return Tiny


def prepared(directory: Path, features: dict[str, Any], examples: list[dict[str, Any]]) -> Path:
    """A small dataset `tiny` below a data directory, written as any builder would."""
    builder = tiny_builder()
    builder.features, builder.examples = features, examples
    builder(data_dir=directory, file_format="array_record").download_and_prepare()
    return directory


@pytest.fixture
def uneven(tmp_path: Path) -> Path:
    """Three colour pictures of two sizes, with two class labels."""
    import tensorflow_datasets as tfds

    shapes = [(6, 8, 3), (6, 8, 3), (9, 4, 3)]
    features = {"image": tfds.features.Image(), "kind": tfds.features.ClassLabel(names=["a", "b"])}
    examples = [{"image": draw.png(np.full(shape, 50, np.uint8)), "kind": i % 2} for i, shape in enumerate(shapes)]
    return prepared(tmp_path / "tfds", features, examples)


def test_images_of_several_sizes_are_refused_with_the_example_and_the_remedy(uneven: Path):
    message = r"tiny example \d: got (9×4×3|6×8×3); expected (9×4×3|6×8×3) like the first\. .*--data\.image-size"
    with pytest.raises(InputError, match=message):
        load("train", name="tiny", data_dir=uneven)


def test_refused_images_leave_no_cache_entry(uneven: Path, tmp_path: Path):
    with pytest.raises(InputError):
        load("train", name="tiny", data_dir=uneven, cache_dir=tmp_path / "cache")
    assert list((tmp_path / "cache" / "decoded").iterdir()) == []


def test_images_of_several_sizes_are_read_when_the_config_gives_one(uneven: Path):
    dataset = load("train", name="tiny", data_dir=uneven, image_size="5x5", color="grayscale")
    assert dataset.images.shape == (3, 5, 5, 1)
    assert dataset.class_names == ("a", "b")
    assert np.unique(dataset.images).tolist() == [50]


def test_dataset_without_images_is_refused_with_its_features(tmp_path: Path):
    import tensorflow_datasets as tfds

    data_dir = prepared(tmp_path, {"size": tfds.features.Scalar(np.int64)}, [{"size": 1}])
    with pytest.raises(
        InputError, match=r"data\.name: got 'tiny' with size \(Scalar\); expected an Image and a ClassL"
    ):
        load("train", name="tiny", data_dir=data_dir)


# The loss and the data


@pytest.mark.parametrize(
    ("loss", "data", "outputs"),
    [
        ("softmax_cross_entropy", make_dataset(9), 3),
        ("binary_cross_entropy", make_dataset(9, num_classes=2), 1),
        ("mean_squared_error", numbered(9), 1),
    ],
)
def test_outputs_are_as_many_as_the_loss_needs(loss: Any, data: Dataset, outputs: int):
    assert num_outputs(RunConfig("a", mlp(), train=TrainConfig(loss=loss)), data) == outputs


@pytest.mark.parametrize(
    ("loss", "data"),
    [
        ("binary_cross_entropy", make_dataset(9)),
        ("mean_squared_error", make_dataset(9)),
        ("softmax_cross_entropy", numbered(9)),
        ("binary_cross_entropy", numbered(9)),
    ],
)
def test_loss_is_refused_when_the_targets_are_of_another_kind(loss: Any, data: Dataset):
    with pytest.raises(InputError, match=r"(got .* with|float targets; expected class) .*(Use|loss=)"):
        num_outputs(RunConfig("a", mlp(), train=TrainConfig(loss=loss)), data)


# The cache


def entries(cache: Path) -> list[Path]:
    """All that lies among the decoded images, hidden files too."""
    return list((cache / "decoded").iterdir())


def test_second_read_says_nothing_and_is_equal(tmp_path: Path):
    messages: list[str] = []
    first = load("test[:50]", messages, cache_dir=tmp_path)
    assert messages == ["decoding fashion_mnist_12k test[:50]: 50 images, once"]
    again = load("test[:50]", messages, cache_dir=tmp_path)
    assert len(messages) == 1
    assert_same(again, first)
    assert isinstance(again.images, StoredImages)
    assert again.fingerprint == fingerprint_of(again.images, again.labels)
    assert len(entries(tmp_path)) == 1


READ_COLD_AND_WARM = """
import sys
from engine import DataConfig
from engine.data.sources.tfds import TfdsSource
TfdsSource(DataConfig(), lambda text: print("said", text)).load("test[:50]")
print(*sorted({"tensorflow", "tensorflow_datasets", "jax"} & set(sys.modules)))
"""


def test_reading_imports_neither_tensorflow_nor_jax_and_no_tfds_when_warm(tmp_path: Path):
    # A TensorFlow that cannot be imported without being noticed, wherever these tests run.
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise SystemExit('TensorFlow was imported')")
    environment = {"ENGINE_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(tmp_path)}
    cold = output_of(in_another_process(READ_COLD_AND_WARM, **environment)).splitlines()
    warm = output_of(in_another_process(READ_COLD_AND_WARM, **environment)).splitlines()
    assert cold == ["said decoding fashion_mnist_12k test[:50]: 50 images, once", "tensorflow_datasets"]
    assert warm == [""]


DAMAGES = {
    "no images": ("images.raw", None),
    "empty images": ("images.raw", b""),
    "half the images": ("images.raw", 0.5),
    "no labels": ("labels.npy", None),
    "empty labels": ("labels.npy", b""),
    "half the labels": ("labels.npy", 0.5),
    "garbage labels": ("labels.npy", b"\x93NUMPY garbage"),
    "empty about": ("about.json", b""),
    "garbage about": ("about.json", b"\xff\x00 garbage"),
    "about of another form": ("about.json", b"[]"),
    "about without fields": ("about.json", b"{}"),
}


@pytest.mark.parametrize(("file", "content"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_entry_is_rebuilt(file: str, content: bytes | float | None, tmp_path: Path):
    first = load("test[:50]", cache_dir=tmp_path)
    entry = entries(tmp_path)[0]
    whole = (entry / file).read_bytes()
    damaged = whole[: int(len(whole) * content)] if isinstance(content, float) else content
    (entry / file).unlink()
    if damaged is not None:
        (entry / file).write_bytes(damaged)
    messages: list[str] = []
    for _ in range(2):
        assert_same(load("test[:50]", messages, cache_dir=tmp_path), first)
    assert messages == ["decoding fashion_mnist_12k test[:50]: 50 images, once"]
    assert entries(tmp_path) == [entry]
    assert (entry / file).read_bytes() == whole


def test_data_is_kept_in_memory_when_it_cannot_be_cached(tmp_path: Path):
    (tmp_path / "file").touch()
    messages: list[str] = []
    dataset = load("test[:50]", messages, cache_dir=tmp_path / "file")
    assert re.search(r"file/decoded: cannot cache decoded images \(.+\); keeping them in memory", messages[-1])
    assert_same(dataset, load("test[:50]"))
    assert not isinstance(dataset.images, StoredImages)


def test_data_is_kept_in_memory_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    messages: list[str] = []
    dataset = load("test[:50]", messages, cache_dir=tmp_path)
    monkeypatch.undo()
    assert messages[-1].endswith("cannot cache decoded images (No space left on device); keeping them in memory")
    assert_same(dataset, load("test[:50]", cache_dir=tmp_path / "other"))
    assert entries(tmp_path) == []


READ_AT_ONCE = """
import os, time
from pathlib import Path
import tensorflow_datasets
from engine import DataConfig
from engine.data.decoded import cache
from engine.data.decoded.dataset import fingerprint_of
from engine.data.sources.tfds import TfdsSource
start, place = Path(os.environ["START"]), cache._put_in_place
def meet(scratch, entry):  # both have decoded before either puts its entry in place
    (start / scratch.name).touch()
    while len(list(start.iterdir())) < 2:
        time.sleep(0.005)
    place(scratch, entry)
cache._put_in_place = meet
dataset = TfdsSource(DataConfig(), lambda text: None).load("test[:200]")
print(dataset.fingerprint, fingerprint_of(dataset.images, dataset.labels), len(dataset))
"""


def test_two_processes_that_start_at_once_leave_one_entry(tmp_path: Path):
    (tmp_path / "start").mkdir()
    environment = {"ENGINE_CACHE_DIR": str(tmp_path / "cache"), "START": str(tmp_path / "start")}
    processes = [in_another_process(READ_AT_ONCE, **environment) for _ in range(2)]
    printed = [output_of(process).split() for process in processes]
    expected = load("test[:200]").fingerprint
    assert printed == [[expected, expected, "200"]] * 2
    assert len(entries(tmp_path / "cache")) == 1


def test_entry_is_keyed_by_content_and_not_by_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    messages: list[str] = []
    load("test[:50]", messages, cache_dir=tmp_path / "cache")
    copied = shutil.copytree(EMBEDDED_VERSION, tmp_path / "elsewhere" / "fashion_mnist_12k" / "1.0.0")
    monkeypatch.setattr(tfds_source, "EMBEDDED", tmp_path / "elsewhere")
    load("test[:50]", messages, cache_dir=tmp_path / "cache")
    assert len(messages) == 1
    with (copied / "label.labels.txt").open("a") as file:
        file.write("\n")
    load("test[:50]", messages, cache_dir=tmp_path / "cache")
    assert len(messages) == 2


def test_entry_is_keyed_by_split_size_resize_rule_and_color(tmp_path: Path):
    settings: list[tuple[str, dict[str, Any]]] = [
        ("test[:5]", {}),
        ("test[5:]", {}),
        ("test[:5]", {"image_size": "9x20"}),
        ("test[:5]", {"image_size": "20x9"}),
        ("test[:5]", {"image_size": "9x20", "resize": "pad"}),
        ("test[:5]", {"color": "rgb"}),
    ]
    for split, config in settings:
        load(split, cache_dir=tmp_path, **config)
    assert len(entries(tmp_path)) == len(settings)


def test_content_key_changes_with_names_sizes_bytes_and_settings(tmp_path: Path):
    def key(name: str, content: bytes, *settings: object) -> str:
        file = tmp_path / name
        file.write_bytes(content)
        return content_key([file], *settings)

    variants = [("a", b"1", 1), ("b", b"1", 1), ("a", b"2", 1), ("a", b"11", 1), ("a", b"1", 2), ("a", b"1", "1")]
    assert len({key(*variant) for variant in variants}) == len(variants)
    assert key("a", b"1", 1) == key("a", b"1", 1)


def test_content_key_reads_both_ends_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("engine.data.decoded.cache.HASHED_BYTES", 2**20)
    keys = set()
    for changed in (None, 0, 3 * 2**20 - 1):
        content = bytearray(3 * 2**20)
        if changed is not None:
            content[changed] = 1
        (tmp_path / "large").write_bytes(content)
        keys.add(content_key([tmp_path / "large"]))
    assert len(keys) == 3


def test_cache_directory_is_the_one_given_then_the_environments_then_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ENGINE_CACHE_DIR", "from-engine")
    monkeypatch.setenv("XDG_CACHE_HOME", "from-xdg")
    assert cache_directory(Path("given")) == Path("given")
    assert cache_directory() == Path("from-engine")
    monkeypatch.delenv("ENGINE_CACHE_DIR")
    assert cache_directory() == Path("from-xdg/engine")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == tmp_path / ".cache" / "engine"


def test_cache_directory_below_home_may_be_written_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory(Path("~/pictures")) == tmp_path / "pictures"
    monkeypatch.setenv("ENGINE_CACHE_DIR", "~/pictures")
    assert cache_directory() == tmp_path / "pictures"


def test_cache_directory_is_the_users_when_the_environments_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ENGINE_CACHE_DIR", "")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_directory() == tmp_path / ".cache" / "engine"
