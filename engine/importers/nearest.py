"""Which of the models that can be imported a file of weights is of, as far as its numbers tell."""

from collections.abc import Iterator, Mapping
from functools import cache

import numpy as np

from engine.importers import torch_names
from engine.importers.catalogue import Variant
from engine.importers.variants import VARIANTS

NEAR = 0.02  # of the numbers of a file: other classes, or a layer more


def nearest_note(variant: Variant, arrays: Mapping[str, np.ndarray]) -> Iterator[str]:
    """A line that names the model whose arrays hold as many numbers as a file's, if there is one."""
    counted = (name for name in arrays if not torch_names.is_counter(name) and not name.startswith("normalization/"))
    total = sum(arrays[name].size for name in counted)
    counts = {(name, top): count for name in VARIANTS for top, count in zip((True, False), _counts(name), strict=True)}
    best = min(counts, key=lambda key: (abs(counts[key] - total), key[0] != variant.name))
    if total and abs(counts[best] - total) <= NEAR * total and best[0] != variant.name:
        like = "exactly" if counts[best] == total else "nearly"
        yield f"The file holds {total:,} numbers, {like} those of {best[0]}{'' if best[1] else ' with --no-top'}."


@cache
def _counts(name: str) -> tuple[int, int]:
    """All numbers of a variant with and without its classifier."""
    return sum(VARIANTS[name].count(True)), sum(VARIANTS[name].count(False))
