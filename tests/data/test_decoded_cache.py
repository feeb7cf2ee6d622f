"""Decoded images on disk that change: noticed when a run is resumed, now and then while reading, and where small."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine import DataConfig, InputError, RunConfig, TrainConfig, mlp
from engine.__main__ import main
from engine.checkpoints.steps import choose_step, read_record
from engine.data.arrays import stored
from engine.data.arrays.stored import CHECKED_EVERY, StoredImages, image_hashes
from engine.data.decoded import cache
from engine.data.load import load_splits
from engine.data.sources import array_files, files
from engine.report.progress import Silent
from engine.runs import loop
from tests.conftest import make_dataset


@pytest.fixture
def data(tmp_path: Path) -> DataConfig:
    """600 small images in a file, and a cache of their own."""
    made = make_dataset(600)
    np.savez(tmp_path / "d.npz", images=made.images, labels=made.labels)
    return DataConfig(path=tmp_path / "d.npz", test_split=None, cache_dir=tmp_path / "cache", validation_fraction=0.2)


def loaded(data: DataConfig) -> StoredImages:
    images = load_splits(data, 0, lambda text: None).train.images
    assert isinstance(images, StoredImages)
    return images


def change_byte(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 64
    path.write_bytes(content)


def stored_images(path: Path, count: int = 1000) -> StoredImages:
    levels = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 1), np.uint8)
    path.write_bytes(levels.tobytes())
    return StoredImages(path, levels.shape, hashes=image_hashes(levels))


def test_run_that_is_resumed_on_changed_images_decodes_them_again_and_ends_with_the_same_bits(data, tmp_path):
    def checksums(name: str, epochs: int, resume: bool = False, say=lambda text: None) -> object:
        reporter = Silent()
        reporter.say = say  # type: ignore[method-assign]
        loop.run(config(epochs), tmp_path / name, resume=resume, reporter=reporter)
        return read_record(tmp_path / name, choose_step(tmp_path / name, "last")).checksums

    def config(epochs: int) -> RunConfig:
        return RunConfig("rot", mlp((4,)), data, TrainConfig(epochs=epochs, batch_size=64))

    whole = checksums("whole", 2)
    checksums("cut", 1)
    change_byte(loaded(data).path, 12345)
    said: list[object] = []
    assert checksums("cut", 2, True, said.append) == whole
    assert any("not as they were written; decoding them again" in str(line) for line in said)
    assert loaded(data).is_intact()


def test_every_256th_image_read_is_compared_with_its_hash(tmp_path, monkeypatch):
    images = stored_images(tmp_path / "images.raw")
    hashed = []
    monkeypatch.setattr(stored, "image_hashes", lambda chosen: (hashed.append(len(chosen)), image_hashes(chosen))[1])
    order = np.random.default_rng(1).permutation(1000)
    for start in range(0, 1000, 10):
        images[order[start : start + 10]]
    for place in range(1000):
        images[place]
    images[:]
    assert sum(hashed) in (3000 // CHECKED_EVERY, 3000 // CHECKED_EVERY + 1)


@pytest.mark.parametrize(
    "read",
    [
        lambda images: images[:],
        lambda images: np.asarray(images),
        lambda images: np.asarray(images.take(np.arange(1000)[::-1])),
        lambda images: [images[place] for place in range(1000)],
        lambda images: pickle.loads(pickle.dumps(images))[np.arange(1000)],
    ],
)
def test_changed_images_that_are_read_end_the_run_and_are_removed(read, tmp_path):
    images = stored_images(tmp_path / "images.raw")
    images.path.write_bytes(bytes(images.nbytes))
    images.hold()
    with pytest.raises(InputError, match=r"got other bytes; expected the decoded images as they were written\. Start"):
        read(images)
    assert not images.path.exists()


def test_a_single_byte_is_found_where_all_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "CHECKED_BYTES", 100)
    images = stored_images(tmp_path / "images.raw")
    assert images.is_intact()
    change_byte(images.path, 15_999)
    assert not images.is_intact()
    assert images.take(np.arange(999)).is_intact()
    assert not images.take(np.array([999, 0])).is_intact()


@pytest.mark.parametrize("name", ["labels.npy", "hashes.npy", "about.json"])
def test_entry_with_any_changed_byte_beside_the_images_is_decoded_again(name, data, tmp_path):
    entry = loaded(data).path.parent
    before = {path.name: path.read_bytes() for path in entry.iterdir()}
    draw = np.random.default_rng(0)
    for place in (*range(12), *draw.integers(0, len(before[name]), 12)):
        change_byte(entry / name, int(place))
        loaded(data)
        assert {path.name: path.read_bytes() for path in entry.iterdir()} == before


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "1", '{"input_shape": [1e999]}', '{"input_shape": "888"}', "\0"])
def test_entry_with_a_senseless_description_is_decoded_again(text, data):
    entry = loaded(data).path.parent
    (entry / "about.json").write_text(text)
    assert loaded(data).is_intact()
    assert json.loads((entry / "about.json").read_text())["input_shape"] == [8, 8, 1]


def test_cache_that_is_damaged_and_cannot_be_written_is_named(tmp_path, monkeypatch):
    images = stored_images(tmp_path / "images.raw")

    def refused(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refused)
    with pytest.raises(InputError, match=r"data\.cache_dir: got .* \(Permission denied\); .* --data\.cache-dir"):
        images.remove()


@pytest.mark.parametrize("kind", ["folder", "arrays", "tfds"])
def test_evaluation_of_a_run_on_its_own_data_decodes_nothing_again(kind: str, tmp_path: Path, cache_dir: Path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
    options: dict[str, object] = {"path": tmp_path / "d", "cache_dir": tmp_path / "cache"}
    for i, image in enumerate(images):
        path = tmp_path / "d" / ("test" if i % 2 else "train") / f"class{i // 4}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    if kind == "arrays":
        labels, values = np.arange(8) % 2, images.astype(np.uint16) * 257
        np.savez(tmp_path / "d.npz", x_train=values, y_train=labels, x_test=values[::-1], y_test=labels[::-1])
        options["path"] = tmp_path / "d.npz"
    elif kind == "tfds":
        options = {"split": "train[:32]", "test_split": "test[:32]", "cache_dir": cache_dir}
    data = DataConfig(validation_fraction=0, **options)  # type: ignore[arg-type]
    loop.run(RunConfig("r", mlp((4,)), data, TrainConfig(0, 4)), tmp_path / "run", reporter=Silent())
    capsys.readouterr()
    main(["eval", str(tmp_path / "run"), "--data.split", data.test_split or "test"])
    shown = capsys.readouterr()
    assert "accuracy" in shown.out
    assert "decoding" not in shown.err


def test_what_was_decoded_by_an_earlier_version_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    labels = np.arange(8) % 2
    np.savez(tmp_path / "d.npz", x_train=np.full((8, 4, 4, 1), 100, np.uint8), y_train=labels)
    data = DataConfig(path=tmp_path / "d.npz", levels=(0.0, 200.0), cache_dir=tmp_path / "c", validation_fraction=0)
    with monkeypatch.context() as earlier:  # which took uint8 as they are
        earlier.setattr(files, "DECODER", 4)
        earlier.setattr(array_files, "levels_range", lambda *_: (0.0, 255.0))
        assert loaded(data)[0].max() == 100
    assert loaded(data)[0].max() == 128


def test_version_in_the_keys_of_the_cache_is_raised_when_what_is_decoded_changes(tmp_path: Path):
    """Should this fail because other pixels are decoded than before, raise DECODER and write both numbers here."""
    ramp = np.arange(8 * 64).reshape(8, 8, 8, 1)
    pairs: list[tuple[np.ndarray, tuple[float, float] | None]] = [
        (ramp.astype(np.uint8), None), (ramp.astype(np.uint8), (0.0, 300.0)), (ramp.astype(np.uint8), (-20.0, 255.0)),
        (ramp.astype(np.uint16), None), (ramp.astype(np.uint16), (0.0, 4095.0)), (ramp.astype(np.float32) / 512, None),
    ]  # fmt: skip
    fingerprints = []
    for i, (values, levels) in enumerate(pairs):
        np.savez(tmp_path / f"{i}.npz", x_train=values, y_train=np.arange(8) % 2)
        data = DataConfig(path=tmp_path / f"{i}.npz", levels=levels, cache_dir=tmp_path / "c", validation_fraction=0)
        fingerprints.append(load_splits(data, 0, lambda text: None).train.fingerprint)
    found = hashlib.sha256("".join(fingerprints).encode()).hexdigest()[:16]
    assert (files.DECODER, found) == (5, "aea48f5d461166d6")


def test_what_is_odd_about_levels_is_said_where_nothing_can_be_cached_too(tmp_path):
    np.savez(tmp_path / "d.npz", images=np.ones((6, 4, 4), np.uint8), labels=np.arange(6) % 2)
    (tmp_path / "cache").write_text("a file")
    said: list[str] = []
    load_splits(DataConfig(path=tmp_path / "d.npz", cache_dir=tmp_path / "cache"), 0, said.append)
    assert any("almost black" in line for line in said)


def test_entry_that_another_process_removes_is_decoded_again(data, monkeypatch):
    load_splits(data, 0)
    monkeypatch.setattr(cache, "_read", removing(cache._read))
    assert len(load_splits(data, 0).train) == 480


def removing(read):
    def read_and_remove(entry, name):
        found = read(entry, name)
        (entry / "about.json").unlink(missing_ok=True)
        return found

    return read_and_remove
