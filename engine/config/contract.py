"""InputSpec: the input contract of a model, which pictures and arrays are made to fit."""

from dataclasses import dataclass, field

from PIL import Image

from engine.config.decoding import USUAL_COLORS, ColorMode, Decoding, Interpolation, Levels, ResizeRule, ValueRange
from engine.errors import InputError, problem, shape_text
from engine.records import ADDED


@dataclass(frozen=True)
class InputSpec:
    """The input contract of a model: what it is shown is `(scale × pixels − mean) / std`.

    shape: of one example, (h, w, c) for pictures.
    center_crop: the height and width that are cut out of the middle before the model is shown it.
    per_example, whiten: what is shown is then also standardized for each example, or whitened by what was fitted.
    center_example: as per_example, without the division by the deviation.
    dtype: "uint8" for pictures with values 0 to 255, "float32" for other inputs.
    resize: how pictures of another size get this one; None refuses them.
    background: what transparent pictures are laid over.
    color: the colour mode of its channels; None: the usual one of so many, none of five and more.
    interpolation, antialias, levels: how pictures are resized, and read where they have more than 8 bits, see
      `Decoding`; levels as of runs saved before there was this field where it is missing.
    max_pixels: the most that a picture may hold; no part of what the model is.
    crop_share: with the rule shorter, what is kept of the resized picture along its shorter side, like 0.875.
    value_range: the least and the largest value of float32 pictures that the model was trained on; of uint8, what was
      black and white in the training arrays, if these were other numbers. None where not known.
    """

    shape: tuple[int, ...]
    dtype: str = "uint8"
    resize: ResizeRule | None = None
    scale: float = 1 / 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    background: tuple[int, int, int] = (0, 0, 0)
    per_example: bool = False
    whiten: bool = False
    center_example: bool = False
    center_crop: tuple[int, int] | None = None
    value_range: ValueRange | None = field(default=None, compare=False)
    color: ColorMode | None = None
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    levels: Levels = "type"
    max_pixels: int | None = field(default=None, compare=False)
    crop_share: float = field(default=1.0, kw_only=True, metadata=ADDED)

    def __post_init__(self):
        if self.color is None and len(self.shape) == 3:
            object.__setattr__(self, "color", USUAL_COLORS.get(self.shape[-1]))
        for name in ("mean", "std"):
            numbers = getattr(self, name)
            if numbers is not None and len(numbers) not in (1, self.shape[-1]):
                rule = f"1 number or {self.shape[-1]}, one a channel"
                raise InputError(problem(f"data.{name}", f"{len(numbers)} numbers", rule, "Correct it."))

        if self.center_crop is not None and not self._holds_crop(*self.center_crop):
            rule = f"at most the images' own size ({shape_text(self.shape)})"
            remedy = "Give a smaller one, or a larger --data.image-size."
            raise InputError(problem("data.center_crop", shape_text(self.center_crop), rule, remedy))

    def _holds_crop(self, height: int, width: int) -> bool:
        return len(self.shape) == 3 and height <= self.shape[0] and width <= self.shape[1]

    @property
    def usual_range(self) -> ValueRange | None:
        """What is black and what white in arrays that become levels, unless it is stated."""
        return self.value_range if self.dtype == "uint8" else None

    @property
    def network_shape(self) -> tuple[int, ...]:
        """The shape of what the network is shown: that of one example, or of what is cut out of it."""
        return self.shape if self.center_crop is None else (*self.center_crop, self.shape[-1])

    @property
    def decoding(self) -> Decoding:
        """How stored pictures are decoded, of as many pixels as this process allows or the training data did."""
        limits = (self.max_pixels, Image.MAX_IMAGE_PIXELS)
        most = None if limits[0] is None or limits[1] is None else max(limits[0], limits[1])
        return Decoding(self.interpolation, self.antialias, self.levels, most, self.crop_share)
