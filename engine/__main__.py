"""The `engine` command: summary, eval and predict."""

import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import FlagCreatePairsOff, Positional

from engine.config import DataConfig, ResizeRule, RunConfig
from engine.entry import errors_as_lines, set_up_process
from engine.errors import InputError, problem
from engine.models.specs import Custom

Flag = Annotated[bool, FlagCreatePairsOff]


@dataclass(frozen=True)
class EvaluationData:
    """What to evaluate on; None means as in the run."""

    name: str | None = None
    """Any tfds image-classification builder."""
    path: Path | None = None
    """A folder of images, a CSV table, arrays or prepared tfds data in place of a name."""
    split: str = "test"
    """Split in tfds notation."""
    data_dir: Path | None = None
    """Where tfds keeps prepared data."""
    manual_dir: Path | None = None
    """Where files lie that were downloaded by hand."""
    cache_dir: Path | None = None
    """Where decoded images are cached."""


def summary(target: Positional[str], trust: Flag = False) -> None:
    """Show the layers, output shapes and parameters of a run or an experiment.

    Args:
        target: Directory of a run (runs/convnet), or an experiment (experiments.convnet).
        trust: Import the model class that a run names, which runs its code.
    """
    from rich.console import Console

    from engine.report.tables import summary_table

    config, input_shape, num_outputs = _described(target)
    if isinstance(config.model, Custom):
        _tabulate_custom(config, input_shape, num_outputs, trust or not Path(target).is_dir())
        return
    Console(highlight=False, markup=False).print(
        summary_table(config.model.with_outputs(num_outputs), input_shape, config.name)
    )


def evaluate(
    run: Positional[Path],
    data: EvaluationData = EvaluationData(),
    step: str = "best",
    trust: Flag = False,
) -> None:
    """Evaluate a run's model on a dataset, every example once.

    Args:
        run: Directory of the run.
        data: What to evaluate on.
        step: Checkpoint to use: best, last or a step number.
        trust: Import the model class that the run names, which runs its code.
    """
    set_up_process(data.cache_dir)
    _find_own_classes(trust)
    from rich.console import Console

    from engine.data.load import open_source
    from engine.predict import restore
    from engine.report.tables import metrics_table

    classifier = restore(run, _step(step), trust)
    given = {name: value for name, value in vars(data).items() if value is not None and name != "split"}
    if "name" in given and "path" not in given:
        given["path"] = None
    config: DataConfig = replace(classifier.record.config.data, **given)
    if config.name == "arrays" and config.path is None:
        rule = "the name of a dataset, because the run was trained on arrays"
        raise InputError(problem("data.name", "none", rule, "Name one with --data.name."))
    dataset = open_source(config, _tell).load(data.split, "data.split")
    metrics = classifier.evaluate(dataset)
    Console(highlight=False, markup=False).print(
        metrics_table([(dataset.name, metrics)], f"{run}, step {classifier.record.step:,}")
    )


def predict(
    run: Positional[Path],
    images: Positional[tuple[Path, ...]],
    top: int = 1,
    resize: ResizeRule | None = None,
    step: str = "best",
    trust: Flag = False,
) -> None:
    """Name what is in image files or folders of them.

    Args:
        run: Directory of the run.
        images: Files, or folders of files.
        top: How many classes to name for each.
        resize: How images of another size are made to fit; None for the model's own rule, which may refuse them.
        step: Checkpoint to use: best, last or a step number.
        trust: Import the model class that the run names, which runs its code.
    """
    if not images:
        raise InputError(problem("images", "none", "at least one file or folder", "Name them after the run."))
    set_up_process()
    _find_own_classes(trust)
    from rich.console import Console
    from rich.table import Table

    from engine.data.images import picture_files
    from engine.predict import restore

    classifier = restore(run, _step(step), trust)
    files = picture_files(images)
    table = Table("image", *(f"{place}." for place in range(1, min(top, len(classifier.class_names)) + 1)))
    for file, prediction in zip(files, classifier.predict(files, top, resize), strict=True):
        table.add_row(str(file), *(f"{name} {probability:.3f}" for name, probability in prediction.top))
    Console(highlight=False, markup=False).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the `engine` command."""
    with errors_as_lines():
        commands: dict[str, Any] = {"summary": summary, "eval": evaluate, "predict": predict}
        tyro.extras.subcommand_cli_from_dict(
            commands, prog="engine", args=arguments, description="Look at, evaluate and use trained models."
        )


def _described(target: str) -> tuple[RunConfig, tuple[int, ...], int]:
    """(config, input shape, number of outputs) of a run's record or of an experiment, without JAX."""
    path = Path(target)
    if path.is_dir() or ("/" in target and not target.endswith(".py")):
        from engine.checkpoint import choose_step, read_record

        record = read_record(path, choose_step(path))
        return record.config, record.input_spec.shape, record.num_outputs
    from engine.data.load import num_outputs, open_source

    config = _experiment(target)
    train = open_source(config.data, _tell).load(config.data.split, "data.split")
    return config, train.input_shape, num_outputs(config, train)


def _experiment(target: str) -> RunConfig:
    path = Path(target)
    directory, name = Path.cwd(), target.removesuffix(".py").replace("/", ".").lstrip(".")
    if path.suffix == ".py" and path.is_absolute():
        directory, name = path.parent, path.stem
    sys.path.insert(0, str(directory))
    try:
        config = importlib.import_module(name).config()
    except InputError:
        raise
    except (ImportError, SyntaxError, AttributeError, TypeError, ValueError) as error:
        rule = "the directory of a run, or an experiment like experiments.convnet with a function config()"
        raise InputError(problem("target", f"{target!r} ({error})", rule, "Check the name and the file.")) from error
    if not isinstance(config, RunConfig):
        rule = "an experiment whose config() returns a RunConfig"
        raise InputError(problem("target", f"{target!r} with {type(config).__name__}", rule, "Correct it."))
    return config


def _find_own_classes(trust: bool) -> None:
    """Lets a trusted run import its model class from the working directory, as `python -m` would."""
    if trust:
        sys.path.insert(0, str(Path.cwd()))


def _tabulate_custom(config: RunConfig, input_shape: tuple[int, ...], num_outputs: int, trust: bool) -> None:
    if not trust:
        assert isinstance(config.model, Custom)
        rule = "trust, because showing it imports that class, which runs its module's code"
        raise InputError(problem("model", config.model.path, rule, "Add --trust."))
    _find_own_classes(trust)
    import jax
    from flax import nnx

    from engine.models.build import build

    module = build(config.model, input_shape, num_outputs, nnx.Rngs(0))
    print(nnx.tabulate(module, jax.numpy.zeros((1, *input_shape))))


def _tell(text: str) -> None:
    print(text, file=sys.stderr)


def _step(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() else text


if __name__ == "__main__":
    main()
