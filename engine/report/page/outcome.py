"""Sections on how it went and what came out: the run in short, its curves, its scores, its members."""

from typing import Any

import numpy as np

from engine.config.scoring import METRICS
from engine.errors import shape_text
from engine.inference.ensemble import EnsembleClassifier, logarithms
from engine.metrics.calibration import reliability
from engine.metrics.stopping import has_stopped_early
from engine.report.ensemble import ensemble_rows, ensemble_table, reliability_figure
from engine.report.history import curve_figure, find_curves
from engine.report.page.charts import make_chart
from engine.report.page.material import Answers, Material
from engine.report.page.parts import Facts, LeftOut, Part, Rows, Text, rows_of
from engine.report.progress import duration_text
from engine.report.tables import format_metric, metrics_table
from engine.text import counted

MOST_CURVES = 8
MOST_EPOCHS = 1_000  # lines of the table


def describe_run(material: Material) -> list[Part]:
    """The run in short."""
    record, train = material.record, material.record.config.train
    members = f"{train.members} members, each of " if train.members > 1 else ""
    facts = [
        ("data", str(record.config.data.path or record.config.data.name)),
        ("input", shape_text(record.input_spec.shape)),
        ("classes" if record.class_names else "outputs", f"{len(record.class_names) or record.num_outputs:,}"),
        ("model", f"{members}{count_params(material):,} parameters"),
        ("epochs", _epochs_text(material)),
        *((name.replace("_", " "), format_metric(name, value)) for name, value in _find_main_scores(material)),
        ("training", duration_text(sum(row["seconds"] for row in material.history if row.get("seconds", 0) >= 0.0))),
        ("device", record.device or "not known"),
    ]
    _ = material.splits  # read now, if they can be: about which there may be something to say
    return [Facts(facts), *map(Text, material.notes)]


def draw_history(material: Material) -> list[Part]:
    """The curves of the shown metrics, and of the learning rate where that changes."""
    history, train = material.history, material.record.config.train
    if not history:
        raise LeftOut("No epoch is complete.")
    best, parts = material.best_epoch, list[Part]()
    names = find_curves(history, train.shown_metrics)[:MOST_CURVES]
    if len({row.get("learning_rate") for row in history}) > 1:
        names.append("learning_rate")
    stopped = len(history) if has_stopped_early(train, history) else None
    for name in names:
        shown = name.replace("_", " ")
        marked = f", best epoch {best:,}" if best is not None else ""
        last = ", ".join(
            f"{kind} {format_metric(name, history[-1][key])}"
            for kind, key in (("training", name), ("validation", f"validation_{name}"))
            if key in history[-1]
        )
        label = f"{shown} over {counted(len(history), 'epoch')}{marked}; at the end {last}"
        parts += [make_chart(curve_figure(history, name, best, shown, stopped), label, f"curve-{name}")]
    if stopped is not None:
        patience = f"{train.patience:,} epoch{'s' * (train.patience != 1)} without a better one"
        parts.append(Text(f"Stopped early after epoch {len(history):,}: {patience} (train.patience)."))
    which = "All epochs" if len(history) <= MOST_EPOCHS else f"The last {MOST_EPOCHS:,} of {len(history):,} epochs"
    return [*parts, Rows(which, *_tabulate(history))]


def show_scores(material: Material) -> list[Part]:
    """The metrics of each split, each example counted once."""
    found = material.results.get("metrics")
    rows = [
        (split, {name: value for name, value in metrics.items() if isinstance(value, int | float)})
        for split, metrics in (found.items() if isinstance(found, dict) else ())
        if isinstance(metrics, dict)
    ]
    if not rows and not isinstance(material.answers, str):
        rows = [(material.answers.split, score_answers(material, material.answers))]
    if not rows:
        raise LeftOut(material.answers if isinstance(material.answers, str) else "There are no scores.")
    which = "each member at its best" if material.is_ensemble else f"step {material.classifier.record.step:,}"
    return [rows_of(metrics_table(rows, f"Scores, {which}"))]


def score_answers(material: Material, answers: Answers) -> dict[str, Any]:
    """n, the loss and the metrics of the answers."""
    return material.classifier.scoring.score(answers.outputs, answers.data.labels, answers.data.weights)


def show_calibration(material: Material) -> list[Part]:
    """Whether 80 % sure is right 80 % of the time."""
    answers = material.need_answers("classes")
    labels, title = answers.data.class_numbers, "Accuracy against confidence"
    combined = reliability(answers.outputs, labels)
    members = []
    if answers.of_members is not None:
        members = [reliability(own, labels) for own in answers.of_members if own.any()]
    error = combined.expected_calibration_error
    label = f"{title}: expected calibration error {error:.4f} over {len(combined.counts)} bins, n = {combined.n:,}"
    return [make_chart(reliability_figure(combined, members), label, "calibration"), _explain_calibration(error)]


def show_members(material: Material) -> list[Part]:
    """The scores of an ensemble's members beside those of all together."""
    classifier = material.classifier
    if not isinstance(classifier, EnsembleClassifier):
        raise LeftOut("It is a single model.")
    answers = material.need_answers("classes")
    if answers.of_members is None:
        raise LeftOut("Each member is scored on its own fold: folds.csv in the run's directory has these scores.")
    record = classifier.record
    arguments = (logarithms(answers.of_members), answers.data.class_numbers, classifier.combination)
    rows = ensemble_rows(answers.split, *arguments, record.failed_steps, record.config.train.first_member)
    return [rows_of(ensemble_table(rows, f"Members on {answers.data.name}"))]


def count_params(material: Material) -> int:
    """Trained numbers of one network."""
    import jax

    network, _ = material.find_one_network()
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(network.params))


def _epochs_text(material: Material) -> str:
    record = material.record
    done = f"{record.epochs_done:,} of {record.config.train.epochs:,}"
    return done if material.best_epoch is None else f"{done}, the best {material.best_epoch:,}"


def _find_main_scores(material: Material) -> list[tuple[str, float]]:
    """Loss and accuracy, or the like, on the test data, else on the validation data."""
    found = material.results.get("metrics")
    for split in ("test", "validation"):
        metrics = found.get(split) if isinstance(found, dict) else None
        if isinstance(metrics, dict):
            shown = ("n", *material.record.config.train.shown_metrics)
            numbers = [(name, metrics.get(name)) for name in shown]
            return [(f"{split} {name}", value) for name, value in numbers if isinstance(value, int | float)]
    return []


def _tabulate(history: Any) -> tuple[list[str], list[list[str]]]:
    names = list(dict.fromkeys(name for row in history for name in row if not name.startswith("member_")))
    rows = [[_format(name, row[name]) if name in row else "" for name in names] for row in history[-MOST_EPOCHS:]]
    return [name.replace("_", " ") for name in names], rows


def _format(name: str, value: float) -> str:
    is_metric = name.removeprefix("validation_") in {*METRICS, "loss", "seconds"}
    return format_metric(name, value) if is_metric else f"{value:,.6g}"


def _explain_calibration(error: float) -> Text:
    return Text(
        "Of the predictions that the model is 80 % sure of, 80 % should be right. On average its confidence is"
        f" {error:.1%} off. Bars are its accuracy, hatched boxes the gap to its confidence; below, how many predictions"
        " there are."
    )
