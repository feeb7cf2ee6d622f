"""Packed runs of ours as a file of weights."""

from pathlib import Path

import numpy as np

from engine.errors import InputError, problem
from engine.importers.weights_file import WeightsFile, make_weights_file
from engine.records import to_json


def read_packed_run(path: Path) -> WeightsFile:
    """The arrays of a packed run's best step, named `layer/variable` (conv_1/kernel), and its record in `about`."""
    from flax import nnx

    from engine.inference.restore import restore
    from engine.inference.single import SingleClassifier
    from engine.networks.network import layers_in

    classifier = restore(path)
    if not isinstance(classifier, SingleClassifier):
        remedy = "Give one: engine.restore(path, member=0).save(…), then engine pack."
        raise InputError(problem(str(path), "an ensemble", "a single model", remedy))
    record = classifier.record
    layers = layers_in(record.config.model, record.input_spec.network_shape, record.num_outputs)
    state = classifier.model_state[1] if isinstance(classifier.model_state, tuple) else classifier.model_state
    pairs = [pair for tree in (classifier.params, state) for pair in nnx.to_flat_state(tree)]
    arrays = {f"{layers.of(where)}/{where[-1]}": np.asarray(leaf) for where, leaf in pairs}
    return make_weights_file(path, "engine", arrays, {"record": to_json(record)})
