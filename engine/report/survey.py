"""Survey of data before it is decoded: its files, their formats and their sizes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from engine.config.data import DataConfig
from engine.data.pictures.formats import START_BYTES, kind_of
from engine.data.pictures.opening import picture_height_width
from engine.data.pictures.stored import UnreadablePicture
from engine.data.sources.source import Source

STAND_IN_SIZE = "128x128"
LARGE_BYTES = 4 * 2**30
Config = TypeVar("Config", bound=DataConfig)


@dataclass(frozen=True)
class Survey:
    """Facts from the headers of image files.

    formats: number of files by format.
    sizes: (h, w) of every file with a readable header, by area.
    """

    formats: Counter[str] = field(default_factory=Counter)
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def num_sizes(self) -> int:
        """Number of different sizes."""
        return len(set(self.sizes))

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all files as decoded colour pictures."""
        return sum(3 * height * width for height, width in self.sizes)


def survey(files: Iterable[str]) -> Survey:
    """Reads the headers of the files; unreadable ones are counted, and named later by decoding."""
    formats: Counter[str] = Counter()
    sizes: list[tuple[int, int]] = []
    for file in files:
        try:
            size, format = picture_height_width(file), _format(file)
        except (UnreadablePicture, OSError):
            formats["unreadable"] += 1
            continue
        sizes.append(size)
        formats[format] += 1
    return Survey(formats, tuple(sorted(sizes, key=lambda size: (size[0] * size[1], size))))


def with_one_size(config: Config, source: Source, found: Survey) -> tuple[Config, str]:
    """(the config, with a common size if it has none and the images need one; the reason, "" if there is none)."""
    if config.image_size is not None:
        return config, ""
    if found.num_sizes > 1 or source.has_open_sizes:
        reason = "sizes differ"
    elif found.decoded_bytes > LARGE_BYTES:
        reason = f"all of them take {found.decoded_bytes / 2**30:.0f} GiB as they are"
    else:
        return config, ""
    # Cropped, not stretched, so that proportions are kept.
    return replace(config, image_size=STAND_IN_SIZE, resize="crop"), reason


def _format(file: str) -> str:
    with open(file, "rb") as opened:
        kind = kind_of(opened.read(START_BYTES))
    return kind.name if kind else "other"
