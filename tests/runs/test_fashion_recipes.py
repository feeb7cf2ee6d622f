"""The recipes made for all of Fashion-MNIST: what they promise before they are run."""

import numpy as np
import pytest

import engine
from engine.data.decoded.dataset import Dataset, Splits, fingerprint_of
from engine.models import Sequential
from engine.recipes import ensemble, fashion_fast

RECIPES = [(fashion_fast, 963_018), (ensemble, 241_898)]


@pytest.mark.parametrize(("recipe", "num_params"), RECIPES, ids=["fast", "ensemble"])
def test_recipe_has_the_parameters_its_docstring_names(recipe, num_params: int):
    model = recipe.config().model
    assert isinstance(model, Sequential)
    assert model.with_outputs(10).num_params((28, 28, 1)) == num_params
    assert f"{num_params:,}" in recipe.__doc__


def test_members_of_the_ensemble_are_ten_and_small():
    config = ensemble.config()
    assert config.train.members == 10
    assert isinstance(config.model, Sequential)
    assert config.model.with_outputs(10).num_params((28, 28, 1)) < 300_000


@pytest.mark.long
def test_the_member_learns_a_few_images_by_heart():
    config, draw = ensemble.config(), np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (64, 28, 28, 1), dtype=np.uint8), draw.integers(0, 10, 64).astype(np.int32)
    names = tuple(map(str, range(10)))
    data = Dataset(images, labels, names, "noise", fingerprint_of(images, labels))
    adam = engine.OptimConfig("adam", 3e-3)
    result = engine.fit(config.model, Splits(data, None, None), epochs=30, optimizer=adam, verbose=False)
    assert result.history[-1]["accuracy"] > 0.9
