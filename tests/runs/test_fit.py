"""Training in notebooks: arrays in, a result out that predicts, evaluates and saves."""

import gc
from inspect import signature
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import engine
from engine.errors import InputError
from engine.models import Conv, Dense, Flatten, GlobalAveragePool, Sequential
from tests.conftest import TINY, make_dataset
from tests.further import further
from tests.runs.test_loop import all_arrays, without_seconds


class UsersNet(nnx.Module):
    """What a user may write: plain Flax layers, dropout from a stream of its own name."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs, width: int = 4):
        self.conv = nnx.Conv(input_shape[-1], width, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(width, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.dense = nnx.Linear(width * input_shape[0] * input_shape[1], num_outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.dropout(nnx.relu(self.norm(self.conv(x))))
        return self.dense(x.reshape(x.shape[0], -1))


class Typed(nnx.Module):
    """One dense layer of bfloat16, or beside an array of nothing."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs, kind: str):
        self.dense = nnx.Linear(input_shape[0] * input_shape[1], num_outputs, param_dtype=jnp.bfloat16, rngs=rngs)
        self.none = nnx.Param(jnp.zeros((0, 3))) if kind == "empty" else None

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(x.reshape(x.shape[0], -1))


@pytest.fixture(scope="module")
def fitted() -> engine.Result:
    data = make_dataset(300)
    return engine.fit(TINY, (data.images, data.labels), epochs=12, batch_size=32, learning_rate=1e-2, verbose=False)


def test_fit_learns_and_says_how_well(fitted):
    test = make_dataset(100, 9)
    metrics = fitted.evaluate(engine.dataset(test.images, test.labels))
    assert metrics["n"] == 100
    assert metrics["accuracy"] > 0.9
    assert len(fitted.history) == 12
    assert fitted.metrics["validation"]["n"] == 30


def test_evaluation_equals_numpy_over_every_example(fitted):
    test = make_dataset(70, 9)
    probabilities = fitted.classifier.outputs(test.images).astype(np.float64)
    own = probabilities[np.arange(70), test.labels]
    metrics = fitted.evaluate(engine.dataset(test.images, test.labels))
    assert metrics["accuracy"] == np.mean(probabilities.argmax(-1) == test.labels)
    assert metrics["loss"] == pytest.approx(-np.log(own).mean(), rel=1e-4)


def test_saved_result_restores_and_predicts_the_same(fitted, tmp_path):
    images = make_dataset(9, 5).images
    saved = fitted.save(tmp_path / "kept")
    restored = engine.restore(saved)
    assert restored.predict(images, top=2) == fitted.predict(images, top=2)
    with pytest.raises(engine.InputError, match=r"expected a path where nothing is yet"):
        fitted.save(tmp_path / "kept")


def test_verbose_fit_prints_epochs(capsys):
    data = make_dataset(64)
    engine.fit(TINY, data, epochs=1, validation=0)
    assert "epoch 1/1" in capsys.readouterr().out


def test_users_own_module_trains_saves_and_needs_trust_to_open(tmp_path):
    spec = engine.custom(UsersNet, width=3)
    result = engine.fit(spec, make_dataset(120), epochs=8, batch_size=32, learning_rate=1e-2, verbose=False)
    assert result.history[-1]["loss"] < result.history[0]["loss"]
    path = result.save(tmp_path / "own")
    with pytest.raises(engine.InputError, match=r"code of its author's own .tests.runs.test_fit:UsersNet.*trust=True"):
        engine.restore(path)
    images = make_dataset(5, 5).images
    np.testing.assert_array_equal(engine.restore(path, trust=True).outputs(images), result.classifier.outputs(images))


def test_module_instance_is_refused_with_the_way_to_pass_its_class():
    net = UsersNet(input_shape=(8, 8, 1), num_outputs=3, rngs=nnx.Rngs(0))
    with pytest.raises(engine.InputError, match=r"model: got UsersNet.*custom\(YourNNXClass"):
        engine.fit(net, make_dataset(64))


def test_regression_recovers_a_linear_map(tmp_path):
    draw = np.random.default_rng(0)
    inputs, weights = draw.normal(size=(512, 32)).astype(np.float32), draw.normal(size=(32, 1)).astype(np.float32)
    targets = inputs @ weights + 0.5
    model = Sequential((Dense(),))
    result = engine.fit(
        model, (inputs, targets), epochs=60, batch_size=32, learning_rate=3e-2, loss="mean_squared_error", verbose=False
    )
    assert model.with_outputs(1).num_params((32,)) == 33
    assert result.metrics["validation"]["loss"] < 1e-2
    np.testing.assert_allclose(result.classifier.outputs(inputs[:9]), targets[:9], atol=0.3)
    with pytest.raises(engine.InputError, match=r"predict: got a regression model"):
        result.predict(inputs[:1])
    assert engine.restore(result.save(tmp_path / "r")).evaluate(engine.dataset(inputs, targets))["n"] == 512


def test_binary_cross_entropy_on_one_logit_learns_two_classes():
    data = make_dataset(300, num_classes=2)
    model = Sequential((Conv(4, 3, activation="relu"), Flatten(), Dense()))
    result = engine.fit(model, data, epochs=8, batch_size=32, loss="binary_cross_entropy", verbose=False)
    assert result.metrics["validation"]["accuracy"] > 0.9
    probabilities = result.classifier.outputs(data.images[:4])
    assert probabilities.shape == (4, 2)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-6)


def test_named_data_and_separate_validation_arrays_work():
    data, held_out = make_dataset(64), make_dataset(20, 3)
    result = engine.fit(
        TINY, data, epochs=1, validation=(held_out.images, held_out.labels), class_names=None, verbose=False
    )
    assert result.metrics["validation"]["n"] == 20


def test_images_without_a_channel_axis_get_one():
    data = make_dataset(10)
    assert engine.dataset(data.images[..., 0], data.labels).input_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.full((4, 8, 8, 1), -3), np.zeros(4, int), r"images: got int64 images from -3 to -3; expected 0 to 1, "),
        (np.zeros(4, np.uint8), np.zeros(4, int), r"images: got rank 1"),
        (np.zeros((4, 8, 8, 1), np.uint8), np.zeros((4, 3), int), r"labels: got labels of 4×3; expected one a picture"),
        (np.zeros((4, 8, 8, 1), np.uint8), np.zeros(3, int), r"got 4 images and 3 labels"),
        (np.zeros((0, 8, 8, 1), np.uint8), np.zeros(0, int), r"got 0 examples"),
        (np.zeros((4, 8, 8, 1), np.uint8), np.array([0, 1, -1, 0]), r"labels of example 2: got -1; expected 0 or more"),
    ],
)
def test_arrays_that_are_no_dataset_are_refused(images, labels, message):
    with pytest.raises(engine.InputError, match=message):
        engine.dataset(images, labels)


def test_model_that_does_not_fit_the_images_names_the_layer():
    model = Sequential((Conv(4, 9), GlobalAveragePool(), Dense()))
    with pytest.raises(engine.InputError, match=r"layer 1 Conv: got 8×8; expected at least 9×9"):
        engine.fit(model, make_dataset(100), verbose=False)


def test_table_of_another_number_of_classes_than_the_model_is_refused():
    model = Sequential((Flatten(), Dense(7)))
    with pytest.raises(engine.InputError, match=r"model: got 7 outputs an example; expected 3, as the data asks"):
        engine.fit(model, make_dataset(100), verbose=False)


@pytest.mark.parametrize("names", ["abc", 3])
def test_class_names_that_are_no_list_are_refused(names):
    data = make_dataset()
    with pytest.raises(engine.InputError, match=rf"class_names: got {names!r}; expected a list of names"):
        engine.dataset(data.images, data.labels, names)


def test_class_names_may_be_numbers_or_an_array():
    data = make_dataset(64)
    assert engine.dataset(data.images, data.labels, [7, 8, 9]).class_names == ("7", "8", "9")
    assert engine.dataset(data.images, data.labels, np.array(["a", "b", "c"])).class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            None,
            r"data: got NoneType; expected a path, a tfds name, a DataConfig, Splits, a Dataset or \(images, labels\)",
        ),
        ((np.full((4, 2), np.nan), np.zeros(4, int)), r"images of example 0: got NaN or infinity"),
        ((np.array([[1.0, 2.0], [1e300, 0.0]]), np.zeros(2, int)), r"images of example 1: got NaN or infinity"),
        ((np.zeros((4, 0, 8, 1), np.uint8), np.zeros(4, int)), r"images: got shape"),
        (([[1.0], [1.0, 2.0]], np.zeros(2, int)), r"images: got .*; expected examples of one shape"),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused_before_training(data, message):
    with pytest.raises(engine.InputError, match=message):
        engine.fit(TINY, data, verbose=False)


def test_run_that_fails_after_a_checkpoint_is_kept(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr("engine.runs.messages.metrics_table", lambda *_: (_ for _ in ()).throw(RuntimeError("late")))
    with pytest.raises(RuntimeError, match="late"):
        engine.fit(TINY, make_dataset(64), epochs=1, validation=None, verbose=False)
    assert engine.restore(tmp_path).record.step == 1


def test_pictures_of_a_temporary_directory_are_drawn_when_its_files_are_needed(tmp_path):
    drawn, data = {"curves.png", "predictions.png", "confusion.png"}, make_dataset(64)
    first = engine.fit(TINY, data, epochs=1, verbose=False)
    place = first._pictures.directory
    assert {path.name for path in place.glob("*.png")} == {"example.png"}
    second = first.train_on(1, verbose=False)
    assert {path.name for path in place.glob("*.png")} == {"example.png"}
    assert drawn < {path.name for path in second.save(tmp_path / "kept").iterdir()}
    (place / "curves.png").unlink()
    assert not (first.directory / "curves.png").exists()  # the first one's pictures do not replace the second's
    kept = engine.fit(TINY, data, epochs=1, verbose=False, run_dir=tmp_path / "run")
    assert drawn < {path.name for path in (tmp_path / "run").iterdir()}
    assert kept.directory == tmp_path / "run"


def test_validation_arrays_are_used_with_splits_and_named_data_too(splits):
    held_out = make_dataset(20, 3)
    result = engine.fit(TINY, splits, epochs=1, validation=(held_out.images, held_out.labels), verbose=False)
    assert result.metrics["validation"]["n"] == 20
    assert result.metrics["test"]["n"] == 70
    with pytest.raises(engine.InputError, match=r"class_names: got names; expected none"):
        engine.fit(TINY, splits, class_names=["a", "b", "c"], verbose=False)


def test_classes_are_compared_by_name_in_any_order_and_unnamed_ones_by_index_which_is_said(capsys):
    data = make_dataset(60)
    fitted = engine.fit(TINY, make_dataset(100), epochs=1, verbose=False).classifier
    expected = fitted.evaluate(data)
    backwards = engine.dataset(data.images, 2 - data.labels, ["band 2", "band 1", "band 0"])
    assert fitted.evaluate(backwards) == expected
    assert capsys.readouterr().err == ""
    assert fitted.evaluate(engine.dataset(data.images, data.labels)) == expected
    assert capsys.readouterr().err == (
        "warning: arrays: classes are compared by index, because those of arrays have no names: "
        "0 is taken for band 0, 1 is taken for band 1, 2 is taken for band 2\n"
    )


def test_fit_takes_augmentation_and_patience():
    data = make_dataset(200)
    result = engine.fit(
        TINY, data, epochs=30, learning_rate=3.0, optimizer="sgd", patience=2, verbose=False,
        augment=engine.AugmentConfig(horizontal_flip=True),
    )  # fmt: skip
    assert result.config.augment.horizontal_flip
    assert len(result.history) < 30


def test_fit_takes_a_data_config_with_a_path(tmp_path):
    draw = np.random.default_rng(0)
    np.savez(tmp_path / "mine.npz", images=draw.integers(0, 256, (50, 8, 8), np.uint8), labels=draw.integers(0, 3, 50))
    data = engine.DataConfig(path=tmp_path / "mine.npz", validation_fraction=0.2)
    result = engine.fit(TINY, data, epochs=1, batch_size=10, verbose=False)
    assert result.metrics["validation"]["n"] == 10


def test_validation_pictures_of_another_size_are_refused_with_both_sizes():
    train, other = make_dataset(20), np.zeros((6, 9, 8, 1), np.uint8)
    message = r"validation arrays: got images of 9×8×1; expected {}×{}×{} like .* Bring arrays to one size first"
    with pytest.raises(engine.InputError, match=message.format(*train.input_shape)):
        engine.fit(TINY, train, validation=(other, np.arange(6) % 3), verbose=False)
    pair = (np.asarray(train.images), train.labels)
    with pytest.raises(engine.InputError, match=message.format(*train.input_shape)):
        engine.fit(TINY, pair, validation=(other, np.arange(6) % 3), verbose=False)
    smaller = np.zeros((6, *train.input_shape), np.uint8)  # as advised
    engine.fit(TINY, pair, validation=(smaller, np.arange(6) % 3), epochs=0, verbose=False)


def test_fit_takes_what_decides_the_best_epoch(fitted):
    options = {"best_by": "nll", "label_smoothing": 0.1, "patience": 2, "min_delta": 0.01, "start_epoch": 1}
    result = engine.fit(TINY, make_dataset(100), epochs=1, verbose=False, **options)
    assert {name: getattr(result.config.train, name) for name in options} == options
    assert fitted.config.train == engine.TrainConfig(12, 32)


def test_run_of_fit_is_kept_and_resumed_in_its_directory(tmp_path):
    data, options = make_dataset(100), {"verbose": False, "run_dir": tmp_path / "run"}
    engine.fit(TINY, data, epochs=1, **options)
    with pytest.raises(engine.InputError, match=r"run_dir: got .*contains a finished run"):
        engine.fit(TINY, data, epochs=2, **options)
    with pytest.raises(engine.InputError, match=r"a run of another config[\s\S]*train.seed: stored 0, given 1"):
        engine.fit(TINY, data, epochs=2, seed=1, resume=True, **options)
    resumed = engine.fit(TINY, data, epochs=2, resume=True, **options)
    whole = engine.fit(TINY, data, epochs=2, verbose=False)
    assert resumed.directory == tmp_path / "run"
    assert [row["step"] for row in resumed.history] == [2, 4]
    np.testing.assert_array_equal(resumed.classifier.outputs(data.images), whole.classifier.outputs(data.images))
    with pytest.raises(engine.InputError, match=r"resume: got True; expected False without run_dir"):
        engine.fit(TINY, data, resume=True)


def test_directory_that_is_no_path_is_refused():
    with pytest.raises(engine.InputError, match=r"run_dir: got 3; expected a path"):
        engine.fit(engine.mlp(()), make_dataset(20), run_dir=3, verbose=False)  # type: ignore[arg-type]


def test_finetuned_run_is_resumed_in_its_directory(fitted, tmp_path):
    names = ("left", "middle", "right")
    data = make_dataset(100)
    other = engine.dataset(data.images, [names[label] for label in data.labels])
    options = {"freeze": ["conv_1"], "verbose": False}
    engine.finetune(fitted.classifier, other, epochs=1, run_dir=tmp_path, **options)
    resumed = engine.finetune(fitted.classifier, other, epochs=2, run_dir=tmp_path, resume=True, **options)
    whole = engine.finetune(fitted.classifier, other, epochs=2, **options)
    np.testing.assert_array_equal(resumed.classifier.outputs(data.images), whole.classifier.outputs(data.images))


def test_result_predicts_as_its_classifier(fitted):
    images, augment = make_dataset(4, 5).images, engine.AugmentConfig(horizontal_flip=True)
    for options in ({"top": 3}, {"tta": augment}, {"resize": "crop"}):
        assert fitted.predict(images, **options) == fitted.classifier.predict(images, **options)
    assert signature(engine.Result.predict) == signature(engine.Classifier.predict)


@pytest.mark.parametrize("members", [2, *further([1])])
def test_training_on_has_the_bits_of_never_having_stopped(members, tmp_path):
    data, test = make_dataset(150), make_dataset(20, 5)
    epochs: list[int] = []
    options = {"members": members, "best_by": "loss", "verbose": False}
    first = engine.fit(TINY, data, epochs=2, callbacks=[Counting(epochs)], **options)
    before = first.classifier.outputs(test.images)
    second = first.train_on(1, verbose=False)
    whole = engine.fit(TINY, data, epochs=4, **options)
    directory = first.directory
    del first
    gc.collect()
    third = second.train_on(1, verbose=False)
    assert epochs == [1, 2, 3, 4]
    assert without_seconds(third.history) == without_seconds(whole.history)
    assert third.metrics == whole.metrics
    assert third.best_step == whole.best_step
    np.testing.assert_array_equal(third.classifier.outputs(test.images), whole.classifier.outputs(test.images))
    last = [all_arrays(result.directory, result.history[-1]["step"]) for result in (third, whole)]
    for one, other in zip(*last, strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(before, third.classifier.outputs(test.images))
    with pytest.raises(engine.InputError, match=r"train_on: got a result after 3 epochs; expected that after 4"):
        second.train_on(1)
    del second, third
    gc.collect()
    assert not directory.exists()


class Counting(engine.Callback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_epoch_end(self, run):
        self.epochs.append(run.epoch)


def test_training_on_is_refused_where_it_cannot_be_as_if_never_stopped():
    data = make_dataset(60)
    optimizer = engine.OptimConfig("sgd", 0.1, schedule="cosine")
    ended = engine.fit(TINY, data, epochs=1, optimizer=optimizer, verbose=False)
    with pytest.raises(engine.InputError, match=r"train_on: got the schedule cosine, which ends after 1 epoch"):
        ended.train_on(1)
    with pytest.raises(engine.InputError, match=r"epochs: got 0; expected a whole number of at least 1"):
        ended.train_on(0)
    with pytest.raises(engine.InputError, match=r"epochs: got '2'; expected a whole number of at least 1"):
        ended.train_on("2")  # type: ignore[arg-type]
    options = {"optimizer": "sgd", "learning_rate": 1e-9, "patience": 1, "best_by": "loss", "verbose": False}
    early = engine.fit(TINY, data, epochs=9, min_delta=0.1, **options)
    assert len(early.history) == 2
    with pytest.raises(engine.InputError, match=r"patience: got 1, which is used up; .* Pass patience=3."):
        early.train_on(2)
    assert len(early.train_on(2, patience=3, verbose=False).history) == 4


@pytest.mark.parametrize(
    ("options", "labels"),
    [
        ({"layout": "channels_first"}, None),
        ({"value_range": (0, 1000)}, None),
        ({"class_names": {0: "a", 1: "b", 2: "c"}}, None),
        ({"class_names": ["a", "b", "c"]}, np.eye(3)),
        ({}, np.array(["a", "b", "c"])),
    ],
)
def test_arrays_are_evaluated_as_they_are_trained_on(options, labels):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 8))
    images = images.astype(np.float32) if "value_range" in options else images.astype(np.uint8)
    pair = images, (np.arange(60) % 3 if labels is None else labels[np.arange(60) % 3])
    model = Sequential((Flatten(), Dense()))
    result = engine.fit(model, pair, epochs=1, validation=pair, verbose=False, **options)
    given = {"class_names": options["class_names"]} if "class_names" in options else {}
    assert result.evaluate(pair, **given) == result.metrics["validation"]
    assert result.classifier.evaluate(pair, **options) == result.metrics["validation"]


def test_evaluation_takes_splits_and_a_data_config(fitted, tmp_path):
    test = make_dataset(30, 9)
    wanted = fitted.evaluate(test)
    assert fitted.evaluate(engine.Splits(make_dataset(30), make_dataset(30, 3), test)) == wanted
    assert fitted.evaluate(engine.Splits(make_dataset(30), test, None)) == wanted
    with pytest.raises(engine.InputError, match=r"data: got training data alone"):
        fitted.evaluate(engine.Splits(test, None, None))
    np.savez(tmp_path / "test.npz", x_train=test.images, y_train=test.labels, x_test=test.images, y_test=test.labels)
    assert fitted.evaluate(engine.DataConfig(path=tmp_path / "test.npz"))["loss"] == wanted["loss"]
    with pytest.raises(engine.InputError, match=r"value_range, layout, class_names: got one with Dataset"):
        fitted.evaluate(test, layout="channels_first")


@pytest.mark.parametrize(
    ("count", "advice"), [(5, "Give 6, or a smaller multiple of 6"), (4, "Give 4, and leave out train.accumulate")]
)
def test_smaller_batch_size_that_is_advised_can_be_divided(count: int, advice: str):
    few, mixup = (np.zeros((count, 4, 4, 1), np.uint8), np.arange(count) % 2), engine.AugmentConfig(mixup=0.2)
    with pytest.raises(InputError, match=f"batch_size: got 66; expected at most {count}, .* {advice}"):
        engine.fit(engine.mlp(()), few, batch_size=66, accumulate=3, augment=mixup, validation=None)
    with pytest.raises(InputError, match=r"accumulate: got 3; .* or set train\.batch_size to 60\."):
        engine.TrainConfig(accumulate=3)


def test_arguments_of_other_forms_are_named():
    for given, message in (
        ({"optimizer": optax.adam(0.1)}, r"optimizer: got a Gradient"),
        ({"learning_rate": optax.constant_schedule(0.1)}, r"learning_rate: got a schedule; .*schedule=…"),
        (
            {"allow_change": "optim.learning_rate", "resume": True, "run_dir": "x"},
            r"allow_change: got 'op.*in brackets",
        ),
    ):
        with pytest.raises(InputError, match=message):
            engine.fit(engine.mlp(()), (np.zeros((8, 4, 4, 1), np.uint8), np.arange(8) % 2), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bfloat16", "empty"])
def test_arrays_of_any_type_are_saved_and_empty_ones_refused(kind: str, tmp_path: Path):
    data = (np.zeros((8, 4, 4, 1), np.uint8), np.arange(8) % 2)
    model = engine.custom(Typed, kind=kind)
    if kind == "empty":
        with pytest.raises(InputError, match=r"model: got an array of shape \(0, 3\) \(0/none\)"):
            engine.fit(model, data, epochs=1, verbose=False)
        return
    result = engine.fit(model, data, epochs=1, verbose=False, run_dir=tmp_path)
    opened = engine.restore(tmp_path, trust=True)
    np.testing.assert_array_equal(opened.outputs(data[0]), result.classifier.outputs(data[0]))
