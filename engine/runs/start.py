"""What a run takes over from another: the input contract, and the weights of every layer but a new head."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from engine.checkpoints.record import Record
from engine.config import RunConfig
from engine.config.finetune import MOST_NAMES, shortened
from engine.data.contract import check_inputs, under_contract
from engine.data.decoded.dataset import Dataset, names_text
from engine.errors import InputError, problem, shape_text
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.restore import restore
from engine.inference.single import SingleClassifier
from engine.networks.layer_names import Layers
from engine.networks.network import Tree, layers_in
from engine.records.custom import find_custom
from engine.runs.inputs import read_init_record

Flat = Mapping[tuple, Any]
"""Fields of layers that change nothing in what they give for inputs with given weights, or their shapes as well."""


@dataclass(frozen=True)
class Start:
    """Weights to start from: (params, model_state) without those of new layers; and the names of these layers."""

    params: Tree
    model_state: Tree
    head: tuple[str, ...]

    def onto(self, fresh: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        """The fresh (params, model_state) with these in their place; one model's for all members. Traceable."""
        known = dict(jax.tree_util.tree_leaves_with_path((self.params, self.model_state)))
        return jax.tree.map_with_path(
            lambda path, leaf: jnp.broadcast_to(known[path], leaf.shape) if path in known else leaf, fresh
        )


jax.tree_util.register_dataclass(Start, ["params", "model_state"], ["head"])


def restore_source(config: RunConfig) -> Classifier | None:
    """The run that a config starts from."""
    if config.finetune.init is None:
        return None
    # What the run uses itself is imported anyway; anything else is not trusted.
    record = read_init_record(config)
    assert record is not None
    theirs = {each.path for each in find_custom(record.config.without_source)}
    return restore(config.finetune.init, trust=theirs <= {each.path for each in find_custom(config)})


def start_from(source: Classifier, config: RunConfig, layers: Layers, fresh: tuple[Tree, Tree], data: Dataset) -> Start:
    """The weights that a run starts from.

    fresh: (params, model_state) of one model, of which only shapes matter. data: what is trained on.
    Raises InputError, showing both sides, if inputs or layers do not fit.
    """
    _check_inputs(source, config, data)
    ours, (params, model_state) = _flat(fresh), _arrays_of(source, config.train.members)
    record = source.record
    named = _by_name(
        layers_in(record.config.model, record.input_spec.network_shape, record.num_outputs), (params, model_state)
    )
    pairs = {path: named.get(name) for path, name in _names(layers, ours).items()}
    num_axes = int(isinstance(source, EnsembleClassifier))
    is_like = {path: array is not None and array.shape[num_axes:] == ours[path].shape for path, array in pairs.items()}
    is_same = source.class_names == data.class_names and _outputs_agree(record, data)
    head = _head(config, layers, is_same, ours, is_like)
    wrong = [path for path, holds in is_like.items() if not (holds or layers.of(path[1:]) in head)]
    if wrong:
        raise InputError(_mismatch(layers, wrong, ours, pairs, num_axes))
    kept = {path: array for path, array in pairs.items() if layers.of(path[1:]) not in head}
    trees: list[Tree] = [nnx.from_flat_state([(p[1:], a) for p, a in kept.items() if p[0] == i]) for i in (0, 1)]
    if record.input_spec.whiten:
        trees[1] = (model_state[0], trees[1])
    return Start(trees[0], trees[1], tuple(name for name in layers.names if name in head))


def _head(config: RunConfig, layers: Layers, is_same: bool, ours: Flat, is_like: dict[tuple, bool]) -> set[str]:
    """The layers that start from scratch."""
    if config.finetune.head:
        return {layer.name for layer in layers.all if layer.fits(config.finetune.head)}
    if is_same:
        return set()
    if layers.are_ordered:
        with_weights = {layers.of(path[1:]) for path in ours if path[0] == 0}
        return {next(name for name in reversed(layers.names) if name in with_weights)}
    found = {layers.of(path[1:]) for path, holds in is_like.items() if not holds}
    if not found:
        rule = "the layers that start from scratch, because the classes are others"
        raise InputError(problem("finetune.head", "none", rule, f"Name some of {', '.join(layers.names)}."))
    return found


def _arrays_of(source: Classifier, num_members: int) -> tuple[Tree, Tree]:
    """(params, model_state), stacked [m …] of an ensemble."""
    if isinstance(source, SingleClassifier):
        return source.params, source.model_state
    assert isinstance(source, EnsembleClassifier)
    if len(source.members) != num_members or any(
        member.record.config.model != source.record.config.model for member in source.members
    ):
        rule = f"{len(source.members)}, as the run to start from has of one architecture"
        remedy = "Train as many, or start from a single model: engine.finetune(engine.restore(path, member=0), …)."
        raise InputError(problem("train.members", num_members, rule, remedy))
    if any(order is not None for order in source.orders):
        rule = "one order, that new weights can be trained in together"
        remedy = "Fine-tune each by itself: engine.join([engine.finetune(m, …).classifier for m in ensemble.members])."
        raise InputError(problem("source", "members with their classes in several orders", rule, remedy))
    pairs = [(member.params, member.model_state) for member in source.members]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)


def _flat(trees: tuple[Tree, Tree]) -> Flat:
    """{(0 for params or 1 for state, *path): array}, without a whitening."""
    params, model_state = trees
    inner = model_state[1] if isinstance(model_state, tuple) else model_state
    return {(i, *path): leaf for i, tree in enumerate((params, inner)) for path, leaf in nnx.to_flat_state(tree)}


def _names(layers: Layers, flat: Flat) -> dict[tuple, tuple]:
    """What each array is called: by its layer's name, wherever that stands in a Sequential; else by its path."""
    return {path: layers.parts(path[1:]) if layers.are_ordered else path for path in flat}


def _by_name(layers: Layers, trees: tuple[Tree, Tree]) -> dict[tuple, Any]:
    flat = _flat(trees)
    return {name: flat[path] for path, name in _names(layers, flat).items()}


def _check_inputs(source: Classifier, config: RunConfig, data: Dataset) -> None:
    spec = source.input_spec
    under_contract(config.data, spec)
    if config.model.is_layered != source.record.config.model.is_layered:
        kinds = [type(model).__name__ for model in (config.model, source.record.config.model)]
        rule = f"a {kinds[1]} model, as that to start from is"
        raise InputError(problem("model", f"a {kinds[0]} model", rule, "Use the same model, or leave init out."))
    check_inputs(data, spec, "the input of the model to start from")


def _outputs_agree(record: Record, data: Dataset) -> bool:
    return bool(data.class_names) or data.labels.shape[1:] == (record.num_outputs,)


def _mismatch(layers: Layers, wrong: list[tuple], ours: Flat, pairs: Flat, num_axes: int) -> str:
    lines = []
    for path in wrong[:10]:
        theirs = "nothing" if pairs[path] is None else shape_text(pairs[path].shape[num_axes:])
        lines.append(f"  {layers.of(path[1:])} {path[-1]}: there {theirs}, here {shape_text(ours[path].shape)}")
    names = list(dict.fromkeys(layers.of(path[1:]) for path in wrong))
    given = " ".join(names) if len(names) <= MOST_NAMES else "PATTERN …"
    remedy = f"Use that model, or let layers start from scratch: --finetune.head {given}."
    rule = "the same layers as in the run to start from"
    return "\n".join([problem("model", f"others ({shortened(names)})", rule, remedy), *lines])


def start_text(source: Classifier, start: Start, data: Dataset) -> str:
    """The layers that were taken over and those that start from scratch, in words."""
    record = source.record
    whose = f"step {record.step:,} of {record.config.name}"
    if not start.head:
        return f"starts from {whose}"
    why = f" for {names_text(data.class_names)}" if data.class_names != source.class_names else ""
    return f"starts from {whose}; from scratch{why}: {', '.join(start.head)}"
