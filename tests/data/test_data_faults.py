"""Faults around data: disks that fail, files that come back, links to nowhere, descriptions that name code."""

import builtins
import dataclasses
import errno
import gzip
import io
import os
import struct
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import AugmentConfig, DataConfig, InputError, RunConfig, Splits, TrainConfig
from engine.augment.presets import image_data_generator, random_rotation, random_zoom
from engine.checkpoints.packing import unpack
from engine.checkpoints.steps import choose_step, read_record
from engine.data.kinds import open_source
from engine.data.load import load_splits
from engine.data.pictures import stored
from engine.data.sources.walk import walk
from engine.host.clock import Clock
from engine.host.json_files import read_json
from engine.report.progress import Silent
from engine.runs import loop
from engine.runs.session import Session
from tests.conftest import TINY, make_dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twenty small pictures of two classes."""
    draw = np.random.default_rng(0)
    for k in ("a", "b"):
        (tmp_path / "pictures" / k).mkdir(parents=True)
        for number in range(10):
            image = Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8))
            image.save(tmp_path / "pictures" / k / f"{number}.png")
    return tmp_path / "pictures"


def load(path: Path, **config):
    return load_splits(DataConfig(path=path, validation_fraction=0.0, **config), 0, lambda text: None).train


def test_failed_write_of_the_cache_is_not_forgotten(folder: Path, monkeypatch: pytest.MonkeyPatch):
    from engine.data.decoded import cache

    calls = []

    def fails_once(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            raise OSError(122, "Disk quota exceeded")

    monkeypatch.setattr(cache, "SYNC_BYTES", 1)
    monkeypatch.setattr(os, "fsync", fails_once)
    assert isinstance(load(folder, cache_dir=folder.parent / "cache").images, np.ndarray)  # kept in memory
    assert not list((folder.parent / "cache" / "decoded").iterdir())


def test_what_killed_processes_left_in_the_cache_goes_after_a_day(folder: Path):
    decoded = folder.parent / "cache" / "decoded"
    for name, hours in ((".old-0a1b-abcd_123", 25), (".new-0a1b-abcd_124", 23)):
        (decoded / name).mkdir(parents=True)
        (decoded / name / "images.raw").write_bytes(b"half")
        for path in (decoded / name / "images.raw", decoded / name):
            os.utime(path, (time.time() - hours * 3600,) * 2)
    (decoded / ".other").mkdir()
    load(folder, cache_dir=folder.parent / "cache")
    assert {path.name for path in decoded.glob(".*")} == {".other", ".new-0a1b-abcd_124"}


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses names that are no text")
def test_names_that_are_no_text_can_be_skipped_and_logged(folder: Path, tmp_path: Path):
    folder = folder.rename(Path(os.fsdecode(os.fsencode(folder) + b"\xff")))
    Path(os.fsdecode(os.fsencode(folder / "a") + b"/caf\xe9.jpg")).write_bytes(b"x")
    data = DataConfig(path=folder, on_bad_file="skip", cache_dir=tmp_path / "cache", test_split=None)
    config = RunConfig("skipping", TINY, data, TrainConfig(epochs=1, batch_size=4))
    loop.run(config, tmp_path / "run")
    assert r"caf\xe9.jpg" in (tmp_path / "run" / "skipped.txt").read_text(encoding="utf-8")
    more = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=2))
    assert len(loop.run(more, tmp_path / "run", resume=True).history) == 2


def test_file_that_could_not_be_read_for_a_moment_is_there_at_the_next_start(folder: Path, monkeypatch):
    cache = folder.parent / "cache"
    real = stored._identified

    def broken(file, name):
        if name.endswith("a/3.png"):
            raise OSError(5, "Input/output error")
        return real(file, name)

    monkeypatch.setattr(stored, "_identified", broken)
    partly = load(folder, cache_dir=cache, on_bad_file="skip")
    assert len(partly) == 19
    assert "Input/output error" in partly.skipped[0]
    monkeypatch.undo()
    assert len(load(folder, cache_dir=cache, on_bad_file="skip")) == 20


def test_folders_alike_in_names_sizes_and_times_are_not_taken_for_each_other(tmp_path: Path):
    for root, levels in (("one", (20, 200)), ("other", (200, 20))):
        for k, level in zip(("a", "b"), levels, strict=True):
            file = tmp_path / root / "set" / k / "1.bmp"
            file.parent.mkdir(parents=True)
            Image.fromarray(np.full((4, 4, 3), level, np.uint8)).save(file)
            os.utime(file, (0, 0))
        assert [int(image.max()) for image in load(tmp_path / root / "set").images[:]] == list(levels)


def test_link_to_itself_and_pipe_are_bad_files_like_others(folder: Path):
    os.symlink("loop.png", folder / "a" / "loop.png")
    os.mkfifo(folder / "pipe")
    os.symlink(folder / "pipe", folder / "b" / "pipe.png")
    with pytest.raises(InputError, match=r"2 unreadable files of 22.*") as raised:
        load(folder)
    assert "loop.png: Too many levels of symbolic links" in str(raised.value)
    assert "pipe.png: no regular file" in str(raised.value)
    assert len(load(folder, on_bad_file="skip")) == 20


def test_npz_whose_header_promises_gigabytes_is_refused_before_it_is_read(tmp_path: Path):
    header = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**30)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("images.npy", "labels.npy"):
            archive.writestr(name, header + bytes(2**20))
    with pytest.raises(
        InputError, match=r"bomb\.npz: got a header of 1,073,741,824 bytes; expected one of at most 10,000"
    ):
        load(tmp_path / "bomb.npz")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (Splits(make_dataset(200), make_dataset(50, 9)), r"data: got another validation split"),
        (
            Splits(
                dataclasses.replace(make_dataset(200), class_names=("x", "y", "z")),
                dataclasses.replace(make_dataset(50, 1), class_names=("x", "y", "z")),
            ),
            r"data: got classes x, y, z; expected band 0, band 1, band 2, as the run was started",
        ),
    ],
)
def test_resuming_with_other_held_out_data_or_names_is_refused(changed: Splits, message: str, tiny_config, tmp_path):
    (tmp_path / "run").mkdir()
    splits = Splits(make_dataset(200), make_dataset(50, 1))
    loop.train(tiny_config, splits, tmp_path / "run", Clock(), Silent())
    record = read_record(tmp_path / "run", choose_step(tmp_path / "run", "last"))
    Session(tiny_config, splits, Clock(), tmp_path / "run", record).close()
    with pytest.raises(InputError, match=message):
        Session(tiny_config, changed, Clock(), tmp_path / "run", record)


def test_run_that_stopped_early_goes_on_with_more_patience(tmp_path):
    from engine import OptimConfig

    splits = Splits(make_dataset(200), make_dataset(50, 1))
    config = RunConfig("r", TINY, train=TrainConfig(12, 64, best_by="loss", patience=1), optim=OptimConfig("sgd", 3.0))
    (tmp_path / "run").mkdir()
    first = loop.train(config, splits, tmp_path / "run", Clock(), Silent())
    assert len(first.history) < 12
    patient = dataclasses.replace(config, train=dataclasses.replace(config.train, patience=50))
    from engine.checkpoints.run_directory import open_run

    record = open_run(tmp_path / "run", patient, resume=True, overwrite=False)
    again = loop.train(patient, splits, tmp_path / "run", Clock(), Silent(), record)
    assert len(again.history) == 12
    assert again.history[: len(first.history)] == first.history


def test_augmenting_what_is_no_picture_at_test_time_is_refused(tmp_path):
    from engine import fit, mlp

    inputs = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    result = fit(mlp((4,)), (inputs, np.arange(60) % 2), epochs=1, batch_size=20, verbose=False)
    with pytest.raises(InputError, match=r"tta: got float32 inputs \(12,\); expected uint8 images"):
        result.classifier.predict_proba(inputs, tta=AugmentConfig(noise=10))


def test_presets_take_what_tutorials_of_keras_write():
    assert image_data_generator(rescale=1 / 255, rotation_range=40).rotation == 40
    assert random_rotation([-0.1, 0.2]).range("rotation") == pytest.approx((-36, 72))
    assert random_zoom([-0.2, 0.1]).range("zoom") == pytest.approx((0.8, 1.1))
    with pytest.raises(InputError, match=r"factor: got \(-0\.2,\); expected a number, or two"):
        random_zoom((-0.2,))


# Files that this user may not read


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Lets a file be opened by nobody in this process, of root too, whom no mode of a file keeps from it."""
    forbidden = set[str]()

    def guarded(function: Any) -> Any:
        def call(path: Any, *arguments: Any, **named: Any) -> Any:
            if isinstance(path, (str, os.PathLike)) and os.path.abspath(path) in forbidden:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *arguments, **named)

        return call

    for module, name in ((io, "open"), (builtins, "open"), (os, "open"), (os, "scandir")):
        monkeypatch.setattr(module, name, guarded(getattr(module, name)))
    return lambda path: forbidden.add(os.path.abspath(path))


@pytest.mark.parametrize(
    "name", ["a.npz", "train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz", "t.csv", "cat/1.png"]
)
def test_file_that_may_not_be_read_is_answered_with_that(tmp_path: Path, forbid: Callable[[Path], None], name: str):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    opened = path
    if name == "a.npz":
        np.savez(path, x_train=np.zeros((2, 4, 4), np.uint8), y_train=[0, 1])
    elif name == "cat/1.png":
        opened = tmp_path
        for folder in ("cat", "dog"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("L", (2, 2)).save(tmp_path / folder / "1.png")
    elif name == "t.csv":
        path.write_text("label,a,b,c,d\n0,1,2,3,4\n")
    else:
        opened = tmp_path / "train-images-idx3-ubyte"
        opened.write_bytes(b"\0\0\x08\x03" + struct.pack(">III", 2, 1, 1) + b"\1\2")
        (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 2) + b"\0\1")
        )
    forbid(path)
    with pytest.raises(
        InputError, match=r"Permission denied(.|\n)*Allow yourself to read|Allow yourself(.|\n)*Permission denied"
    ) as told:
        open_source(DataConfig(path=opened, cache_dir=tmp_path / ".cache"), lambda text: None).load(
            "train", "data.split"
        )
    assert not any(word in str(told.value) for word in ("download", "Repair", "Correct"))


def test_record_and_packed_run_that_may_not_be_read_are_answered_with_that(
    tmp_path: Path, forbid: Callable[[Path], None]
):
    packed = tmp_path / "run.engine"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("config.json", "{}")
    forbid(packed)
    with pytest.raises(InputError, match=r"Permission denied.*Allow yourself to read it"):
        unpack(packed, tmp_path / "out")
    record = tmp_path / "record.json"
    record.write_text("{}")
    forbid(record)
    with pytest.raises(InputError, match=r"Permission denied.*Allow yourself to read it"):
        read_json(record, "a record", "Use another run.")
    (tmp_path / "folder").mkdir()
    forbid(tmp_path / "folder")
    with pytest.raises(InputError, match=r"Permission denied.*Allow yourself to read it"):
        walk(tmp_path)
