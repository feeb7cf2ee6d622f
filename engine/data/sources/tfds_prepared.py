"""What tfds prepared, as it lies on disk: its directories and descriptions, which are texts of strangers."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import InputError, problem
from engine.host.json_files import read_json

INFO, FEATURES = "dataset_info.json", "features.json"
MOST_BYTES = 8 * 2**20  # of each description and list of labels: those of 22,000 classes take half of one
RULE, REMEDY = "data as tfds prepares it", "Prepare or download it again."


def is_prepared(path: Path) -> bool:
    """Whether a directory holds a dataset that tfds prepared, in some version and configuration."""
    return bool(versions_in(path))


def versions_in(path: Path) -> list[Path]:
    """The directories of prepared data that are `path` itself or one below it."""
    found = [info.parent for pattern in (INFO, f"*/{INFO}") for info in path.glob(pattern) if info.is_file()]
    return [directory for directory in found if (directory / FEATURES).is_file()]


def newest(versions: list[Path]) -> Path:
    """The one with the highest numbers in its name."""
    return max(versions, key=lambda path: [int(part) for part in re.findall(r"\d+", path.name)])


def name_in(directory: Path) -> str:
    """What tfds called the data; empty if nothing."""
    name = _description(directory / INFO).get("name")
    return name if isinstance(name, str) else ""


def split_names(directory: Path) -> tuple[str, ...]:
    """The splits that the data says it has."""
    with damage_as_errors(directory / INFO):
        return tuple(str(split["name"]) for split in _description(directory / INFO).get("splits", ()))


def has_open_sizes(directory: Path) -> bool:
    """Whether pictures are declared without a height or width of their own."""
    with damage_as_errors(directory / FEATURES):
        features = _description(directory / FEATURES).get("featuresDict", {}).get("features", {}).values()
        images = [feature["image"] for feature in features if "image" in feature]
        sizes = [image.get("shape", {}).get("dimensions", ())[:2] for image in images]
        return any(str(size) in ("-1", "None") for both in sizes for size in both)


def check_descriptions(directory: Path) -> None:
    """Raises InputError unless all that tfds will read beside the records is of a size that it may have."""
    for path in directory.iterdir():
        if path.suffix in (".json", ".txt"):
            _check_size(path)


@contextlib.contextmanager
def damage_as_errors(path: Path) -> Iterator[None]:
    """Turns what tfds and its readers raise of damaged data into one sentence about `path`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # of nearly every kind
        reason = (str(error).strip().splitlines() or [""])[0][:300]
        got = f"{reason or 'damaged data'} ({type(error).__name__})"
        raise InputError(problem(str(path), got, RULE, REMEDY)) from None


def _description(path: Path) -> dict[str, Any]:
    _check_size(path)
    about = read_json(path, RULE, REMEDY)
    if not isinstance(about, dict):
        raise InputError(problem(str(path), f"a {type(about).__name__}", RULE, REMEDY))
    return about


def _check_size(path: Path) -> None:
    if not path.is_file():
        raise InputError(problem(str(path), "no file", RULE, REMEDY))
    if (size := path.stat().st_size) > MOST_BYTES:
        raise InputError(problem(str(path), f"{size:,} bytes", f"at most {MOST_BYTES:,}", REMEDY))
