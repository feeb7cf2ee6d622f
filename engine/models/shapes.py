"""Shapes and sizes of layers, and the checks that their specs share.

Shapes are those of one example: (h, w, c) for images, (d,) for vectors, (n, d) for tokens.
Every check raises InputError.
"""

from typing import Any, Literal, TypeGuard

from engine.errors import InputError, problem, shape_text

Shape = tuple[int, ...]
Size = int | tuple[int, int]
Sides = tuple[tuple[int, int], tuple[int, int]]  # ((top, bottom), (left, right)) in pixels
Padding = Literal["valid", "same"] | int | Sides
Edges = int | tuple[int, int] | tuple[tuple[int, int], tuple[int, int]]


def pair(size: Size) -> tuple[int, int]:
    """(height, width) of a size given as one number or two."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def edges(pixels: Edges) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) of pixels given as one number, as (height, width) or in full, as in Keras."""
    if isinstance(pixels, int):
        return ((pixels, pixels), (pixels, pixels))
    first, second = ((n, n) if isinstance(n, int) else n for n in pixels)
    return ((first[0], first[1]), (second[0], second[1]))


def padded_sides(padding: Padding) -> Sides:
    """((top, bottom), (left, right)) in pixels of a padding that is not "same", whose pixels the image decides."""
    return edges(0 if isinstance(padding, str) else padding)


def slide(shape: Shape, window: Size, strides: Size, padding: Padding, dilation: Size = 1) -> tuple[int, int]:
    """(h, w) of the positions a window can take, by the rules of lax and Keras."""
    (kh, kw), (sh, sw), (dh, dw) = pair(window), pair(strides), pair(dilation)
    reach_h, reach_w = (kh - 1) * dh + 1, (kw - 1) * dw + 1
    if padding == "same":
        return -(-shape[0] // sh), -(-shape[1] // sw)
    h, w = (n + sum(pads) for n, pads in zip(shape[:2], padded_sides(padding), strict=True))
    if h < reach_h or w < reach_w:
        rule = f"at least {shape_text((reach_h, reach_w))} for its window"
        remedy = 'Use fewer or smaller pools and convolutions before it, or padding="same".'
        raise InputError(problem("", shape_text(shape[:2]), rule, remedy))
    return (h - reach_h) // sh + 1, (w - reach_w) // sw + 1


def reached(output: Shape, window: Size, strides: Size, padding: Padding, dilation: Size = 1) -> Shape | None:
    """(h, w) of the input under the windows of so much output; None with padding, where all of it may be."""
    if padding == "same" or any(map(sum, padded_sides(padding))):
        return None
    windows = zip(output[:2], pair(window), pair(strides), pair(dilation), strict=True)
    return tuple((n - 1) * step + (taps - 1) * gap + 1 for n, taps, step, gap in windows)


def check_image(shape: Shape) -> None:
    """Refuses vectors and tokens."""
    if len(shape) != 3:
        kind = "a vector" if len(shape) == 1 else "tokens"
        got = f"{kind} of {shape_text(shape)}"
        raise InputError(problem("", got, "an image h×w×c", "Put it before Flatten and Dense."))


def check_vector(shape: Shape) -> None:
    """Refuses images; tokens (n, d) are vectors side by side."""
    if len(shape) not in (1, 2):
        remedy = "Put Flatten() or GlobalAveragePool() before it."
        raise InputError(problem("", f"an image of {shape_text(shape)}", "a vector", remedy))


def check_groups(channels: int, groups: int) -> None:
    """Refuses channels that cannot be shared out equally."""
    if channels % groups:
        rule, remedy = f"a multiple of its {groups} groups", "Change the groups, or the layer before."
        raise InputError(problem("", f"{channels} channels", rule, remedy))


def check_count(field: str, number: int) -> None:
    """A whole number of at least 1."""
    if not is_whole(number) or number < 1:
        raise InputError(problem(field, repr(number), "a positive whole number", "Correct the layer."))


def check_positive(field: str, size: Size) -> None:
    """A whole number of at least 1, or two."""
    numbers = size if isinstance(size, tuple) and len(size) == 2 else (size,)
    if not all(is_whole(number) and number > 0 for number in numbers):
        raise InputError(problem(field, repr(size), "a positive whole number, or two", "Correct the layer."))


def check_padding(layer: str, padding: Padding) -> None:
    """A rule by name, a number of pixels or one for each side."""
    sides = padding if isinstance(padding, tuple) else ((padding, 0), (0, 0))
    are_pairs = len(sides) == 2 and all(isinstance(pads, tuple) and len(pads) == 2 for pads in sides)
    are_pixels = are_pairs and all(is_whole(n) and n >= 0 for pads in sides for n in pads)
    if padding not in ("valid", "same") and not are_pixels:
        rule = '"valid", "same", a number of pixels or ((top, bottom), (left, right))'
        raise InputError(problem(f"{layer} padding", repr(padding), rule, "Choose one of these."))


def check_edges(field: str, pixels: Edges) -> None:
    """Numbers of at least 0: one, (height, width) or ((top, bottom), (left, right))."""
    sides = pixels if isinstance(pixels, tuple) and len(pixels) == 2 else (pixels,)
    numbers = [n for side in sides for n in (side if isinstance(side, tuple) and len(side) == 2 else (side,))]
    if not all(is_whole(n) and n >= 0 for n in numbers):
        rule = "pixels of 0 or more: one number, (height, width) or ((top, bottom), (left, right))"
        raise InputError(problem(field, repr(pixels), rule, "Correct the layer."))


def check_epsilon(field: str, epsilon: float) -> None:
    """Above 0: it keeps a division by a spread of 0 finite."""
    if not is_number(epsilon) or not 0 < epsilon < float("inf"):
        raise InputError(problem(field, repr(epsilon), "a positive number", "Give 1e-3 or so."))


def is_whole(number: Any) -> TypeGuard[int]:
    """Whether it is an int, and no bool."""
    return isinstance(number, int) and not isinstance(number, bool)


def is_number(number: Any) -> TypeGuard[float]:
    """Whether it is an int or a float, and no bool."""
    return isinstance(number, int | float) and not isinstance(number, bool)
