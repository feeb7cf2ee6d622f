"""RandomCrop and CenterCrop: the network sees a part of each image, in evaluation the middle."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import engine
from engine import DataConfig, InputError, RunConfig
from engine.augment.apply import augment_image
from engine.augment.config import AugmentConfig
from engine.augment.presets import center_crop, image_data_generator, random_crop, random_flip
from engine.config.contract import InputSpec
from engine.models import Conv, Dense, Flatten, Sequential
from engine.networks.network import normalize
from tests.conftest import make_dataset
from tests.keras_layers import image

MODEL = Sequential((Conv(3, 3), Flatten(), Dense()))


@pytest.mark.parametrize("size", [(4, 4), (5, 6), (9, 7), (8, 3)], ids=str)
def test_center_crop_gives_the_pixels_of_keras(keras, size: tuple[int, int]):
    shown = np.stack([image(seed=seed) for seed in range(2)]).astype(np.uint8)
    spec = InputSpec((9, 7, 3), scale=1.0, center_crop=size)
    expected = keras.layers.CenterCrop(*size)(shown.astype(np.float32))
    np.testing.assert_array_equal(normalize(jnp.asarray(shown), spec), expected)
    assert spec.network_shape == expected.shape[1:]


def test_random_crop_takes_every_window_as_often_and_those_of_keras(keras):
    shown = np.arange(6 * 5 * 1, dtype=np.float32).reshape(6, 5, 1)
    config, keys = AugmentConfig(random_crop=(4, 3)), jax.random.split(jax.random.key(0), 600)
    windows = np.asarray(jax.jit(jax.vmap(lambda key: augment_image(key, jnp.asarray(shown), config)))(keys))
    first, counts = np.unique(windows[:, 0, 0, 0], return_counts=True)
    theirs = {
        float(np.asarray(keras.layers.RandomCrop(4, 3, seed=seed)(shown, training=True))[0, 0, 0]) for seed in range(60)
    }
    assert set(first) == theirs == {5 * top + left for top in range(3) for left in range(3)}
    assert counts.min() > 35
    for window in windows[:20]:
        top, left = divmod(int(window[0, 0, 0]), 5)
        np.testing.assert_array_equal(window, shown[top : top + 4, left : left + 3])


def test_presets_say_it_for_the_augmentation_and_for_the_data():
    config = RunConfig("run", MODEL, augment=random_flip("horizontal") | random_crop(6, 5))
    assert config.augment == AugmentConfig(horizontal_flip=True, random_crop=(6, 5))
    assert config.data == DataConfig(center_crop="6x5")
    config = RunConfig("run", MODEL, augment=image_data_generator(validation_split=0.2) | center_crop(6, 5))
    assert config.data == DataConfig(validation_fraction=0.2, center_crop="6x5")
    assert config.augment.random_crop is None
    with pytest.raises(InputError, match=r"data\.center_crop: got 4x4; expected 6x5 as before it"):
        _ = random_crop(6, 5) | center_crop(4, 4)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: random_crop(0, 5), r"height: got 0; expected a whole number of pixels"),
        (lambda: center_crop(3, 2.5), r"width: got 2\.5; expected a whole number"),  # type: ignore[arg-type]
        (lambda: DataConfig(center_crop="4 by 5"), r"data\.center_crop: got '4 by 5'; expected HEIGHTxWIDTH"),
        (
            lambda: DataConfig(center_crop="4x5", standardize="zca"),
            r"center_crop: got '4x5'; expected none with .* zca",
        ),
        (lambda: InputSpec((4, 4, 1), center_crop=(5, 3)), r"center_crop: got 5×3; expected at most .* \(4×4×1\)"),
        (
            lambda: RunConfig("run", MODEL, augment=AugmentConfig(random_crop=(4, 5))),
            r"augment\.random_crop: got 4x5; expected that of data\.center_crop, which is none\.",
        ),
    ],
)
def test_crops_that_cannot_be_are_refused(made: Any, message: str):
    with pytest.raises(InputError, match=message):
        made()


def test_model_trains_on_random_crops_and_is_evaluated_predicted_and_exported_on_the_middle(tmp_path):
    data = make_dataset(120)
    result = engine.fit(MODEL, data, augment=random_crop(6, 6), epochs=2, batch_size=20, verbose=False)
    classifier = result.classifier
    assert classifier.input_spec.network_shape == (6, 6, 1)
    outputs = np.asarray(classifier.outputs(data.images[:9]))
    middle = engine.fit(MODEL, data, augment=center_crop(6, 6), epochs=2, batch_size=20, verbose=False)
    assert not np.allclose(outputs, middle.classifier.outputs(data.images[:9]))
    changed = np.array(data.images[:9])
    changed[:, [0, -1]], changed[:, :, [0, -1]] = 0, 255  # the border, which evaluation does not see
    np.testing.assert_array_equal(classifier.outputs(changed), outputs)
    assert classifier.evaluate(data)["n"] == 120
    assert len(classifier.predict(data.images[:3], tta=4)) == 3
    with pytest.raises(InputError, match=r"tta\.random_crop: got \(4, 4\); expected \(6, 6\), the model's"):
        classifier.predict(data.images[:3], tta=AugmentConfig(random_crop=(4, 4)))
    result.save(tmp_path / "run")
    restored = engine.restore(tmp_path / "run")
    np.testing.assert_array_equal(restored.outputs(data.images[:9]), outputs)
    tuned = engine.finetune(restored, data, augment=random_crop(6, 6), epochs=1, batch_size=20, verbose=False)
    assert tuned.classifier.input_spec.center_crop == (6, 6)
