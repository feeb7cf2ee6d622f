"""Ensembles that were trained: restored whole or in part, joined, evaluated, asked in the shell."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import engine
from engine import EnsembleConfig, InputError, OptimConfig, RunConfig, Splits, TrainConfig
from engine.checkpoints.steps import choose_step, read_record
from engine.commands import evaluate as evaluate_module
from engine.commands import predict as predict_module
from engine.config.data import DataConfig
from engine.host.clock import Clock
from engine.inference.ensemble import EnsembleClassifier
from engine.inference.restore import join, restore
from engine.keys import stream_key
from engine.metrics.calibration import scores
from engine.metrics.stopping import has_stopped_early, member_best_step, member_goes_on, score
from engine.models import BatchNorm, Conv, Dense, Dropout, Flatten, Sequential
from engine.networks.build import build
from engine.networks.network import network_of
from engine.networks.stacked import Stacked
from engine.report.progress import Silent
from engine.runs.loop import train
from engine.runs.result import Result
from engine.runs.session import Session
from tests.commands.test_command_line import mistake
from tests.commands.test_data import command
from tests.commands.test_data import mistake as command_mistake
from tests.conftest import make_dataset
from tests.further import further

SMALL = Sequential((Flatten(), Dense(8, activation="relu"), Dense()))
NORMED = Sequential((Conv(2, 3), BatchNorm(), Dropout(0.5), Flatten(), Dense()))
SPLITS = Splits(make_dataset(100), make_dataset(40, 1), make_dataset(30, 2))


def run(directory: Path, model: Sequential = SMALL, *, splits: Splits = SPLITS, members: int = 3, **parts) -> Result:
    """A run of three epochs, twelve steps, in a directory."""
    given = {"epochs": 3, "batch_size": 25, "members": members, **parts.pop("train", {})}
    config = RunConfig(directory.name, model, train=TrainConfig(**given), **parts)
    directory.mkdir(parents=True)
    return train(config, splits, directory, Clock(), Silent())


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three members that jump about, so that each is best at a step of its own."""
    directory = tmp_path_factory.mktemp("runs") / "three"
    ensemble = EnsembleConfig(learning_rates=(0.3, 3.0, 1.0))
    augment = engine.AugmentConfig(horizontal_flip=True)
    run(directory, optim=OptimConfig("sgd"), ensemble=ensemble, augment=augment, train={"best_by": "loss"})
    return directory


# Restoring


def test_restored_ensemble_has_each_member_as_it_was_when_it_was_best(directory: Path, tmp_path):
    config, classifier = read_record(directory, 12).config, restore(directory)
    assert isinstance(classifier, EnsembleClassifier)
    steps = set()
    for number, member in enumerate(classifier.members):
        alone = train(config.of_member(number), SPLITS, made(tmp_path / str(number)), Clock(), Silent())
        np.testing.assert_array_equal(
            member.outputs(SPLITS.test.images), restore(tmp_path / str(number)).outputs(SPLITS.test.images)
        )
        history = classifier.record.history
        assert member_best_step(config.train, history, number) == alone.best_step
        validation = {f"member_{number}_validation_{name}": name for name in ("loss", "accuracy")}
        for ours, theirs in zip(history, alone.history, strict=True):
            for column, name in validation.items():
                assert ours[column] == pytest.approx(theirs[f"validation_{name}"], rel=1e-5)
        steps.add(alone.best_step)
    assert len(steps) > 1, "all were best at the same step: nothing is tested"


def made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def test_one_member_is_restored_by_its_number(directory: Path):
    images, whole = SPLITS.test.images, restore(directory)
    for number in range(3):
        alone = restore(directory, member=number)
        assert not isinstance(alone, EnsembleClassifier)
        assert alone.record.config.train.first_member == number
        np.testing.assert_array_equal(alone.outputs(images), whole.members[number].outputs(images))


@pytest.mark.parametrize("member", [3, -1])
def test_member_is_refused_when_the_run_has_no_such(directory: Path, member: int):
    with pytest.raises(InputError, match=rf"member: got {member}; expected a member of the run: 0 to 2"):
        restore(directory, member=member)


def test_member_of_a_single_model_is_refused(tmp_path):
    run(tmp_path / "one", members=1)
    with pytest.raises(InputError, match=r"member: got 1; expected none: a single model"):
        restore(tmp_path / "one", member=1)


def test_last_step_and_a_step_by_number_have_the_weights_of_then(directory: Path):
    images, best, last = SPLITS.test.images, restore(directory), restore(directory, step="last")
    np.testing.assert_array_equal(last.outputs(images), restore(directory, step=12).outputs(images))
    assert not np.array_equal(last.outputs(images), best.outputs(images))
    with pytest.raises(InputError, match=r"step: got 3; expected one of 8, 12"):
        restore(directory, step=3)


# Asking


def reference(classifier: EnsembleClassifier, images: np.ndarray) -> np.ndarray:
    """What an equally weighted mean of probabilities is by numpy."""
    return np.mean([member.outputs(images).astype(np.float64) for member in classifier.members], axis=0)


def test_evaluation_equals_the_combination_of_members_by_numpy(directory: Path):
    classifier = restore(directory)
    probabilities, labels = reference(classifier, SPLITS.test.images), SPLITS.test.labels
    metrics = classifier.evaluate(SPLITS.test)
    assert metrics["n"] == 30
    assert metrics["accuracy"] == np.mean(probabilities.argmax(-1) == labels)
    assert metrics["loss"] == pytest.approx(-np.log(probabilities[np.arange(30), labels]).mean(), rel=1e-5)
    assert {"brier", "ece"} <= set(metrics)
    np.testing.assert_allclose(classifier.outputs(SPLITS.test.images), probabilities, rtol=1e-5)


def test_pictures_are_predicted_like_arrays_and_files(directory: Path, tmp_path):
    classifier, images = restore(directory), SPLITS.test.images[:3]
    probabilities = reference(classifier, images)
    Image.fromarray(images[1, ..., 0]).save(tmp_path / "one.png")
    predictions = classifier.predict([images[0], tmp_path / "one.png", Image.fromarray(images[2, ..., 0])], top=2)
    for prediction, row in zip(predictions, probabilities, strict=True):
        assert prediction.label == classifier.class_names[row.argmax()]
        assert [p for _, p in prediction.top] == pytest.approx(sorted(row, reverse=True)[:2], rel=1e-5)
    assert classifier.predict([]) == []


def test_test_time_augmentation_is_averaged_for_each_member(directory: Path):
    classifier, images = restore(directory), SPLITS.test.images[:5]
    expected = np.mean([member.outputs(images, 2) for member in classifier.members], axis=0)
    np.testing.assert_allclose(classifier.outputs(images, tta=2), expected, rtol=1e-5)
    assert not np.allclose(classifier.outputs(images), expected)


@pytest.mark.parametrize("mapping", ["vmap", *further(["map"])])
@pytest.mark.parametrize("kind", ["whitened", *further(["batch norm", "binary"])])
def test_members_asked_together_answer_as_one_after_another(mapping, kind: str, tmp_path):
    splits = Splits(make_dataset(50, num_classes=2), None, make_dataset(30, 2, num_classes=2))
    loss = "binary_cross_entropy" if kind == "binary" else "softmax_cross_entropy"
    data = DataConfig(standardize="whiten" if kind == "whitened" else None)
    model = SMALL if kind == "whitened" else NORMED
    run(tmp_path / "r", model, splits=splits, data=data, train={"epochs": 1, "loss": loss})
    one_by_one = restore(tmp_path / "r")
    together = EnsembleClassifier(one_by_one.members, one_by_one.combination, one_by_one.record, mapping)
    for images in (splits.test.images, splits.test.images[:1], splits.test.images[:0]):
        np.testing.assert_allclose(together.member_outputs(images), one_by_one.member_outputs(images), rtol=1e-4)
    augment = engine.AugmentConfig(horizontal_flip=True)
    ours, theirs = (each.outputs(splits.test.images, augment) for each in (together, one_by_one))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    only = together.member_outputs(splits.test.images, wanted=np.array([False, True, False]))
    assert not only[[0, 2]].any()
    np.testing.assert_allclose(only[1], one_by_one.members[1].outputs(splits.test.images), rtol=1e-4)


def test_members_asked_together_keep_what_is_compiled_when_their_weights_change(directory: Path):
    classifier = restore(directory)
    together = EnsembleClassifier(classifier.members, classifier.combination, classifier.record, "vmap")
    last = restore(directory, step="last")
    params, model_state = (
        jax.tree.map(lambda *leaves: np.stack(leaves), *trees)
        for trees in zip(*((m.params, m.model_state) for m in last.members), strict=True)
    )
    moved = together.with_weights(last.record, params, model_state)
    images = SPLITS.test.images
    np.testing.assert_allclose(moved.outputs(images), last.outputs(images), rtol=1e-5)
    np.testing.assert_allclose(together.outputs(images), classifier.outputs(images), rtol=1e-5)
    assert moved._together.executables is together._together.executables


# The Flax module


def make_member(seed: jax.Array) -> nnx.Module:
    return build(NORMED, (8, 8, 1), 3, nnx.Rngs(stream_key(seed, "init")))


@pytest.mark.parametrize("mapping", ["vmap", "map"])
def test_ensemble_module_maps_the_member_axis(mapping):
    seeds, images = np.array([0, 7, 2**32 - 1], np.uint32), make_dataset(4).images / np.float32(255)
    module = Stacked(make_member, seeds, mapping)
    before = jax.tree.map(np.array, nnx.state(module, nnx.BatchStat))
    module.train()
    assert module(images).shape == (3, 4, 3)
    after = nnx.state(module, nnx.BatchStat)
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    module.eval()
    outputs = module(images)
    for i in range(3):
        member = make_member(seeds[i])
        stats = nnx.state(member, nnx.BatchStat)
        nnx.update(member, jax.tree.map(lambda leaf, i=i: leaf[i], nnx.state(module.members, nnx.BatchStat)))
        assert jax.tree.structure(stats) == jax.tree.structure(nnx.state(member, nnx.BatchStat))
        member.eval()
        np.testing.assert_allclose(outputs[i], member(images), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(Stacked(make_member, seeds, mapping, out_axis=1)(images).shape, (4, 3, 3))


def test_members_of_the_module_start_with_the_bits_of_the_run_alone():
    seeds = np.array([3, 4], np.uint32)
    _, init = network_of(NORMED, (8, 8, 1), 3, "xla")
    params = nnx.as_pure(nnx.state(Stacked(make_member, seeds).members, nnx.Param))
    for i, seed in enumerate(seeds):
        for ours, theirs in zip(jax.tree.leaves(params), jax.tree.leaves(init(seed)[0]), strict=True):
            np.testing.assert_array_equal(ours[i], theirs)


# Joining


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one model of another architecture."""
    directory = tmp_path_factory.mktemp("runs") / "other"
    run(directory, NORMED, members=1, train={"seed": 5})
    return directory


@pytest.mark.long
def test_joined_runs_of_unequal_architectures_weigh_all_members_the_same(directory: Path, other: Path):
    joined = engine.join([directory, str(other), restore(directory, member=1)])
    images, labels = SPLITS.test.images, SPLITS.test.labels
    assert len(joined.members) == 5
    parts = [*restore(directory).members, restore(other), restore(directory, member=1)]
    expected = np.mean([part.outputs(images).astype(np.float64) for part in parts], axis=0)
    np.testing.assert_allclose(joined.outputs(images), expected, rtol=1e-5)
    assert joined.evaluate(SPLITS.test)["loss"] == pytest.approx(scores(expected, labels)["nll"], rel=1e-5)
    assert len(joined.predict(images[0])) == 1
    assert joined.record.failed_steps == (None,) * 5


def test_joined_ensembles_are_joined_again(directory: Path):
    twice = join([join([directory, directory]), directory], "vote")
    assert len(twice.members) == 9
    np.testing.assert_array_equal(
        twice.outputs(SPLITS.test.images).argmax(-1), join([directory], "vote").outputs(SPLITS.test.images).argmax(-1)
    )


def test_members_that_are_left_out_stay_out(tmp_path, directory: Path):
    frozen = EnsembleConfig(learning_rates=(1e-2, 1e30))
    run(tmp_path / "frozen", members=2, ensemble=frozen)
    assert len(join([tmp_path / "frozen", directory]).members) == 4
    alone = restore(tmp_path / "frozen", member=1)
    assert alone.record.failed_steps[0] > 0


def test_runs_of_other_classes_are_refused_with_both(directory: Path, tmp_path):
    splits = Splits(make_dataset(50, num_classes=4))
    run(tmp_path / "four", splits=splits, members=1, train={"epochs": 0})
    message = r"parts: got 4 classes \(band 0, .*band 3\); expected 3 classes \(band 0, band 1, band 2\), as the first"
    with pytest.raises(InputError, match=message):
        join([directory, tmp_path / "four"])


def test_runs_of_other_inputs_are_refused_with_both(directory: Path, tmp_path):
    splits = Splits(make_dataset(50, size=9))
    run(tmp_path / "nine", splits=splits, members=1, train={"epochs": 0})
    with pytest.raises(InputError, match=r"parts: got another input contract \(shape: first \[8, 8, 1\], other \[9"):
        join([directory, tmp_path / "nine"])


def with_levels(classifier: engine.Classifier, levels: Any) -> engine.Classifier:
    spec = dataclasses.replace(classifier.input_spec, levels=levels)
    record = dataclasses.replace(classifier.record, input_spec=spec)
    return classifier.with_weights(record, classifier.params, classifier.model_state)


def test_runs_are_joined_whatever_they_say_of_pictures_with_more_than_8_bits_unless_ranges_differ(directory, capsys):
    one = restore(directory, member=0)
    for ours, theirs in itertools.permutations(["type", None, (0.0, 65535.0)], 2):
        assert join([with_levels(one, ours), with_levels(one, theirs)]).input_spec.levels == ours
    join([with_levels(one, None), with_levels(one, (0.0, 4095.0))])
    assert capsys.readouterr().err == ""
    join([with_levels(one, (0.0, 4095.0)), with_levels(one, "type")])
    assert "read by the levels (0.0, 4095.0) of the first part, not by type" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"levels: first \[0\.0, 4095\.0\], other \[0\.0, 1023\.0\]"):
        join([with_levels(one, (0.0, 4095.0)), with_levels(one, (0.0, 1023.0))])


def test_regressions_are_joined_by_their_mean_alone(directory: Path, tmp_path):
    images = make_dataset(50).images
    for name, size in (("one", 1), ("two", 2)):
        targets = np.zeros((50, size), np.float32)
        data = Splits(engine.dataset(images, targets))
        run(tmp_path / name, splits=data, members=1, train={"epochs": 0, "loss": "mean_squared_error"})
    joined = join([tmp_path / "one", tmp_path / "one"])
    np.testing.assert_allclose(joined.outputs(images), restore(tmp_path / "one").outputs(images), rtol=1e-6)
    Image.fromarray(images[0, ..., 0]).save(tmp_path / "first.png")
    np.testing.assert_allclose(joined.outputs([tmp_path / "first.png"]), joined.outputs(images[:1]))
    with pytest.raises(InputError, match=r"predict: got a regression model; .* Use outputs\(pictures\)"):
        joined.predict_proba(images)
    with pytest.raises(InputError, match=r"combine: got 'vote'; expected the mean, of regressions"):
        join([tmp_path / "one"], "vote")
    with pytest.raises(InputError, match=r"parts: got 2 outputs; expected 1, as the first part"):
        join([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(InputError, match=r"parts: got a regression; expected 3 classes"):
        join([directory, tmp_path / "one"])


@pytest.mark.parametrize(
    ("parts", "combine", "message"),
    [
        ([], "mean", r"parts: got none; expected at least one"),
        ("runs/a", "mean", r"parts: got one alone; expected a list"),
        ([], "greedy", r"expected at least one"),
        (["nowhere"], "mean", r"nowhere: got no such directory"),
    ],
)
def test_join_is_refused(parts, combine, message: str):
    with pytest.raises(InputError, match=message):
        join(parts, combine)


def test_join_with_fitted_weights_is_refused(directory: Path):
    with pytest.raises(InputError, match=r"combine: got 'weighted'; expected mean, logits or vote"):
        join([directory], "weighted")


# Early stopping


@pytest.mark.long
def test_each_member_stops_early_as_it_would_alone(tmp_path):
    early = {"epochs": 12, "patience": 2, "best_by": "loss"}
    ensemble = EnsembleConfig(learning_rates=(3.0, 1.0, 0.3))
    result = run(tmp_path / "all", optim=OptimConfig("sgd"), ensemble=ensemble, train=early)
    lengths = []
    for number in range(3):
        config = result.config.of_member(number)
        alone = train(config, SPLITS, made(tmp_path / str(number)), Clock(), Silent())
        ours = [row for row in result.history if f"member_{number}_validation_loss" in row]
        losses = [row[f"member_{number}_validation_loss"] for row in ours]
        assert losses == pytest.approx([row["validation_loss"] for row in alone.history], rel=1e-5)
        assert member_best_step(result.config.train, result.history, number) == alone.best_step
        np.testing.assert_array_equal(
            result.classifier.members[number].outputs(SPLITS.test.images), alone.classifier.outputs(SPLITS.test.images)
        )
        lengths.append(len(ours))
    assert len(set(lengths)) > 1, "all stopped together: nothing is tested"
    assert len(result.history) == max(lengths)
    record = read_record(tmp_path / "all", choose_step(tmp_path / "all"))
    assert record.is_complete


def rows(scores_of_members: list[list[float]]) -> list[dict]:
    """A history in which members have these accuracies, fewer where they stopped."""
    longest = max(map(len, scores_of_members))
    history = [{"epoch": i + 1, "step": 10 * (i + 1), "validation_loss": 1.0} for i in range(longest)]
    for number, accuracies in enumerate(scores_of_members):
        for row, accuracy in zip(history, accuracies, strict=False):
            row |= {f"member_{number}_validation_loss": 1.0, f"member_{number}_validation_accuracy": accuracy}
    return history


def test_member_that_missed_an_epoch_does_not_go_on_with_more_patience():
    history = rows([[0.5, 0.4], [0.5, 0.6, 0.6]])
    going = [[member_goes_on(TrainConfig(members=2, patience=p), history, n) for n in (0, 1)] for p in (1, 2, None)]
    assert going == [[False, False], [False, True], [False, True]]
    assert has_stopped_early(TrainConfig(members=2, patience=1), history)
    assert not has_stopped_early(TrainConfig(members=2, patience=2), history)
    assert [member_best_step(TrainConfig(members=2), history, n) for n in (0, 1)] == [10, 30]
    history[1]["member_1_validation_loss"] = 0.5
    assert member_best_step(TrainConfig(members=2), history, 1) == 20  # as accurate as the third, of a lower loss
    assert member_best_step(TrainConfig(members=3), history, 2) is None
    assert score(TrainConfig(), {"loss": 1.0, "accuracy": 0.6}) == 0.6


# Combinations in a run, notebooks, the shell


@pytest.mark.parametrize("combine", ["logits", "greedy", *further(["mean", "vote", "weighted"])])
def test_run_combines_as_asked_for_and_the_checkpoint_knows_how(combine, tmp_path):
    ensemble = EnsembleConfig(combine=combine, temperature=True)
    result = run(tmp_path / "r", ensemble=ensemble)
    combination = result.classifier.combination
    assert combination.method == combine
    assert combination.temperature != 1
    restored = restore(tmp_path / "r")
    assert restored.combination == combination
    assert restored.evaluate(SPLITS.validation) == pytest.approx(result.metrics["validation"])
    logs = np.log([member.outputs(SPLITS.test.images) for member in restored.members])
    np.testing.assert_allclose(restored.outputs(SPLITS.test.images), combination.combine(logs), rtol=1e-5)


def test_fit_trains_an_ensemble():
    data = make_dataset(80)
    result = engine.fit(SMALL, (data.images, data.labels), members=3, epochs=1, verbose=False)
    assert isinstance(result.classifier, EnsembleClassifier)
    assert len(result.classifier.members) == 3
    assert result.evaluate(engine.dataset(data.images, data.labels))["n"] == 80
    with pytest.raises(InputError, match=r"train.members: got 0"):
        engine.fit(SMALL, data, members=0)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """An untrained pair of models of fashion_mnist_12k."""
    data = DataConfig(split="train[:256]", test_split="test[:50]", cache_dir=cache_dir)
    config = RunConfig("pair", SMALL, data, TrainConfig(epochs=0, members=2))
    directory = tmp_path_factory.mktemp("runs") / "pair"
    engine.run(config, directory, reporter=Silent())
    return directory


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch):
    """Keeps the settings of a command's own process out of the tests'."""
    for module in (predict_module, evaluate_module):
        monkeypatch.setattr(module, "set_up_process", lambda *arguments: None)


@pytest.mark.usefixtures("same_process")
def test_commands_take_an_ensemble_or_one_of_its_members(capsys, shipped: Path):
    picture = str(shipped / "example.png")
    whole, first, second = restore(shipped), restore(shipped, member=0), restore(shipped, member=1)
    data = ("--data.split", "test[:50]")
    shown = command(capsys, "eval", str(shipped), *data)
    assert "brier" in shown
    assert "50" in shown
    alone = command(capsys, "eval", str(shipped), *data, "--member", "1")
    assert "member 1" in alone
    answers = {}
    for classifier, options in ((whole, ()), (first, ("--member", "0")), (second, ("--member", "1"))):
        shown = command(capsys, "predict", str(shipped), picture, *options)
        prediction = classifier.predict(shipped / "example.png")[0]
        assert prediction.label in shown
        answers[options] = f"{prediction.probability:.4f}"
    assert len(set(answers.values())) == 3
    assert "parameters" in command(capsys, "summary", str(shipped))


@pytest.mark.usefixtures("same_process")
@pytest.mark.parametrize("name", ["eval", "predict"])
def test_command_is_refused_for_a_member_that_is_not_there(capsys, shipped: Path, name: str):
    more = ("--data.split", "test") if name == "eval" else (str(shipped / "example.png"),)
    said = command_mistake(capsys, name, str(shipped), *more, "--member", "2")
    assert "member: got 2; expected a member of the run: 0 to 1." in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--train.members", "0"), "train.members: got 0; expected a whole number of at least 1. Give 10 or so"),
        (("--train.members", "-1"), "train.members: got -1; expected a whole number of at least 1."),
        (
            ("--train.members", "2", "--ensemble.learning-rates", "0.1", "0.2", "0.3"),
            "ensemble.learning_rates: got (0.1, 0.2, 0.3); expected one a member, 2 of them (train.members).",
        ),
    ],
)
def test_mistake_in_the_shell_is_answered_in_words(options: tuple[str, ...], message: str):
    assert message in mistake("experiments.convnet", *options)


def test_session_of_an_ensemble_gives_all_members_with_their_present_weights(tmp_path):
    config = RunConfig("r", SMALL, train=TrainConfig(1, 25, members=2))
    session = Session(config, SPLITS, Clock(), tmp_path)
    before = session.classifier().outputs(SPLITS.test.images)
    session.train_chunk()
    assert not np.array_equal(before, session.classifier().outputs(SPLITS.test.images))
    session.close()
    assert dataclasses.replace(config, train=TrainConfig(1, 25)).of_member(0).train.members == 1
