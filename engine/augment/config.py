"""AugmentConfig: which random changes training images undergo. Saved with the model; evaluation never sees them."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

from tyro.conf import Suppress

from engine.augment.rules import FILLED, MANNERS, WARP_MANNERS, AmountRange, Mark, find_marks, range_of, range_problems
from engine.errors import InputError, problem
from engine.records import check_all
from engine.records.custom import Custom

# The last four are other libraries' own: see docs/augment.md.
FillMode = Literal[
    "constant", "edge", "reflect", "wrap", "tensorflow_reflect", "tensorflow_wrap", "scipy_wrap", "scipy_constant"
]  # fmt: skip
Interpolation = Literal["bilinear", "nearest", "nearest_away"]
PolicyName = Literal[
    "rand_augment",
    "trivial_augment",
    "auto_augment_imagenet",
    "auto_augment_cifar10",
    "auto_augment_svhn",
    "keras_rand_augment",
    "aug_mix",
]
KERAS_POLICIES = ("keras_rand_augment", "aug_mix")  # whose fill is always the mirrored image
Amount = Annotated[AmountRange, Mark("amount")]
Factor = Annotated[AmountRange, Mark("factor", 0)]
Probability = Annotated[float, Mark("probability", 0, 1)]
ShiftUnit = Literal["fraction", "pixels", "keras"]


@dataclass(frozen=True)
class AugmentConfig:
    """Random changes of training images, each drawn again for every example in every epoch. The default is none.

    A range is two numbers, drawn from uniformly. One number x stands for −x to x or, where the range is one of
    factors, for 1−x to 1+x. Pixels are levels from 0 to 255 and stay there. The order is that of the fields: geometry,
    all of it in one warp; colour; policy; your own; erasing; and last what mixes examples.
    """

    horizontal_flip: bool = False
    """Mirror left and right every other time."""
    vertical_flip: bool = False
    """Mirror top and bottom every other time."""
    rotation: Annotated[AmountRange, Mark("amount", unit="°")] = 0.0
    """Degrees, counter-clockwise."""
    height_shift: Amount = 0.0
    """Downwards, as a fraction of the height or in whole pixels: see shift_unit."""
    width_shift: Amount = 0.0
    """To the right, as a fraction of the width or in whole pixels."""
    shift_unit: ShiftUnit = "fraction"
    """What shifts are counted in; keras: ranges below 1 are fractions, others pixels and parts of them."""
    height_shift_steps: tuple[float, ...] = ()
    """In place of height_shift: one of these, up or down, in fractions if all are below 1, else in pixels."""
    width_shift_steps: tuple[float, ...] = ()
    """In place of width_shift: one of these, to the left or right, counted in the same way."""
    shear: Annotated[AmountRange, Mark("amount", -89, 89, unit="°")] = 0.0
    """Degrees that the y axis is turned by, counter-clockwise, while the x axis stays."""
    shear_x: Annotated[AmountRange, Mark("amount", -1, 1)] = 0.0
    """Pixels that rows move to the side for each pixel further down, to either side, about the upper left pixel."""
    shear_y: Annotated[AmountRange, Mark("amount", -1, 1)] = 0.0
    """Pixels that columns move for each pixel further right, to the side that shear_x draws, too."""
    zoom: Factor = 0.0
    """Factor of what is in view: above 1 the image gets smaller, below 1 larger."""
    width_zoom: Annotated[AmountRange | None, Mark("factor", 0)] = None
    """The factor for the width, drawn apart; None: that of zoom, which keeps the proportions."""
    perspective: Probability = 0.0
    """Probability of moving the right and lower corners, each by its own draw."""
    perspective_scale: float = 1.0
    """Twice the share of its distance from the upper left that a corner moves by at most, 0 to 1."""
    crop_padding: int = 0
    """Random crop with padding: pixels added on each side, out of which the old size is cut."""
    crop_area: tuple[float, float] | None = None
    """Random resized crop: share of the area that is cut out and brought to full size, like 0.08 1."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width over height of what crop_area cuts out, in proportion to the image's own."""
    random_crop: tuple[int, int] | None = None
    """Height and width in pixels of what is cut out of a random place; data.center_crop says it for evaluation."""
    elastic: Probability = 0.0
    """Probability of moving every pixel by smoothed noise of its own."""
    elastic_scale: tuple[float, float] = (0.0, 1.0)
    """How strong and how smooth that noise is: 1 stands for a tenth of the longer side, smoothed over a twentieth of
    the shorter one."""
    generator_geometry: bool = False
    """As ImageDataGenerator: what is drawn for the height moves along the width and the reverse, about the centre of
    the transposed image; flips come last."""
    fill: FillMode = "reflect"
    """What lies beyond the border: fill_value (constant), the edge, the mirrored (reflect) or repeated (wrap) image;
    or what TensorFlow and SciPy do under these names."""
    fill_value: float = 0.0
    """The level that constant fills with."""
    interpolation: Interpolation = "bilinear"
    """How the warp reads between pixels; nearest_away: as nearest, but halves are rounded away from the first pixel."""

    brightness: Factor = 0.0
    """Factor of all levels."""
    brightness_shift: Annotated[AmountRange, Mark("amount", -1, 1)] = 0.0
    """Added to all levels, as a fraction of 255."""
    contrast: Factor = 0.0
    """Factor of the distance from the mean grey."""
    channel_contrast: Factor = 0.0
    """Factor of the distance of each channel from its own mean."""
    saturation: Factor = 0.0
    """Factor of the distance from the grey image."""
    hsv_saturation: tuple[float, float] | None = None
    """Range of a draw u; the saturation of HSV is multiplied by u / (1 − u). 0.5 changes nothing, below 0 is grey."""
    hue: Annotated[AmountRange, Mark("amount", -0.5, 0.5)] = 0.0
    """Turns of the colour circle, -0.5 to 0.5."""
    hue_either_way: bool = False
    """Whether the turn that hue draws changes its sign every other time."""
    level_shift: Annotated[AmountRange, Mark("amount", -255, 255, unit=" levels")] = 0.0
    """Levels added to all channels, kept between the lowest and the highest level of the image."""
    whole_brightness: tuple[float, float] | None = None
    """Factor of all levels, cut to whole levels before and after it, as Pillow does."""
    channel_shift: Annotated[AmountRange, Mark("amount", -255, 255, unit=" levels")] = 0.0
    """Levels added to a channel, drawn for each."""
    grayscale: Probability = 0.0
    """Probability of losing all colour."""
    invert: Probability = 0.0
    """Probability of taking all levels from 255."""
    posterize: Probability = 0.0
    """Probability of keeping the upper posterize_bits bits only."""
    posterize_bits: int = 4
    """Bits of each level that posterize keeps."""
    solarize: Probability = 0.0
    """Probability of inverting levels from solarize_threshold on."""
    solarize_threshold: float = 128.0
    """The level from which solarize inverts."""
    autocontrast: Probability = 0.0
    """Probability of stretching each channel to the full range."""
    equalize: Probability = 0.0
    """Probability of making all levels of each channel equally frequent."""
    sharpness: Factor = 0.0
    """Factor of the distance from the smoothed image: below 1 blurs, above 1 sharpens."""
    blur: tuple[float, float] = (0.0, 0.0)
    """Standard deviation of a Gaussian blur in pixels, from and to."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise in levels."""

    policy: PolicyName | None = None
    """rand_augment: policy_ops operations of policy_magnitude; trivial_augment: one of a random strength;
    auto_augment_…: two operations, found for that data; keras_rand_augment, aug_mix: Keras's layers of these names."""
    policy_ops: int = 2
    """Operations that rand_augment applies."""
    policy_magnitude: int = 9
    """Strength of rand_augment's operations, 0 to 30."""
    policy_factor: tuple[float, float] = (0.0, 0.3)
    """Range of the strengths of the operations of keras_rand_augment and aug_mix, within 0 to 1."""
    policy_chains: int = 3
    """Chains of operations that aug_mix mixes."""
    policy_depth: int = 3
    """Operations in each chain of aug_mix, of which some do nothing."""
    policy_alpha: float = 1.0
    """Concentration of the shares that aug_mix mixes with; 1 makes all equally likely."""
    policy_all_ops: bool = True
    """Whether aug_mix changes brightness, contrast, colour and sharpness, too."""

    custom: Annotated[tuple[Custom, ...], Suppress] = ()
    """Functions of your own, custom(function, …), called in turn as function(key, image, …) with one image, float32[h w
    c], levels 0 to 255; each returns such an image. They run within the compiled step, so they are pure JAX."""

    erasing: Probability = 0.0
    """Probability of covering a box with erasing_value (cutout)."""
    erasing_area: tuple[float, float] = (0.02, 0.33)
    """Share of the area that erasing covers."""
    erasing_ratio: tuple[float, float] | None = (0.3, 3.3)
    """Height over width of the box that erasing covers; None: both sides are drawn apart, each as the square root of a
    draw from erasing_area."""
    erasing_value: float | tuple[float, float, float] | None = 0.0
    """The level that erasing writes, or one for each channel; None: noise, black at half of the values."""

    mixup: float = 0.0
    """Blend each example with another; λ is drawn from Beta(mixup, mixup). 0.2 is usual, 0 is none."""
    cutmix: float = 0.0
    """Paste a box of another example into each; its share of the area is drawn from Beta(cutmix, cutmix)."""
    cutmix_inside: tuple[float, float] | None = None
    """As cutmix, but α is drawn from this range, and the box lies inside the image, so that it keeps its area."""

    def __post_init__(self):
        check_all(self, "augment", lambda: range_problems(self))

    def __or__(self, other: "AugmentConfig") -> "AugmentConfig":
        """Both: what either sets; raises InputError where they set the same field to different values, or both read
        the image between its pixels or beyond its border, but differently, which one warp cannot."""
        if not isinstance(self, type(other)):
            return other | self  # the preset that says more
        changed, problems = {}, []
        shared = self._manners_read() & other._manners_read()
        for field in fields(AugmentConfig):
            ours, theirs = getattr(self, field.name), getattr(other, field.name)
            is_shared = field.name in shared
            if ours != theirs and (theirs != field.default or is_shared):
                changed[field.name] = theirs
                if ours != field.default or is_shared:
                    rule = f"{ours} as before it" + (", because all geometry is one warp" if is_shared else "")
                    problems.append(problem(f"augment.{field.name}", theirs, rule, "Give one of them."))
        if problems:
            raise InputError(*problems)
        return replace(self, **changed)

    def range(self, name: str) -> tuple[float, float]:
        """The (lowest, highest) draw that a range field stands for."""
        return range_of(self, name)

    @property
    def is_active(self) -> bool:
        """Whether anything is changed at all."""
        return any(self.changes(field.name) for field in fields(AugmentConfig))

    @property
    def pairs_examples(self) -> bool:
        """Whether examples are mixed with others of their batch."""
        return self.mixup > 0 or self.cutmix > 0 or self.cutmix_inside is not None

    def without_mixing(self) -> "AugmentConfig":
        """The same for one example by itself."""
        return replace(self, mixup=0.0, cutmix=0.0, cutmix_inside=None)

    def changes(self, name: str) -> bool:
        """Whether a field asks for a change: its range is not just the identity, its probability not 0."""
        value = getattr(self, name)
        if name in MANNERS or value is None:
            return False
        if (mark := find_marks(type(self)).get(name)) and mark.is_range:
            return self.range(name) != (mark.neutral, mark.neutral)
        if name.endswith("_steps"):
            return any(value)
        return value != (0, 0) if name == "blur" else bool(value)

    def _manners_read(self) -> set[str]:
        """The fields that say how the image is read, so far as anything that is on depends on them."""
        if any(map(self.changes, FILLED)):
            return {*WARP_MANNERS}
        if self.policy is None:
            return set()
        return {"interpolation"} if self.policy in KERAS_POLICIES else {"fill", "fill_value", "interpolation"}
