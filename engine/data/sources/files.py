"""Image files → decoded batches in file order, on all cores.

Threads and not processes: decoding, resizing and hashing let go of Python's lock, which is nine tenths of the time, and
nothing has to be sent from one process to another. (500×375 JPEGs to 180×180 on two cores, by Pillow alone: 1,600 a
second by two threads, 1,370 by two processes.)
"""

import contextlib
import errno
import hashlib
import os
import re
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from engine.config.data import DataConfig
from engine.config.decoding import NUM_CHANNELS, ColorMode
from engine.data.arrays.stored import image_hashes
from engine.data.classes.reading import READING
from engine.data.decoded.cache import Decoded, DecodedBatch, Findings, cached
from engine.data.decoded.dataset import Dataset
from engine.data.pictures.deep_ranges import Ranges
from engine.data.pictures.formats import optional_readers
from engine.data.pictures.frames import SeveralFrames
from engine.data.pictures.images import decode_picture
from engine.data.pictures.opening import picture_height_width
from engine.data.pictures.stored import WEB_ADDRESS, UnreadablePicture
from engine.data.sources.walk import ImageFile
from engine.errors import InputError, problem
from engine.host.cores import num_cores
from engine.host.storage import cache_directory, expanded
from engine.text import counted, one_line

CHUNK_BYTES = 4 * 2**20
CHUNK_FILES = 64
NAMED_FILES = 10
USUAL_COLOR: ColorMode = "rgb"
# Part of every cache key: raise it when the same file and settings give other pixels than before.
DECODER = 5

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass
class _Chunk:
    """Some neighbouring files decoded.

    kept: which of them `images` holds.
    hashes: of those.
    bad: "path: reason" of each that cannot be read. passing: those of them that another try may read.
    foreign: how many of them are of kinds that need other software.
    several: (kind, path) of those kept that hold several frames.
    """

    images: np.ndarray
    hashes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    kept: list[int] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    passing: list[str] = field(default_factory=list)
    foreign: Counter[str] = field(default_factory=Counter)
    several: list[tuple[str, str]] = field(default_factory=list)
    has_other_size: bool = False


def load_files(
    files: Sequence[ImageFile],
    labels: Sequence[int] | Sequence[list[float]],
    class_names: tuple[str, ...],
    name: str,
    config: DataConfig,
    tell: Callable[[str], None],
) -> Dataset:
    """The files as a dataset, from the decoded cache where none of them has changed since they were decoded.

    labels: indices into the class names, or lists of numbers where there are no classes.
    """
    # The place too: tools that pack folders may give every file the same time, and bitmaps of one size the same length.
    settings: tuple[object, ...] = (DECODER, "files", _place(config), *pixel_settings(_in_color(config)), class_names)
    if config.image_directory is not None or config.suffix is not None:
        settings += (str(config.image_directory), config.suffix)
    digest = hashlib.blake2b(repr(settings).encode("utf-8", "surrogateescape"), digest_size=10)
    lines = (f"{f.name}\0{f.size_bytes} {f.mtime_ns} {k}\0" for f, k in zip(files, labels, strict=True))
    digest.update("".join(lines).encode("utf-8", "surrogateescape"))
    paths, entry = [file.path for file in files], cache_entry(config, name, digest.hexdigest())
    dataset = cached(entry, name, lambda: decode_files(paths, labels, class_names, config), tell)
    if dataset.skipped:
        tell(f"{name}: skipped {_count(list(dataset.skipped))} of {len(files):,}, first {dataset.skipped[0]}")
    return dataset


def _place(config: DataConfig) -> str:
    return str(expanded(config.path or Path()).resolve())


def pixel_settings(config: DataConfig) -> tuple[object, ...]:
    """What of the config changes the pixels that a file is decoded to."""
    return (
        config.image_size,
        config.resize,
        config.color,
        config.background,
        config.on_bad_file,
        config.decoding,
        optional_readers(),
    )


def file_key(files: Iterable[Path], config: DataConfig, *settings: object) -> str:
    """A cache key from the files' names, sizes and modification times, and the settings they are decoded with."""
    about = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    settings_text = repr((DECODER, READING, "arrays", _place(config), about, pixel_settings(config), settings))
    return hashlib.blake2b(settings_text.encode("utf-8", "surrogateescape"), digest_size=10).hexdigest()


def cache_entry(config: DataConfig, name: str, key: str) -> Path:
    """Where the decoded images of this name and key are kept."""
    plain = re.sub(r"[^\w.\-]+", "-", name, flags=re.ASCII).strip("-")[:80]
    return cache_directory(config.cache_dir) / "decoded" / f"{plain}-{key}"


def decode_files(
    files: Sequence[str],
    labels: Sequence[int] | Sequence[list[float]],
    class_names: tuple[str, ...],
    config: DataConfig,
) -> Decoded:
    """The files ready to be decoded, in their order, by as many threads as there are cores.

    Files without a colour mode in the config become rgb. Taking the batches raises InputError if the files have
    several sizes and the config gives none; if none of them can be read; or, where bad files stop a run, after all
    were gone through, naming the first ten that cannot be read.
    """
    ranges, findings = Ranges(lambda: files, config.decoding), Findings()
    shape, skipped, passing = _shape(files, config, ranges), [], []
    ranges.recount()
    targets = np.asarray(labels, np.int32 if class_names else np.float32)
    batches = _batches(files, targets, shape, config, ranges, skipped, passing, findings)
    return Decoded(len(files), shape, class_names, batches, skipped, passing, findings)


def _shape(files: Sequence[str], config: DataConfig, ranges: Ranges) -> tuple[int, int, int]:
    """(h, w, c) of every picture: as the config says, or as the first one that can be read has it."""
    if config.height_width is not None:
        return (*config.height_width, NUM_CHANNELS[config.color or USUAL_COLOR])
    bad = []
    for file in files:
        try:
            height, width, channels = _decode(file, config, ranges).shape
            return height, width, channels
        except UnreadablePicture as error:
            bad.append(f"{file}: {error.reason}")
    raise InputError(_none_readable(bad))


def _in_color(config: DataConfig) -> DataConfig:
    """The config with the colour mode that files have where none is set."""
    return replace(config, color=config.color or USUAL_COLOR)


def _decode(file: str, config: DataConfig, ranges: Ranges, several: list[str] | None = None) -> np.ndarray:
    size, color = config.height_width, config.color or USUAL_COLOR
    return decode_picture(file, color, size, config.resize, config.background, config.decoding, ranges, several)


def _batches(
    files: Sequence[str],
    labels: np.ndarray,
    shape: tuple[int, ...],
    config: DataConfig,
    ranges: Ranges,
    skipped: list[str],
    passing: list[str],
    findings: Findings,
) -> Iterator[DecodedBatch]:
    """Batches of what can be read; `skipped` gets a line for each file that cannot.

    Those of kinds that need other software are left out even where bad files stop a run: they are not damaged.
    """
    stops, foreign, num_bad = config.on_bad_file == "stop", Counter[str](), 0
    several = SeveralFrames()
    size = max(1, min(CHUNK_FILES, CHUNK_BYTES // int(np.prod(shape))))
    starts = range(0, len(files), size)
    neighbours = (files[i : i + size] for i in starts)
    with contextlib.closing(ahead(lambda files: _decode_chunk(files, shape, config, ranges), neighbours)) as chunks:
        for start, chunk in zip(starts, chunks, strict=True):
            if chunk.has_other_size:
                raise InputError(_several_sizes(files))
            skipped += chunk.bad
            passing += chunk.passing
            foreign += chunk.foreign
            for kind, file in chunk.several:
                several.add(kind, file)
            num_bad = len(skipped) - foreign.total()
            if chunk.kept and not (num_bad and stops):
                yield DecodedBatch(chunk.images, labels[start + np.array(chunk.kept)], chunk.hashes)
    if len(skipped) == len(files):
        raise InputError(_none_readable(skipped))
    if num_bad and stops:
        raise InputError(_some_unreadable(skipped, len(files)))
    foreign_notes, frame_notes = _foreign_notes(foreign, skipped, len(files)), several.notes(len(files))
    findings.notes, findings.levels = [*ranges.notes(), *foreign_notes, *frame_notes], ranges.untagged
    findings.several_frames = several.total


def _decode_chunk(files: Sequence[str], shape: tuple[int, ...], config: DataConfig, ranges: Ranges) -> _Chunk:
    chunk = _Chunk(np.empty((len(files), *shape), np.uint8))
    for place, file in enumerate(files):
        try:
            image = _decode(file, config, ranges, several := list[str]())
        except UnreadablePicture as error:
            chunk.bad.append(f"{file}: {error.reason}")
            chunk.passing += [chunk.bad[-1]] if error.is_passing else []
            chunk.foreign.update([error.kind] if error.kind else [])
            continue
        if image.shape != shape:
            chunk.has_other_size = True
            return chunk
        chunk.images[len(chunk.kept)] = image
        chunk.kept.append(place)
        chunk.several += [(kind, file) for kind in several]
    chunk.images = chunk.images[: len(chunk.kept)]
    chunk.hashes = image_hashes(chunk.images)  # here and not by whoever takes it, to share the work among the cores
    return chunk


def ahead(function: Callable[[Item], Done], items: Iterable[Item], most: int | None = None) -> Generator[Done]:
    """The function's results, in order, by all cores; only a few (`most`) are ever ready and not yet taken."""
    threads = num_cores()
    most = most or threads + 1
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    waiting: deque[Future[Done]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > most:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _foreign_notes(foreign: Counter[str], skipped: Sequence[str], count: int) -> list[str]:
    if not foreign:
        return []
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in foreign.most_common())
    first = next(line for line in skipped if any(kind in line for kind in foreign))
    return [f"{foreign.total():,} of {count:,} pictures cannot be read here and are left out ({kinds}): {first}"]


def _several_sizes(files: Sequence[str]) -> str:
    """Names the sizes met by how often they are, from the headers of all files."""
    sizes: Counter[tuple[int, int]] = Counter()
    for file in files:
        try:
            sizes[picture_height_width(file)] += 1
        except UnreadablePicture:  # reported when a size is set
            continue
    common = [f"{height}×{width} ({count:,})" for (height, width), count in sizes.most_common(3)]
    more = [f"{len(sizes) - 3:,} more"] if len(sizes) > 3 else []
    got = f"images of {len(sizes):,} sizes: {', '.join([*common, *more])}"
    return problem("data.path", got, "one size (height×width)", "Resize them: set --data.image-size 180x180.")


def _none_readable(bad: list[str]) -> str:
    remedy = _remedy(bad, "Repair or replace them.")
    return _listed(problem("data.path", f"{_count(bad)}, which is all", "images", remedy), bad)


def _some_unreadable(bad: list[str], count: int) -> str:
    remedy = f"{_remedy(bad, 'Repair or remove them.')[:-1]}, or skip them: --data.on-bad-file skip."
    return _listed(problem("data.path", f"{_count(bad)} of {count:,}", "readable, complete images", remedy), bad)


def _remedy(bad: list[str], otherwise: str) -> str:
    """What helps for all of the lines "path: reason"."""
    reasons = {line.rsplit(": ", 1)[-1] for line in bad}
    if reasons == {WEB_ADDRESS}:
        return "Download them first, and name the files."
    return "Allow yourself to read them (chmod u+r)." if reasons == {os.strerror(errno.EACCES)} else otherwise


def _count(bad: list[str]) -> str:
    return f"{counted(len(bad), 'unreadable file')}"


def _listed(text: str, bad: list[str]) -> str:
    more = [f"  … and {len(bad) - NAMED_FILES:,} more"] if len(bad) > NAMED_FILES else []
    return "\n".join([text, *(f"  {one_line(line)}" for line in bad[:NAMED_FILES]), *more])
