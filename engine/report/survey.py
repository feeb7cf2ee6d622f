"""What is known of data before it is decoded: the files it is made of, their kinds and their sizes."""

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
    """What the headers of image files say.

    formats: how many files there are of each kind.
    sizes: (h, w) of every file whose header can be read, by area.
    """

    formats: Counter[str] = field(default_factory=Counter)
    sizes: tuple[tuple[int, int], ...] = ()

    @property
    def num_sizes(self) -> int:
        """How many different sizes there are."""
        return len(set(self.sizes))

    @property
    def decoded_bytes(self) -> int:
        """Bytes that all files take as pictures in colour."""
        return sum(3 * height * width for height, width in self.sizes)


def survey(files: Iterable[str]) -> Survey:
    """Reads the headers of the files; those that cannot be read are counted as unreadable, decoding will name them."""
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
    """(the config, with a size that all images are brought to if it has none and they need one, why; "" if not)."""
    if config.image_size is not None:
        return config, ""
    if found.num_sizes > 1 or source.has_open_sizes:
        reason = "sizes differ"
    elif found.decoded_bytes > LARGE_BYTES:
        reason = f"all of them take {found.decoded_bytes / 2**30:.0f} GiB as they are"
    else:
        return config, ""
    # Cut and not stretched, so that nothing looks out of proportion.
    return replace(config, image_size=STAND_IN_SIZE, resize="crop"), reason


def _format(file: str) -> str:
    with open(file, "rb") as opened:
        kind = kind_of(opened.read(START_BYTES))
    return kind.name if kind else "other"
