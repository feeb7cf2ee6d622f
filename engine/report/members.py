"""Reports of an ensemble's run: `ensemble.csv`, `uncertainty.csv` and `reliability.png`."""

from functools import partial

import numpy as np

from engine.checkpoints.record import Record
from engine.data.decoded.dataset import Dataset
from engine.host.console import Table
from engine.inference.ensemble import EnsembleClassifier, logarithms
from engine.metrics.calibration import reliability, uncertainty
from engine.metrics.stopping import member_best_step
from engine.report.ensemble import (
    Row,
    draw_reliability,
    ensemble_rows,
    ensemble_table,
    write_ensemble_csv,
    write_uncertainty_csv,
)
from engine.report.pictures import Pictures
from engine.report.tables import metrics_table


def find_member_outputs(classifier: EnsembleClassifier, dataset: Dataset) -> np.ndarray:
    """float32[m n k]: the outputs of the members for every example; 0 of those whose training failed."""
    return classifier.member_outputs(dataset.images, wanted=_find_alive(classifier.record))


def report_members(
    classifier: EnsembleClassifier, dataset: Dataset, outputs: np.ndarray, split: str, pictures: Pictures, title: str
) -> Table:
    """Writes `ensemble.csv` and, for classes, `uncertainty.csv` and `reliability.png`; returns the table to show.

    outputs: of `find_member_outputs`. `best_step` is the step of a member's weights, chosen by its own validation
    score.
    """
    dataset = classifier.fitting(dataset)
    record = classifier.record
    alive = _find_alive(record)
    rows = _rows(classifier, outputs, dataset, split)
    train = record.config.train
    for number, row in enumerate(rows[:-1], train.first_member):
        row["best_step"] = member_best_step(train, record.history, number)
    write_ensemble_csv(pictures.directory / "ensemble.csv", rows)
    if classifier.record.task != "classes":
        return metrics_table([(row["member"], {"loss": row["loss"]} if "loss" in row else {}) for row in rows], title)
    labels, logs, weights = dataset.class_numbers, logarithms(outputs), np.asarray(classifier.combination.weights)
    combined = classifier.combined(outputs)
    names = dataset.class_names
    write_uncertainty_csv(pictures.directory / "uncertainty.csv", labels, names, combined, uncertainty(logs, weights))
    of_members = [reliability(own, labels) for own in outputs[alive]]
    drawn = partial(draw_reliability, reliability(combined, labels), of_members, title)
    pictures.add("reliability.png", drawn)
    return ensemble_table(rows, title)


def frozen_lines(record: Record) -> list[str]:
    """One sentence for each member whose training failed."""
    failed = enumerate(record.failed_steps, record.config.train.first_member)
    return [
        f"member {number} was frozen at step {step:,} because its loss was not finite, and is left out"
        for number, step in failed
        if step is not None
    ]


def _find_alive(record: Record) -> np.ndarray:
    return np.array([step is None for step in record.failed_steps])


def _rows(classifier: EnsembleClassifier, outputs: np.ndarray, dataset: Dataset, split: str) -> list[Row]:
    record, combination = classifier.record, classifier.combination
    first, failed_steps = record.config.train.first_member, record.failed_steps
    if classifier.record.task == "classes":
        return ensemble_rows(split, logarithms(outputs), dataset.class_numbers, combination, failed_steps, first)
    rows = ensemble_rows(split, np.zeros((len(outputs), 0, 1)), np.zeros(0, int), combination, failed_steps, first)
    alive = [step is None for step in failed_steps]
    for own, row, is_scored in zip([*outputs, classifier.combined(outputs)], rows, [*alive, True], strict=True):
        if is_scored:  # a regression has no other score than its loss
            row.update(n=len(dataset), loss=classifier.scoring.score(own, dataset.labels, dataset.weights)["loss"])
    return rows
