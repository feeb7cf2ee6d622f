"""Stores logits of small networks of timm, for the suite: `python -m tests.pretrained.make_torch_logits`.

Their arrays are a function of names and shapes, which are stored beside the logits. Needs torch and timm.
"""

import json
from pathlib import Path

import numpy as np

from benchmarks.torch_twins import draw_images, make_torch, run_torch
from tests.pretrained.torch_cases import CASES, NUM_CLASSES

STORED = Path(__file__).with_name("torch_logits.npz")

if __name__ == "__main__":
    stored = {}
    for name, case in CASES.items():
        model, _ = make_torch(case.theirs, num_classes=NUM_CLASSES, **case.settings)
        shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        stored[f"{name}/shapes"] = np.frombuffer(json.dumps(shapes).encode(), np.uint8)
        stored |= {f"{name}/{size}": run_torch(model, draw_images(size)) for size in case.sizes}
    np.savez_compressed(STORED, **stored)
