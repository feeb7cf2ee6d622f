"""Drawings in Python: curves, confusion, highest losses, and grids of pictures of any kind."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import log_loss

import engine
from engine.data.decoded.dataset import Dataset
from engine.report.confusion import draw_confusion
from engine.report.losses import _describe, compute_losses


def is_png(content: bytes) -> bool:
    return Image.open(BytesIO(content)).size[0] > 50


@pytest.fixture(scope="module")
def result() -> engine.Result:
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (90, 6, 6, 1), np.uint8), np.arange(90) % 3
    return engine.fit(engine.mlp(()), (images, np.array(["<b>", "cat", "dog"])[labels]), epochs=2, verbose=False)


def test_a_result_draws_its_curves_its_confusion_and_its_highest_losses(result: engine.Result, tmp_path: Path):
    plot = result.plot()
    assert [axes.get_title() for axes in plot.figure.axes] == ["loss", "accuracy"]
    assert any("best epoch" in line.get_label() for line in plot.figure.axes[1].lines)
    plot.save(tmp_path / "curves.svg")
    assert (tmp_path / "curves.svg").read_bytes().startswith(b"<?xml")
    data = result._held_out()
    counts = [text.get_text() for text in result.confusion().figure.axes[0].texts]
    assert sum(map(int, counts)) == len(data) == 9
    worst = result.top_losses(4)
    assert is_png(worst._repr_png_())
    chances = result.classifier.outputs(data.images)
    expected = -np.log(chances[np.arange(len(data)), data.labels])
    np.testing.assert_allclose([each.loss for each in worst.examples], -np.sort(-expected)[:4], rtol=1e-5)
    assert [data.class_names[data.labels[each.number]] for each in worst.examples] == [
        each.label for each in worst.examples
    ]
    everything = result.top_losses(1, data=(data.images, data.labels))
    assert everything.examples[0].loss == worst.examples[0].loss


def test_losses_are_those_of_scikit_learn_whatever_is_predicted():
    rng = np.random.default_rng(2)
    images, chances = np.zeros((20, 2, 2, 1), np.uint8), rng.dirichlet(np.ones(4), 20).astype(np.float32)
    labels = rng.integers(0, 4, 20).astype(np.int32)
    classes = Dataset(images, labels, tuple("abcd"), "classes", "")
    assert compute_losses(chances, classes).mean() == pytest.approx(
        log_loss(labels, chances, labels=range(4)), rel=1e-5
    )
    marks = rng.integers(0, 2, (20, 4)).astype(np.uint8)
    several = Dataset(images, marks, tuple("abcd"), "several", "")
    expected = np.mean([log_loss(marks[:, k], chances[:, k], labels=[0, 1]) for k in range(4)])
    assert compute_losses(chances, several).mean() == pytest.approx(expected, rel=1e-5)
    shares = Dataset(images, chances, tuple("abcd"), "shares", "")
    assert compute_losses(chances, shares) == pytest.approx(-(chances * np.log(chances)).sum(1), rel=1e-5)
    numbers = Dataset(images, 2 * chances, (), "numbers", "")
    assert compute_losses(chances, numbers) == pytest.approx((chances**2).mean(1), rel=1e-5)


def test_labels_that_are_predicted_are_those_above_their_thresholds():
    several = Dataset(np.zeros((1, 2, 2, 1), np.uint8), np.ones((1, 3), np.uint8), tuple("abc"), "several", "")
    outputs = np.array([0.1, 0.6, 0.8])
    assert _describe(outputs, several, 0, np.array([0.05, 0.7, 0.7])) == ("a, b, c", "a, c")


def test_a_notebook_shows_results_data_and_models_as_tables_without_running_names(result: engine.Result):
    data = result._held_out()
    pages = [result._repr_html_(), result.classifier._repr_html_(), data._repr_html_(), engine.cnn((3,))._repr_html_()]
    pages.append(engine.Splits(data, data)._repr_html_())
    for page in pages:
        assert page.startswith("<")
        assert "<b>" not in page.replace("<p><b>", "")
    assert "&lt;b&gt; (" in pages[2]
    assert pages[2].count("data:image/png;base64,") == 3
    assert "validation_accuracy" in pages[0]


def test_pictures_of_every_kind_are_shown_side_by_side(tmp_path: Path):
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (5, 6, 4), np.uint8)
    picture = Image.fromarray(levels)
    picture.save(tmp_path / "p.png")
    shown = [levels, levels[..., :3], levels[..., 0], picture, picture.convert("L"), tmp_path / "p.png",
             (tmp_path / "p.png").read_bytes(), rng.normal(size=(5, 6, 7)), rng.normal(size=(5, 6)) > 0]  # fmt: skip
    drawing = engine.show(shown, range(len(shown)), "All <kinds> of $x$")
    assert [axes.get_title() for axes in drawing.figure.axes][: len(shown)] == [str(i) for i in range(len(shown))]
    found = [axes.images[0].get_array() for axes in drawing.figure.axes[: len(shown)]]
    np.testing.assert_array_equal(found[0], levels)
    np.testing.assert_array_equal(found[1], levels[..., :3])
    np.testing.assert_array_equal(found[2], np.repeat(levels[..., :1], 3, 2))
    np.testing.assert_array_equal(found[3], levels)
    assert is_png(drawing._repr_png_())
    with pytest.raises(engine.InputError, match="expected a file in a directory that exists"):
        drawing.save(tmp_path / "missing" / "p.png")
    maps = engine.show({"conv_1": rng.normal(size=(4, 4, 3)), "pool_1": rng.normal(size=(2, 2, 20))}, columns=4)
    assert [len(axes.images) for axes in maps.figure.axes] == [1, 1, 1, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((3,), r"pictures: got int; expected a picture or a list of pictures"),
        (([],), r"pictures: got 0; expected 1 to 200"),
        (([np.zeros((2, 2))], (), "", -1), r"columns: got -1; expected a whole number of at least 1"),
        (([np.zeros((2, 2))], ["a", "b"]), r"titles: got 2; expected 1, one for each picture"),
        (([np.zeros(3)],), r"picture 0: got 3; expected an array \[h w\]"),
        (([np.full((2, 2), np.nan)],), r"picture 0: got numbers that are not finite"),
        (({"a": np.zeros(3)},), r"a: got 3; expected maps \[y x c\]"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(arguments: tuple, reason: str):
    with pytest.raises(engine.InputError, match=reason):
        engine.show(*arguments)


def test_a_result_without_held_out_data_says_what_to_pass(result: engine.Result):
    images, targets = np.zeros((20, 4, 4, 1), np.uint8), np.linspace(0, 1, 20)
    numbers = engine.fit(
        engine.mlp(()), (images, targets), epochs=1, validation=None, loss="mean_squared_error", verbose=False
    )
    with pytest.raises(engine.InputError, match=r"data: got a run without these; expected test or validation data"):
        numbers.top_losses()
    with pytest.raises(engine.InputError, match=r"confusion: got a model of another kind"):
        numbers.confusion((images, targets))
    assert numbers.top_losses(2, (images, targets)).examples[0].label == "1"


def test_one_array_is_one_picture_and_titles_may_be_an_array():
    rng = np.random.default_rng(0)
    for shape in ((8, 8), (8, 8, 1), (8, 8, 3)):
        assert len(engine.show(rng.random(shape)).figure.axes) == 1
    drawing = engine.show(rng.random((2, 8, 8)), np.array([7, 8]))
    assert [axes.get_title() for axes in drawing.figure.axes] == ["7", "8"]


def test_letters_that_the_font_lacks_are_drawn_without_warnings(tmp_path: Path):
    engine.show([np.zeros((4, 4))], ["日本"]).save(tmp_path / "a.png")
    draw_confusion(np.eye(2), ["日本", "é"], "日本", tmp_path / "b.png")
    assert is_png((tmp_path / "b.png").read_bytes())
