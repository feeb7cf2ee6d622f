"""Functions of the user's own as augmentation: drawn by the run's keys, recorded, and opened only if trusted."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import engine
from engine.__main__ import main
from engine.augment.apply import augment_batch, augment_image, example_keys
from engine.augment.config import AugmentConfig
from engine.config.data import DataConfig
from engine.data.decoded.dataset import Splits
from engine.errors import InputError
from engine.records.custom import custom
from engine.report.augmentation import augmentation_text
from tests.conftest import make_dataset

IMAGE = np.random.default_rng(0).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def brighten(key: jax.Array, image: jax.Array, most: float = 20.0) -> jax.Array:
    return image + jax.random.uniform(key, maxval=most)


def halve(key: jax.Array, image: jax.Array) -> jax.Array:
    return image[::2]


def test_own_functions_draw_with_keys_of_their_own_and_stay_within_the_levels():
    config = AugmentConfig(custom=(custom(brighten), custom(brighten, most=400.0)))
    keys, images = example_keys(0, 0, jnp.arange(3)), np.stack([IMAGE] * 3)
    changed, _ = jax.jit(augment_batch, static_argnums=2)(keys, images, AugmentConfig(custom=config.custom[:1]))
    added = np.asarray(changed) - np.minimum(images, np.asarray(changed))
    assert len({float(image.max()) for image in added}) == 3
    both = augment_image(keys[0], IMAGE, config)
    assert both.dtype == jnp.float32
    assert float(both.max()) <= 255
    assert augmentation_text(config) == "brighten, brighten"


def test_an_own_function_leaves_the_draws_of_all_others_as_they_were():
    key, usual = jax.random.key(1), AugmentConfig(rotation=20.0, brightness=0.2, erasing=1.0)
    ours = augment_image(key, IMAGE, replace(usual, custom=(custom(brighten, most=0.0),)))
    np.testing.assert_array_equal(ours, augment_image(key, IMAGE, usual))


def test_an_own_function_of_another_shape_is_refused():
    with pytest.raises(
        InputError, match=r"augment\.custom: got .*:halve, which returned \(3, 5, 3\); expected an image"
    ):
        augment_image(jax.random.key(0), IMAGE, AugmentConfig(custom=(custom(halve),)))
    with pytest.raises(InputError, match=r"augment\.custom: got .*:brighten: .*least"):
        augment_image(jax.random.key(0), IMAGE, AugmentConfig(custom=(custom(brighten, least=1.0),)))


def test_a_run_with_own_augmentation_opens_only_if_trusted(tmp_path: Path, monkeypatch, capsys):
    config = engine.RunConfig(
        "own", engine.mlp((8,)), DataConfig(test_split=None), engine.TrainConfig(epochs=1, batch_size=16),
        augment=AugmentConfig(custom=(custom(brighten),)),
    )  # fmt: skip
    engine.run(config, tmp_path / "run", splits=Splits(make_dataset(32), make_dataset(8, 1)))
    assert engine.restore(tmp_path / "run", trust=True).record.config.augment == config.augment
    with pytest.raises(InputError, match=r"tests\.augment\.test_custom:brighten.*trust=True"):
        engine.restore(tmp_path / "run")
    with pytest.raises(SystemExit):
        main(["augment", "fashion_mnist_12k", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "a.png")])
    assert "tests.augment.test_custom:brighten" in capsys.readouterr().err
    main(["augment", "fashion_mnist_12k", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "a.png"), "--trust"])
    assert "brighten" in capsys.readouterr().out
