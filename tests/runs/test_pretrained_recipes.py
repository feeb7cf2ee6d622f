"""The recipes that start from pretrained networks: their counts, and all stages on a small folder of pictures."""

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

import engine
from engine.config.finetune import FineTuneConfig
from engine.models import Sequential
from engine.recipes import cats_dogs, vgg_features
from experiments import imagenet_classify
from tests.importers.tiny import draw_arrays, known_as_tiny, write_h5

__all__ = ["known_as_tiny"]


def count(model: Sequential, size: int, outputs: int, first: int = 0) -> tuple[int, int]:
    """(parameters that train if all before `first` are frozen, all of them and statistics)."""
    rows = model.with_outputs(outputs).rows((size, size, 3))
    return sum(row.num_params for row in rows[first:]), sum(row.num_params + row.num_statistics for row in rows)


def test_cats_dogs_has_the_counts_of_the_tutorial():
    model = cats_dogs.model()
    first = model.layer_names.index(cats_dogs.LAST_FROZEN) + 1
    assert first == 18  # Keras counts its input and a layer that pads
    assert count(model, 128, 2, first) == (5_817_986, 5_853_890)


def test_vgg_features_has_the_counts_of_the_tutorial():
    model = vgg_features.model()
    trunk = model.layer_names.index("block5_pool") + 1
    assert count(model, 180, 1, trunk) == (3_277_313, 17_992_001)
    assert count(model, 180, 1)[1] - count(model, 180, 1, trunk)[0] == 14_714_688


@pytest.mark.parametrize("recipe", [cats_dogs, vgg_features])
@pytest.mark.parametrize("stage", get_args(cats_dogs.Stage))
def test_every_stage_is_a_config(recipe, stage: cats_dogs.Stage):
    config = recipe.config(stage)
    assert config.augment.is_active == (stage != "features")
    assert config.finetune.head == (() if (recipe, stage) == (vgg_features, "finetune") else recipe.HEAD)
    assert config.finetune.freezes


def test_imagenet_classify_imports_once_and_names_three_classes(tmp_path: Path, known_as_tiny):
    weights = write_h5(tmp_path / "tiny.h5", draw_arrays())
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(tmp_path / "dog.png")
    options = imagenet_classify.Options(tmp_path / "dog.png", "tiny", str(weights), tmp_path / "runs")
    lines = imagenet_classify.classify(options)
    assert len(lines) == 3
    assert all(line.startswith(("n0", "n1")) for line in lines)
    assert all(line.endswith(" %") for line in lines)
    weights.unlink()
    assert imagenet_classify.classify(options) == lines


def test_a_trunk_gets_a_head_and_a_loss_for_classes(tmp_path: Path, known_as_tiny):
    file = write_h5(tmp_path / "tiny.h5", draw_arrays(top=False))
    trunk = engine.pretrained("tiny", file, top=False, say=lambda text: None)
    labels = np.arange(12) % 2
    images = np.where(labels[:, None, None, None], 200, 40) + np.zeros((1, 8, 8, 3), np.int64)
    data = engine.dataset(images.astype(np.uint8), labels, ("dark", "light"))
    head = [engine.models.GlobalAveragePool(), engine.models.Dense(8, "relu"), engine.models.Dense()]
    result = engine.finetune(trunk, data, head=head, freeze=["conv1", "bn1"], epochs=1, validation=None, verbose=False)
    assert result.config.train.loss == "softmax_cross_entropy"
    assert set(result.classifier.predict(images[:2].astype(np.uint8))[0].top[0][0]) <= set("darklight")


def test_an_experiment_starts_from_an_imported_run(tmp_path: Path, known_as_tiny):
    from engine.importers.load import save_run
    from tests.importers.tiny import tiny

    file = write_h5(tmp_path / "tiny.h5", draw_arrays(top=False))
    save_run(engine.pretrained("tiny", file, top=False, say=lambda text: None), tmp_path / "trunk")
    for name, level in (("cat", 30), ("dog", 220)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (20, 16), (level, level, 40 + number)).save(tmp_path / "pets" / name / f"{number}.png")
    model = Sequential((*tiny(top=False).layers, engine.models.GlobalAveragePool(), engine.models.Dense()))
    config = engine.RunConfig(
        "pets",
        model,
        engine.DataConfig(path=tmp_path / "pets", image_size="8x8", validation_fraction=0.34),
        engine.TrainConfig(epochs=1, batch_size=4),
        finetune=FineTuneConfig(init=tmp_path / "trunk", head=("dense_1",), freeze=("conv1", "bn1")),
    )
    result = engine.run(config, tmp_path / "run")
    assert result.classifier.input_spec.mean == (123.68, 116.779, 103.939)
    assert result.classifier.class_names == ("cat", "dog")


def test_a_folder_with_one_class_is_refused(tmp_path: Path, known_as_tiny):
    file = write_h5(tmp_path / "tiny.h5", draw_arrays(top=False))
    trunk = engine.pretrained("tiny", file, top=False, say=lambda text: None)
    (tmp_path / "pets" / "cat").mkdir(parents=True)
    for number in range(3):
        Image.new("RGB", (20, 16), (number, 0, 0)).save(tmp_path / "pets" / "cat" / f"{number}.png")
    with pytest.raises(engine.InputError, match="cat"):
        engine.finetune(trunk, tmp_path / "pets", head=[engine.models.GlobalAveragePool(), engine.models.Dense()])
