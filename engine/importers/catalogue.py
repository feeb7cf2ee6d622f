"""What can be imported by name: one table of the published weights of each family, and what they ask of their inputs.

Sources: keras/src/applications (file names, MD5, preprocessing), timm's pretrained_cfg, torchvision's weights, the
licences in their documentation. File names of torch end in the first digits of their SHA-256.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from engine.config.contract import InputSpec
from engine.config.decoding import Interpolation, ResizeRule
from engine.models.specs import Sequential

NUM_CLASSES = 1000  # of ImageNet, which all these weights were trained on
UNCLEAR = (
    "The weights were trained on ImageNet, whose terms of access allow research and education alone; whether these "
    "bind weights is unclear, as timm's author says of his."
)


class Contract(NamedTuple):
    """How the source library makes inputs of pictures: `(scale × pixels − mean) / std`, resized by a rule.

    is_bgr: the weights expect blue first; the importer reverses the first kernel.
    """

    scale: float = 1 / 255
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: ResizeRule = "stretch"
    interpolation: Interpolation = "nearest"
    antialias: bool = False
    crop_share: float = 1.0
    is_bgr: bool = False

    def spec(self, height_width: tuple[int, int], channels: int = 3) -> InputSpec:
        """The input contract of a model for a size; of one channel with the means over the three."""
        mean, std = (self._of_channels(numbers, channels) for numbers in (self.mean, self.std))
        return InputSpec(
            (*height_width, channels), "uint8", self.resize, self.scale, mean, std,
            levels=None, interpolation=self.interpolation, antialias=self.antialias, crop_share=self.crop_share,
        )  # fmt: skip

    @staticmethod
    def _of_channels(numbers: tuple[float, ...] | None, channels: int) -> tuple[float, ...] | None:
        if numbers is None or len(numbers) in (1, channels):
            return numbers
        return (sum(numbers) / len(numbers),)

    @property
    def values_text(self) -> str:
        """What is made of pixels: `(x/255 − mean)/std`."""
        return VALUES[self[:3]]

    def text(self) -> str:
        """In a few words: `(x/255 − mean)/std, shorter 0.875 bicubic`."""
        share = f" {self.crop_share:g}" if self.crop_share != 1 else ""
        return f"{self.values_text}{', BGR' * self.is_bgr}; {self.resize}{share}, {self.interpolation}"


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE = Contract(1.0, (123.68, 116.779, 103.939), is_bgr=True)
FROM_MINUS_1 = Contract(1 / 127.5, (1.0,))
FROM_MINUS_1_BY_128 = Contract(1 / 128, (1.0,))
AS_TORCH = Contract(1 / 255, IMAGENET_MEAN, IMAGENET_STD)
BY_TORCH = AS_TORCH._replace(resize="shorter", interpolation="bilinear", antialias=True, crop_share=0.875)
BY_TIMM = BY_TORCH._replace(interpolation="bicubic")
VIT_INPUTS = Contract(1 / 255, (0.5,), (0.5,), "shorter", "bicubic", True, 0.9)
LITE = Contract(1.0, (127.0,), (128.0,), "shorter", "bicubic", True, 0.875)
VALUES = {
    CAFFE[:3]: "x − mean",
    FROM_MINUS_1[:3]: "x/127.5 − 1",
    FROM_MINUS_1_BY_128[:3]: "x/128 − 1",
    AS_TORCH[:3]: "(x/255 − mean)/std",
    VIT_INPUTS[:3]: "(x/255 − ½)/½",
    LITE[:3]: "(x − 127)/128",
}


class Published(NamedTuple):
    """A file of weights on the web. hash: `md5:…` or `sha256:…`, of which torch publishes the first eight digits."""

    url: str
    hash: str | None = None

    @property
    def name(self) -> str:
        """The file's name: the last part of the address, on huggingface.co with the repository's before it."""
        *parts, last = self.url.split("/")
        return last if "huggingface.co" not in parts else f"{parts[4]}-{last}"

    @property
    def algorithm(self) -> str:
        """Of the hash."""
        return self.hash.partition(":")[0] if self.hash else "sha256"


class Terms(NamedTuple):
    """The licence of the weights, and the paper to cite."""

    licence: str
    citation: str


@dataclass(frozen=True)
class Variant:
    """One set of weights that can be imported.

    make, arguments: the family's function and what it is called with. size: height and width of its inputs.
    library: whose names the arrays have. with_top, without_top: the files that were published; hub: on huggingface.co.
    is_ambiguous: a file of weights alone does not say how inputs were normalised.
    """

    name: str
    make: Callable[..., Sequential]
    arguments: Mapping[str, Any]
    size: int
    contract: Contract
    library: Literal["keras", "torch"]
    terms: Terms
    with_top: Published | None = None
    without_top: Published | None = None
    hub: str | None = None
    is_ambiguous: bool = False

    def spec(self, top: bool = True, num_classes: int | None = NUM_CLASSES) -> Sequential:
        """The model, with the published classifier or ending in feature maps."""
        return self.make(**self.arguments, top=top, **({"num_classes": num_classes} if top else {}))

    def count(self, top: bool = True) -> tuple[int, int]:
        """(trained parameters, batch statistics) of the model as published."""
        rows = self.spec(top).rows((self.size, self.size, 3))
        return sum(row.num_params for row in rows), sum(row.num_statistics for row in rows)

    def published(self, top: bool) -> Published | None:
        """The file with or without the classifier; without one, that with it, whose classifier is dropped."""
        return (None if top else self.without_top) or self.with_top


KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights/"
TORCH = "https://download.pytorch.org/models/"
HUB = "https://huggingface.co/{}/resolve/main/model.safetensors"


def _paper(licence: str, authors: str, title: str, number: str) -> Terms:
    return Terms(licence, f"{authors}: {title}. arXiv:{number}")


RESNET = _paper("MIT", "He et al. 2015", "Deep Residual Learning for Image Recognition", "1512.03385")
RESNET_V2 = _paper("BSD-3-Clause", "He et al. 2016", "Identity Mappings in Deep Residual Networks", "1603.05027")
VGG = _paper("CC BY 4.0 (name the authors)", "Simonyan, Zisserman 2014", "Very Deep Convolutional Networks for "
              "Large-Scale Image Recognition", "1409.1556")  # fmt: skip
MOBILENET = _paper("Apache-2.0", "Howard et al. 2017", "MobileNets", "1704.04861")
MOBILENET_V2 = _paper("Apache-2.0", "Sandler et al. 2018", "MobileNetV2", "1801.04381")
MOBILENET_V3 = _paper("Apache-2.0", "Howard et al. 2019", "Searching for MobileNetV3", "1905.02244")
EFFICIENT = _paper("Apache-2.0", "Tan, Le 2019", "EfficientNet", "1905.11946")
EFFICIENT_V2 = _paper("Apache-2.0", "Tan, Le 2021", "EfficientNetV2", "2104.00298")
DENSE = _paper("BSD-3-Clause", "Huang et al. 2016", "Densely Connected Convolutional Networks", "1608.06993")
INCEPTION = _paper("Apache-2.0", "Szegedy et al. 2015", "Rethinking the Inception Architecture for Computer Vision",
                    "1512.00567")  # fmt: skip
XCEPTION = _paper("MIT", "Chollet 2016", "Xception", "1610.02357")
CONVNEXT = _paper("Apache-2.0", "Liu et al. 2022", "A ConvNet for the 2020s", "2201.03545")
VIT = _paper("Apache-2.0", "Steiner et al. 2021", "How to train your ViT?", "2106.10270")
TORCH_RESNET = RESNET._replace(licence="BSD-3-Clause")


def of_keras(
    name: str,
    make: Callable[..., Sequential],
    arguments: Mapping[str, Any],
    contract: Contract,
    terms: Terms,
    file: str,
    digests: Sequence[str] = (),
    size: int = 224,
    *,
    no_top: str = "_notop",
    algorithm: str = "md5",
    is_ambiguous: bool = False,
) -> Variant:
    """A variant whose files Keras publishes.

    file: address, below KERAS or whole, with {} where the file without top says `no_top`. digests: of both, if known.
    """
    address = file if file.startswith("https:") else KERAS + file
    hashes = [f"{algorithm}:{digest}" for digest in digests] or [None, None]
    whole, trunk = (Published(address.format(tail), given) for tail, given in zip(("", no_top), hashes, strict=True))
    return Variant(name, make, arguments, size, contract, "keras", terms, whole, trunk, is_ambiguous=is_ambiguous)


def of_torch(
    name: str,
    make: Callable[..., Sequential],
    arguments: Mapping[str, Any],
    contract: Contract,
    terms: Terms,
    file: str | None,
    hub: str,
    size: int = 224,
) -> Variant:
    """A variant of timm or torchvision. file: its address, which ends in digits of its hash; None: that of the hub."""
    digits = file.removesuffix(".pth").rpartition("-")[2] if file else None
    published = Published(file, f"sha256:{digits}") if file else Published(HUB.format(hub))
    return Variant(name, make, arguments, size, contract, "torch", terms, published, None, hub)
