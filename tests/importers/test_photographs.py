"""Real weights, on real photographs: EfficientNet-Lite0 as torch computes it."""

import numpy as np
import pytest

import engine
from benchmarks.torch_twins import Twin, make_torch_twin
from engine.importers.read import read_weights
from engine.models.families import efficientnet_lite
from tests.importers.photographs import PHOTOGRAPHS, STORED, check_inputs, find_photograph, find_weights, make_inputs

TRANSFORMED = (0.9511, 0.9366, 0.3152, 0.2722, 0.3946)
"""Probabilities of these classes, with inputs by timm's transform (1.0.31, on Pillow)."""


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


def test_pictures_are_made_inputs_as_timm_does():
    classifier = engine.pretrained("efficientnet_lite0", find_weights(), say=lambda line: None)
    probabilities = np.asarray(classifier.predict_proba([find_photograph(name) for name in PHOTOGRAPHS]))
    for shares, (label, _), share in zip(probabilities, PHOTOGRAPHS.values(), TRANSFORMED, strict=True):
        assert shares.argmax() == label
        assert shares[label] == pytest.approx(share, abs=0.003)
    assert classifier.class_names[967] == "n07920052 espresso"
