"""`engine summary`: the layers of a model."""

from dataclasses import replace
from pathlib import Path

from tyro.conf import Positional

from engine.checkpoints.steps import checkpoints_of
from engine.commands.experiments import experiment_config
from engine.commands.outputs import check_graph_file
from engine.commands.targets import Flag, find_own_classes
from engine.config import RunConfig
from engine.config.data import DataConfig
from engine.config.decoding import NUM_CHANNELS
from engine.config.finetune import frozen_layers, layer_names
from engine.config.scoring import loss_facts
from engine.errors import InputError, problem
from engine.host.console import Console, show, tell
from engine.models.specs import Sequential
from engine.recipes import RECIPES
from engine.records.custom import check_trust

SHOWN_CLASSES = 2  # of an experiment without its data, which knows how many there are
TABLE_COLUMNS = 120  # of Flax's own table of a model, at most


def summary(
    target: Positional[str],
    inner: Flag = False,
    classes: int | None = None,
    graph: Path | None = None,
    trust: Flag = False,
) -> None:
    """Show the layers, output shapes and parameters of a run or an experiment.

    Args:
        target: Directory of a run (runs/convnet), the run packed, a recipe (convnet), or an experiment (mine.py).
        inner: Show the layers within blocks too.
        classes: Of a recipe or experiment, the number of classes; None: as many as its data has.
        graph: Also draw the layers as a graph, into this SVG file; None: no drawing.
        trust: Import the author's own code that a run names, which runs it.
    """
    from engine.models.summary import summary_table

    if graph is not None:
        check_graph_file(graph)
    is_run = _is_run(target)
    if is_run and classes is not None:
        raise InputError(problem("classes", classes, "none of a run, which has its own", "Leave it out."))
    config, input_shape, num_outputs = _of_run(Path(target)) if is_run else _of_experiment(target, classes)
    check_trust(config.model, "model", trust or not is_run, "Add --trust")
    find_own_classes(trust or not is_run)
    if not isinstance(config.model, Sequential):
        if graph is not None:
            rule = "a model of layers, and no class of its author's own"
            raise InputError(problem("graph", graph, rule, "Leave it out."))
        _tabulate_custom(config, input_shape, num_outputs)
        return
    members = config.train.members
    title = config.name if members == 1 else f"{config.name}: each of {members} members"
    frozen = frozen_layers(config.finetune, layer_names(config.model.named), 0)
    show(summary_table(config.model.with_outputs(num_outputs), input_shape, title, frozen, inner))
    if graph is not None:
        _draw_graph(config.model, input_shape, num_outputs, graph)
    if is_run:
        show(*_provenance_lines(Path(target)))


def _draw_graph(model: Sequential, input_shape: tuple[int, ...], num_outputs: int, path: Path) -> None:
    model.graph(input_shape, num_outputs).save(path)
    tell(f"graph drawn into {path}")


def _is_run(target: str) -> bool:
    """Whether what was typed is a run. Anything else is an experiment, whose code is run to show it.

    A folder that has the name of a recipe, as of data, is a run only if there is one in it.
    """
    path = Path(target)
    if target in RECIPES and not checkpoints_of(path).is_dir():
        return False
    return path.is_dir() or (path.suffix != ".py" and (path.is_file() or "/" in target or path.suffix == ".engine"))


def _of_run(path: Path) -> tuple[RunConfig, tuple[int, ...], int]:
    """(config, input shape, number of outputs) of a run's record, without JAX."""
    from engine.checkpoints.packing import record_of

    record = record_of(path)
    return record.config, record.input_spec.network_shape, record.num_outputs


def _provenance_lines(path: Path) -> list[str]:
    """Where imported weights are from, and under which licence."""
    from engine.checkpoints.packing import record_of

    about = record_of(path).provenance
    if about is None:
        return []
    terms = f"; {about.licence}; {about.citation}" if about.licence else ""
    return [f"weights of {about.model}: {about.file}, {about.hash}{terms}"]


def _of_experiment(target: str, classes: int | None) -> tuple[RunConfig, tuple[int, ...], int]:
    """(config, input shape, number of outputs): of its data, or without it, as far as the config says them."""
    from engine.data.contract import input_spec
    from engine.data.kinds import open_source
    from engine.data.load import num_outputs

    config = experiment_config(target)
    shape = _shape_without_data(config.data)
    if classes is not None and shape is not None:
        return config, shape, _count_outputs(config, classes)
    try:
        train = open_source(config.data, tell).load(config.data.split, "data.split")
    except InputError:
        if shape is None:
            raise
        count = len(config.data.class_names or ()) or SHOWN_CLASSES
        tell(f"the data of {target} is not here: shown for {count} classes; --classes sets another number")
        return config, shape, _count_outputs(config, count)
    spec = input_spec(replace(config.data, standardize=None), train)  # nothing is fitted for a look at shapes
    counted = num_outputs(config, train) if classes is None else _count_outputs(config, classes)
    return config, spec.network_shape, counted


def _shape_without_data(data: DataConfig) -> tuple[int, ...] | None:
    """What the model is fed, if the config says the size and the colours."""
    size = data.crop_height_width or data.height_width
    return None if size is None or data.color is None else (*size, NUM_CHANNELS[data.color])


def _count_outputs(config: RunConfig, classes: int) -> int:
    if classes < 2:
        raise InputError(problem("classes", classes, "2 or more", "Give the number of classes."))
    return 1 if loss_facts(config.train.loss).activation == "sigmoid" else classes


def _tabulate_custom(config: RunConfig, input_shape: tuple[int, ...], num_outputs: int) -> None:
    import jax
    from flax import nnx

    from engine.networks.build import build

    module = build(config.model, input_shape, num_outputs, nnx.Rngs(0))
    plain = {"force_terminal": False, "width": min(Console().width, TABLE_COLUMNS)}
    show(nnx.tabulate(module, jax.numpy.zeros((1, *input_shape)), console_kwargs=plain))


COMMANDS = {"summary": summary}
