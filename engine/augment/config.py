"""AugmentConfig: which random changes training images undergo. Saved with the model; evaluation never sees them."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from engine.checks import check, check_all, check_whole
from engine.errors import InputError, problem

FillMode = Literal["constant", "edge", "reflect", "wrap"]
Interpolation = Literal["bilinear", "nearest"]
PolicyName = Literal["rand_augment", "trivial_augment"]
ShiftUnit = Literal["fraction", "pixels"]
Range = float | tuple[float, float]

AMOUNTS = ("rotation", "height_shift", "width_shift", "shear", "hue", "channel_shift")
FACTORS = ("zoom", "width_zoom", "brightness", "contrast", "saturation", "sharpness")
PROBABILITIES = ("grayscale", "posterize", "solarize", "autocontrast", "equalize", "erasing")
# Fields that only say how another one works: alone they change nothing.
MANNERS = (
    "shift_unit", "crop_ratio", "fill", "fill_value", "interpolation", "posterize_bits", "solarize_threshold",
    "policy_ops", "policy_magnitude", "erasing_area", "erasing_ratio", "erasing_value",
)  # fmt: skip


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training images, each drawn anew for every example in every epoch. The default is none.

    A range is two numbers, drawn from uniformly. One number x stands for −x to x or, where the range is one of
    factors, for 1−x to 1+x. Pixels are levels from 0 to 255 and stay there. The order is
    that of the fields: geometry, all of it in one warp; colour; policy; erasing; and last what mixes examples.
    """

    horizontal_flip: bool = False
    """Mirror left and right every other time."""
    vertical_flip: bool = False
    """Mirror top and bottom every other time."""
    rotation: Range = 0.0
    """Degrees, counter-clockwise."""
    height_shift: Range = 0.0
    """Downwards, as a fraction of the height or in whole pixels: see shift_unit."""
    width_shift: Range = 0.0
    """To the right, as a fraction of the width or in whole pixels."""
    shift_unit: ShiftUnit = "fraction"
    """What shifts are counted in."""
    shear: Range = 0.0
    """Degrees that the y axis is turned by, counter-clockwise, while the x axis stays."""
    zoom: Range = 0.0
    """Factor of what is in view: above 1 the image gets smaller, below 1 larger."""
    width_zoom: Range | None = None
    """The factor for the width, drawn apart; None: that of zoom, which keeps the proportions."""
    crop_padding: int = 0
    """Random crop with padding: pixels added on each side, out of which the old size is cut."""
    crop_area: tuple[float, float] | None = None
    """Random resized crop: share of the area that is cut out and brought to full size, like 0.08 1."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of what crop_area cuts out, in proportion to the image's own."""
    fill: FillMode = "reflect"
    """What lies beyond the border: fill_value (constant), the edge, the mirrored (reflect) or repeated (wrap) image."""
    fill_value: float = 0.0
    """The level that constant fills with."""
    interpolation: Interpolation = "bilinear"
    """How the warp reads between pixels."""

    brightness: Range = 0.0
    """Factor of all levels."""
    contrast: Range = 0.0
    """Factor of the distance from the mean grey."""
    saturation: Range = 0.0
    """Factor of the distance from the grey image."""
    hue: Range = 0.0
    """Turns of the colour circle, -0.5 to 0.5."""
    channel_shift: Range = 0.0
    """Levels added to a channel, drawn for each."""
    grayscale: float = 0.0
    """Probability of losing all colour."""
    posterize: float = 0.0
    """Probability of keeping the upper posterize_bits bits only."""
    posterize_bits: int = 4
    """Bits of each level that posterize keeps."""
    solarize: float = 0.0
    """Probability of inverting levels from solarize_threshold on."""
    solarize_threshold: float = 128.0
    """The level from which solarize inverts."""
    autocontrast: float = 0.0
    """Probability of stretching each channel to the full range."""
    equalize: float = 0.0
    """Probability of making all levels of each channel equally frequent."""
    sharpness: Range = 0.0
    """Factor of the distance from the smoothed image: below 1 blurs, above 1 sharpens."""
    blur: tuple[float, float] = (0.0, 0.0)
    """Standard deviation of a Gaussian blur in pixels, from and to."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise in levels."""

    policy: PolicyName | None = None
    """rand_augment: policy_ops operations of policy_magnitude; trivial_augment: one of a random strength."""
    policy_ops: int = 2
    """Operations that rand_augment applies."""
    policy_magnitude: int = 9
    """Strength of rand_augment's operations, 0 to 30."""

    erasing: float = 0.0
    """Probability of covering a box with erasing_value (cutout)."""
    erasing_area: tuple[float, float] = (0.02, 0.33)
    """Share of the area that erasing covers."""
    erasing_ratio: tuple[float, float] = (0.3, 3.3)
    """Height over width of the box that erasing covers."""
    erasing_value: float = 0.0
    """The level that erasing writes."""

    mixup: float = 0.0
    """Blend each example with another; λ is drawn from Beta(mixup, mixup). 0.2 is usual, 0 is none."""
    cutmix: float = 0.0
    """Paste a box of another example into each; its share of the area is drawn from Beta(cutmix, cutmix)."""

    def __post_init__(self):
        check_all(self, "augment", self._range_problems)

    def __or__(self, other: "AugmentConfig") -> "AugmentConfig":
        """Both: what either sets; raises InputError where they set the same field to different values."""
        changed, problems = {}, []
        for field in fields(self):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            if theirs not in (field.default, ours):
                changed[field.name] = theirs
                if ours != field.default:
                    rule = f"{ours} as before it"
                    problems.append(problem(f"augment.{field.name}", theirs, rule, "Give one of them."))
        if problems:
            raise InputError("\n".join(problems))
        return replace(self, **changed)

    def range(self, name: str) -> tuple[float, float]:
        """The (lowest, highest) draw that a range field stands for."""
        value = getattr(self, name)
        if isinstance(value, tuple):
            return value
        return (1 - value, 1 + value) if name in FACTORS else (-value, value)

    @property
    def is_active(self) -> bool:
        """Whether anything is changed at all."""
        return any(self.changes(field.name) for field in fields(self))

    @property
    def pairs_examples(self) -> bool:
        """Whether examples are mixed with others of their batch."""
        return self.mixup > 0 or self.cutmix > 0

    def changes(self, name: str) -> bool:
        """Whether a field asks for a change: its range is not just the identity, its probability not 0."""
        value = getattr(self, name)
        if name in MANNERS or value is None:
            return False
        if name in AMOUNTS:
            return self.range(name) != (0, 0)
        if name in FACTORS:
            return self.range(name) != (1, 1)
        return value != (0, 0) if isinstance(value, tuple) else bool(value)

    def _range_problems(self) -> list[str]:
        if any(isinstance(value, tuple) and len(value) != 2 for value in vars(self).values()):
            return []  # their types are told
        problems = []
        for name in (*AMOUNTS, *FACTORS):
            problems += self._range_problem(name)
        for name in PROBABILITIES:
            value = getattr(self, name)
            problems += check(f"augment.{name}", value, 0 <= value <= 1, "a probability, 0 to 1", "Give 0.5 or so.")
        for name in ("mixup", "cutmix", "noise"):
            value = getattr(self, name)
            problems += check(f"augment.{name}", value, value >= 0, "0 or more", "Give 0 for none.")
        for name in ("fill_value", "solarize_threshold", "erasing_value"):
            value = getattr(self, name)
            problems += check(f"augment.{name}", value, 0 <= value <= 255, "a level, 0 to 255", "Correct it.")
        problems += check_whole("augment.crop_padding", self.crop_padding, 0, "Give pixels, or 0 for none.")
        problems += check_whole("augment.posterize_bits", self.posterize_bits, 1, "Give 1 to 8.", below=9)
        problems += check_whole("augment.policy_ops", self.policy_ops, 1, "Give 2 or so.", below=17)
        problems += check_whole("augment.policy_magnitude", self.policy_magnitude, 0, "Give 9 or so.", below=31)
        for name in ("crop_area", "erasing_area"):
            low, high = getattr(self, name) or (1, 1)
            problems += check(f"augment.{name}", (low, high), 0 < low <= high <= 1, "0 < low ≤ high ≤ 1", "Correct it.")
        for name in ("crop_ratio", "erasing_ratio"):
            low, high = getattr(self, name)
            problems += check(f"augment.{name}", (low, high), 0 < low <= high, "0 < low ≤ high", "Correct it.")
        low, high = self.blur
        return problems + check("augment.blur", self.blur, 0 <= low <= high <= 20, "0 ≤ low ≤ high ≤ 20", "Correct it.")

    def _range_problem(self, name: str) -> list[str]:
        value = getattr(self, name)
        if value is None:
            return []
        if not isinstance(value, tuple) and value < 0:
            return check(f"augment.{name}", value, False, "a number of at least 0, or a range", "Leave out the sign.")
        low, high = self.range(name)
        least, most = _LIMITS.get(name, (float("-inf"), float("inf")))
        is_open = name in ("zoom", "width_zoom")  # a factor of 0 shows one point
        holds = (least < low if is_open else least <= low) and low <= high <= most
        rule = f"a range from low to high{_limits_text(name)}"
        return check(f"augment.{name}", value, holds, rule, "Give two numbers, the lower one first.")


_LIMITS = {
    "hue": (-0.5, 0.5),
    "shear": (-89, 89),
    "channel_shift": (-255, 255),
    **{name: (0, float("inf")) for name in FACTORS},
}


def _limits_text(name: str) -> str:
    if name in ("zoom", "width_zoom"):
        return " of factors above 0"
    if name in FACTORS:
        return " of factors of at least 0"
    return " within {} to {}".format(*_LIMITS[name]) if name in _LIMITS else ""
