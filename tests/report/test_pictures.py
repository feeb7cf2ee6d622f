"""The pictures that a run leaves: what they show, and that names with formulas, controls or no letters can be drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.report import confusion as confusions
from engine.report.confusion import choose_classes, draw_confusion, limit_examples
from engine.report.grid import draw_grid
from engine.report.history import draw_curves
from engine.report.mistakes import choose_shown, mix_classes, order_mistakes, order_unsure
from engine.report.pictures import Pictures, choose_examples, draw_predictions
from tests.conftest import make_dataset

NAMES = ("$x^$", "\x1b[31m red", "a" * 300)


@pytest.fixture(scope="module")
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Random probabilities of 60 examples for 3 classes, and the classes."""
    draw = np.random.default_rng(0)
    return draw.dirichlet(np.ones(3), 60).astype(np.float32), draw.integers(0, 3, 60)


def test_mistakes_come_the_surest_first(answers):
    probabilities, labels = answers
    found = order_mistakes(probabilities, labels)
    assert set(found) == set(np.flatnonzero(probabilities.argmax(1) != labels))
    assert (np.diff(probabilities.max(1)[found]) <= 0).all()
    two = np.sort(probabilities, 1)[order_unsure(probabilities)]
    assert (np.diff(two[:, -1] - two[:, -2]) >= 0).all()
    assert len(order_unsure(np.ones((4, 1)))) == 4


def test_shown_are_mistakes_first_and_of_all_classes(answers):
    probabilities, labels = answers
    chosen = choose_shown(probabilities, labels, 9, 5)
    is_right = probabilities.argmax(1)[chosen] == labels[chosen]
    assert len(set(chosen)) == 9
    assert is_right.tolist() == [False] * 5 + [True] * 4
    assert set(labels[chosen[:3]]) == set(labels[chosen[5:8]]) == {0, 1, 2}
    perfect = np.eye(3)[labels]
    assert set(labels[choose_shown(perfect, labels, 9, 5)[:3]]) == {0, 1, 2}
    assert mix_classes(np.array([4, 1, 3]), np.array([0, 7, 7, 7, 8])).tolist() == [4, 1, 3]


def test_of_many_classes_those_with_most_mistakes_are_drawn():
    confusion = np.diag(np.full(100, 50.0))
    confusion[7, 3] = confusion[90, 7] = 5
    assert {3, 7, 90} <= set(choose_classes(confusion, 10))
    assert choose_classes(confusion, 100).tolist() == list(range(100))


def test_pictures_are_drawn_of_any_names(tmp_path: Path, answers):
    data = replace(make_dataset(60), class_names=NAMES)
    draw_predictions(choose_examples(data, answers[0], "$ x"), tmp_path / "p.png")
    draw_confusion(np.arange(9.0).reshape(3, 3), NAMES, "$ x", tmp_path / "c.png")
    draw_confusion(np.zeros((60, 60)), [str(k) for k in range(60)], "many", tmp_path / "m.png")
    rows = [{"epoch": epoch, "loss": 1 / epoch, "validation_loss": 2 / epoch} for epoch in (1, 2, 3)]
    draw_curves(rows, "$ x", ("loss", "accuracy"), 2, tmp_path / "h.png")
    for path in tmp_path.glob("*.png"):
        Image.open(path).verify()


def test_a_picture_that_cannot_be_written_waits_on(tmp_path: Path):
    pictures, disk = Pictures(tmp_path, may_wait=True), {"is_full": True}

    def draw(path: Path) -> None:
        if disk["is_full"]:
            raise OSError("disk full")
        path.write_text("drawn")

    pictures.add("a.png", draw)
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError, match="disk full"):
        pictures.draw()
    disk["is_full"] = False
    pictures.draw()
    (tmp_path / "a.png").unlink()
    pictures.draw()
    assert not list(tmp_path.iterdir())  # once


def test_best_epoch_is_marked(tmp_path: Path):
    rows = [{"epoch": epoch, "validation_loss": 2 / epoch} for epoch in (1, 2, 3)]
    for name, best in (("with", 2), ("without", None)):
        draw_curves(rows, "x", ("loss",), best, tmp_path / f"{name}.png")
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes()


def test_predictions_are_of_as_many_examples_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch):
    data = make_dataset(60)
    assert limit_examples(data, 3) is data
    monkeypatch.setattr(confusions, "MOST_OUTPUTS", 100)
    few = limit_examples(data, 3)
    assert len(few) == 33
    assert few.name == "stripes, the first 33 examples"
    assert (few.labels == data.labels[:33]).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_pictures_of_any_colours_are_drawn_in_a_grid(tmp_path, channels):
    draw_grid([np.zeros((4, 5, channels), np.uint8)], ["a"], tmp_path / "a.png", "all")
    assert (tmp_path / "a.png").stat().st_size > 0
