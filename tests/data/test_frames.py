"""Pictures of several frames or pages: the first is read, and that there are more is said and recorded."""

import contextlib
import io
import itertools
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

import engine
from engine.config.contract import InputSpec
from engine.config.data import DataConfig
from engine.data.load import load_splits
from engine.data.pictures.formats import START_BYTES, kind_of
from engine.data.pictures.frames import MOST_BLOCKS, holds_more
from engine.data.pictures.images import read_picture
from engine.data.pictures.opening import open_levels
from engine.inference.classifier import Classifier
from engine.report.progress import Silent
from tests.conftest import make_dataset

FRAMES = [Image.new("RGB", (20, 16), color) for color in ("red", "lime", "blue")]
KINDS = ["GIF", "PNG", "TIFF", "WEBP", "MPO", *(["AVIF"] if features.check("avif") else [])]
SIZE = InputSpec((16, 20, 3))


def encoded(kind: str, frames: list[Image.Image]) -> bytes:
    file, frames = io.BytesIO(), [frame.copy() for frame in frames]  # Pillow leaves options of encoders in them
    if kind == "JPEG":
        frames[0].save(file, kind)
    else:
        frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    return file.getvalue()


def kinds_of(picture: Any) -> list[str]:
    several = list[str]()
    read_picture(picture, SIZE, several=several)
    return several


@pytest.mark.parametrize("kind", KINDS)
def test_second_frame_is_found_and_the_first_is_read(kind: str):
    animated, plain = encoded(kind, FRAMES), encoded("JPEG" if kind == "MPO" else kind, FRAMES[:1])
    assert kinds_of(animated) == ["JPEG" if kind == "MPO" else kind]
    assert kinds_of(plain) == []
    assert np.abs(read_picture(animated, SIZE).astype(int) - (255, 0, 0)).max() < 10


def test_pil_image_counts_unless_it_was_taken_to_a_frame():
    image = Image.open(io.BytesIO(encoded("GIF", FRAMES)))
    assert kinds_of(image) == ["GIF"]
    image.seek(1)
    assert kinds_of(image) == []
    np.testing.assert_array_equal(read_picture(image, SIZE)[0, 0], (0, 255, 0))
    assert kinds_of(FRAMES[0]) == []


def test_jpeg_of_any_way_in_counts_but_for_thumbnails_and_gain_maps():
    pair = encoded("MPO", FRAMES[:2])
    slow, quick = list[str](), list[str]()
    open_levels(pair, "grayscale", several=slow)  # by Pillow
    assert isinstance(open_levels(pair, "rgb", several=quick), np.ndarray)
    assert slow == quick == ["JPEG"]
    index = pair.index(b"MPF\0") + 4
    second = pair.index(struct.pack("<I", 0x030000), index + 20) + 16  # the index begins with the first one's type
    assert kinds_of(pair[:second] + struct.pack("<I", 0x010001) + pair[second + 4 :]) == []
    about = b'http://ns.adobe.com/xap/1.0/\0<x hdrgm:Version="1.0"/>'
    assert kinds_of(pair[:2] + b"\xff\xe1" + struct.pack(">H", len(about) + 2) + about + pair[2:]) == []


def test_smaller_copies_in_a_tiff_are_no_pages():
    data = encoded("TIFF", [FRAMES[0].copy(), FRAMES[0].resize((10, 8))])
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    (second,) = struct.unpack_from("<I", data, first + 2 + 12 * count)
    entry = struct.pack("<HHII", 254, 4, 1, 1)
    assert kinds_of(data) == ["TIFF"]
    assert kinds_of(data[: second + 2] + entry + data[second + 14 :]) == []  # in place of the first tag


def tiff_of_pages(count: int, loops: bool) -> bytes:
    """A TIFF of one pixel in as many descriptions, each naming the next; the last one the first, if it loops."""
    tags = [(256, 3, 1), (257, 3, 1), (258, 3, 8), (259, 3, 1), (262, 3, 1), (273, 4, 8), (278, 3, 1), (279, 4, 1)]
    size = 2 + 12 * (len(tags) + 1) + 4
    parts = [b"II*\0", struct.pack("<I", 12), b"\x80\0\0\0"]
    for number in range(count):
        is_last = number == count - 1
        following = (12 if loops else 0) if is_last else 12 + (number + 1) * size
        entries = [(254, 4, int(number > 0)), *tags]
        body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        parts.append(struct.pack("<H", len(entries)) + body + struct.pack("<I", following))
    return b"".join(parts)


class Counted(io.BytesIO):
    """A file that counts how often it is read from."""

    num_reads = 0

    def readinto(self, buffer: Any) -> int:
        self.num_reads += 1
        return super().readinto(buffer)


def looked_at(data: bytes) -> tuple[bool, int]:
    """(whether more frames are found, in how many reads)"""
    file = Counted(data)
    kind = kind_of(data[:START_BYTES])
    assert kind is not None
    with contextlib.suppress(ValueError):  # closed by then
        found = holds_more(kind.reader(io.BytesIO(data)), lambda: file)
    return found, file.num_reads


@pytest.mark.parametrize("loops", [True, False])
@pytest.mark.parametrize("count", [2, 40_000])
def test_tiff_of_very_many_copies_or_a_loop_of_them_takes_few_reads(count: int, loops: bool):
    data, several = tiff_of_pages(count, loops), list[str]()
    found, num_reads = looked_at(data)
    assert not found
    assert num_reads <= 3 * 64
    open_levels(data, several=several)
    assert several == []


def test_gif_of_very_many_frames_takes_few_reads():
    data = encoded("GIF", FRAMES)
    frame = data[data.index(b"!\xf9") : -1]
    found, num_reads = looked_at(data[:-1] + frame * 20_000 + b";")
    assert found
    assert num_reads < 5


@pytest.mark.parametrize(
    "tail",
    [b"", b"!", b",", b"!\xf9" + b"\1x" * 1_000_000, b"!\xfe\0" * 1_000_000, bytes(2_000_000)],
    ids=["nothing", "mark", "frame", "blocks", "extensions", "zeros"],
)  # fmt: skip
def test_what_follows_the_first_frame_of_a_gif_ends_and_hurts_nothing(tail: bytes):
    data, several = encoded("GIF", FRAMES[:1])[:-1] + tail, list[str]()
    found, num_reads = looked_at(data)
    assert not found
    assert num_reads < 2 * MOST_BLOCKS / 1024
    open_levels(data, several=several)
    assert several == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, (name, kind) in enumerate(itertools.product("ab", ["GIF", "PNG", "TIFF"])):
        (tmp_path / "d" / name).mkdir(parents=True, exist_ok=True)
        frames = FRAMES[: 3 if kind == "GIF" or (name, kind) == ("a", "TIFF") else 1]
        (tmp_path / "d" / name / f"{number}.{kind.lower()}").write_bytes(encoded(kind, frames))
    return tmp_path / "d"


def test_folder_says_how_many_on_every_start_and_its_run_records_them(folder: Path, tmp_path: Path):
    lines = list[str]()
    config = DataConfig(path=folder, validation_fraction=0, cache_dir=tmp_path / "cache")
    for _ in range(2):
        lines.clear()
        splits = load_splits(config, 0, lines.append)
        text = "3 of 6 pictures hold several frames or pages, of which the first is read (2 GIF, 1 TIFF)"
        assert [line for line in lines if "frames" in line] == [f"d: {text}: {folder / 'a' / '0.gif'} first"]
        assert splits.train.several_frames == 3
    model = engine.models.Sequential((engine.models.Flatten(), engine.models.Dense(None)))
    run = engine.RunConfig("r", model, config, engine.TrainConfig(epochs=0, batch_size=2))
    result = engine.run(run, tmp_path / "r", reporter=Silent())
    assert result.classifier.record.several_frames == {"train": 3}


def test_table_of_files_says_how_many(folder: Path, tmp_path: Path):
    rows = [f"d/{file.parent.name}/{file.name},{file.parent.name}" for file in sorted(folder.glob("*/*"))]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    lines = list[str]()
    load_splits(DataConfig(path=tmp_path / "t.csv", validation_fraction=0, cache_dir=tmp_path), 0, lines.append)
    assert any("3 of 6 pictures hold several frames" in line for line in lines)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    model = engine.models.Sequential((engine.models.Flatten(), engine.models.Dense(None)))
    dataset = make_dataset(8)
    data = engine.dataset(
        np.zeros((8, 16, 20, 3), np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None, None] * 30, dataset.labels
    )
    return engine.fit(model, data, epochs=0, batch_size=2, validation=None, verbose=False).classifier


def test_prediction_warns_how_many(classifier: Classifier, folder: Path):
    files = sorted(folder.glob("*/*"))
    with pytest.warns(UserWarning, match=r"3 of 6 pictures hold several frames .*2 GIF, 1 TIFF.*0\.gif first"):
        classifier.predict_proba(files)
    match = r"^1 of 2 pictures hold several frames"
    with Image.open(files[0]) as image, pytest.warns(UserWarning, match=match):
        classifier.predict_proba([image, FRAMES[0]])
    said = list[str]()
    list(classifier.stream(files, say=said.append))
    assert len(said) == 1
    classifier.predict_proba([FRAMES[0], encoded("PNG", FRAMES[:1])])
