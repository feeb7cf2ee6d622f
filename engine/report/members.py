"""What an ensemble's run leaves beside its checkpoints: its members and its doubts as tables, its reliability drawn."""

from pathlib import Path

import numpy as np
from rich.table import Table

from engine.calibration import reliability, uncertainty
from engine.data.dataset import Dataset
from engine.ensemble import EnsembleClassifier, logarithms
from engine.report.ensemble import (
    draw_reliability,
    ensemble_rows,
    ensemble_table,
    write_ensemble_csv,
    write_uncertainty_csv,
)


def report_members(classifier: EnsembleClassifier, dataset: Dataset, split: str, directory: Path, title: str) -> Table:
    """Writes `ensemble.csv`, `uncertainty.csv` and `reliability.png` on every example; the table to show."""
    classifier.check_fits(dataset)
    outputs = classifier.member_outputs(dataset.images, everyone=True)
    labels, record = dataset.labels, classifier.record
    logs, combination = logarithms(outputs), classifier.combination
    first = record.config.train.first_member
    rows = ensemble_rows(split, logs, labels, combination, record.failed_steps, first)
    write_ensemble_csv(directory / "ensemble.csv", rows)
    combined, doubts = classifier.combined(outputs), uncertainty(logs, np.asarray(combination.weights))
    write_uncertainty_csv(directory / "uncertainty.csv", labels, dataset.class_names, combined, doubts)
    alive = [step is None for step in record.failed_steps]
    of_members = [reliability(own, labels) for own, is_alive in zip(outputs, alive, strict=True) if is_alive]
    draw_reliability(reliability(combined, labels), of_members, directory / "reliability.png", title)
    return ensemble_table(rows, title)
