"""Layers and activations of the user's own: built, trained, saved, restored, cropped, frozen and exported as ours."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import engine
from engine.checkpoints.steps import choose_step, read_record
from engine.errors import InputError
from engine.models import Activation, Conv, Dense, Flatten, MaxPool, Sequential
from engine.models.cropping import inputs_that_count
from engine.models.layer import CustomLayer
from engine.models.specs import Model
from engine.models.summary import summary_table
from engine.networks.build import build
from engine.records import from_json, to_json
from tests.conftest import make_dataset
from tests.exporting.test_export import exported, skip_without
from tests.own_layers import (
    Mirror,
    Miscounted,
    Noise,
    Scale,
    Undecorated,
    Undefined,
    WideConv,
    Wider,
    bent,
    centred,
    halved,
)  # fmt: skip

MODULE = "tests.own_layers"
BENT = engine.custom(bent, slope=0.3)
SPEC = Sequential((Conv(4, 3, activation=BENT), Scale(2.0, "relu"), MaxPool(2), Mirror(), Flatten(), Dense()))
IMAGES = np.asarray(make_dataset(5, 3).images)


def built(spec: Sequential, shape: tuple[int, ...] = (8, 8, 1), num_outputs: int = 3) -> nnx.Module:
    return build(spec, shape, num_outputs, nnx.Rngs(0))


def test_own_layers_have_names_shapes_and_parameters():
    assert SPEC.layer_names == ("conv_1", "scale_1", "max_pool_1", "mirror_1", "flatten_1", "dense_1")
    rows = SPEC.with_outputs(3).rows((8, 8, 1))
    assert [(row.output_shape, row.num_params) for row in rows[1:4]] == [((6, 6, 4), 4), ((3, 3, 4), 0), ((3, 3, 4), 0)]
    assert "scale_1" in str([list(column.cells) for column in _columns(SPEC)])
    assert SPEC.layers[1] == CustomLayer(engine.models.Custom(f"{MODULE}:Scale", {"start": 2.0, "activation": "relu"}))
    assert hash(SPEC) == hash(from_json(Model, json.loads(json.dumps(to_json(SPEC))), "model"))


def _columns(spec: Sequential) -> Any:
    return summary_table(spec.with_outputs(3), (8, 8, 1), "t").columns


@pytest.mark.parametrize("lowering", ["xla", "matrix"])
def test_own_layers_compute_what_they_say(lowering: Any):
    module: Any = build(SPEC, (8, 8, 1), 3, nnx.Rngs(0), lowering)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    conv, dense = module.layers[0].layer, module.layers[5]
    maps = bent(conv(images), 0.3)
    maps = jax.nn.relu(maps * 2.0).reshape(2, 3, 2, 3, 2, 4).max(axis=(2, 4))[:, :, ::-1]
    np.testing.assert_allclose(module(images), dense(maps.reshape(2, -1)), rtol=1e-4, atol=1e-5)


def test_all_input_of_own_layers_and_activations_counts():
    for layer in (Mirror(), Conv(2, 1, activation=engine.custom(centred)), Activation(engine.custom(centred))):
        spec = Sequential((Conv(2, 3), layer, MaxPool(2), Flatten()))
        shapes = [(9, 9, 1), *(row.output_shape for row in spec.rows((9, 9, 1)))]
        assert inputs_that_count(spec.layers, shapes)[:3] == [(9, 9, 1), (7, 7, 2), (6, 6, 2)]


def test_own_layer_derived_from_one_of_ours_is_built_as_that():
    module: Any = built(Sequential((WideConv(3), Flatten(), Dense())))
    assert module.layers[0].kernel.shape == (5, 5, 1, 3)


def run_once(layer: Any) -> None:
    module: Any = built(Sequential((layer(), Conv(2, activation="relu"), Flatten(), Dense())))
    module(jnp.zeros((2, 8, 8, 1)))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: Miscounted(), r"own_layers:Miscounted num_params: got 0 for an input of 8×8×1; expected 1"),
        (lambda: Noise(), r"own_layers:Noise is_random: got False .* expected True"),
        (lambda: Wider(), r"own_layers:Wider output_shape: got \(8, 8, 1\) .* expected \(8, 8, 2\)"),
        (lambda: Undefined(), r"layer: got Undefined; expected one that defines build .* or apply"),
        (lambda: Undecorated(), r"layer: got Undecorated; .*Write @dataclass\(frozen=True\) above it"),
        (lambda: Scale(-1.0), r"Scale start: got -1\.0; expected above 0"),
        (lambda: Activation(engine.custom(halved)), r"activation: got .*halved, which makes .* same shape"),
        (lambda: Activation(bent), r"Give a function of your own by engine\.custom\(function\)"),
        (lambda: CustomLayer(engine.models.Custom(f"{MODULE}:ScaleModule")), r"layer: got .*derived from engine\.mod"),
        (lambda: CustomLayer(engine.models.Custom(f"{MODULE}:Scale", {"strat": 1})), r"Did you mean 'start'\?"),
    ],
)
def test_own_layer_that_does_not_fit_is_refused(layer: Any, message: str):
    with pytest.raises(InputError, match=message):
        run_once(layer)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The directory of a run with layers and an activation of the user's own, and its classifier."""
    directory = tmp_path_factory.mktemp("runs") / "own"
    result = engine.fit(SPEC, make_dataset(100), epochs=1, verbose=False)
    result.save(directory)
    return directory, result


def test_run_with_own_layers_opens_with_trust_and_gives_the_same(run: tuple[Path, Any]):
    classifier = engine.restore(run[0], trust=True)
    np.testing.assert_array_equal(classifier.outputs(IMAGES), run[1].classifier.outputs(IMAGES))
    factors = np.asarray(classifier.params["layers"][1]["layer"]["factors"])
    assert np.any(factors != 2.0)
    tuned = engine.finetune(classifier, make_dataset(100), epochs=1, freeze=["scale_*"], verbose=False)
    np.testing.assert_array_equal(tuned.classifier.params["layers"][1]["layer"]["factors"], factors)


def test_record_of_own_layers_opens_without_their_code(run: tuple[Path, Any], monkeypatch, tmp_path):
    monkeypatch.setenv("OWN_NET_IMPORTED", str(tmp_path / "imported"))
    monkeypatch.delitem(sys.modules, MODULE)
    record = read_record(run[0], choose_step(run[0]))
    assert record.config.model.layer_names == SPEC.layer_names
    with pytest.raises(InputError, match=rf"got code .*{MODULE}:Mirror, {MODULE}:Scale, {MODULE}:bent.*trust=True"):
        engine.restore(run[0])
    assert not (tmp_path / "imported").exists()


@pytest.mark.parametrize("format", ["stablehlo", "onnx"])
def test_own_layers_are_exported(run: tuple[Path, Any], tmp_path: Path, format: str):
    skip_without(format)
    classifier = engine.restore(run[0], trust=True)
    call = exported(classifier, tmp_path / "m", format)
    np.testing.assert_allclose(call(IMAGES), classifier.outputs(IMAGES), rtol=1e-4, atol=1e-5)
