"""python -m tests.faults.pictures --count 10000: what prediction makes of damaged pictures, as a table.

Photographs are stored in many ways (JPEG, PNG, GIF, BMP, WebP, TIFF), cut off, have bits flipped and pieces moved or
taken from another file, and are then asked about one by one. Each must be predicted (a proper distribution over the
classes) or reported (InputError). Anything else is a fault: another exception, a process that dies, more than
`--seconds` or `--megabytes` for one picture. Pictures are functions of (seed, number). The exit code is then 1.
Pillow's warnings of odd TIFF directories are counted; what libtiff itself writes to stderr is only quoted.
"""

import argparse
import contextlib
import io
import os
import resource
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import skimage.data
from PIL import Image, ImageEnhance

import engine
from engine.host.console import Console, Table
from engine.models import Conv, Dense, GlobalAveragePool, Sequential
from tests.workers import answers

PHOTOGRAPHS = ("astronaut", "coffee", "cat", "rocket")
SIDES = (16, 300)  # least and largest height and width of a picture
STORED = {
    "JPEG": (
        {}, {"progressive": True}, {"quality": 95, "subsampling": 0}, {"mode": "L"}, {"mode": "CMYK"}, {"exif": True},
    ),
    "PNG": ({}, {"mode": "P"}, {"mode": "RGBA"}, {"mode": "I;16"}, {"mode": "1"}, {"mode": "LA"}, {"exif": True}),
    "GIF": ({}, {"frames": 3}, {"mode": "L", "transparency": 7}),
    "BMP": ({}, {"mode": "L"}, {"mode": "P"}, {"mode": "1"}),
    "WebP": ({}, {"lossless": True}, {"mode": "RGBA"}, {"frames": 3}),
    "TIFF": (
        {}, {"compression": "tiff_lzw"}, {"compression": "tiff_adobe_deflate"}, {"compression": "jpeg"},
        {"compression": "packbits", "mode": "1"}, {"mode": "I;16"}, {"mode": "CMYK"}, {"mode": "F"}, {"frames": 3},
    ),
}  # fmt: skip
HEADER_BYTES = 300
WORKER = ("-m", "tests.faults.pictures")
START_SECONDS = 300.0
GRACE_SECONDS = 10.0  # for which a picture beyond its time may still come to an end by itself
OUTCOMES = ("predicted", "reported")
FAULTS = ("crashed", "slow", "large")


class Outcome(NamedTuple):
    """What came of one picture: one of OUTCOMES or FAULTS, with words to a fault, or a warning that Pillow gave."""

    number: int
    name: str
    words: str


def sort_of(number: int) -> tuple[str, str]:
    """(kind of file, damage) of the picture of a number: all pairs in turn."""
    kinds, damages = list(STORED), list(DAMAGES)
    return kinds[number % len(kinds)], damages[number // len(kinds) % len(damages)]


def damaged(seed: int, number: int) -> bytes:
    """The picture's file after its damage."""
    draw, (kind, damage) = Random(f"{seed} {number}"), sort_of(number)
    return DAMAGES[damage](stored(kind, draw), draw)


def stored(kind: str, draw: Random) -> bytes:
    """A piece of a photograph in one of the ways that a kind of file has."""
    options = dict(draw.choice(STORED[kind]))
    mode, frames = options.pop("mode", "RGB"), options.pop("frames", 1)
    piece = _piece(draw)
    pictures = [_in_mode(ImageEnhance.Brightness(piece).enhance(1 + frame / 4), mode) for frame in range(frames)]
    if options.pop("exif", False):
        exif = Image.Exif()
        exif[0x0112], exif[0x010E] = draw.randint(1, 8), "a photograph"
        options["exif"] = exif
    if frames > 1:
        options.update(save_all=True, append_images=pictures[1:])
    file = io.BytesIO()
    pictures[0].save(file, kind, **options)
    return file.getvalue()


def truncated(data: bytes, draw: Random) -> bytes:
    """Cut off, anywhere or near its end."""
    return data[: draw.choice((draw.randrange(len(data)), len(data) - draw.randint(1, min(40, len(data)))))]


def flipped(data: bytes, draw: Random) -> bytes:
    """With up to thirty bits turned, anywhere or in its header."""
    most, changed = draw.choice((len(data), min(len(data), HEADER_BYTES))), bytearray(data)
    for _ in range(draw.randint(1, 30)):
        changed[draw.randrange(most)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def spliced(data: bytes, draw: Random) -> bytes:
    """The first part of one file and the last part of another, of this or another kind."""
    other = stored(draw.choice(list(STORED)), draw)
    return data[: draw.randrange(len(data))] + other[draw.randrange(len(other)) :]


def shuffled(data: bytes, draw: Random) -> bytes:
    """With a piece of it doubled, left out, blanked or put elsewhere."""
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.randint(1, 2000))
    place, piece = draw.randrange(len(data)), data[start:end]
    rest = data[:start] + data[end:]
    ways = (data[:place] + piece + data[place:], rest, data[:start] + bytes(len(piece)) + data[end:],
            rest[:place] + piece + rest[place:])  # fmt: skip
    return draw.choice(ways)


DAMAGES: dict[str, Callable[[bytes, Random], bytes]] = {
    "truncated": truncated, "bits flipped": flipped, "spliced": spliced, "pieces moved": shuffled,
}  # fmt: skip


def untrained() -> engine.Classifier:
    """A small model of colour pictures, which makes of any picture what it needs."""
    model = Sequential((Conv(8, 3, activation="relu"), GlobalAveragePool(), Dense()))
    data = engine.dataset(np.zeros((3, 32, 32, 3), np.uint8), np.arange(3))
    return engine.fit(model, data, epochs=0, batch_size=3, validation=0, verbose=False).classifier


def outcome_of(classifier: engine.Classifier, number: int, data: bytes, seconds: float, megabytes: float) -> Outcome:
    """Asks about one picture."""
    start, before = time.monotonic(), _peak_megabytes()
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            (row,) = classifier.predict_proba(data, resize="stretch")
            name = "predicted"
        if not (np.isfinite(row).all() and abs(row.sum() - 1) < 1e-4):
            return Outcome(number, "crashed", f"no probabilities: {row}")
    except engine.InputError:
        name = "reported"
    except BaseException as error:
        return Outcome(number, "crashed", f"{type(error).__name__}: {error}")
    if time.monotonic() - start > seconds:
        return Outcome(number, "slow", f"{time.monotonic() - start:.1f} s")
    if _peak_megabytes() - before > megabytes:
        return Outcome(number, "large", f"{_peak_megabytes() - before:.0f} MB")
    return Outcome(number, name, str(warned[0].message) if warned else "")


def tell(seed: int, numbers: Sequence[int], seconds: float, megabytes: float) -> None:
    """What a worker does: a line for each picture; the first is of none, when everything is ready."""
    classifier = untrained()
    classifier.predict_proba(stored("PNG", Random(0)), resize="stretch")
    print("ready", flush=True)
    for number in numbers:
        name, words = outcome_of(classifier, number, damaged(seed, number), seconds, megabytes)[1:]
        print(name, words.replace("\n", " "), sep="\t", flush=True)


def outcomes(seed: int, numbers: Sequence[int], seconds: float, megabytes: float) -> Iterator[Outcome]:
    """What came of each picture, asked in processes of their own, of which one that dies or hangs is replaced."""

    def command(first: int, end: int) -> list[str]:
        limits = ["--seconds", str(seconds), "--megabytes", str(megabytes)]
        return [*WORKER, "--seed", str(seed), *limits, "--worker", str(first), str(end)]

    yield from map(Outcome._make, answers(command, numbers, START_SECONDS, 2 * seconds + GRACE_SECONDS))


def table_of(seed: int, found: Sequence[Outcome]) -> Table:
    """Outcomes by kind of file and damage."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for outcome in found:
        for kind, damage in (sort_of(outcome.number), ("all", "")):
            counts[kind, damage, outcome.name] += 1
            counts[kind, damage, "warned"] += outcome.name in OUTCOMES and outcome.words != ""
    table = Table("kind", "damage", *OUTCOMES, "warned", *FAULTS, title=f"{len(found):,} damaged pictures, seed {seed}")
    for kind, damage in [*((kind, damage) for kind in STORED for damage in DAMAGES), ("all", "")]:
        table.add_row(kind, damage, *(f"{counts[kind, damage, name]:,}" for name in (*OUTCOMES, "warned", *FAULTS)))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Asks about all pictures and prints the table; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.pictures", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0, help="that a picture may take")
    parser.add_argument("--megabytes", type=float, default=600.0, help="by which a picture may raise the peak")
    parser.add_argument("--worker", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    limits = (options.seconds, options.megabytes)
    if options.worker:
        tell(options.seed, range(*options.worker), *limits)
        return 0
    start, found = time.monotonic(), list(outcomes(options.seed, range(options.count), *limits))
    console = Console()
    console.print(table_of(options.seed, found))
    console.print(f"{time.monotonic() - start:.0f} s, Pillow {Image.__version__}")
    faults = [outcome for outcome in found if outcome.name in FAULTS]
    for outcome in faults[:20]:
        text = f"FAULT {outcome.number} ({', '.join(sort_of(outcome.number))}): {outcome.name}: {outcome.words}"
        console.print(text, soft_wrap=True, markup=False, highlight=False)
    return 1 if faults else 0


@cache
def _photograph(name: str) -> Image.Image:
    return Image.fromarray(getattr(skimage.data, name)())


def _piece(draw: Random) -> Image.Image:
    whole = _photograph(draw.choice(PHOTOGRAPHS))
    width, height = (draw.randint(*SIDES) for _ in range(2))
    left, top = draw.randrange(max(1, whole.width - width)), draw.randrange(max(1, whole.height - height))
    return whole.crop((left, top, min(left + width, whole.width), min(top + height, whole.height)))


def _in_mode(picture: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)
    if mode in ("RGBA", "LA"):
        picture = picture.convert("RGBA")
        picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    return picture if picture.mode == mode else picture.convert(mode)


def _peak_megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    with contextlib.chdir(Path(__file__).parents[2]):
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        sys.exit(main())
