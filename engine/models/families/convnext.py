"""ConvNeXt, after Liu et al., https://arxiv.org/abs/2201.03545. Names and numbers are those of Keras."""

from typing import Literal

from engine.errors import InputError, unknown
from engine.models.activations import Activation
from engine.models.blocks import residual
from engine.models.convolutions import Conv, Dense, DepthwiseConv
from engine.models.layer import Layer
from engine.models.layers import DropPath
from engine.models.norms import LayerNorm, LayerScale
from engine.models.pools import GlobalAveragePool
from engine.models.specs import Sequential

BLOCKS = {"tiny": (3, 3, 9, 3), "small": (3, 3, 27, 3)}
FILTERS = (96, 192, 384, 768)


def convnext(
    size: Literal["tiny", "small"] = "tiny",
    *,
    drop_path: float = 0.0,
    top: bool = True,
    num_classes: int | None = None,
) -> Sequential:
    """ConvNeXt, tiny or small.

    drop_path: the share of examples that leave the last block out in training; the first leaves none out, those between
    shares in between. top: with global average pooling, a layer norm and a dense layer of `num_classes` outputs (None:
    as many as the data needs); else it ends with feature maps, float32[b h/32 w/32 768], and a layer norm of these.
    """
    if size not in BLOCKS:
        raise InputError(unknown("convnext size", size, BLOCKS))
    family, total, done = f"convnext_{size}", sum(BLOCKS[size]), 0
    layers: list[Layer] = []
    for stage, (filters, count) in enumerate(zip(FILTERS, BLOCKS[size], strict=True)):
        layers += _before_stage(family, stage, filters)
        for number in range(count):
            rate = drop_path * done / (total - 1)
            layers.append(_block(f"{family}_stage_{stage}_block_{number}", filters, rate))
            done += 1
    if top:
        norm = LayerNorm(1e-6, name=f"{family}_head_layernorm")
        layers += [GlobalAveragePool(name=f"{family}_head_gap"), norm, Dense(num_classes, name=f"{family}_head_dense")]
    else:
        layers.append(LayerNorm(1e-6, name="layer_normalization"))
    return Sequential(tuple(layers))


def _before_stage(family: str, stage: int, filters: int) -> tuple[Layer, ...]:
    """Patches of the image, or maps half as large."""
    if stage == 0:
        return Conv(filters, 4, 4, name=f"{family}_stem_conv"), LayerNorm(1e-6, name=f"{family}_stem_layernorm")
    norm = LayerNorm(1e-6, name=f"{family}_downsampling_layernorm_{stage - 1}")
    return norm, Conv(filters, 2, 2, name=f"{family}_downsampling_conv_{stage - 1}")


def _block(name: str, filters: int, rate: float) -> Layer:
    layers = (
        DepthwiseConv(7, padding="same", name=f"{name}_depthwise_conv"),
        LayerNorm(1e-6, name=f"{name}_layernorm"),
        Conv(4 * filters, 1, name=f"{name}_pointwise_conv_1"),
        Activation("gelu", name=f"{name}_gelu"),
        Conv(filters, 1, name=f"{name}_pointwise_conv_2"),
        LayerScale(1e-6, name=f"{name}_layer_scale"),
        *((DropPath(rate, name=f"{name}_stochastic_depth"),) if rate else ()),
    )
    return residual(layers, activation=None, name=name)
