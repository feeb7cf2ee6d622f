"""`engine eval`: a run's model measured on a dataset."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from engine.commands.outputs import check_csv_file
from engine.commands.process import set_up_process
from engine.commands.targets import Flag, RunDirectory, Thresholds, find_own_classes, restore_with
from engine.config.data import BadFileRule, DataConfig
from engine.errors import InputError, problem
from engine.host.console import show, tell
from engine.records.custom import check_trust

if TYPE_CHECKING:
    from engine.metrics.per_class import ClassScores


@dataclass(frozen=True)
class EvaluationData:
    """What to evaluate on; None means as in the run."""

    name: str | None = None
    """Any tfds image-classification builder."""
    path: Path | None = None
    """A folder of images, a CSV table, arrays or prepared tfds data in place of a name."""
    split: str | None = None
    """Split in tfds notation; validation is also the share of the training split that the run set aside. None: test,
    else validation."""
    path_column: str | None = None
    """Column of a table that names the files."""
    label_column: str | None = None
    """Column of a table that holds the labels."""
    label_separator: str | None = None
    """What stands between several labels in a cell of a table."""
    weight_column: str | None = None
    """Column of a table that says how much each example counts."""
    image_directory: Path | None = None
    """Where the paths in a table start."""
    suffix: str | None = None
    """What file names in a table lack at their end, like .jpg."""
    encoding: str | None = None
    """Encoding of a table."""
    on_bad_file: BadFileRule | None = None
    """What a file that cannot be read does: stop, or skip, which is counted beside n."""
    data_dir: Path | None = None
    """Where tfds keeps prepared data."""
    manual_dir: Path | None = None
    """Where files lie that were downloaded by hand."""
    cache_dir: Path | None = None
    """Where decoded images are cached."""


def evaluate(
    run: RunDirectory,
    data: EvaluationData = EvaluationData(),
    step: str = "best",
    member: int | None = None,
    thresholds: Thresholds = (),
    out: Annotated[Path | None, arg(aliases=["--csv"])] = None,
    overwrite: Flag = False,
    trust: Flag = False,
) -> None:
    """Evaluate a run's model on a dataset, every example once, and class by class.

    Args:
        run: Directory of the run, or the run packed.
        data: What to evaluate on.
        step: Checkpoint to use: best, last or a step number.
        member: Of an ensemble the member with this number alone; None for all, combined.
        out: CSV file to write the scores of every class to, and how often it was taken for each of the others.
        overwrite: Replace that file if there is one.
        thresholds: Of several labels a picture, pairs of a label and the probability above which it is predicted.
        trust: Import the author's own code that the run names, which runs it.
    """
    if out is not None:
        check_csv_file(out, overwrite)
    set_up_process(data.cache_dir)
    find_own_classes(trust)
    from engine.data.coverage import absent_notes
    from engine.data.held_out import decoded_as_in_training, load_scored
    from engine.data.kinds import without_ignored
    from engine.report.tables import metrics_table

    classifier = restore_with(run, step, trust, member, thresholds)
    given = {name: value for name, value in vars(data).items() if value is not None and name != "split"}
    if "name" in given or "path" in given:
        given = {"path": None, "source": None, **given}
    known = classifier.record.config.data
    # Classes are matched by name, whatever the run's data was restricted to.
    config: DataConfig = replace(known, class_names=None, **given)
    if config.name == "arrays" and config.path is None:
        rule = "the name of a dataset, because the run was trained on arrays"
        raise InputError(problem("data.name", "none", rule, "Name one with --data.name."))
    if "path" in given or "name" in given:
        config = without_ignored(config, given)
    spec = classifier.input_spec
    config = decoded_as_in_training(config, known, spec.levels, spec.color)
    check_trust(config.source, "data.source", trust, "Add --trust")
    record = classifier.record
    trained_on = record.class_names, record.data_fingerprint
    dataset = load_scored(record.config, config, data.split, trained_on, tell)
    if dataset.class_names == classifier.class_names:  # else it is said where they are matched
        for line in absent_notes(dataset, dataset.name):
            tell(line)
    if classifier.class_names:
        metrics, scores = classifier.evaluate_by_class(dataset)
    else:
        metrics, scores = classifier.evaluate(dataset), None
    which = "" if member is None else f", member {member}"
    show(metrics_table([(dataset.name, metrics)], f"{run}, step {classifier.record.step:,}{which}"))
    if scores is not None:
        _show_classes(scores, dataset.name, out)


def _show_classes(scores: "ClassScores", name: str, out: Path | None) -> None:
    from engine.report.per_class import class_scores_table, mistakes_text, write_class_scores

    kind = "labels" if scores.best_thresholds is not None else "classes"
    show("", class_scores_table(scores, f"{len(scores.class_names):,} {kind} of {name}"))
    if text := mistakes_text(scores):
        show(text)
    if out is not None:
        write_class_scores(out, scores)
        show(f"scores of all {kind}: {out}")


COMMANDS = {"eval": evaluate}
