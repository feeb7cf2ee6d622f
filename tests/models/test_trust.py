"""A model class of the user's own is imported where that is allowed, and nowhere else: opening data runs no code."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import engine
from engine.checkpoints.packing import pack, unpack
from engine.checkpoints.steps import choose_step, read_record
from engine.commands import evaluate as evaluate_module
from engine.commands import export as export_module
from engine.commands import plan as plan_module
from engine.commands import predict as predict_module
from tests.commands.test_data import command, mistake
from tests.conftest import TINY, make_dataset

MODULE = "tests.own_net"


class GivenNet(nnx.Module):
    """The class of the runs here once more, as one who has it at hand would pass it."""

    def __init__(self, *, input_shape: tuple[int, ...], num_outputs: int, rngs: nnx.Rngs, scale: float = 1.0):
        self.scale = scale
        self.dense = nnx.Linear(input_shape[0] * input_shape[1] * input_shape[2], num_outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dense(x.reshape(x.shape[0], -1) * self.scale)


IMAGES = np.asarray(make_dataset(5, 3).images)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of a class of the user's own, beside it the same packed."""
    from tests.own_net import OwnNet

    directory = tmp_path_factory.mktemp("runs") / "own"
    model = engine.custom(OwnNet, scale=0.5)
    engine.fit(model, make_dataset(100), epochs=1, verbose=False).save(directory)
    pack(directory, directory.with_name("own.engine"))
    return directory


@pytest.fixture
def imported(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], bool]]:
    """Whether the module of the class was imported since the test began."""
    monkeypatch.setenv("OWN_NET_IMPORTED", str(tmp_path / "imported"))
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield (tmp_path / "imported").exists
    sys.modules.pop(MODULE, None)


@pytest.fixture(params=["directory", "packed"])
def path(request: pytest.FixtureRequest, run: Path) -> Path:
    return run if request.param == "directory" else run.with_name("own.engine")


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch):
    """Keeps the settings of a command's own process, and the path it imports from, out of the tests'."""
    for module in (evaluate_module, export_module, plan_module, predict_module):
        monkeypatch.setattr(module, "set_up_process", lambda *_: None)
    monkeypatch.setattr(sys, "path", list(sys.path))


WAYS_IN = {
    "restore": lambda path: engine.restore(path),
    "restore the last step": lambda path: engine.restore(path, step="last"),
    "join": lambda path: engine.join([path, path]),
    "fine-tune": lambda path: engine.finetune(path, make_dataset(100), epochs=1, verbose=False),
    "start from": lambda path: engine.run(engine.RunConfig("t", TINY, finetune=engine.FineTuneConfig(path)), "t"),
}
COMMANDS = {
    "summary": [], "eval": [], "predict": ["a.png"], "plan": [], "plan measured": ["--measure"], "export": [],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS_IN)
def test_own_class_is_not_imported_without_trust(path, imported, in_tmp, way):
    with pytest.raises(
        engine.InputError, match=rf"got code of its author's own \({MODULE}:OwnNet\); .* Pass trust=True"
    ):
        WAYS_IN[way](path)
    assert not imported()


@pytest.mark.parametrize("name", COMMANDS)
def test_command_does_not_import_an_own_class_without_trust(path, imported, in_tmp, capsys, name):
    Image.fromarray(IMAGES[0, ..., 0]).save("a.png")
    line = mistake(capsys, name.split()[0], path, *COMMANDS[name])
    assert f"{MODULE}:OwnNet" in line
    assert "--trust" in line
    assert not imported()


def test_record_packing_and_unpacking_import_nothing(path, imported, tmp_path):
    pack(path, tmp_path / "again.engine")
    unpack(tmp_path / "again.engine", tmp_path / "out")
    record = read_record(tmp_path / "out", choose_step(tmp_path / "out"))
    assert record.config.model == engine.models.Custom(f"{MODULE}:OwnNet", {"scale": 0.5})
    assert not imported()


def test_own_class_is_built_with_its_arguments_where_it_is_trusted(path, imported, capsys):
    classifier = engine.restore(path, trust=True)
    assert imported()
    kernel = np.asarray(classifier.params["dense"]["kernel"])
    logits = IMAGES.reshape(5, -1) / 255 * 0.5 @ kernel + np.asarray(classifier.params["dense"]["bias"])
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(classifier.outputs(IMAGES), expected, rtol=1e-4)
    assert len(engine.join([path, path], trust=True).members) == 2
    assert "OwnNet" in command(capsys, "summary", path, "--trust")


@pytest.mark.parametrize(
    "spec", ["os:system", "builtins:exec", "subprocess:Popen", "no.such:Class", "tests.own_net:No"]
)
def test_trusted_path_that_is_no_class_of_a_model_is_refused(spec):
    with pytest.raises(engine.InputError, match="model"):
        engine.fit(engine.models.Custom(spec), make_dataset(100), epochs=1, verbose=False)


def test_a_class_at_hand_takes_the_place_of_the_one_that_a_run_names(path, imported):
    given = engine.restore(path, model=GivenNet)
    assert not imported()
    trusted = engine.restore(path, trust=True)
    np.testing.assert_array_equal(given.predict_proba(IMAGES), trusted.predict_proba(IMAGES))


def test_a_run_of_a_class_in_no_file_says_how_it_is_opened(tmp_path, monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    net = type("Net", (GivenNet,), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Net", net, raising=False)
    model = engine.custom(net, scale=0.5)
    assert model.path == "__main__:Net"
    run = engine.fit(model, make_dataset(40), epochs=1, verbose=False).save(tmp_path / "run")
    with pytest.raises(engine.InputError, match=r"code of its author's own \(__main__:Net\).*pass it, model=…"):
        engine.restore(run)
    expected = engine.restore(run, model=net).predict_proba(IMAGES)
    np.testing.assert_array_equal(engine.restore(run, trust=True).predict_proba(IMAGES), expected)
    monkeypatch.delattr(sys.modules["__main__"], "Net")
    with pytest.raises(engine.InputError, match=r"It was defined in a notebook: define Net again .* model=Net\)"):
        engine.restore(run, trust=True)
    layered = engine.fit(engine.mlp(()), make_dataset(40), epochs=1, verbose=False).save(tmp_path / "layered")
    with pytest.raises(engine.InputError, match=r"model: got GivenNet; expected none: the run's model is made of"):
        engine.restore(layered, model=type("GivenNet", (), {}))
