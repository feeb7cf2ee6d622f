"""What readers take at most, as docs/security.md states it: memory by the byte or entry, and work linear in the input.

Memory is what Python allocates, the same on every machine; work is compared with that on a quarter of the input.
"""

import gc
import json
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from engine import DataConfig, InputError
from engine.data.load import load_splits
from engine.data.sources.array_files import open_arrays
from engine.data.sources.table import open_table
from engine.data.sources.tfds_prepared import MOST_BYTES, split_names
from engine.data.sources.walk import walk
from engine.host.archives import MOST_DIRECTORY_BYTES
from engine.runs.plan_search import read_plan

SECURITY = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
MOST_GROWTH, SLACK_SECONDS, SLACK_BYTES = 8.0, 0.5, 2**20  # of four times the input
TRIES = 5


class Reader(NamedTuple):
    """make: writes an input of some size below a directory, and says where. most: bytes of memory by the size.

    paths: how often the path of the directory is held besides, by the size.
    """

    make: Callable[[Path, int], Path]
    read: Callable[[Path], object]
    size: int
    most: float
    paths: int = 0


def refused(read: Callable[[Path], object]) -> Callable[[Path], None]:
    def try_it(path: Path) -> None:
        with pytest.raises(InputError):
            read(path)

    return try_it


def description(item: str) -> Callable[[Path, int], Path]:
    def make(directory: Path, size: int) -> Path:
        items = ",".join([item] * (size // (len(item) + 1)))
        (directory / "dataset_info.json").write_text(f'{{"splits": [{items}]}}')
        return directory

    return make


def nested(directory: Path, size: int) -> Path:
    (directory / "plan.json").write_text("[" * size)
    return directory / "plan.json"


def long_plan(directory: Path, size: int) -> Path:
    (directory / "plan.json").write_text(json.dumps({"made_for": {"a": [[]] * (size // 4)}, "plan": {}}))
    return directory / "plan.json"


def archive(directory: Path, size: int) -> Path:
    with zipfile.ZipFile(directory / "a.npz", "w") as file:
        for number in range(size // 56):
            file.writestr(f"{number:06}.npy", b"")
    return directory / "a.npz"


def folders(directory: Path, size: int) -> Path:
    for number in range(size):
        (directory / f"{number % 20}").mkdir(exist_ok=True)
        (directory / f"{number % 20}" / f"{number}.png").touch()
    return directory


def links(directory: Path, size: int) -> Path:
    (directory / "a").mkdir()
    for number in range(size):
        (directory / f"{number}").symlink_to(directory / "a")
    return directory


def pixel_table(directory: Path, size: int) -> Path:
    row = ",".join(map(str, range(100, 200)))
    (directory / "t.csv").write_text("label," + row + "\n" + f"1,{row}\n0,{row}\n" * (size // 2 // (len(row) + 3)))
    return directory / "t.csv"


def file_table(directory: Path, size: int) -> Path:
    (directory / "t.csv").write_text("path,label\n" + "".join(f"{k:07}.png,a{k % 7}\n" for k in range(size // 15)))
    return directory / "t.csv"


def quotes(directory: Path, size: int) -> Path:
    (directory / "t.csv").write_text("path,label\n" + '"' + "a" * size)
    return directory / "t.csv"


def long_number(directory: Path, size: int) -> Path:
    (directory / "t.csv").write_text("0" * size + "x,label\na.png,b\n")
    return directory / "t.csv"


def load(path: Path) -> None:
    config = DataConfig(path=path, cache_dir=path.parent / "cache", validation_fraction=0.0, test_split=None)
    load_splits(config, 0, lambda text: None)


def find_files(path: Path) -> None:
    open_table(DataConfig(path=path), lambda text: None)


def open_archive(path: Path) -> None:
    open_arrays(DataConfig(path=path), lambda text: None)


READERS = {
    "tfds description of objects": Reader(description("{}"), refused(split_names), 100_000, 32),
    "tfds description of lists": Reader(description("[]"), refused(split_names), 100_000, 32),
    "tfds description of names": Reader(description('{"name":""}'), split_names, 100_000, 32),
    "nested plan": Reader(nested, refused(lambda path: read_plan(path, {})), 400_000, 10),
    "long plan": Reader(long_plan, refused(lambda path: read_plan(path, {})), 100_000, 100),
    "list of an archive": Reader(archive, refused(open_archive), 60_000, 25),
    "folder of files": Reader(folders, walk, 400, 1000, 3),
    "folder of links": Reader(links, walk, 400, 1000, 3),
    "table of pixels": Reader(pixel_table, load, 200_000, 60),
    "table of files": Reader(file_table, find_files, 200_000, 60),
    "digits without end": Reader(long_number, refused(load), 20_000, 60),
    "quote without end": Reader(quotes, refused(load), 1_000_000, 12),
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Reader:
    return READERS[request.param]


def seconds_of(reader: Reader, path: Path) -> float:
    start = time.process_time()
    reader.read(path)
    return time.process_time() - start


def spent(reader: Reader, directory: Path, size: int) -> tuple[float, int]:
    """(seconds of the processor, bytes at the peak) of reading an input of some size."""
    directory.mkdir()
    path = reader.make(directory, size)
    gc.disable()  # it would visit all that other tests have left
    try:
        seconds = min(seconds_of(reader, path) for _ in range(2))
    finally:
        gc.enable()
    tracemalloc.start()
    try:
        reader.read(path)
        return seconds, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_and_work_are_linear_in_the_input(reader, tmp_path):
    def is_linear(place: Path) -> bool:
        place.mkdir()
        seconds, peak = spent(reader, place / "small", reader.size)
        more_seconds, more_peak = spent(reader, place / "large", 4 * reader.size)
        most = reader.most + reader.paths * len(str(place))
        assert peak <= most * reader.size + SLACK_BYTES
        assert more_peak <= most * 4 * reader.size + SLACK_BYTES
        return more_seconds <= MOST_GROWTH * seconds + SLACK_SECONDS

    # Work that grows with the square does so each time; a neighbour that takes the caches of the processor goes away.
    assert any(is_linear(tmp_path / str(attempt)) for attempt in range(TRIES))


@pytest.mark.parametrize(
    ("number", "text"),
    [(MOST_BYTES, "8 MiB each"), (MOST_DIRECTORY_BYTES, "the list of entries 8 MiB")],
)
def test_bounds_are_those_of_the_page(number, text):
    assert f"{number // 2**20} MiB" in text
    assert text in SECURITY


def test_array_that_promises_more_than_the_file_holds_takes_no_memory(tmp_path):
    header = np.lib.format.header_data_from_array_1_0(np.zeros((2, 4, 4), np.uint8)) | {"shape": (2**30, 4, 4)}
    (tmp_path / "set").mkdir()
    for name in ("images", "labels"):
        with (tmp_path / "set" / f"{name}.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            file.write(bytes(64))
    tracemalloc.start()
    with pytest.raises(InputError):
        load(tmp_path / "set")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20
