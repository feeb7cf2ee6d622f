"""Datasets as a notebook shows them: what is in them, with a few of their pictures."""

from typing import Any

import numpy as np

from engine.data.pictures.shown import png_bytes, shown_levels
from engine.errors import shape_text
from engine.host.html import html_facts, html_pictures, html_table

SHOWN_CLASSES, SHOWN_PICTURES = 12, 8


class ShownDataset:
    """A Dataset that a notebook shows."""

    def _repr_html_(self) -> str:
        return dataset_html(self)


class ShownSplits:
    """Splits that a notebook shows."""

    def _repr_html_(self) -> str:
        splits: Any = self
        rows = [(name, split.name, len(split), shape_text(split.input_shape)) for name, split in splits.named.items()]
        return html_table(("split", "data", "examples", "shape"), rows) + dataset_html(splits.train)


def dataset_html(dataset: Any) -> str:
    """Its size, classes and first pictures."""
    names, counts = dataset.class_names, dataset.class_counts
    facts: dict[str, object] = {
        "examples": f"{len(dataset):,}",
        "inputs": f"{dataset.images.dtype.name} {shape_text(dataset.input_shape)}",
        "classes": ", ".join(f"{name} ({count:,})" for name, count in zip(names[:SHOWN_CLASSES], counts, strict=False)),
        "and": f"{len(names) - SHOWN_CLASSES:,} classes more" if len(names) > SHOWN_CLASSES else "",
        "targets": shape_text(dataset.labels.shape[1:]) if dataset.task == "numbers" else "",
        "left out": f"{len(dataset.skipped):,} files that cannot be read" if dataset.skipped else "",
    }
    return html_facts(f"Dataset {dataset.name}", facts) + _pictures(dataset)


def _pictures(dataset: Any) -> str:
    """The first picture of each class, or the first of all."""
    if len(dataset.input_shape) != 3:
        return ""
    numbers = np.arange(min(SHOWN_PICTURES, len(dataset)))
    if dataset.task == "classes":
        _, firsts = np.unique(dataset.class_numbers, return_index=True)
        numbers = firsts[:SHOWN_PICTURES]
    pngs = [png_bytes(shown_levels(np.asarray(dataset.images[int(i)]))) for i in numbers]
    is_named = dataset.task == "classes"
    return html_pictures(
        pngs, [dataset.class_names[int(dataset.class_numbers[i])] if is_named else int(i) for i in numbers]
    )
