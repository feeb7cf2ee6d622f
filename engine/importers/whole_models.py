"""Whole models that Keras saved, as classifiers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.checkpoints.record import Provenance
from engine.config.contract import InputSpec
from engine.errors import InputError, Say, problem
from engine.importers import keras_names
from engine.importers.download import hash_of
from engine.importers.importing import Weights, targets_of, tree_of
from engine.importers.keras_models import KerasModel, keras_model
from engine.importers.load import classifier_of_weights, own_version
from engine.importers.matching import fill
from engine.inference.single import SingleClassifier
from engine.text import counted


def convert_model(
    path: Path, class_names: Sequence[str] | None, height_width: tuple[int, int] | None, scale: float | None, say: Say
) -> SingleClassifier:
    """The classifier of a whole model that Keras saved.

    class_names: of its outputs; None: class 0, class 1, … scale: what pixels are multiplied by, of a model that does
    not normalise them itself. Raises InputError, naming the layer, for what has no counterpart here.
    """
    model, where = keras_model(path, height_width), str(path)
    inputs, notes = _inputs(model, scale)
    names = _class_names(model, class_names, where)
    if names and class_names is None:
        notes.append(f"the file has no names of classes: they are called {names[0]!r} to {names[-1]!r}")
    targets = targets_of(model.spec, inputs.network_shape, model.num_outputs)
    filled = fill(targets, model.weights, keras_names.find_origin, where)
    if filled.left_over:
        got = f"{counted(len(filled.left_over), 'array')} of no layer: {', '.join(filled.left_over[:3])}"
        raise InputError(problem(where, got, "a layer for each", "Save the model again by Keras."))
    notes = [*model.notes, *notes]
    for note in notes:
        say(note)
    params, state = (tree_of(filled.arrays, number) for number in (0, 1))
    taken = Weights(model.spec, inputs, model.num_outputs, params, state, tuple(notes))
    about = Provenance(path.stem, path.name, hash_of(path), "keras", importer=own_version(), notes=tuple(notes))
    loss = "binary_cross_entropy" if _is_binary(model) else "softmax_cross_entropy"
    return classifier_of_weights(taken, names, about, loss, model.augment)


def _inputs(model: KerasModel, scale: float | None) -> tuple[InputSpec, list[str]]:
    """(the input contract, notes on what of it the file does not say)."""
    inputs, notes = model.input_spec, []
    if scale is not None and model.is_scaled:
        rule = "none: the model normalises its inputs itself"
        raise InputError(problem("scale", scale, rule, "Leave it out."))
    if scale is not None:
        inputs = replace(inputs, scale=scale)
    elif not model.is_scaled:
        notes.append("it was fed 0 to 1? Then import it with --scale 0.00392156862745098, which is 1/255")
    if len(inputs.shape) == 3 and inputs.resize is None:
        inputs = replace(inputs, resize="stretch", interpolation="bilinear", antialias=False)
        notes.append("pictures of another size are stretched as by image_dataset_from_directory")
    return inputs, notes


def _is_binary(model: KerasModel) -> bool:
    return model.gives == "sigmoid" and model.num_outputs == 1


def _class_names(model: KerasModel, given: Sequence[str] | None, where: str) -> tuple[str, ...]:
    """The classes of its outputs; none of a model that ends in numbers and is given no names."""
    count = 2 if _is_binary(model) else model.num_outputs
    if given is not None:
        if len(given) != count:
            rule = f"{count:,}, the outputs of {where}"
            raise InputError(problem("class-names", f"{len(given):,} names", rule, "Correct the list."))
        return tuple(given)
    is_classifier = model.gives is not None or count > 1
    return tuple(f"class {number}" for number in range(count)) if is_classifier else ()
