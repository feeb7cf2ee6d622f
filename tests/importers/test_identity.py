"""Weights of another model with the same names and shapes are refused where anything says so."""

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from engine.errors import InputError
from engine.importers.catalogue import TIMM, VIT, VIT_INPUTS, of_torch
from engine.importers.identity import check_identity
from engine.importers.importing import Wanted
from engine.importers.load import make_classifier
from engine.importers.variants import VARIANTS
from engine.importers.weights_file import WeightsFile
from engine.models.families import vit


def file_of(architecture: object) -> WeightsFile:
    return WeightsFile(Path("model.safetensors"), "safetensors", {}, {"config": {"architecture": architecture}})


@pytest.mark.parametrize(
    ("name", "architecture", "message"),
    [
        ("efficientnet_lite0", "efficientnet_lite0", "expected tf_efficientnet_lite0.* as efficientnet_lite0_timm"),
        ("resnet50_torch", "resnetblur50", "expected resnet50, as resnet50_torch is.*engine families"),
        ("vit_s16", "vit_small_patch16_384", "got the architecture 'vit_small_patch16_384'"),
    ],
)
def test_another_architecture_is_refused(name: str, architecture: str, message: str):
    with pytest.raises(InputError, match=message):
        check_identity(VARIANTS[name], file_of(architecture), "sha256:00")


@pytest.mark.parametrize(
    ("name", "architecture"),
    [("resnet50_torch", "resnet50"), ("vit_s16", "deit_small_patch16_224"), ("resnet18", None), ("resnet18", 7)],
)
def test_its_own_architecture_or_none_is_taken(name: str, architecture: object):
    check_identity(VARIANTS[name], file_of(architecture), "sha256:00")


def test_the_published_file_of_another_model_is_refused():
    with pytest.raises(InputError, match=r"got the published file of efficientnet_lite0_timm; .*Import it as eff"):
        check_identity(VARIANTS["efficientnet_lite0"], file_of(None), "sha256:37913777" + 56 * "0")
    check_identity(VARIANTS["efficientnet_lite0_timm"], file_of(None), "sha256:37913777" + 56 * "0")


ARGUMENTS = {"width": 8, "depth": 1, "heads": 2}
SMALL = of_torch("small_vit", vit, ARGUMENTS, VIT_INPUTS, VIT, f"{TIMM}small-00000000.pth", "timm/small", 48)


def write_small_vit(path: Path) -> Path:
    """Its arrays as safetensors, by timm's names."""
    shapes = {"cls_token": (1, 1, 8), "pos_embed": (1, 10, 8), "patch_embed.proj.weight": (8, 3, 16, 16)}
    shapes |= {"blocks.0.attn.qkv.weight": (24, 8), "blocks.0.attn.qkv.bias": (24,)}
    shapes |= {"blocks.0.attn.proj.weight": (8, 8), "blocks.0.mlp.fc1.weight": (32, 8), "blocks.0.mlp.fc1.bias": (32,)}
    shapes |= {"blocks.0.mlp.fc2.weight": (8, 32), "head.weight": (1000, 8), "head.bias": (1000,)}
    vectors = ("patch_embed.proj.bias", "blocks.0.attn.proj.bias", "blocks.0.mlp.fc2.bias")
    norms = (f"{norm}.{part}" for norm in ("blocks.0.norm1", "blocks.0.norm2", "norm") for part in ("weight", "bias"))
    shapes |= dict.fromkeys((*vectors, *norms), (8,))
    arrays = {name: np.full(shape, 0.1, np.float32) for name, shape in shapes.items()}
    arrays["pos_embed"][0, 1:] = np.arange(9, dtype=np.float32)[:, None]
    header, at = {}, 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": (at, at + array.nbytes)}
        at += array.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(a.tobytes() for a in arrays.values()))
    return path


def test_positions_of_a_vit_are_resized_for_another_size_and_this_is_said(tmp_path: Path):
    path, said = write_small_vit(tmp_path / "model.safetensors"), []
    classifier = make_classifier(SMALL, Wanted(height_width=(64, 64)), str(path), said.append)
    assert said == ["the embeddings of positions were resized for images of 64×64, bicubic"]
    assert classifier.outputs(np.zeros((2, 64, 64, 3), np.uint8)).shape == (2, 1000)
    with pytest.raises(InputError, match=r"image-size: got 64×48; expected a square.*like 48"):
        make_classifier(SMALL, Wanted(height_width=(64, 48)), str(path), said.append)
    with pytest.raises(InputError, match=r"image-size: got 70×70; expected a multiple of 16.*Give 64 or 80"):
        make_classifier(SMALL, Wanted(height_width=(70, 70)), str(path), said.append)
