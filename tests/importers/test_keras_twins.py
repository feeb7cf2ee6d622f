"""Small models of Keras, whose variables were all drawn, give the same outputs here."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from benchmarks.keras_twins import assign, difference, draw_variables, make_keras, make_twin, run_keras
from benchmarks.parity import MODELS, PAGE, RESULTS, describe
from engine.importers.keras_names import plain_names
from engine.importers.variants import VARIANTS
from engine.models import Sequential, families
from tests.further import further

# Odd, where paddings differ most.
SIZE = 65
MOST_DIFFERENCE = 1e-5
MEASURED = json.loads(RESULTS.read_text(encoding="utf-8"))


def of_resnet(keras: Any, version: int) -> Callable[..., Any]:
    """Keras's ResNet of few blocks."""
    resnet = pytest.importorskip("keras.src.applications.resnet")
    stack = getattr(resnet, f"stack_residual_blocks_v{version}")

    def stacks(x: Any) -> Any:
        for stage, (filters, count) in enumerate(zip((64, 128, 256, 512), (2, 2, 2, 2), strict=True), 2):
            x = stack(x, filters, count, stride1=1 if stage == (2 if version == 1 else 5) else 2, name=f"conv{stage}")
        return x

    return partial(resnet.ResNet, stacks, preact=version == 2, use_bias=True)


def of_densenet(keras: Any) -> Callable[..., Any]:
    """Keras's DenseNet of few blocks."""
    return partial(pytest.importorskip("keras.src.applications.densenet").DenseNet, [2, 1, 1, 1])


TWINS: dict[str, tuple[Callable[[Any], Callable[..., Any]], Sequential]] = {
    "resnet": (partial(of_resnet, version=1), families.resnet((2, 2, 2, 2), num_classes=7)),
    "resnet_v2": (partial(of_resnet, version=2), families.resnet_v2((2, 2, 2, 2), num_classes=7)),
    "densenet": (of_densenet, families.densenet((2, 1, 1, 1), num_classes=7)),
    "mobilenet": (
        lambda keras: partial(keras.applications.MobileNet, alpha=0.25),
        families.mobilenet(0.25, num_classes=7),
    ),
    "mobilenet_v3": (
        lambda keras: partial(keras.applications.MobileNetV3Small, include_preprocessing=False),
        families.mobilenet_v3("small", num_classes=7),
    ),
}
FIRST = ("resnet_v2", "mobilenet_v3")  # blocks and their order; depthwise, squeeze and hard activations


@pytest.mark.parametrize("name", [*FIRST, *further(name for name in TWINS if name not in FIRST)])
def test_outputs_are_those_of_keras(keras: Any, name: str):
    make, spec = TWINS[name]
    model = make_keras(make(keras), SIZE, classes=7, classifier_activation=None)
    values = draw_variables(model, {})
    assign(model, values)
    twin = make_twin(spec, SIZE, values)
    inputs = np.random.default_rng(0).normal(0, 1, (2, SIZE, SIZE, 3)).astype(np.float32)
    expected = run_keras(model, inputs)[0]
    assert twin.left_over == ()
    assert difference(twin.run(inputs), expected) <= MOST_DIFFERENCE
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()  # what is compared depends on the inputs


@pytest.mark.parametrize("name", MODELS)
def test_family_has_the_counts_and_outputs_that_were_measured(name: str):
    """docs/parity.json has what Keras counts, and how far outputs were apart where that was measured."""
    found, variant = MEASURED[name], VARIANTS[name]
    folded = 7 if name.startswith("efficientnet_b") else 0  # numbers that normalize inputs, which are the contract here
    trained, statistics = variant.count()
    assert (trained + statistics + folded, trained) == (found["total"], found["trained"])
    assert sum(variant.count(top=False)) + folded == found["without_top"]
    for size, share in found.get("differences", {}).items():
        # In the deepest Keras's own outputs are as far apart, for inputs whose last bits differ; and two sides round.
        assert share <= max(MOST_DIFFERENCE, 2 * found.get("rounding", {}).get(size, 0.0))


def test_table_of_families_is_that_of_the_measurements():
    assert describe(MEASURED) in PAGE.read_text(encoding="utf-8")


def test_names_that_keras_made_are_numbered_from_the_first_of_the_model():
    given = [
        "conv2d_5/kernel",
        "conv2d_4/kernel",
        "conv2d_12/kernel",
        "block1_conv1/kernel",
        "batch_normalization_4/beta",
    ]
    assert list(plain_names(given).values()) == [
        "conv2d_1/kernel",
        "conv2d/kernel",
        "conv2d_8/kernel",
        "block1_conv1/kernel",
        "batch_normalization/beta",
    ]
    assert plain_names(["conv2d/bias", "conv2d_1/bias"]) == {
        "conv2d/bias": "conv2d/bias",
        "conv2d_1/bias": "conv2d_1/bias",
    }
