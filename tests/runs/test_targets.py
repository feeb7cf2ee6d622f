"""Runs on several labels a picture, soft labels and weighted examples; and what `engine eval` says class by class."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics

import engine
from engine.commands.evaluate import EvaluationData, evaluate
from engine.errors import InputError
from engine.runs.result import Result
from tests.conftest import make_dataset

NAMES = ("ant", "bee", "cow")
DRAW = np.random.default_rng(0)
MARKS = (DRAW.random((120, 3)) < 0.4).astype(np.uint8)
IMAGES = DRAW.integers(0, 100, (120, 9, 9, 1), np.uint8)
for number, marks in enumerate(MARKS):  # the label k is a brighter band k
    IMAGES[number] += np.repeat(100 * marks, 3)[None, :, None].astype(np.uint8)
LISTS = [[name for name, mark in zip(NAMES, marks, strict=True) if mark] for marks in MARKS]
OPTIONS: dict[str, Any] = {"batch_size": 20, "learning_rate": 3e-3, "verbose": False}


@pytest.fixture(scope="module")
def several() -> Result:
    labels = engine.dataset(IMAGES, LISTS)
    metrics = ["exact_match", "f1_micro"]
    return engine.fit(engine.mlp((16,)), labels, epochs=12, loss="binary_cross_entropy", metrics=metrics, **OPTIONS)


def test_model_of_several_labels_learns_and_is_judged_as_scikit_learn_does(several: Result):
    classifier = several.classifier
    chances = classifier.predict_proba(IMAGES)
    found = classifier.evaluate((IMAGES, LISTS))
    assert found["accuracy"] == pytest.approx(((chances > 0.5) == MARKS).mean())
    assert found["exact_match"] == pytest.approx(sklearn.metrics.accuracy_score(MARKS, chances > 0.5))
    assert found["f1_macro"] == pytest.approx(sklearn.metrics.f1_score(MARKS, chances > 0.5, average="macro"))
    assert found["accuracy"] > 0.85
    metrics, scores = classifier.evaluate_by_class((IMAGES, LISTS))
    assert metrics == found
    expected = sklearn.metrics.precision_recall_fscore_support(MARKS, chances > 0.5)
    np.testing.assert_allclose((scores.precision, scores.recall, scores.f1, scores.support), expected)
    predictions = classifier.predict(IMAGES[:20], top=2)
    assert [prediction.labels for prediction in predictions] == [
        tuple(name for name, chance in zip(NAMES, row, strict=True) if chance > 0.5) for row in chances[:20]
    ]


def test_thresholds_of_labels_can_be_changed(several: Result):
    classifier, scores = several.classifier, several.class_scores((IMAGES, LISTS))
    assert scores.best_thresholds is not None
    best = classifier.with_thresholds(dict(zip(NAMES, scores.best_thresholds.tolist(), strict=True)))
    better = best.class_scores((IMAGES, LISTS))
    assert (better.f1 >= scores.f1 - 1e-9).all()
    assert best.evaluate((IMAGES, LISTS))["f1_macro"] == pytest.approx(better.f1.mean(), rel=1e-5)
    with pytest.raises(InputError, match=r"train\.thresholds: got 'bea'"):
        classifier.with_thresholds({"bea": 0.5})


def test_model_of_several_labels_opens_as_it_was_and_refuses_one_class_a_picture(several: Result, tmp_path: Path):
    restored = engine.restore(several.save(tmp_path / "run"))
    assert restored.record.task == "labels"
    np.testing.assert_array_equal(restored.predict_proba(IMAGES[:4]), several.classifier.predict_proba(IMAGES[:4]))
    assert restored.evaluate((IMAGES, np.eye(3)[MARKS.argmax(1)]))["n"] == 120  # one label each
    with pytest.raises(InputError, match="got one class a picture; expected several labels a picture"):
        restored.evaluate((IMAGES, np.arange(120) % 2))
    for fails in (restored.as_sklearn, lambda: engine.fit(engine.mlp(()), (IMAGES, LISTS), epochs=0, verbose=False)):
        with pytest.raises(InputError, match="several labels"):
            fails()


def test_model_of_several_labels_is_tuned_on_one_class_a_picture(several: Result, tmp_path: Path, capsys: Any):
    one = engine.dataset(IMAGES, [NAMES[k % 3] for k in range(120)])
    how = {**OPTIONS, "verbose": True, "run_dir": tmp_path / "run"}
    engine.finetune(several.classifier, one, epochs=1, **how)
    assert "the class of each picture is its one label" in capsys.readouterr().out
    result = engine.finetune(several.classifier, one, epochs=2, resume=True, **how)
    marks = engine.dataset(IMAGES, [[NAMES[k % 3]] for k in range(120)])
    same = engine.finetune(several.classifier, marks, epochs=2, **OPTIONS)
    assert result.classifier.record.task == "labels"
    np.testing.assert_array_equal(result.classifier.predict_proba(IMAGES), same.classifier.predict_proba(IMAGES))


def test_models_of_several_labels_and_of_classes_are_not_joined(several: Result):
    one = engine.fit(engine.mlp(()), engine.dataset(IMAGES, [NAMES[k % 3] for k in range(120)]), epochs=0, **OPTIONS)
    with pytest.raises(InputError, match="parts: got one class a picture; expected several labels a picture"):
        engine.join([several.classifier, one.classifier])


def test_members_on_several_labels_are_combined_label_by_label():
    options = {**OPTIONS, "epochs": 2, "loss": "binary_focal"}
    result = engine.fit(engine.mlp(()), (IMAGES, MARKS), members=2, **options)
    classifier = result.classifier
    assert isinstance(classifier, engine.EnsembleClassifier)
    each = np.stack([member.predict_proba(IMAGES) for member in classifier.members])
    np.testing.assert_allclose(classifier.predict_proba(IMAGES), each.mean(0), rtol=1e-5)
    found = classifier.evaluate((IMAGES, MARKS))
    assert found["accuracy"] == pytest.approx(((each.mean(0) > 0.5) == MARKS).mean())


def test_soft_labels_are_trained_on_and_judged_by_the_likeliest_class():
    shares = np.random.default_rng(1).dirichlet(np.ones(3), 120)
    result = engine.fit(
        engine.mlp(()), (IMAGES, shares), epochs=1, class_weight={0: 2.0}, sampling="balanced", **OPTIONS
    )
    chances, found = result.classifier.predict_proba(IMAGES), result.evaluate((IMAGES, shares))
    assert found["loss"] == pytest.approx(-(shares * np.log(chances)).sum(1).mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((chances.argmax(1) == shares.argmax(1)).mean())
    assert result.evaluate((IMAGES, shares.argmax(1)))["accuracy"] == found["accuracy"]


def test_weighted_run_goes_on_with_its_weights_and_streams_the_same(tmp_path: Path):
    data = make_dataset(90)
    weights = np.random.default_rng(0).random(90).astype(np.float32)
    splits = engine.Splits(data.weighted(weights), make_dataset(30, 1))

    def config(epochs: int, placement: Any = "auto") -> engine.RunConfig:
        train = engine.TrainConfig(epochs, 32, sampling="balanced", class_weight={"band 1": 2.0})  # type: ignore[arg-type]
        plan = engine.PlanConfig(placement=placement)
        return engine.RunConfig("weighted", engine.mlp(()), train=train, plan=plan)

    def run(directory: str, epochs: int, **how: Any) -> list[np.ndarray]:
        placement = how.pop("placement", "auto")
        result = engine.run(config(epochs, placement), tmp_path / directory, splits=splits, **how)
        return [np.asarray(leaf) for leaf in (result.classifier.predict_proba(data.images[:5]),)]

    whole = run("whole", 2)
    run("parts", 1)
    np.testing.assert_array_equal(run("parts", 2, resume=True), whole)
    np.testing.assert_array_equal(run("streamed", 2, placement="streamed"), whole)
    splits = engine.Splits(data.weighted(weights[::-1].copy()), splits.validation)
    with pytest.raises(InputError, match="data: got content"):
        run("parts", 3, resume=True)


def test_command_shows_and_writes_the_scores_of_every_class(
    tmp_path: Path, cache_dir: Path, capsys: pytest.CaptureFixture[str]
):
    data = make_dataset(60)
    np.savez(tmp_path / "bands.npz", x_train=data.images, y_train=data.labels)
    result = engine.fit(engine.mlp(()), tmp_path / "bands.npz", epochs=2, **OPTIONS)
    run = result.save(tmp_path / "run")
    capsys.readouterr()
    evaluate(run, EvaluationData(path=tmp_path / "bands.npz", split="train"), out=tmp_path / "classes.csv")
    shown, scores = capsys.readouterr().out, result.class_scores(tmp_path / "bands.npz")
    assert "3 classes" in shown
    assert "mean over all" in shown
    lines = (tmp_path / "classes.csv").read_text().splitlines()
    assert lines[0] == "class,n,precision,recall,f1,as 0,as 1,as 2"
    assert [float(cell) for cell in lines[1].split(",")[5:]] == scores.confusion[0].tolist()
    if scores.most_confused:
        assert "taken for" in shown
