"""What the fields of AugmentConfig may hold: kinds of fields, their limits, and the problems of a config."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Literal

from engine.errors import problem
from engine.records import check, check_whole

AmountRange = float | tuple[float, float]


@dataclass(frozen=True)
class Mark:
    """What a field of AugmentConfig holds; it stands beside the field's type.

    kind: a range of amounts (0: no change) or of factors (1: no change), or a probability. least, most: the limits.
    unit: what reports write after the number.
    """

    kind: Literal["amount", "factor", "probability"]
    least: float = float("-inf")
    most: float = float("inf")
    unit: str = ""

    @property
    def is_range(self) -> bool:
        """Whether the field is a range that is drawn from."""
        return self.kind != "probability"

    @property
    def neutral(self) -> int:
        """The draw that changes nothing."""
        return int(self.kind == "factor")


@cache
def find_marks(config_type: Any) -> dict[str, Mark]:
    """The marks of the fields of AugmentConfig that have one."""
    found = ((field.name, getattr(field.type, "__metadata__", ())) for field in fields(config_type))
    return {name: mark for name, marks in found for mark in marks if isinstance(mark, Mark)}


# Fields that only say how another one works: alone they change nothing.
MANNERS = (
    "shift_unit", "perspective_scale", "crop_ratio", "elastic_scale", "generator_geometry", "fill", "fill_value",
    "interpolation", "hue_either_way", "posterize_bits", "solarize_threshold", "policy_ops", "policy_magnitude",
    "policy_factor", "policy_chains", "policy_depth", "policy_alpha", "policy_all_ops", "erasing_area",
    "erasing_ratio", "erasing_value",
)  # fmt: skip
# What reads the image beside its pixels or beyond its border, and how: one warp for all of them.
FILLED = (
    "rotation", "height_shift", "width_shift", "height_shift_steps", "width_shift_steps", "shear", "shear_x", "shear_y",
    "zoom", "width_zoom", "perspective", "crop_padding", "crop_area", "elastic",
)  # fmt: skip
WARP_MANNERS = ("fill", "fill_value", "interpolation", "generator_geometry")

_OF_ANY_LENGTH = ("height_shift_steps", "width_shift_steps", "erasing_value", "custom")
_LEVEL = "a level, 0 to 255"


def range_of(config: Any, name: str) -> tuple[float, float]:
    """The (lowest, highest) draw that a range field of an AugmentConfig stands for."""
    value = getattr(config, name)
    if isinstance(value, tuple):
        return value
    neutral = find_marks(type(config))[name].neutral
    return neutral - value, neutral + value


def range_problems(config: Any) -> list[str]:
    """Problems of an AugmentConfig whose fields have the types they declare."""
    pairs = (value for name, value in vars(config).items() if name not in _OF_ANY_LENGTH)
    if any(isinstance(value, tuple) and len(value) != 2 for value in pairs):
        return []  # check_types reports these
    problems = []
    for name, mark in find_marks(type(config)).items():
        value = getattr(config, name)
        if mark.is_range:
            problems += _range_problem(config, name, mark)
        else:
            problems += check(f"augment.{name}", value, 0 <= value <= 1, "a probability, 0 to 1", "Give 0.5 or so.")
    for name in ("mixup", "cutmix", "noise"):
        value = getattr(config, name)
        problems += check(f"augment.{name}", value, value >= 0, "0 or more", "Give 0 for none.")
    for name in ("fill_value", "solarize_threshold"):
        value = getattr(config, name)
        problems += check(f"augment.{name}", value, 0 <= value <= 255, _LEVEL, "Correct it.")
    problems += check_whole("augment.crop_padding", config.crop_padding, 0, "Give pixels, or 0 for none.")
    problems += check_whole("augment.posterize_bits", config.posterize_bits, 1, "Give 1 to 8.", below=9)
    low, high = config.blur
    problems += check("augment.blur", config.blur, 0 <= low <= high <= 20, "0 ≤ low ≤ high ≤ 20", "Correct it.")
    size = config.random_crop or (1, 1)
    holds = all(pixels >= 1 for pixels in size)
    problems += check("augment.random_crop", size, holds, "two whole numbers of at least 1", "Give pixels.")
    return problems + _policy_problems(config) + _pair_problems(config) + _box_problems(config)


def crop_problems(random: tuple[int, int] | None, middle: tuple[int, int] | None) -> list[str]:
    """Problems of a random crop (height, width) beside the crop of the data, which evaluation sees."""
    if random in (None, middle):
        return []
    ours, theirs = (f"{crop[0]}x{crop[1]}" if crop else "none" for crop in (random, middle))
    remedy = f"Set data.center_crop {ours}, which evaluation cuts out of the middle."
    return [problem("augment.random_crop", ours, f"that of data.center_crop, which is {theirs}", remedy)]


def _range_problem(config: Any, name: str, mark: Mark) -> list[str]:
    value = getattr(config, name)
    if value is None:
        return []
    if not isinstance(value, tuple) and value < 0:
        return check(f"augment.{name}", value, False, "a number of at least 0, or a range", "Leave out the sign.")
    low, high = range_of(config, name)
    is_open = name in ("zoom", "width_zoom")  # a factor of 0 shows one point
    holds = (mark.least < low if is_open else mark.least <= low) and low <= high <= mark.most
    rule = f"a range from low to high{_limits_text(name, mark)}"
    return check(f"augment.{name}", value, holds, rule, "Give two numbers, the lower one first.")


def _policy_problems(config: Any) -> list[str]:
    problems = check_whole("augment.policy_ops", config.policy_ops, 1, "Give 2 or so.", below=17)
    problems += check_whole("augment.policy_magnitude", config.policy_magnitude, 0, "Give 9 or so.", below=31)
    problems += check_whole("augment.policy_chains", config.policy_chains, 1, "Give 3 or so.", below=17)
    problems += check_whole("augment.policy_depth", config.policy_depth, 1, "Give 3 or so.", below=17)
    alpha = config.policy_alpha
    return problems + check("augment.policy_alpha", alpha, alpha > 0, "a number above 0", "Give 1 or so.")


def _pair_problems(config: Any) -> list[str]:
    """Problems of two numbers in order, and of lists of steps."""
    problems = []
    limits = {"policy_factor": (0, 1), "elastic_scale": (0, 1), "hsv_saturation": (-1, 1)}
    limits |= {"whole_brightness": (0, float("inf")), "cutmix_inside": (0, 1)}
    for name, (least, most) in limits.items():
        low, high = getattr(config, name) or (least, least)
        within = f" within {least} to {most}" if most != float("inf") else f" of at least {least}"
        holds = least <= low <= high <= most
        problems += check(f"augment.{name}", (low, high), holds, f"a range from low to high{within}", "Correct it.")
    for name in ("height_shift_steps", "width_shift_steps"):
        steps = getattr(config, name)
        holds = all(step >= 0 for step in steps)
        problems += check(f"augment.{name}", steps, holds, "numbers of at least 0", "Leave out the signs.")
        if steps and config.changes(name.removesuffix("_steps")):
            rule = f"none beside {name.removesuffix('_steps')}"
            problems.append(problem(f"augment.{name}", steps, rule, "Leave out one of them."))
    if config.cutmix and config.cutmix_inside is not None:
        rule = "none beside cutmix"
        problems.append(problem("augment.cutmix_inside", config.cutmix_inside, rule, "Leave out one of them."))
    scale = config.perspective_scale
    return problems + check("augment.perspective_scale", scale, 0 <= scale <= 1, "0 to 1", "Correct it.")


def _box_problems(config: Any) -> list[str]:
    """Problems of the boxes that are cut out or erased."""
    problems = []
    for name, may_be_empty in (("crop_area", False), ("erasing_area", config.erasing_ratio is None)):
        low, high = getattr(config, name) or (1, 1)
        holds = (low >= 0 if may_be_empty else low > 0) and low <= high <= 1
        rule = f"0 {'≤' if may_be_empty else '<'} low ≤ high ≤ 1"
        problems += check(f"augment.{name}", (low, high), holds, rule, "Correct it.")
    for name in ("crop_ratio", "erasing_ratio"):
        low, high = getattr(config, name) or (1, 1)
        problems += check(f"augment.{name}", (low, high), 0 < low <= high, "0 < low ≤ high", "Correct it.")
    value = config.erasing_value
    levels = () if value is None else value if isinstance(value, tuple) else (value,)
    holds = all(0 <= level <= 255 for level in levels)
    return problems + check("augment.erasing_value", value, holds, _LEVEL, "Correct it.")


def _limits_text(name: str, mark: Mark) -> str:
    if name in ("zoom", "width_zoom"):
        return " of factors above 0"
    if mark.kind == "factor":
        return " of factors of at least 0"
    return f" within {mark.least} to {mark.most}" if mark.most < float("inf") else ""
