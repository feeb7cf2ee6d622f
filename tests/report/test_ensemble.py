"""What an ensemble tells: the table, ensemble.csv, the reliability diagram, uncertainty.csv."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from scipy.special import log_softmax

from engine.metrics.calibration import reliability, scores, uncertainty
from engine.metrics.combination import Combination, fit
from engine.report.ensemble import (
    UNCERTAINTY_COLUMNS,
    _wilson_interval,
    draw_reliability,
    ensemble_rows,
    ensemble_table,
    write_ensemble_csv,
    write_uncertainty_csv,
)

M, N, K = 4, 300, 3


@pytest.fixture
def outputs() -> tuple[np.ndarray, np.ndarray]:
    """Log-probabilities [m n k] of four members, the third of which holds no numbers, and labels."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, K, N)
    logs = log_softmax(2 * np.eye(K)[labels] + draw.normal(size=(M, N, K)), axis=-1).astype(np.float32)
    logs[2] = np.nan
    return logs, labels


ALIVE = np.array([True, True, False, True])
FAILED_STEPS = (None, None, 1200, None)


def shown(table: object) -> str:
    console = Console(width=100, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def read(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_rows_hold_the_scores_of_each_member_and_of_all_together(outputs):
    logs, labels = outputs
    combination = fit("mean", logs, labels, True, ALIVE)
    rows = ensemble_rows("test", logs, labels, combination, FAILED_STEPS, first_member=6)
    assert [row["member"] for row in rows] == ["6", "7", "8", "9", "combined"]
    for i in (0, 1, 3):
        expected = {"status": "trained", "weight": 1 / 3, **scores(np.exp(logs[i]), labels)}
        assert rows[i] == {"split": "test", "member": str(6 + i), **expected}
    assert rows[2] == {"split": "test", "member": "8", "status": "frozen at step 1,200", "weight": 0}
    how = {"status": "mean", "temperature": combination.temperature}
    assert rows[4] == {"split": "test", "member": "combined", **how, **scores(combination.combine(logs), labels)}


def test_csv_has_an_empty_cell_where_a_row_has_nothing_to_say(outputs, tmp_path):
    logs, labels = outputs
    rows = ensemble_rows("test", logs, labels, fit("mean", logs, labels, False, ALIVE), FAILED_STEPS)
    write_ensemble_csv(tmp_path / "ensemble.csv", rows)
    found = read(tmp_path / "ensemble.csv")
    columns = ["split", "member", "status", "weight", "n", "accuracy", "nll", "brier", "ece", "temperature"]
    assert list(found[0]) == columns
    assert [row["nll"] == "" for row in found] == [False, False, True, False, False]
    assert float(found[4]["ece"]) == rows[4]["ece"]
    assert (found[4]["status"], found[4]["weight"], found[4]["temperature"]) == ("mean", "", "1.0")


def test_table_names_failures_the_method_and_the_temperature(outputs):
    logs, labels = outputs
    combination = replace(fit("mean", logs, labels, False, ALIVE), temperature=1.0834)
    rows = ensemble_rows("test", logs, labels, combination, FAILED_STEPS)
    text = shown(ensemble_table(rows, "ensemble, test"))
    assert "2: frozen at step 1,200" in text
    assert "combined: mean" in text
    assert "temperature 1.083; nll in nats, brier 0 to 2, ece over 15 bins" in text
    assert "weight" not in text  # all that are left have the same
    assert f"{rows[4]['nll']:.4f}" in text


def test_table_has_weights_where_they_differ_and_no_temperature_where_none_was_fitted(outputs):
    logs, labels = outputs
    rows = ensemble_rows("test", logs, labels, Combination("greedy", (0.75, 0.25, 0, 0)), FAILED_STEPS)
    text = shown(ensemble_table(rows, "ensemble, test"))
    assert "0.7500" in text
    assert "temperature" not in text


def test_reliability_diagram_is_a_picture_of_both_models(outputs, tmp_path):
    logs, labels = outputs
    combination = fit("mean", logs, labels, False, ALIVE)
    combined = reliability(combination.combine(logs), labels)
    members = [reliability(np.exp(logs[i]), labels) for i in (0, 1, 3)]
    for name, others in (("with", members), ("without", [])):
        draw_reliability(combined, others, "$ensemble on test", tmp_path / f"{name}.png")
    pictures = [np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB")) for name in ("with", "without")]
    is_orange = [np.abs(picture.astype(int) - (255, 127, 14)).max(axis=-1) < 8 for picture in pictures]
    assert is_orange[0].sum() > 100
    assert is_orange[1].sum() == 0


def test_wilson_interval_equals_that_of_scipy():
    from scipy.stats import binomtest, norm

    rights, counts = np.array([0, 1, 3, 7, 50]), np.array([1, 1, 9, 7, 80])
    ends = np.stack(_wilson_interval(rights / counts, counts), axis=-1)
    level = 1 - 2 * norm.sf(1)
    expected = [
        binomtest(int(r), int(c)).proportion_ci(level, "wilson") for r, c in zip(rights, counts, strict=True)
    ]  # fmt: skip
    np.testing.assert_allclose(ends, [(found.low, found.high) for found in expected], atol=1e-12)


def test_uncertainty_csv_has_a_line_for_every_example(outputs, tmp_path):
    logs, labels = outputs
    combination = fit("mean", logs, labels, True, ALIVE)
    probabilities, found = combination.combine(logs), uncertainty(logs, np.array(combination.weights))
    write_uncertainty_csv(tmp_path / "uncertainty.csv", labels, ["red", "green, mostly", "blue"], probabilities, found)
    lines = read(tmp_path / "uncertainty.csv")
    assert tuple(lines[0]) == UNCERTAINTY_COLUMNS
    assert [int(line["index"]) for line in lines] == list(range(N))
    names = np.array(["red", "green, mostly", "blue"])
    assert [line["label"] for line in lines] == names[labels].tolist()
    assert [line["predicted"] for line in lines] == names[probabilities.argmax(axis=-1)].tolist()
    columns = {
        "probability": probabilities.max(axis=-1),
        **{name: getattr(found, name) for name in UNCERTAINTY_COLUMNS[4:]},
    }
    for name, expected in columns.items():
        np.testing.assert_allclose([float(line[name]) for line in lines], expected, atol=1e-6)
