"""What the outputs of a user's own class are, read off its jaxpr: logits, or the probabilities of a last softmax."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from engine.config import RunConfig
from engine.data.contract import input_spec
from engine.data.decoded.dataset import Dataset
from engine.data.load import num_outputs
from engine.networks.network import abstract_module
from engine.records.custom import Gives

SHAPING = ("convert_element_type", "reshape", "squeeze", "broadcast_in_dim", "stop_gradient", "copy")


def read_outputs(config: RunConfig, train: Dataset) -> Gives:
    """What the last operation of the config's model is, as in evaluation: softmax, sigmoid or anything else, logits."""
    if config.model.is_layered:
        return "logits"
    input_shape = input_spec(replace(config.data, standardize=None), train).network_shape
    module = abstract_module(config.model, input_shape, num_outputs(config, train))
    module.eval()
    graph, state = nnx.split(module)
    inputs = jax.ShapeDtypeStruct((2, *input_shape), jnp.float32)
    traced = jax.make_jaxpr(lambda state, x: nnx.merge(graph, state)(x))(state, inputs)  # type: ignore[operator]
    return _gives(traced.jaxpr, traced.jaxpr.outvars[0])


def _gives(jaxpr: Any, variable: Any) -> Gives:
    last = _made_by(jaxpr, variable)
    if last is None:
        return "logits"
    inner = next((value for value in last.params.values() if hasattr(value, "eqns") or hasattr(value, "jaxpr")), None)
    if inner is not None:  # a function compiled or with a gradient of its own
        inner = getattr(inner, "jaxpr", inner)
        return _gives(inner, inner.outvars[0])
    if last.primitive.name == "logistic":
        return "sigmoid"
    if last.primitive.name != "div":
        return "logits"
    above, below = (_made_by(jaxpr, variable) for variable in last.invars)
    names = [made.primitive.name for made in (above, below) if made is not None]
    if below is None and above is not None and _is_pool(above):  # means of probabilities are probabilities
        return _gives(jaxpr, above.invars[0])
    return "softmax" if names == ["exp", "reduce_sum"] else "logits"


def _is_pool(made: Any) -> bool:
    """Whether an operation is a sum over positions and not over channels."""
    if made.primitive.name == "reduce_window_sum":
        return made.params["window_dimensions"][-1] == 1
    ndim = len(made.invars[0].aval.shape)
    return made.primitive.name == "reduce_sum" and not {0, ndim - 1} & set(made.params["axes"])


def _made_by(jaxpr: Any, variable: Any) -> Any:
    """The operation that a variable comes from, past what only gives it another shape or type."""
    made = next((e for e in reversed(jaxpr.eqns) if any(out is variable for out in e.outvars)), None)
    while made is not None and made.primitive.name in SHAPING:
        source = made.invars[0]
        made = next((e for e in reversed(jaxpr.eqns) if any(out is source for out in e.outvars)), None)
    return made
