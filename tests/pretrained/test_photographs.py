"""Real weights, on real photographs: EfficientNet-Lite0 as torch computes it."""

import numpy as np
import pytest

from benchmarks.torch_twins import Twin, make_torch_twin
from engine.models.families import efficientnet_lite
from engine.pretrained.read import read_weights
from tests.pretrained.photographs import PHOTOGRAPHS, STORED, check_inputs, find_weights, make_inputs


@pytest.fixture(scope="module")
def lite0() -> Twin:
    """Our network with the weights of the package."""
    twin = make_torch_twin(efficientnet_lite(num_classes=1000), 224, read_weights(find_weights()).arrays)
    assert not twin.left_over
    return twin


def test_logits_of_photographs_are_those_of_torch(lite0: Twin):
    inputs = {name: make_inputs(name) for name in PHOTOGRAPHS}
    logits = lite0.run(np.stack(list(inputs.values())))
    with np.load(STORED) as stored:
        same = [check_inputs(image) == stored[f"{name}/check"] for name, image in inputs.items()]
        expected = np.stack([stored[name] for name in inputs])
    assert np.abs(logits - expected)[same].max() < 1e-5 * np.abs(expected).max()
    assert sum(same) >= 3, "pictures of PNG decode the same everywhere"
    for values, (label, share) in zip(logits, PHOTOGRAPHS.values(), strict=True):
        assert values.argmax() == label
        assert np.exp(values - np.logaddexp.reduce(values))[label] == pytest.approx(share, abs=0.002)
