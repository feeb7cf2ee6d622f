"""The recipes that go on from what was saved: as if never stopped, or with five other classes."""

import csv

from PIL import Image

from experiments import regression, transfer_digits


def test_regression_that_was_stopped_equals_the_one_that_was_not(tmp_path, capsys):
    assert regression.config().model.with_outputs(1).num_params((32,)) == 33  # type: ignore[union-attr]
    assert regression.train_both_ways(tmp_path)
    assert "losses of both runs: equal to the bit" in capsys.readouterr().out


def test_transfer_leaves_a_table_a_csv_and_a_plot(tmp_path, capsys):
    transfer_digits.main(["--smoke", "--run-dir", str(tmp_path)])
    shown = " ".join(capsys.readouterr().out.split())
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["method"] for row in rows] == list(transfer_digits.METHODS)
    assert all(0 <= float(row["test_accuracy"]) <= 1 for row in rows)
    assert f"{float(rows[1]['test_accuracy']):.4f}" in shown
    Image.open(tmp_path / "results.png").verify()


def test_classes_are_counted_anew_and_as_many_of_each_are_drawn():
    from tests.conftest import make_dataset

    data = make_dataset(300, num_classes=4)
    part = transfer_digits.of_classes(data, (2, 3), 7, seed=1)
    assert part.class_names == ("band 2", "band 3")
    assert [int((part.labels == k).sum()) for k in (0, 1)] == [7, 7]
    again, other = (transfer_digits.of_classes(data, (2, 3), 7, seed=seed) for seed in (1, 2))
    assert again.fingerprint == part.fingerprint != other.fingerprint
