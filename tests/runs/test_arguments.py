"""Calls in the manner of Keras and others: each is answered with what to write here."""

from pathlib import Path
from typing import Any

import numpy as np
import optax
import pytest
from PIL import Image

import engine
from engine.models import Dense, Flatten, Sequential
from engine.runs.arguments import ELSEWHERE

MODEL = Sequential((Flatten(), Dense()))
IMAGES, LABELS = np.zeros((8, 4, 4, 1), np.uint8), np.arange(8) % 2
FIT: Any = engine.fit


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_an_argument_of_another_library_is_answered_with_ours(name: str):
    with pytest.raises(engine.InputError, match=f"fit argument: got '{name}'") as caught:
        FIT(MODEL, (IMAGES, LABELS), **{name: 1})
    assert ELSEWHERE[name] in str(caught.value)


def test_an_argument_that_is_misspelt_is_answered_with_the_nearest():
    with pytest.raises(engine.InputError, match="Did you mean 'batch_size'"):
        FIT(MODEL, (IMAGES, LABELS), batchsize=4)


def test_images_and_labels_by_place_are_answered_with_brackets():
    with pytest.raises(engine.InputError, match=r"fit: got 3 arguments by place; .* fit\(model, \(images, labels\)\)"):
        FIT(MODEL, IMAGES, LABELS)
    with pytest.raises(engine.InputError, match="fit: got missing a required argument: 'data'"):
        FIT(MODEL)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("categorical_crossentropy", "softmax_cross_entropy"),
        ("sparse_categorical_crossentropy", "softmax_cross_entropy"),
        ("CrossEntropyLoss", "softmax_cross_entropy"),
        ("binary_crossentropy", "binary_cross_entropy"),
        ("mse", "mean_squared_error"),
    ],
)
def test_a_loss_is_found_by_its_name_elsewhere(name: str, ours: str):
    with pytest.raises(engine.InputError, match=f"Here that is '{ours}'"):
        FIT(MODEL, (IMAGES, LABELS), loss=name)


def brighter(key, image, amount=10.0):
    return image + amount


def test_augmentation_is_a_config_or_a_function():
    result = FIT(MODEL, (IMAGES, LABELS), epochs=0, augment=brighter, verbose=False)
    assert result.config.augment == engine.AugmentConfig(custom=(engine.custom(brighter),))
    assert repr(result).startswith("<Result fit: 0 epochs; best step 0; ")
    with pytest.raises(engine.InputError, match=r"augment: got True; expected an AugmentConfig or a function"):
        FIT(MODEL, (IMAGES, LABELS), augment=True)


def test_sections_of_a_config_are_configs_and_functions_are_named():
    for section in ("data", "train", "optim", "plan", "augment", "ensemble", "checkpoint", "finetune"):
        with pytest.raises(engine.InputError, match=rf"^{section}: got 'x'; expected \w+Config"):
            engine.RunConfig("mine", MODEL, **{section: "x"})  # type: ignore[arg-type]
    with pytest.raises(engine.InputError, match=r"Pass engine.custom\(function\) in place of each"):
        engine.TrainConfig(metrics=(brighter,))  # type: ignore[arg-type]
    with pytest.raises(engine.InputError, match=r"optim\.learning_rate: .* no function goes here"):
        engine.OptimConfig(learning_rate=brighter)  # type: ignore[arg-type]


def test_objects_and_single_names_where_others_are_asked_for():
    with pytest.raises(engine.InputError, match=r"engine.custom\(optax.adam"):
        FIT(MODEL, (IMAGES, LABELS), optimizer=optax.adam(1e-3))
    with pytest.raises(engine.InputError, match="metrics: got 'accuracy'; expected a list"):
        FIT(MODEL, (IMAGES, LABELS), metrics="accuracy")


def test_images_and_labels_apart_are_no_data_to_evaluate():
    result = engine.fit(MODEL, (IMAGES, LABELS), epochs=0, verbose=False)
    evaluate: Any = result.evaluate
    with pytest.raises(
        engine.InputError, match=r"data: got an array 8×4×4×1 by itself; .*evaluate\(\(images, labels\)\)"
    ):
        evaluate(IMAGES, LABELS)


def is_first(outputs: Any, labels: Any) -> Any:
    return labels == 0


def test_a_metric_may_be_a_function_of_outputs_and_targets():
    result = engine.fit(
        MODEL, (IMAGES, LABELS), epochs=0, metrics=[is_first], validation=(IMAGES, LABELS), verbose=False
    )
    assert result.metrics["validation"]["is_first"] == 0.5


def test_one_hot_labels_under_a_loss_of_several_labels_are_reported(capsys: pytest.CaptureFixture[str]):
    one_hot = np.eye(4, dtype=int)[np.arange(8) % 4]
    engine.fit(MODEL, (IMAGES, one_hot), epochs=0, loss="binary_cross_entropy")
    assert "labels: each has one of 4 labels; trained as several labels a picture" in capsys.readouterr().out


def test_pictures_of_a_path_are_resized(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for side in (9, 12, 15):
            Image.new("RGB", (side, side)).save(tmp_path / name / f"{side}.png")
    result = engine.fit(MODEL, tmp_path, image_size=(8, 6), epochs=0, validation=None, verbose=False)
    assert result.classifier.input_spec.shape == (8, 6, 3)
    with pytest.raises(engine.InputError, match=r"image_size: got one with tuple; .* Resize arrays before"):
        engine.fit(MODEL, (IMAGES, LABELS), image_size=(8, 6))
