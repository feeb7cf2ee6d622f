"""Code of the user's own that cannot be trained with is refused in words, with its file and line."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import engine
from engine import InputError, OptimConfig, TrainConfig
from engine.metrics.sums import make_scoring
from engine.metrics.table import Metric, mean
from tests.conftest import make_dataset

LINEAR = engine.mlp(())


def plain(outputs: Any, labels: Any) -> Any:
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def averaged(outputs: Any, labels: Any) -> Any:
    return plain(outputs, labels).mean()


def nothing(outputs: Any, labels: Any) -> Any:
    plain(outputs, labels)


def counted(outputs: Any, labels: Any) -> Any:
    return (outputs.argmax(-1) != labels).astype(jnp.int32)


def branching(outputs: Any, labels: Any) -> Any:
    if outputs.sum() > 0:
        return plain(outputs, labels)
    return 2 * plain(outputs, labels)


def in_numpy(outputs: Any, labels: Any) -> Any:
    return np.square(outputs).sum(-1)


def of_another_shape(outputs: Any, labels: Any) -> Any:
    return (outputs @ jnp.ones((99, 1)))[:, 0]


def of_probabilities(outputs: Any, labels: Any) -> Any:
    return -jnp.log(outputs).sum(-1)


def looping(outputs: Any, labels: Any) -> Any:
    total = jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x + abs(outputs), abs(outputs))
    return total.sum(-1)


def in_the_order_of_keras(y_true: Any, y_pred: Any) -> Any:
    return plain(y_pred, y_true)


def late(outputs: Any, labels: Any) -> Any:
    return jnp.where(abs(outputs).max(-1) > 6, jnp.nan, plain(outputs, labels))


HERE = r"\(\S*test_own_loss.py, line {}\)"


def line_of(function: Any, offset: int = 1) -> str:
    return HERE.format(function.__code__.co_firstlineno + offset)


REFUSED = {
    averaged: rf":averaged {line_of(averaged, 0)}, which gives an array \[\] for 2 .*Leave the mean to the engine",
    nothing: rf":nothing {line_of(nothing, 0)}, which gives no array for 2 examples; expected one loss an example",
    counted: rf":counted {line_of(counted, 0)}, which gives int32; expected floats",
    branching: rf":branching: TracerBoolConversionError.*{line_of(branching)}; .*compiled.*Use jnp.where",
    in_numpy: rf":in_numpy: TracerArrayConversionError.*{line_of(in_numpy)}; .*Use jnp.where",
    of_another_shape: rf":of_another_shape: TypeError: .*{line_of(of_another_shape)}",
    of_probabilities: rf"nan from .*:of_probabilities .*in log {line_of(of_probabilities)}; expected .*logits",
    looping: r":looping: ValueError: Reverse-mode differentiation does not work for lax.while_loop",
}


@pytest.mark.parametrize("loss", REFUSED)
def test_loss_that_cannot_be_trained_on_is_refused_with_its_line(loss: Any, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(InputError, match=rf"train.loss: got .*{REFUSED[loss]}"):
        make_scoring(TrainConfig(loss=engine.custom(loss)), 3, "classes")
    assert capsys.readouterr() == ("", "")


def test_loss_that_stops_being_finite_is_named_with_its_line():
    options = {"epochs": 2, "optimizer": "sgd", "learning_rate": 100.0, "verbose": False}
    where = rf"got no finite number at step \d+ \(epoch 1\) of .*:late {line_of(late, 0)}; expected a finite number"
    with pytest.raises(InputError, match=f"loss: {where}"):
        engine.fit(LINEAR, make_dataset(100), loss=late, **options)


def adds_up_wrong() -> Metric:
    return mean(lambda outputs, labels: outputs @ labels.missing)


def share_of_a_batch(outputs: Any, labels: Any) -> Any:
    return (outputs.argmax(-1) == labels).mean()


def computes_wrong() -> Metric:
    return Metric(lambda outputs, labels, mask: mask.sum(), lambda total, count: 1 / (total - total).item())


def steps_wrong(rate: Any) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, params: updates.missing)


def falls_wrong(steps: int) -> optax.Schedule:
    return lambda step: 1 if step < steps else 0


OTHERS = {
    adds_up_wrong: ("metrics", r"train.metrics: got .*:adds_up_wrong: AttributeError", ""),
    computes_wrong: ("metrics", r"train.metrics: got .*:computes_wrong: ZeroDivisionError", ""),
    steps_wrong: ("optimizer", r"optim.name: got .*:steps_wrong: AttributeError", ""),
    falls_wrong: ("schedule", r"optim.schedule: got .*:falls_wrong: TracerBool", "; .*Use jnp.where"),
}


def test_metric_that_gives_one_value_a_batch_is_refused():
    where = r"train.metrics: got a function \(\S*test_own_loss.py, line \d+\), which gives an array \[\] for 2 examples"
    with pytest.raises(InputError, match=where):
        engine.fit(LINEAR, make_dataset(100), metrics=[share_of_a_batch])


@pytest.mark.parametrize("function", OTHERS)
def test_other_code_of_ones_own_is_named_with_its_line(function: Any):
    option, start, end = OTHERS[function]
    options = {option: [function] if option == "metrics" else function}
    if option == "schedule":
        options = {"optimizer": OptimConfig(schedule=engine.custom(function))}
    with pytest.raises(InputError, match=f"{start}.*{line_of(function)}{end}"):
        engine.fit(LINEAR, make_dataset(100), epochs=1, verbose=False, **options)


@pytest.mark.parametrize("kwargs", [{"loss": in_the_order_of_keras}, {"metrics": [in_the_order_of_keras]}])
def test_the_order_of_keras_is_refused_in_words(kwargs: dict[str, Any]):
    field = "train." + next(iter(kwargs))
    where = line_of(in_the_order_of_keras, 0)
    rule = rf"{field}: got in_the_order_of_keras\(y_true, y_pred\) {where}, in the order of Keras; .*"
    with pytest.raises(InputError, match=rule + r"Write def in_the_order_of_keras\(y_pred, y_true\)\."):
        engine.fit(LINEAR, make_dataset(20), epochs=1, verbose=False, **kwargs)
