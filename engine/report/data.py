"""A dataset as tables: its splits, its images, its classes."""

import numpy as np

from engine.data.decoded.dataset import Dataset, Splits, num_shared
from engine.data.fitting import channel_statistics
from engine.data.load import skipped_files
from engine.errors import shape_text
from engine.host.console import Shortened, Table
from engine.report.grid import PLACES
from engine.report.survey import Survey

SHOWN_CLASSES = 20
SHOWN_SKIPPED = 5


def splits_table(splits: Splits, title: str) -> Table:
    """The number of images in each split, its share of all images, and its source."""
    every = splits.named
    total = sum(map(len, every.values()))
    table = _table(title, "split", images="right", share="right", of="left")
    for name, split in every.items():
        table.add_row(name, f"{len(split):,}", f"{len(split) / total:.1%}", Shortened(split.name))
    table.add_row("all", f"{total:,}") if len(every) > 1 else None
    return table


def classes_table(splits: Splits, limit: int = SHOWN_CLASSES) -> Table:
    """The number of images per class and split, for the first `limit` classes."""
    every = splits.named
    names = splits.train.class_names
    counts = {split: data.class_counts for split, data in every.items()}
    kind = "labels" if splits.train.task == "labels" else "classes"
    table = _table(f"{len(names):,} {kind}", "label" if kind == "labels" else "class", **dict.fromkeys(every, "right"))
    for k, name in enumerate(names[:limit]):
        table.add_row(name, *(f"{count[k]:,}" for count in counts.values()))
    if len(names) > limit:
        table.add_row(f"… and {len(names) - limit:,} more", *("" for _ in counts))
    return table


def targets_table(splits: Splits) -> Table:
    """For a regression: smallest, mean and largest target of each split, one line per number of an example."""
    table = _table("targets", "split", least="right", mean="right", greatest="right")
    for name, data in splits.named.items():
        for column in data.labels.T:
            table.add_row(name, *(f"{value:.4g}" for value in (column.min(), column.mean(), column.max())))
    return table


def facts_table(splits: Splits, found: Survey, decoded_as: str) -> Table:
    """Properties of the images, one line each; `decoded_as`: how they were resized to one size, if they were."""
    table = Table(box=None, padding=(0, 2), collapse_padding=True, show_header=False, show_edge=False, pad_edge=False)
    shape = shape_text(splits.train.input_shape)
    table.add_row("images", f"{shape}, {decoded_as}" if decoded_as else shape)
    for name, text in _file_facts(found):
        table.add_row(name, text)
    mean, std = (values / 255 for values in channel_statistics(splits.train))
    table.add_row("mean", f"{_numbers(mean)}  (of train, levels from 0 to 1)")
    table.add_row("deviation", _numbers(std))
    table.add_row("duplicates", _duplicates(splits))
    if splits.passed_over:
        table.add_row("passed over", ", ".join(f"{count:,} {kind}" for kind, count in splits.passed_over.items()))
    skipped = skipped_files(splits)
    table.add_row("skipped files", f"{len(skipped):,}" if skipped else "none")
    for line in skipped[:SHOWN_SKIPPED]:
        table.add_row("", Shortened(line, room=40))
    if len(skipped) > SHOWN_SKIPPED:
        table.add_row("", f"… and {len(skipped) - SHOWN_SKIPPED:,} more")
    return table


def picture_table(found: Survey, levels: np.ndarray) -> Table:
    """Properties of a single picture, one line each; levels: uint8[h w c] as it is decoded, perhaps made smaller."""
    table = Table(box=None, padding=(0, 2), collapse_padding=True, show_header=False, show_edge=False, pad_edge=False)
    (kind,) = found.formats
    table.add_row("picture", kind)
    table.add_row("size", f"{shape_text(found.sizes[0])} (height×width)")
    table.add_row("levels", f"{levels.min()} to {levels.max()}, read as {levels.shape[-1]} channels of 8 bits")
    table.add_row("mean", _numbers(levels.mean(axis=(0, 1)) / 255))
    table.add_row("deviation", _numbers(levels.std(axis=(0, 1)) / 255))
    return table


def sample_indices(dataset: Dataset, count: int = PLACES) -> list[int]:
    """Examples to show: the first of every class, then the second of every class, …; without classes the first ones."""
    if not dataset.class_names:
        return list(range(min(count, len(dataset))))
    if dataset.task == "labels":
        by_class = [np.flatnonzero(has_label) for has_label in dataset.labels.T > 0]
    else:  # sorted once, and not gone through for each class
        by_class = np.split(np.argsort(dataset.class_numbers, kind="stable"), np.cumsum(dataset.class_counts)[:-1])
    rounds = range(max(map(len, by_class), default=0))
    in_turn = (int(places[turn]) for turn in rounds for places in by_class if turn < len(places))
    return [index for index, _ in zip(in_turn, range(count), strict=False)]


def _table(title: str, first: str, **columns: str) -> Table:
    table = Table(heading=title)
    table.add_column(first)
    for name, justify in columns.items():
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    return table


def extremes_text(train: Dataset) -> str:
    """The smallest and the largest class."""
    names, counts = train.class_names, train.class_counts
    low, high = int(counts.argmin()), int(counts.argmax())
    if counts[low] == counts[high]:
        return f"{counts[low]:,} of each in train"
    return f"in train: fewest {names[low]} ({counts[low]:,}), most {names[high]} ({counts[high]:,})"


def _file_facts(found: Survey) -> list[tuple[str, str]]:
    if not found.formats:
        return []
    facts = [("files", ", ".join(f"{count:,} {name}" for name, count in found.formats.most_common()))]
    if found.num_sizes == 1:
        facts.append(("sizes", f"{shape_text(found.sizes[0])}, all of them"))
    elif found.num_sizes:
        picked = (found.sizes[0], found.sizes[len(found.sizes) // 2], found.sizes[-1])
        smallest, median, largest = map(shape_text, picked)
        text = f"{found.num_sizes:,} different: smallest {smallest}, median {median}, largest {largest}"
        facts.append(("sizes", f"{text} (height×width)"))
    return facts


def _numbers(values: np.ndarray) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _duplicates(splits: Splits) -> str:
    """Images with equal content: across splits, which makes metrics too good, and within splits."""
    every = splits.named
    pairs = [("validation", "train"), ("test", "train"), ("test", "validation")]
    shared = [
        f"{count:,} of {first} in {second}"
        for first, second in pairs
        if first in every and second in every and (count := num_shared(every[second], every[first]))
    ]
    repeated = [f"{count:,} within {name}" for name, data in every.items() if (count := _num_repeated(data))]
    return ", ".join([*(shared or ["none between splits"]), *repeated])


def _num_repeated(dataset: Dataset) -> int:
    return 0 if dataset.hashes is None else len(dataset) - len(np.unique(dataset.hashes))
