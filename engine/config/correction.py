"""What models from other libraries do twice here, put right before a run starts: a last softmax, the scaling of pixels.

Losses take logits and predictions apply softmax or sigmoid themselves; pixels are scaled by the data (`data.scale`).
Only what starts is put right: models that were trained otherwise stay what they are.
"""

from dataclasses import replace

from engine.config.decoding import LEAST_SHARE, ValueRange
from engine.config.run import RunConfig
from engine.errors import InputError, problem
from engine.models.layers import (
    Activation,
    AveragePool,
    BatchNorm,
    Crop,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    GlobalMaxPool,
    GroupNorm,
    Layer,
    LayerNorm,
    MaxPool,
    Rescale,
    SpatialDropout,
    UpSample,
)
from engine.models.shapes import Trained
from engine.models.specs import Model, Sequential
from engine.records.custom import Custom, Gives

PROBABILITIES: tuple[Gives, ...] = ("softmax", "sigmoid")
POOLS = (GlobalAveragePool, GlobalMaxPool, AveragePool, MaxPool, UpSample, Crop)
PIXEL_SCALE = 1 / 100  # a smaller factor is meant for pixels up to 255: 1/255, 1/256, 1/127.5
LEVELS = 255
MOST_SCALED = 20  # standardized values stay below it


def put_right(
    config: RunConfig,
    floats: ValueRange | None = None,
    has_contract: bool = False,
    gives: Gives = "logits",
    has_levels: bool = False,
) -> tuple[RunConfig, list[str]]:
    """(the config of a run that starts, what was put right and why, in words).

    floats: the extremes of the training images, where they are float32 and no uint8 levels.
    has_contract: how inputs are scaled is taken over from another run.
    gives: what the outputs of a class of the user's own are. has_levels: the training images are uint8.
    Raises InputError for a last layer that goes with another loss.
    """
    model, lines = _without_probabilities(config.model, config.train.loss, gives)
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
        found.append(put_right(config, has_levels=True)[0])
    except InputError:
        return [config]
    return [config, *found]


def _without_probabilities(model: Model, loss: str, gives: Gives) -> tuple[Model, list[str]]:
    """The model without a last softmax or sigmoid, where the loss takes logits."""
    if isinstance(model, Custom) and loss != "mean_squared_error" and gives != model.gives:
        line = f"model: {loss} takes the logits below its last {gives}, and predictions apply it themselves"
        return replace(model, gives=gives), [line]
    lines = []
    while loss != "mean_squared_error" and (found := _last_probabilities(model)) is not None:
        place, name = found
        model = _without_activation(model, place)
        _check_units(model, loss, name)
        reason = f"{loss} takes what comes before it (logits), and predictions apply it themselves"
        lines.append(f"model: the last {name} is left out: {reason}")
    if loss != "mean_squared_error" and (found := _last_probabilities(model, POOLS)) is not None:
        lines.append(_pooled_note(found[1], loss))
    return model, lines


def _pooled_note(name: str, loss: str) -> str:
    """A line where probabilities are pooled, which no logits below them stand for."""
    got = f"warning: model: its last {name} comes before a pool, so it gives probabilities, where {loss} takes logits"
    effect = "it learns slowly, and what it predicts is near to equal for all classes"
    return f"{got}: {effect}. This is left as it is, because anything else is another model. Put no {name} there"


def _last_probabilities(model: Model, passing: tuple[type, ...] = ()) -> tuple[int, str] | None:
    """The number of the last layer that gives probabilities, which those after it pass on, and its activation.

    passing: kinds of layers that pass them on too.
    """
    layers = model.layers if isinstance(model, Sequential) else ()
    for place in reversed(range(len(layers))):
        layer = layers[place]
        name = layer.name if isinstance(layer, Activation) else getattr(layer, "activation", None)
        if name in PROBABILITIES:
            return (place, name) if len(layers) > 1 or not isinstance(layer, Activation) else None
        if not isinstance(layer, (Flatten, Dropout, SpatialDropout, *passing)) and name != "linear":
            return None
        if isinstance(layer, Trained):
            return None
    return None


def _without_activation(model: Model, place: int) -> Sequential:
    """The model without the activation of a layer, or without the layer where it is nothing else."""
    assert isinstance(model, Sequential)
    layer = model.layers[place]
    rest: tuple[Layer, ...] = () if isinstance(layer, Activation) else (replace(layer, activation=None),)  # type: ignore[type-var]
    return Sequential((*model.layers[:place], *rest, *model.layers[place + 1 :]))


def _check_units(model: Sequential, loss: str, name: str) -> None:
    """Raises InputError where one unit meets the loss of several classes, or the reverse."""
    last = next((layer for layer in reversed(model.layers) if isinstance(layer, Trained)), None)
    units = last.units if isinstance(last, Dense) else None
    if units is None or (units == 1) == (loss == "binary_cross_entropy"):
        return
    rule, other = "one unit a class", "binary_cross_entropy"
    if loss == "binary_cross_entropy":
        rule, other = "one unit", "softmax_cross_entropy"
    raise InputError(problem("train.loss", f"{loss} with {units} units ({name})", rule, f"Use {other}."))


def _rescaled_once(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The config with the first Rescale for pixels alone."""
    first, *others = _pixel_rescales(config.model) or (0,)
    lines = []
    for place in others:
        assert isinstance(config.model, Sequential)
        text = " and ".join(_rescale_text(config.model.layers[k]) for k in (first, place))
        lines.append(f"model: of {text} the second is left out: pixels are scaled once")
        config = _with_layer(config, place, Rescale(1.0))
    return config, lines


def _rescaled_for_levels(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The config with a Rescale for deep pixels, like 1/65535, made fit for the levels that they become."""
    place = next(iter(_pixel_rescales(config.model)), None)
    if place is None:
        return config, []
    assert isinstance(config.model, Sequential)
    layer = config.model.layers[place]
    assert isinstance(layer, Rescale)
    if not 0 < layer.scale < 1 / (2 * LEVELS):
        return config, []
    fitting = Rescale((2 * abs(layer.offset) or 1) / LEVELS, layer.offset)
    line = f"model: {_rescale_text(layer)} is {_rescale_text(fitting)}: the images are levels from 0 to {LEVELS}"
    return _with_layer(config, place, fitting), [line]


def _scaled_once(config: RunConfig, floats: ValueRange | None) -> tuple[RunConfig, list[str]]:
    """The config with pixels scaled by the model's first Rescale or by the data, where both did."""
    place = next(iter(_pixel_rescales(config.model)), None)
    if place is None:
        return config, _unscaled_notes(config.model, floats)
    assert isinstance(config.model, Sequential)
    layer, data = config.model.layers[place], config.data
    assert isinstance(layer, Rescale)
    text = _rescale_text(layer)
    is_standardized = data.mean is not None or data.std is not None or data.standardize is not None
    if floats is None and is_standardized:
        line = f"model: {text} is left out: the images are standardized already"
        return _with_layer(config, place, Rescale(1.0)), [line]
    if floats is None and data.scale < PIXEL_SCALE:
        line = f"data.scale: 1 in place of {data.scale:.4g}, because the model's {text} scales pixels itself"
        return replace(config, data=replace(data, scale=1.0)), [line]
    if floats is not None and max(map(abs, floats)) <= LEVELS * LEAST_SHARE:
        once = Rescale(layer.scale * LEVELS, layer.offset) if floats[0] >= 0 else Rescale(1.0)
        line = f"model: {text} is left out: the images are scaled already, from {floats[0]:g} to {floats[1]:g}"
        if once != Rescale(1.0):
            line = line.replace("is left out", f"is Rescale({once.scale:g}, {once.offset:g})")
        return _with_layer(config, place, once), [line]
    return config, []


def _unscaled_notes(model: Model, floats: ValueRange | None) -> list[str]:
    """A line where float pictures reach far beyond 1 and no layer before the first weights scales them."""
    if floats is None or max(map(abs, floats)) <= MOST_SCALED or not isinstance(model, Sequential):
        return []
    first = next((layer for layer in model.layers if isinstance(layer, Trained | Rescale)), None)
    if isinstance(first, Rescale | BatchNorm | LayerNorm | GroupNorm):
        return []
    got = f"the images are floats from {floats[0]:g} to {floats[1]:g}, and nothing scales them"
    return [f"warning: {got}; most models learn better from 0 to 1. Divide them, or start the model with Rescale"]


def _rescale_text(layer: Layer) -> str:
    assert isinstance(layer, Rescale)
    return f"Rescale({layer.scale:.4g}{f', {layer.offset:g}' if layer.offset else ''})"


def _pixel_rescales(model: Model) -> list[int]:
    """The numbers of the layers Rescale for pixels before all layers with weights."""
    found = []
    for place, layer in enumerate(model.layers if isinstance(model, Sequential) else ()):
        if isinstance(layer, Trained):
            break
        if isinstance(layer, Rescale) and abs(layer.scale) < PIXEL_SCALE:
            found.append(place)
    return found


def _with_layer(config: RunConfig, place: int, layer: Layer) -> RunConfig:
    """The config with another layer at a place; it stays a Rescale, so that the names of the layers stay."""
    assert isinstance(config.model, Sequential)
    layers = (*config.model.layers[:place], layer, *config.model.layers[place + 1 :])
    return replace(config, model=Sequential(layers))
