"""Vision transformers as timm has them (arXiv:2010.11929), with a class token and normalisation before each part.

Layers have the names of timm's modules: `patch_embed.proj`, `blocks.0.attn`, `blocks.0.mlp.fc1`, `norm`, `head`.
"""

from engine.models.blocks import Paths, residual
from engine.models.convolutions import Conv, Dense
from engine.models.layer import Layer
from engine.models.norms import LayerNorm
from engine.models.specs import Sequential
from engine.models.tokens import Attention, ClassToken, FirstToken, PositionEmbedding, Tokens

EPSILON = 1e-6


def vit(
    width: int = 384,
    depth: int = 12,
    heads: int = 6,
    *,
    patch: int = 16,
    top: bool = True,
    num_classes: int | None = None,
) -> Sequential:
    """A transformer of patches: by default ViT-S/16; ViT-B/16 is of width 768 with 12 heads.

    top: ends with one output a class (`num_classes`; None: as many as the data has), else with the class token of
    `width` values. Its position embeddings belong to one input size.
    """
    layers: list[Layer] = [
        Conv(width, patch, patch, name="patch_embed.proj"),
        Tokens(),
        ClassToken(name="cls_token"),
        PositionEmbedding(name="pos_embed"),
    ]
    for number in range(depth):
        layers.append(_block(f"blocks.{number}", width, heads))
    layers += [LayerNorm(EPSILON, name="norm"), FirstToken()]
    return Sequential((*layers, *((Dense(num_classes, name="head"),) if top else ())))


def _block(name: str, width: int, heads: int) -> Layer:
    attention = (LayerNorm(EPSILON, name=f"{name}.norm1"), Attention(heads, name=f"{name}.attn"))
    mixing = (
        LayerNorm(EPSILON, name=f"{name}.norm2"),
        Dense(4 * width, "gelu", name=f"{name}.mlp.fc1"),
        Dense(width, name=f"{name}.mlp.fc2"),
    )
    return Paths(((residual(attention, activation=None), residual(mixing, activation=None)),), name=name)
