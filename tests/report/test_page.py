"""`engine report`: what a page holds, of runs of every kind; that names cannot act; its numbers; what it leaves out."""

import base64
import hashlib
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.data.decoded.dataset import Dataset, Splits
from engine.errors import InputError
from engine.models import Conv, Dense, Flatten, MaxPool, Sequential
from engine.report.history import is_number, read_history
from engine.report.page.compare import _place, read_all, write_comparison
from engine.report.page.render import MARK
from engine.report.page.write import SECTIONS, write_report
from engine.report.runs import read_run
from tests.commands.test_data import command, mistake
from tests.conftest import make_dataset

NET = Sequential((Conv(4, 3, activation="relu"), MaxPool(2), Flatten(), Dense()))
HOSTILE = ("</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\x1b]0;x\x07 {{ 7*7 }} \u202e$x$")


class Page(HTMLParser):
    """What a browser would find in a page: tags with attributes, ids, headings and the text of cells."""

    def __init__(self, path: Path):
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.titles: list[str] = []
        self._into: list[str] | None = None
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "h2", "th"):
            self._into = self.titles if tag == "h2" else self.rows[-1]
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "h2", "th"):
            self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data

    def row(self, start: str) -> list[str]:
        return next(row for row in self.rows if row and row[0] == start)


def named(names: tuple[str, ...] = HOSTILE) -> Splits:
    """Three splits of 8×8 images of classes with such names."""
    parts = (make_dataset(60), make_dataset(30, 1, name="held out"), make_dataset(50, 2, name="<b>test"))
    return Splits(*(replace(part, class_names=names) for part in parts))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Splits, engine.Result]:
    """The page of a run of hostile names, augmented; its data; the result."""
    splits, run = named(), tmp_path_factory.mktemp("page") / "run"
    # So small a rate that the second epoch is no better than the first, and the last.
    how = {"augment": engine.AugmentConfig(horizontal_flip=True), "learning_rate": 1e-30, "patience": 1}
    result = engine.fit(NET, splits, epochs=4, run_dir=run, verbose=False, **how)
    return result.report(), splits, result


def test_page_has_a_section_for_all_that_a_run_has(written):
    page = Page(written[0])
    assert page.titles == [title for title in SECTIONS if title not in ("Errors", "Members")] + ["Left out"]
    assert MARK in page.text[:500]
    assert len(page.text) < 5e6
    assert "best epoch" in page.text
    assert "stopped early, 2" in page.text
    assert "Stopped early after epoch 2: 1 epoch without a better one" in page.text
    assert "conv_1 before relu" in page.text
    assert "horizontal flip" in page.text


def test_page_runs_nothing_but_its_own_script_and_loads_nothing(written):
    page = Page(written[0])
    assert [tag for tag, _ in page.tags].count("script") == 1
    sources = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/") for source in sources)
    links = {value for _, attrs in page.tags for name, value in attrs.items() if name in ("href", "xlink:href")}
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert not [attrs for _, attrs in page.tags for name in attrs if name == "style" or name.startswith("on")]
    addresses = set(re.findall(r"https?://[^\s\"<]+", page.text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    for tag in ("script", "style"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page.text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in page.text
    for policy in ("default-src &#39;none&#39;", "img-src data:", "base-uri &#39;none&#39;"):
        assert policy in page.text


def test_names_of_classes_are_shown_and_do_nothing(written):
    page = Page(written[0])
    shown = {cell for row in page.rows for cell in row}
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in shown
    assert "\\x1b]0;x\\x07 {{ 7*7 }} \\u202e$x$" in shown
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202e]", page.text)


def test_scores_of_each_class_are_those_of_scikit_learn(written):
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn comes with the dev extra")
    path, splits, result = written
    labels, probabilities = splits.test.labels, result.classifier.outputs(splits.test.images)
    found = metrics.precision_recall_fscore_support(labels, probabilities.argmax(1), labels=range(3), zero_division=0)
    one = np.eye(3)[labels]
    found = [*found, metrics.roc_auc_score(one, probabilities, average=None)]
    found = np.array([*found, metrics.average_precision_score(one, probabilities, average=None)]).T
    page = Page(path)
    for k in (0, 1):
        row = next(row for row in page.rows if row[0] == HOSTILE[k] and len(row) == 7)
        assert row[1:] == [f"{v:.4f}" if i != 3 else f"{v:.0f}" for i, v in enumerate(found[k])]
    table = metrics.confusion_matrix(labels, probabilities.argmax(1), labels=range(3))
    row = next(row for row in page.rows if row[0] == HOSTILE[0] and len(row) == 4 and row != page.rows[0])
    assert row[1:] == [f"{count}" if count else "" for count in table[0]]


def of_kind(kind: str) -> tuple[Sequential, Splits, dict]:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (40, 8, 8, 1), np.uint8)
    if kind == "regression":
        data = engine.dataset(draw.random((40, 6, 6, 5), np.float32), draw.random((40, 2)).astype(np.float32))
        return NET, Splits(data, None, data), {"loss": "mean_squared_error"}
    if kind == "labels":
        data = Dataset(images, draw.integers(0, 2, (40, 3)).astype(np.uint8), HOSTILE, "labels", "x")
        return engine.mlp(()), Splits(data, data, None), {"loss": "binary_cross_entropy"}
    if kind == "many classes":
        data = Dataset(images, np.arange(40, dtype=np.int32), tuple(f"class {k}" for k in range(1000)), "many", "x")
        return engine.mlp(()), Splits(data, data, data), {}
    if kind == "vectors":
        data = engine.dataset(draw.random((40, 7), np.float32), np.arange(40) % 2)
        return engine.mlp(()), Splits(data, None, data), {}
    data = make_dataset(40)
    return engine.mlp(()), Splits(data), {}


@pytest.mark.parametrize(
    ("kind", "left_out", "shown"),
    [
        ("regression", ["Confusion matrix", "Calibration", "First kernels"], ["Errors", "Feature maps"]),
        pytest.param("labels", ["Confusion matrix", "Mistakes"], ["Class by class", "Errors"], marks=pytest.mark.long),
        ("many classes", ["First kernels", "Feature maps"], ["Confusion matrix", "Class by class"]),
        pytest.param("vectors", ["Mistakes", "Feature maps"], ["Confusion matrix"], marks=pytest.mark.long),
        ("no test", ["Confusion matrix", "Mistakes", "Errors"], ["Curves", "Data"]),
    ],
)
def test_page_says_what_it_leaves_out(kind: str, left_out: list[str], shown: list[str], tmp_path: Path):
    model, splits, settings = of_kind(kind)
    engine.fit(model, splits, epochs=1, run_dir=tmp_path / "run", verbose=False, **settings)
    page = Page(write_report(tmp_path / "run", splits=splits))
    assert set(shown) <= set(page.titles)
    assert not set(left_out) & set(page.titles)
    listed = page.text[page.text.index('id="left-out"') :]
    assert all(f"<dt>{name}</dt><dd>" in listed for name in left_out)
    if kind == "many classes":
        assert "Of 1,000 classes the 40" in page.text


def test_page_of_an_ensemble_has_its_members(tmp_path: Path):
    splits = named(("a", "b", "c"))
    engine.fit(NET, splits, epochs=1, members=2, run_dir=tmp_path / "run", verbose=False)
    page = Page(write_report(tmp_path / "run", splits=splits))
    assert "Members" in page.titles
    assert page.row("combined: mean")[1] == "50"
    assert "Grad-CAM of conv_1 of member 0" in page.text


def test_run_whose_data_are_gone_is_shown_without_them(written, capsys, tmp_path: Path):
    said = command(capsys, "report", written[2].directory, "--out", tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "page.html" in said
    assert {"Curves", "Scores", "Model", "First kernels", "Settings"} <= set(page.titles)
    assert "arrays, which a run does not keep" in page.text
    assert page.row("test")[1] == "50"
    step = engine.restore(written[2].directory, "last").record.step
    command(capsys, "report", written[2].directory, "--step", step, "--out", tmp_path / "page.html")
    assert "In short" in Page(tmp_path / "page.html").titles
    assert "step: got 7; expected one of" in mistake(capsys, "report", written[2].directory, "--step", 7)


def test_page_takes_the_place_of_a_page_and_of_nothing_else(written, capsys, tmp_path: Path):
    run, other = written[2].directory, tmp_path / "mine.html"
    other.write_text("<p>mine")
    assert "expected a new file, or a page that was written before" in mistake(capsys, "report", run, "--out", other)
    assert other.read_text() == "<p>mine"
    assert "a name that ends in .html" in mistake(capsys, "report", run, "--out", tmp_path / "log.txt")
    os.mkfifo(tmp_path / "pipe.html")  # opening it would wait for a writer
    assert "a pipe or device" in mistake(capsys, "report", run, "--out", tmp_path / "pipe.html")
    assert "a directory that exists" in mistake(capsys, "report", run, "--out", tmp_path / "no" / "x.html")
    assert "runs: got none" in mistake(capsys, "report")
    assert write_report(run, written[0]) == written[0]


def test_runs_are_compared(written, capsys, tmp_path: Path):
    shutil.copytree(written[2].directory, tmp_path / "fast")
    result = engine.fit(NET, named(), epochs=2, learning_rate=1e-5, run_dir=tmp_path / "slow", verbose=False)
    (tmp_path / "bad" / "checkpoints" / "4" / "record").mkdir(parents=True)
    (tmp_path / "bad" / "checkpoints" / "4" / "record" / "metadata").write_text("{")
    assert "report.html" in command(capsys, "report", tmp_path)
    page = Page(tmp_path / "report.html")
    assert page.titles == ["Runs", "Curves", "Settings", "What matters", "Left out"]
    row = page.row(str(tmp_path / "slow"))
    assert f"{result.metrics['test']['accuracy']:.4f}" in row
    assert "1e-05" in {cell for row in page.rows for cell in row}
    assert "bad" in page.text[page.text.index('id="left-out"') :]
    with pytest.raises(InputError, match="expected two runs or more"):
        write_comparison([tmp_path / "slow", tmp_path / "bad"])
    assert "Conv 4, 3×3, activation=relu" in read_run(tmp_path / "slow").settings["model.layers"]
    (tmp_path / "slow" / "result.json").write_text('{"metrics": [')
    ((path, why),) = read_all([tmp_path / "slow"])[1]
    assert path == str(tmp_path / "slow")
    assert why.startswith("result.json cannot be read")
    (tmp_path / "slow" / "result.json").write_text('{"metrics": []}')
    assert "test_accuracy" not in read_run(tmp_path / "slow").values
    (tmp_path / "empty").mkdir()  # which was named, so its absence is said
    assert [name for name, _ in read_all([tmp_path / "slow", tmp_path / "empty"])[1]] == [str(tmp_path / "empty")]


def test_settings_stand_along_an_axis_in_their_order():
    places, marks = _place([1e-4, 1e-2, 1e-3])
    assert places.tolist() == pytest.approx([0, 1, 0.5])
    assert [text for _, text in marks] == ["0.0001", "0.001", "0.01"]
    assert _place([2, 2])[0].tolist() == [0.5, 0.5]
    assert _place(["sgd", None, "adam"])[0].tolist() == [1.0, 0.0, 0.5]
    assert [text for _, text in _place([1, 50, 97, 100])[1]] == ["1", "50", "100"]
    assert 10 <= len(_place(list(range(100)))[1]) <= 17


def test_history_of_a_stranger_is_read_as_far_as_it_is_one():
    good = {"epoch": 1, "step": 4, "loss": 0.5, "validation_loss": float("nan")}
    bad = {"accuracy": "<b>", "seconds": None, "ece": 1e308, "top5": [1]}
    rows = [{**good, **bad}, {"epoch": "1", "step": 3}, {"step": 2}]
    (found,) = read_history(rows)
    assert list(found) == list(good)
    assert read_history([]) == []
    assert not any(is_number(value) for value in (float("nan"), float("inf"), 1e308, True, "1", None))
    assert is_number(2)
    assert is_number(-0.5)
