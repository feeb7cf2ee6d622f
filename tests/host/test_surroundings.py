"""What a process may have around it: 64-bit JAX, a fork, empty batches."""

import io
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import engine
from engine.data.decoded.dataset import Splits
from engine.host.forking import check_not_forked
from engine.kernels import lowerings
from engine.models import BatchNorm, Conv, Dense, Dropout, GlobalAveragePool, Sequential
from tests.conftest import TINY, make_dataset
from tests.further import further

NET = Sequential((Conv(16, 3, activation="relu"), BatchNorm(), Dropout(0.2), GlobalAveragePool(), Dense()))
CONFIG = engine.RunConfig(
    "a", NET,
    train=engine.TrainConfig(1, 64, label_smoothing=0.1),
    optim=engine.OptimConfig("adamw", schedule="cosine", average_decay=0.9),
    augment=engine.AugmentConfig(horizontal_flip=True, erasing=0.5, mixup=0.2),
)  # fmt: skip


def answers(directory: Path) -> str:
    """What a run of CONFIG comes to, with all its digits."""
    result = engine.run(CONFIG, directory, splits=Splits(make_dataset(128), make_dataset(50, 1)))
    again: Any = engine.restore(directory)
    dtypes = sorted({str(leaf.dtype) for leaf in jax.tree.leaves((again.params, again.model_state))})
    found = again.predict_proba(make_dataset(8, 5).images)
    return json.dumps([found.tolist(), result.history[-1]["loss"], result.metrics["validation"]["loss"], dtypes])


@pytest.mark.long
def test_64_bits_outside_change_no_bit(tmp_path: Path):
    script = "import sys, pathlib, tests.host.test_surroundings as t; print(t.answers(pathlib.Path(sys.argv[1])))"
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, str(tmp_path / "64")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    here = answers(tmp_path / "32")
    assert done.stdout.splitlines()[-1] == here
    assert here.endswith('["float32"]]')


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_process_that_was_forked_after_jax_was_used_is_told_and_does_not_hang():
    result = engine.fit(TINY, make_dataset(80), epochs=1, batch_size=64, verbose=False)
    images = np.asarray(make_dataset(3).images)
    check_not_forked()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of JAX and Python, who say so too
        child = os.fork()
    if child == 0:
        code = 1
        try:
            result.classifier.predict(images)
        except engine.InputError as error:
            code = 0 if "spawn" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


CONVOLUTIONS = sorted(lowerings.CONVOLUTIONS)


@pytest.mark.parametrize(
    ("channels", "is_depthwise", "strides"),
    [
        (3, False, (1, 1)), (16, False, (1, 1)), (16, True, (1, 1)), (16, True, (2, 2)),
        *further([(3, True, (1, 1)), (3, True, (2, 2)), (3, False, (2, 2)), (16, False, (2, 2))]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_of_no_images_has_gradients(name: str, strides: tuple[int, int], is_depthwise: bool, channels: int):
    groups, filters = (channels, channels) if is_depthwise else (1, 16)
    images, kernel = jnp.zeros((0, 9, 9, channels)), jnp.ones((3, 3, channels // groups, filters))

    def total(images: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        convolve = lowerings.CONVOLUTIONS[name]
        maps = convolve(images, kernel, strides, "SAME", dimension_numbers=numbers, feature_group_count=groups)
        return maps.sum()

    to_images, to_kernel = jax.grad(total, (0, 1))(images, kernel)
    assert (to_images.shape, to_kernel.shape) == (images.shape, kernel.shape)
    assert not np.any(to_kernel)


def test_views_of_bytes_are_pictures_and_of_arrays_arrays():
    classifier = engine.fit(TINY, make_dataset(80), epochs=1, batch_size=64, verbose=False).classifier
    images = np.asarray(make_dataset(3).images)
    file = io.BytesIO()
    Image.fromarray(images[0, ..., 0]).save(file, "PNG")
    expected, of_one = classifier.predict_proba(images), classifier.predict_proba(images[:1])
    for one in (file.getvalue(), bytearray(file.getvalue()), file.getbuffer()):
        np.testing.assert_array_equal(classifier.predict_proba(one), of_one)
        np.testing.assert_array_equal(classifier.predict_proba([one]), of_one)
    np.testing.assert_array_equal(classifier.predict_proba(memoryview(images)), expected)
    with pytest.raises(engine.InputError, match="masked"):
        classifier.predict_proba(np.ma.masked_array(images, images > 50))
