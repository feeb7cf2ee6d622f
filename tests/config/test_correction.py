"""A last softmax before a loss on logits and pixels scaled twice are put right when a run starts, and this is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import engine
from engine.config import RunConfig, TrainConfig
from engine.config.correction import put_right
from engine.config.data import DataConfig
from engine.data.decoded.dataset import Splits
from engine.errors import InputError
from engine.models import (
    Activation,
    AveragePool,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    Rescale,
    Sequential,
)
from engine.report.progress import Silent
from engine.runs.loop import run
from engine.runs.own_outputs import read_outputs
from tests.conftest import make_dataset

HEAD = (Conv(4, 3, activation="relu"), Flatten())
PLAIN = Sequential((*HEAD, Dense()))


def with_last(*layers: Any) -> Sequential:
    return Sequential((*HEAD, *layers))


def corrected(model: Any, floats: Any = None, loss: Any = "softmax_cross_entropy", **data: Any) -> RunConfig:
    return put_right(RunConfig("a", model, DataConfig(**data), TrainConfig(loss=loss)), floats)[0]


def lines(model: Any, floats: Any = None, loss: Any = "softmax_cross_entropy", **data: Any) -> list[str]:
    return put_right(RunConfig("a", model, DataConfig(**data), TrainConfig(loss=loss)), floats)[1]


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy"])
def test_last_probabilities_are_left_out_before_a_loss_on_logits(name: str, loss: Any):
    for model in (with_last(Dense(activation=name)), with_last(Dense(), Activation(name))):
        assert corrected(model, loss=loss).model == PLAIN
        assert f"the last {name} is left out" in lines(model, loss=loss)[0]
        assert corrected(model, loss="mean_squared_error").model == model


@pytest.mark.parametrize("after", [(Flatten(),), (Dropout(0.1),), (Activation("linear"),), (Activation("softmax"),)])
def test_last_probabilities_are_found_below_layers_that_pass_them_on(after: Any):
    model = with_last(Dense(activation="softmax"), *after)
    rest = after if after != (Activation("softmax"),) else ()
    assert corrected(model).model == with_last(Dense(), *rest)
    assert all("the last softmax is left out" in line for line in lines(model))


def test_models_that_are_right_stay_as_they_are():
    for model in (PLAIN, with_last(Dense(8, activation="softmax"), Dense()), with_last(Dense(activation="gelu"))):
        assert (corrected(model).model, lines(model)) == (model, [])
    for model in (Sequential((Rescale(2.0, -1.0), *PLAIN.layers)), Sequential((*HEAD, Rescale(1 / 255), Dense()))):
        assert (corrected(model).data.scale, lines(model)) == (1 / 255, [])
    rescaled = Sequential((Rescale(1 / 255), *PLAIN.layers))
    assert (corrected(rescaled, scale=1.0).model, lines(rescaled, scale=1.0)) == (rescaled, [])
    assert lines(rescaled, (0.0, 255.0)) == []


@pytest.mark.parametrize("after", [(), (Activation("linear"), Dropout(0.1))])
@pytest.mark.parametrize("name", ["relu", "hard_sigmoid", "tanh", "softplus"])
def test_a_last_activation_that_limits_the_logits_is_reported_and_left(name: str, after: Any):
    model = with_last(Dense(activation=name), *after)
    assert corrected(model).model == model
    assert [line.split(" limits")[0] for line in lines(model)] == [f"warning: model: its last {name}"]
    assert lines(with_last(Dense(8, activation=name), Dense())) == []


def test_floats_that_nothing_scales_are_reported():
    expected = "warning: the images are floats from 0 to 255, and nothing scales them"
    assert lines(PLAIN, (0.0, 255.0))[0].startswith(expected)
    for model in (Sequential((BatchNorm(), *PLAIN.layers)), Sequential((Rescale(1 / 50), *PLAIN.layers))):
        assert lines(model, (0.0, 255.0)) == []
    for floats in ((0.0, 1.0), (-2.1, 2.6), None):
        assert lines(PLAIN, floats) == []


@pytest.mark.parametrize(
    ("units", "loss", "other"),
    [(1, "softmax_cross_entropy", "binary_cross_entropy"), (2, "binary_cross_entropy", "softmax_cross_entropy")],
)
def test_last_layer_of_another_loss_is_answered_with_that_loss(units: int, loss: Any, other: str):
    with pytest.raises(InputError, match=rf"train\.loss: got {loss} with {units} units .*Use {other}"):
        corrected(with_last(Dense(units, activation="sigmoid")), loss=loss)


@pytest.mark.parametrize("rescale", [Rescale(1 / 255), Rescale(1 / 127.5, -1.0), Rescale(1 / 256)])
def test_pixels_are_scaled_once(rescale: Rescale):
    model = Sequential((rescale, *PLAIN.layers))
    levels = corrected(model)
    assert (levels.model, levels.data.scale) == (model, 1.0)
    assert "data.scale: 1 in place of" in lines(model)[0]
    floats = corrected(model, (0.0, 1.0))
    assert floats.model.layers[0] == Rescale(rescale.scale * 255, rescale.offset)  # type: ignore[union-attr]
    assert corrected(model, (-1.0, 1.0)).model.layers[0] == Rescale(1.0)  # type: ignore[union-attr]
    standardized = corrected(model, standardize="dataset")
    assert standardized.model.layers[0] == Rescale(1.0)  # type: ignore[union-attr]
    assert standardized.data.scale == 1 / 255
    assert corrected(Sequential((BatchNorm(), *model.layers))).data.scale == 1 / 255


def test_second_rescale_for_pixels_is_left_out():
    model = Sequential((Rescale(1 / 255), Rescale(1 / 127.5, -1.0), *PLAIN.layers))
    assert corrected(model).model == Sequential((Rescale(1 / 255), Rescale(1.0), *PLAIN.layers))
    assert "model: of Rescale(0.003922) and Rescale(0.007843, -1) the second is left out" in lines(model)[0]
    kept = Sequential((Rescale(1 / 255), Rescale(2.0, -1.0), *PLAIN.layers))
    assert corrected(kept).model == kept


@pytest.mark.parametrize(
    ("rescale", "fitting"),
    [(Rescale(1 / 65535), Rescale(1 / 255)), (Rescale(1 / 2047.5, -1.0), Rescale(1 / 127.5, -1.0))],
)
def test_rescale_of_deep_pixels_fits_the_levels_that_they_become(
    rescale: Rescale, fitting: Rescale, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = make_dataset(60)
    deep = np.asarray(data.images).astype(np.uint16) * 257
    model = Sequential((rescale, *PLAIN.layers))
    result = engine.fit(model, (deep, data.labels), epochs=1, batch_size=20)
    assert result.config.model.layers[0] == fitting  # type: ignore[union-attr]
    assert "the images are levels from 0 to 255" in " ".join(capsys.readouterr().out.split())
    begun = RunConfig("a", model, train=TrainConfig(epochs=1, batch_size=20))
    run(begun, tmp_path / "run", splits=Splits(data), reporter=Silent())
    more = replace(begun, train=replace(begun.train, epochs=2))
    resumed = run(more, tmp_path / "run", splits=Splits(data), resume=True, reporter=Silent())
    assert resumed.config.model.layers[0] == fitting  # type: ignore[union-attr]


class Last(nnx.Module):
    """A class of a user's own, with the last layer that people write."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs, last: str = "logits"):
        self.dense, self.last = nnx.Linear(int(np.prod(input_shape)), num_outputs, rngs=rngs), last

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.dense(x.reshape(x.shape[0], -1))
        match self.last:
            case "softmax":
                return nnx.softmax(x)
            case "sigmoid":
                return nnx.sigmoid(x)
            case "own":
                return jnp.exp(x) / jnp.exp(x).sum(-1)[:, None]
        return x


@pytest.mark.parametrize(
    ("last", "loss", "is_put_right"),
    [
        ("softmax", "softmax_cross_entropy", True),
        ("sigmoid", "binary_cross_entropy", True),
        ("own", "softmax_cross_entropy", True),
        ("logits", "softmax_cross_entropy", False),
    ],
)
def test_last_probabilities_of_ones_own_class_train_like_logits(
    last: str, loss: Any, is_put_right: bool, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    data = make_dataset(90, num_classes=2 if loss == "binary_cross_entropy" else 3)
    images = np.asarray(data.images)
    options: dict[str, Any] = {"epochs": 2, "batch_size": 30, "validation": None, "loss": loss}
    plain = engine.fit(engine.custom(Last), data, **options, verbose=False)
    result = engine.fit(engine.custom(Last, last=last), data, **options)
    assert ("takes the logits below its last" in capsys.readouterr().out) == is_put_right
    np.testing.assert_allclose(shown(result, images), shown(plain, images), atol=1e-5)
    assert result.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-4)
    restored = engine.restore(result.save(tmp_path / "run"), trust=True)
    np.testing.assert_array_equal(restored.outputs(images), shown(result, images))


class Pooled(nnx.Module):
    """Probabilities at each position, averaged; or the means of logits, when `last` is None."""

    def __init__(self, input_shape, num_outputs, rngs, last="softmax", is_window=False):
        self.conv = nnx.Conv(input_shape[2], num_outputs, (3, 3), rngs=rngs)
        self.last, self.is_window = last, is_window

    def __call__(self, x):
        maps = self.conv(x)
        maps = getattr(jax.nn, self.last)(maps) if self.last else maps
        if self.is_window:
            return nnx.avg_pool(maps, maps.shape[1:3]).reshape(len(x), -1)
        return maps.mean(axis=(1, 2))


@pytest.mark.parametrize("is_window", [False, True])
@pytest.mark.parametrize(("last", "gives"), [("softmax", "softmax"), ("sigmoid", "sigmoid"), (None, "logits")])
def test_means_of_probabilities_are_found_in_a_class_of_ones_own(last: str | None, gives: str, is_window: bool):
    config = RunConfig("a", engine.custom(Pooled, last=last, is_window=is_window))
    assert read_outputs(config, make_dataset(9)) == gives


@pytest.mark.parametrize("pool", [GlobalAveragePool(), AveragePool(2), GlobalMaxPool()])
@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_pooled_probabilities_are_reported_and_left_as_they_are(pool: Any, name: str):
    model = Sequential((Conv(3, 3, activation=name), Dropout(0.1), pool, Flatten()))
    assert corrected(model).model == model
    assert [line.split(",")[0] for line in lines(model)] == [f"warning: model: its last {name} comes before a pool"]
    assert lines(model, loss="mean_squared_error") == []
    assert lines(Sequential((Conv(3, 3, activation="relu"), pool, Flatten()))) == []
    assert lines(Sequential((Conv(3, 3, activation=name), pool, Flatten(), Dense()))) == []


def shown(result: engine.Result, images: np.ndarray) -> np.ndarray:
    return result.classifier.outputs(images)


@pytest.mark.parametrize("as_floats", [False, True])
def test_models_of_keras_train_here_like_their_plain_form(as_floats: bool, capsys: pytest.CaptureFixture[str]):
    data = make_dataset(120)
    images = np.asarray(data.images) / 255 if as_floats else np.asarray(data.images)
    images = images.astype(np.float32) if as_floats else images
    options: dict[str, Any] = {"epochs": 2, "batch_size": 20, "validation": None}
    plain = engine.fit(PLAIN, (images, data.labels), **options)
    said = capsys.readouterr().out
    assert "left out" not in said
    assert "data.scale" not in said
    keras = Sequential((Rescale(1 / 255), *HEAD, Dense(activation="softmax")))
    result = engine.fit(keras, (images, data.labels), **options)
    said = capsys.readouterr().out
    assert "the last softmax is left out" in said
    assert ("is left out: the images are scaled already" if as_floats else "data.scale: 1 in place of") in said
    np.testing.assert_allclose(shown(result, images[:20]), shown(plain, images[:20]), atol=1e-5)
    assert result.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-4)


def test_run_that_was_put_right_resumes_from_the_script_that_began_it(tmp_path: Path):
    data = make_dataset(60)
    model = Sequential((Rescale(1 / 255), *HEAD, Dense(activation="softmax")))
    config = RunConfig("a", model, train=TrainConfig(epochs=1, batch_size=20))
    first = run(config, tmp_path / "run", splits=Splits(data), reporter=Silent())
    assert first.config.data.scale == 1.0
    more = replace(config, train=replace(config.train, epochs=2))
    second = run(more, tmp_path / "run", splits=Splits(data), resume=True, reporter=Silent())
    whole = run(more, tmp_path / "whole", splits=Splits(data), reporter=Silent())
    images = np.asarray(data.images)
    np.testing.assert_array_equal(shown(second, images), shown(whole, images))
    assert second.config.model == first.config.model


def test_run_of_before_keeps_the_model_it_was_begun_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = make_dataset(60)
    config = RunConfig("a", with_last(Dense(activation="softmax")), train=TrainConfig(epochs=1, batch_size=20))
    with monkeypatch.context() as patch:
        patch.setattr("engine.runs.inputs.put_right", lambda config, *_: (config, []))
        run(config, tmp_path / "run", splits=Splits(data), reporter=Silent())
    more = replace(config, train=replace(config.train, epochs=2))
    resumed = run(more, tmp_path / "run", splits=Splits(data), resume=True, reporter=Silent())
    assert resumed.config.model == config.model
    assert engine.restore(tmp_path / "run").record.config.model == config.model
