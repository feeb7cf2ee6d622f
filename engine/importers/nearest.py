"""Which of the models that can be imported a file of weights is of, as far as its numbers tell."""

from collections.abc import Mapping
from functools import cache

import numpy as np

from engine.errors import InputError, problem
from engine.importers import torch_names
from engine.importers.catalogue import Variant
from engine.importers.variants import VARIANTS
from engine.importers.weights_file import WeightsFile

NEAR = 0.02  # of the numbers of a file: other classes, or a layer more


def name_nearest(
    error: InputError, variant: Variant, file: WeightsFile, arrays: Mapping[str, np.ndarray]
) -> InputError:
    """The error of weights that do not fit, with the model of the file's library whose arrays hold as many numbers.

    Where it is exactly as many, that comes first: what did not fit then follows from it.
    """
    counted = (name for name in arrays if not torch_names.is_counter(name) and not name.startswith("normalization/"))
    total = sum(arrays[name].size for name in counted)
    library = "torch" if file.is_of_torch else "keras"
    names = [name for name, other in VARIANTS.items() if other.library == library]
    counts = {(name, top): count for name in names for top, count in zip((True, False), _counts(name), strict=True)}
    best = min(counts, key=lambda key: (abs(counts[key] - total), key[0] != variant.name))
    if not total or abs(counts[best] - total) > NEAR * total or best[0] == variant.name:
        return error
    wanted = f"{best[0]}{'' if best[1] else ' with --no-top'}"
    if counts[best] == total:
        got = f"{total:,} numbers, exactly those of {wanted}"
        first = problem(str(file.path), got, f"those of {variant.name}", f"Import it as {wanted}.")
        return InputError(first, *error.problems)
    return InputError(*error.problems, f"The file holds {total:,} numbers, nearly those of {wanted}.")


@cache
def _counts(name: str) -> tuple[int, int]:
    """All numbers of a variant with and without its classifier."""
    return sum(VARIANTS[name].count(True)), sum(VARIANTS[name].count(False))
