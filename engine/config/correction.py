"""What models from other libraries do twice here, put right before a run starts: a last softmax, the scaling of pixels.

Losses take logits and predictions apply softmax or sigmoid themselves; pixels are scaled by the data (`data.scale`).
Only what starts is put right: models that were trained otherwise stay what they are.
"""

from collections.abc import Sequence
from dataclasses import replace

from engine.config.decoding import LEAST_SHARE, ValueRange
from engine.config.named import name_of
from engine.config.run import RunConfig
from engine.config.scoring import Task, loss_facts
from engine.errors import InputError, problem
from engine.models.activations import ACTIVATIONS, activation_spec
from engine.models.layer import Layer
from engine.models.layers import Rescale
from engine.models.specs import Model, Sequential
from engine.records.custom import Custom, Gives

PROBABILITIES: tuple[Gives, ...] = ("softmax", "sigmoid")
NARROW = tuple(name for name, kind in ACTIVATIONS.items() if kind.is_narrow)
PIXEL_SCALE = 1 / 100  # a smaller factor is meant for pixels up to 255: 1/255, 1/256, 1/127.5
LEVELS = 255
MOST_SCALED = 20  # standardized values stay below it


def put_right(
    config: RunConfig,
    floats: ValueRange | None = None,
    has_contract: bool = False,
    gives: Gives = "logits",
    has_levels: bool = False,
    task: Task = "classes",
) -> tuple[RunConfig, list[str]]:
    """(the config of a run that starts, what was put right and why, in words).

    floats: the extremes of the training images, where they are float32 and no uint8 levels.
    has_contract: how inputs are scaled is taken over from another run.
    gives: what the outputs of a class of the user's own are. has_levels: the training images are uint8.
    task: what the targets are, which decides what a loss is given.
    Raises InputError for a last layer that goes with another loss.
    """
    model, lines = _without_probabilities(config.model, config.train.loss, gives, task)
    config = replace(config, model=model)
    if has_contract:
        return config, lines
    config, alone = _rescaled_once(config)
    config, fitted = _rescaled_for_levels(config) if has_levels else (config, [])
    config, more = _scaled_once(config, floats)
    return config, lines + alone + fitted + more


def variants(config: RunConfig) -> list[RunConfig]:
    """What a config may have become when its run started: itself, or put right for levels or for floats."""
    try:
        found = [put_right(config)[0], put_right(config, (0, 1))[0], put_right(config, has_contract=True)[0]]
        found += [put_right(config, gives=gives)[0] for gives in PROBABILITIES]
        found += [put_right(config, has_levels=True)[0]]
        found += [put_right(config, task=task)[0] for task in ("labels", "numbers")]
    except InputError:
        return [config]
    different = [config]
    for each in found:
        if each not in different:
            different.append(each)
    return different


def _without_probabilities(model: Model, given: str | Custom, gives: Gives, task: Task) -> tuple[Model, list[str]]:
    """The model without a last softmax or sigmoid, if the loss takes logits."""
    loss, activation = name_of(given), loss_facts(given, task).activation
    if activation == "linear":
        return model, []
    if gives != model.gives and not model.is_layered:
        line = f"model: {loss} takes the logits below its last {gives}, and predictions apply it themselves"
        return replace(model, gives=gives), [line]
    lines = []
    while (found := _last_activation(model.layers, PROBABILITIES)) is not None:
        assert isinstance(model, Sequential)
        number, name = found
        model = model.with_layer(number, model.layers[number].without_activation())
        _check_units(model, loss, name, takes_one=activation == "sigmoid")
        reason = f"{loss} takes what comes before it (logits), and predictions apply it themselves"
        lines.append(f"model: the last {name} is left out: {reason}")
    if (found := _last_activation(model.layers, PROBABILITIES, with_pools=True)) is not None:
        lines.append(_pooled_note(found[1], loss))
    if (found := _last_activation(model.layers, NARROW)) is not None:
        lines.append(_narrow_note(found[1], loss))
    return model, lines


def _narrow_note(name: str, loss: str) -> str:
    """A line where a last activation such as relu limits the logits."""
    got = f"warning: model: its last {name} limits what {loss} takes as logits, numbers of any size and sign"
    return f"{got}: it learns slowly or not at all. This is left as it is. Give the last layer no activation"


def _pooled_note(name: str, loss: str) -> str:
    """A line where probabilities are pooled, which no logits below them stand for."""
    got = f"warning: model: its last {name} comes before a pool, so it gives probabilities, where {loss} takes logits"
    effect = "it learns slowly, and what it predicts is near to equal for all classes"
    return f"{got}: {effect}. This is left as it is, because anything else is another model. Put no {name} there"


def _last_activation(
    layers: Sequence[Layer], wanted: Sequence[str], with_pools: bool = False
) -> tuple[int, str] | None:
    """The number of the last layer with a wanted activation whose values those after it keep, and that activation.

    with_pools: those after it may also pool them.
    """
    for number in reversed(range(len(layers))):
        layer = layers[number]
        activation = activation_spec(layer.activation)
        name = None if activation is None else activation.function
        if name in wanted:
            is_alone = len(layers) == 1 and layer.without_activation() is None
            return None if is_alone else (number, str(activation))
        keeps = layer.keeps_values or (with_pools and layer.pools_values) or name == "linear"
        if layer.has_params or not keeps:
            return None
    return None


def _check_units(model: Sequential, loss: str, name: str, takes_one: bool) -> None:
    """Raises InputError where one unit meets the loss of several classes, or the reverse."""
    last = next((layer for layer in reversed(model.layers) if layer.has_params), None)
    units = getattr(last, "units", None)
    if units is None or (units == 1) == takes_one:
        return
    rule, other = "one unit a class", "binary_cross_entropy"
    if takes_one:
        rule, other = "one unit", "softmax_cross_entropy"
    raise InputError(problem("train.loss", f"{loss} with {units} units ({name})", rule, f"Use {other}."))


def _rescaled_once(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The config with the first Rescale for pixels alone."""
    rescales = _pixel_rescales(config.model.layers)
    lines = []
    for number in list(rescales)[1:]:
        text = " and ".join(map(_rescale_text, (next(iter(rescales.values())), rescales[number])))
        lines.append(f"model: of {text} the second is left out: pixels are scaled once")
        config = _with_layer(config, number, Rescale(1.0))
    return config, lines


def _rescaled_for_levels(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The config with a Rescale for deep pixels, like 1/65535, changed to suit the levels that they become."""
    for number, layer in _pixel_rescales(config.model.layers).items():
        if not 0 < layer.scale < 1 / (2 * LEVELS):
            break
        fitting = Rescale((2 * abs(layer.offset) or 1) / LEVELS, layer.offset)
        line = f"model: {_rescale_text(layer)} is {_rescale_text(fitting)}: the images are levels from 0 to {LEVELS}"
        return _with_layer(config, number, fitting), [line]
    return config, []


def _scaled_once(config: RunConfig, floats: ValueRange | None) -> tuple[RunConfig, list[str]]:
    """The config with pixels scaled by the model's first Rescale or by the data, where both did."""
    rescales = _pixel_rescales(config.model.layers)
    if not rescales:
        return config, _unscaled_notes(config.model, floats)
    number, layer = next(iter(rescales.items()))
    data, text = config.data, _rescale_text(layer)
    is_standardized = data.mean is not None or data.std is not None or data.standardize is not None
    if floats is None and is_standardized:
        line = f"model: {text} is left out: the images are standardized already"
        return _with_layer(config, number, Rescale(1.0)), [line]
    if floats is None and data.scale < PIXEL_SCALE:
        line = f"data.scale: 1 in place of {data.scale:.4g}, because the model's {text} scales pixels itself"
        return replace(config, data=replace(data, scale=1.0)), [line]
    if floats is not None and max(map(abs, floats)) <= LEVELS * LEAST_SHARE:
        once = Rescale(layer.scale * LEVELS, layer.offset) if floats[0] >= 0 else Rescale(1.0)
        line = f"model: {text} is left out: the images are scaled already, from {floats[0]:g} to {floats[1]:g}"
        if once != Rescale(1.0):
            line = line.replace("is left out", f"is Rescale({once.scale:g}, {once.offset:g})")
        return _with_layer(config, number, once), [line]
    return config, []


def _unscaled_notes(model: Model, floats: ValueRange | None) -> list[str]:
    """A line where float pictures reach far beyond 1 and no layer before the first weights scales them."""
    if floats is None or max(map(abs, floats)) <= MOST_SCALED or not model.is_layered:
        return []
    first = next((layer for layer in model.layers if layer.has_params or layer.scales_inputs), None)
    if first is not None and first.scales_inputs:
        return []
    got = f"the images are floats from {floats[0]:g} to {floats[1]:g}, and nothing scales them"
    return [f"warning: {got}; most models learn better from 0 to 1. Divide them, or start the model with Rescale"]


def _rescale_text(layer: Rescale) -> str:
    return f"Rescale({layer.scale:.4g}{f', {layer.offset:g}' if layer.offset else ''})"


def _pixel_rescales(layers: Sequence[Layer]) -> dict[int, Rescale]:
    """The layers Rescale for pixels before all layers with weights, by their numbers."""
    found = {}
    for number, layer in enumerate(layers):
        if layer.has_params:
            break
        if isinstance(layer, Rescale) and abs(layer.scale) < PIXEL_SCALE:
            found[number] = layer
    return found


def _with_layer(config: RunConfig, number: int, layer: Layer) -> RunConfig:
    """The config with another layer at a position; it stays a Rescale, so that the names of the layers stay."""
    assert isinstance(config.model, Sequential)
    return replace(config, model=config.model.with_layer(number, layer))
