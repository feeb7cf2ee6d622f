"""What a run takes over from another: the input contract, and the weights of every layer but a new head."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from engine.checkpoints.packing import opened
from engine.checkpoints.record import Record
from engine.checkpoints.steps import choose_step, read_record
from engine.config import RunConfig
from engine.config.data import DataConfig
from engine.config.finetune import fits
from engine.data.classes.matching import same_classes
from engine.data.contract import check_inputs, under_contract
from engine.data.decoded.dataset import Dataset, names_text
from engine.data.load import ClassOrder
from engine.errors import InputError, problem, shape_text
from engine.host.storage import expanded
from engine.inference.classifier import Classifier
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.restore import restore
from engine.models.specs import Custom, Model, Sequential
from engine.networks.layer_names import Layers
from engine.networks.network import Tree, layers_in

Flat = Mapping[tuple, Any]
MOST_SHOWN = 5  # layers
NOT_COMPUTED = ("units", "kernel_initializer", "kernel_regularizer", "rate", "momentum")
"""Fields of layers that change nothing in what they give for inputs with given weights, or their shapes as well."""


@dataclass(frozen=True)
class Start:
    """Weights to start from: (params, model_state) without the layers that start anew; and the names of these."""

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


def source_of(config: RunConfig) -> Classifier | None:
    """The run that a config starts from."""
    if config.finetune.init is None:
        return None
    # A class that the run trains itself is imported anyway; any other is not trusted.
    record = record_of(config)
    assert record is not None
    trust = isinstance(config.model, Custom) and config.model.path == getattr(record.config.model, "path", None)
    return restore(config.finetune.init, trust=trust)


def as_source(config: RunConfig, source: Record | None) -> tuple[RunConfig, list[str]]:
    """(the config with activations as the run to start from means them, a line for what that or any layer changes).

    Of a run of before, gelu is its form by tanh and leaky_relu has a slope of 0.01.
    """
    if source is None or not (isinstance(config.model, Sequential) and isinstance(source.config.model, Sequential)):
        return config, []
    theirs, notes = source.config.model, []
    before = config.in_terms_of_version_1("model")
    if source.config.optim.rules == "optax" and len(_unlike(before.model, theirs)) < len(_unlike(config.model, theirs)):
        config = before
        notes = ["activations mean what they did when the run to start from was trained, gelu by tanh among them"]
    unlike = _unlike(config.model, theirs)
    rest = [f"warning: {len(unlike) - MOST_SHOWN} more layers differ from those there"] * (len(unlike) > MOST_SHOWN)
    return config, [*notes, *unlike[:MOST_SHOWN], *rest]


def _unlike(ours: Model, theirs: Model) -> list[str]:
    """A line for each layer that the other model has by name, and computes otherwise, whatever its weights are."""
    assert isinstance(ours, Sequential)
    assert isinstance(theirs, Sequential)
    known, lines = dict(zip(theirs.layer_names, theirs.layers, strict=True)), []
    for name, layer in zip(ours.layer_names, ours.layers, strict=True):
        fields = [field for field in vars(layer) if field not in NOT_COMPUTED] if name in known else []
        there, here = ({field: getattr(of, field) for field in fields} for of in (known.get(name), layer))
        changed = [
            f"{field} {here[field]} here, {there[field]} there" for field in fields if here[field] != there[field]
        ]
        if changed:
            lines.append(f"warning: {name} is not as in the run to start from: {'; '.join(changed)}")
    return lines


def data_of(config: RunConfig, known: Record | None) -> DataConfig:
    """What data a run is to load: of one that starts from another, under the input contract of `known`.

    known: the record of the run that is resumed, or of that to start from.
    """
    if config.finetune.init is None and known and known.input_spec.levels == "type":
        return replace(config.data, levels="type")  # as the run was started, before there was this setting
    if config.finetune.init is None:
        return config.data
    assert known is not None
    return under_contract(config.data, known.input_spec)


def order_of(resumed: Record | None, start: Record | None) -> ClassOrder:
    """The order in which a run has its classes: that of the run it resumes; or that of the run to start from, whose
    outputs it then takes over, if the classes are the same; else that of the data.
    """
    if resumed is not None:
        return lambda names: resumed.class_names
    known = start.class_names if start else ()
    return lambda names: known if same_classes(names, known) else names


def record_of(config: RunConfig) -> Record | None:
    """The record of the run that a config starts from."""
    if config.finetune.init is None:
        return None
    with opened(expanded(config.finetune.init)) as directory:
        return read_record(directory, choose_step(directory))


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
    """The layers that start anew."""
    if config.finetune.head:
        return {name for name in layers.names if fits(name, config.finetune.head)}
    if is_same:
        return set()
    if layers.are_ordered:
        return {layers.names[max(path[2] for path in ours if path[0] == 0)]}
    found = {layers.of(path[1:]) for path, holds in is_like.items() if not holds}
    if not found:
        rule = "the layers that start anew, because the classes are others"
        raise InputError(problem("finetune.head", "none", rule, f"Name some of {', '.join(layers.names)}."))
    return found


def _arrays_of(source: Classifier, num_members: int) -> tuple[Tree, Tree]:
    """(params, model_state), stacked [m …] of an ensemble."""
    if not isinstance(source, EnsembleClassifier):
        return source._params, source._model_state
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
    pairs = [(member._params, member._model_state) for member in source.members]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *pairs)


def _flat(trees: tuple[Tree, Tree]) -> Flat:
    """{(0 for params or 1 for state, *path): array}, without a whitening."""
    params, model_state = trees
    inner = model_state[1] if isinstance(model_state, tuple) else model_state
    return {(i, *path): leaf for i, tree in enumerate((params, inner)) for path, leaf in nnx.to_flat_state(tree)}


def _names(layers: Layers, flat: Flat) -> dict[tuple, tuple]:
    """What each array is called: by its layer's name, wherever that stands in a Sequential; else by its path."""
    return {path: (layers.of(path[1:]), path[-1]) if layers.are_ordered else path for path in flat}


def _by_name(layers: Layers, trees: tuple[Tree, Tree]) -> dict[tuple, Any]:
    flat = _flat(trees)
    return {name: flat[path] for path, name in _names(layers, flat).items()}


def _check_inputs(source: Classifier, config: RunConfig, data: Dataset) -> None:
    spec = source.input_spec
    under_contract(config.data, spec)
    if isinstance(config.model, Sequential) != isinstance(source.record.config.model, Sequential):
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
    names = ", ".join(dict.fromkeys(layers.of(path[1:]) for path in wrong))
    remedy = f"Use that model, or let layers start anew: --finetune.head {names.replace(',', '')}."
    rule = "the same layers as in the run to start from"
    return "\n".join([problem("model", f"others ({names})", rule, remedy), *lines])


def start_text(source: Classifier, start: Start, data: Dataset) -> str:
    """What was taken over and what starts anew, in words."""
    record = source.record
    whose = f"step {record.step:,} of {record.config.name}"
    if not start.head:
        return f"starts from {whose}"
    why = f" for {names_text(data.class_names)}" if data.class_names != source.class_names else ""
    return f"starts from {whose}; anew{why}: {', '.join(start.head)}"
