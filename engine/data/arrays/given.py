"""Array-like values → NumPy arrays, without losing information: masks and paths are rejected."""

from numbers import Real
from typing import Any

import numpy as np
from PIL import Image

from engine.data.arrays.stored import StoredImages
from engine.errors import InputError, problem


def plain_array(given: Any, field: str) -> np.ndarray:
    """An array of NumPy, JAX, PyTorch, pandas and the like, or a list of such, as a NumPy array.

    bfloat16 and other types that NumPy lacks become float32. Raises InputError, naming `field`, for masked values, for
    examples of several shapes, and for what is no array.
    """
    _check_unmasked(given, field)
    _check_palettes(given, field)
    try:
        array = np.asarray(given)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InputError(_no_array(given, field, error)) from None
    if array.dtype == object and array.ndim == 0:
        raise InputError(_no_array(given, field, None))
    if array.dtype.kind == "V" and not issubclass(array.dtype.type, np.void):  # bfloat16, as JAX has it
        return array.astype(np.float32)
    return array


def is_array_like(value: Any) -> bool:
    """Whether a value is an array of another library than NumPy, or a masked one, and no picture or text."""
    return isinstance(value, np.ma.MaskedArray) or (
        hasattr(value, "__array__") and not isinstance(value, (np.ndarray, np.generic, Image.Image, StoredImages))
    )


def column_names(given: Any) -> tuple[Any, ...] | None:
    """The names of a data frame's columns, where these are texts or whole numbers."""
    names = tuple(getattr(given, "columns", ()))
    are_names = all(isinstance(name, str) or (isinstance(name, Real) and name == name // 1) for name in names)
    return names if names and are_names else None


def _check_unmasked(given: Any, field: str) -> None:
    parts: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    masks = [np.ma.getmaskarray(part) for part in parts if isinstance(part, np.ma.MaskedArray)]
    masked = sum(int(mask.sum()) for mask in masks)
    if masked:
        remedy = "Fill them, like array.filled(0), or leave those examples out."
        rule = "a value everywhere, because a model knows no mask"
        raise InputError(problem(field, f"a masked array with {masked:,} masked values", rule, remedy))


def _check_palettes(given: Any, field: str) -> None:
    """Raises InputError for PIL images whose numbers are no levels but places in a palette."""
    parts: list[Any] = list(given) if isinstance(given, (list, tuple)) else [given]
    count = sum(isinstance(part, Image.Image) and part.mode in ("P", "PA") for part in parts)
    if count:
        remedy = 'Convert them: [picture.convert("RGB") for picture in pictures].'
        rule = "pictures whose numbers are levels"
        raise InputError(problem(field, f"{count:,} PIL images with a palette (mode P)", rule, remedy))


def _no_array(given: Any, field: str, error: Exception | None) -> str:
    kind, reason = type(given).__name__, (str(error or "").splitlines() or [""])[0]
    if "inhomogeneous" in reason:
        return problem(field, reason, "examples of one shape", "Make them equal in size.")
    if hasattr(given, "toarray"):
        return problem(field, f"a sparse {kind}", "a dense array", "Convert it with .toarray().")
    if hasattr(given, "detach"):
        got = f"a tensor that NumPy cannot take ({reason})"
        return problem(field, got, "one in this machine's memory", "Convert it with .detach().cpu().float().numpy().")
    got = f"{kind} ({reason})" if reason else kind
    return problem(field, got, "an array, or a list of equal ones", "Convert it to a NumPy array.")
