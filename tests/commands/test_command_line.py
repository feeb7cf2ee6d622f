"""The command line as a user meets it: help, mistakes, and how little is loaded to answer them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

from engine import PlanConfig, commands
from engine.__main__ import main
from engine.commands.every import find_commands
from engine.commands.experiment import Options
from engine.commands.summary import summary
from experiments.convnet import config
from tests.conftest import HANG_SECONDS
from tests.further import further

ROOT = Path(__file__).parents[2]


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Python run from the root of the repository, with its output as a terminal of 80 columns shows it."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


def plain(text: str) -> str:
    """Text without frames, its words on one line."""
    return re.sub(r"[\s╭╮╰╯─│]+", " ", text)


def mistake(*arguments: str) -> str:
    """What a command says of a mistake, which must be short, on stderr, and end with exit code 2."""
    done = python("-m", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return plain(done.stderr)


def error_line(*arguments: str) -> str:
    """The one line that a command prints for a mistake."""
    done = python("-m", *arguments)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_help_of_an_experiment_shows_type_default_and_help_of_each_option():
    done = python("-m", "experiments.convnet", "--help-all")
    assert done.returncode == 0
    assert done.stderr == ""
    shown = plain(done.stdout)
    for option in (
        "--run-dir {None}|PATH Where the run is kept; None for runs/<name>. (default: None)",
        "--resume Resume the run in that directory, if there is one",
        "--overwrite Remove the run in that directory and start from scratch. (default: False)",
        "--data.name STR Any tfds image-classification builder; .* (default: fashion_mnist_12k)",
        "--data.image-size {None}|STR Height and width .* (default: None)",
        "--data.mean {None}|{[FLOAT [FLOAT ...]]} Subtracted after scaling, .* (default: None)",
        "--train.epochs INT Times the training split is gone through; .* (default: 5)",
        "--train.batch-size INT Examples a step. .* (default: 64)",
        "--optim.name {sgd,momentum,rmsprop,adam,adamw,.* (default: rmsprop)",
        "--optim.learning-rate FLOAT The rate after warm-up; .* (default: 0.001)",
        "--plan.lowering {auto,direct,eigen,matrix,xla} .* (default: auto)",
    ):
        assert re.search(re.escape(option).replace(re.escape(".*"), ".*?"), shown), option
    assert "--model" not in shown


def test_help_of_the_engine_names_its_commands():
    done = python("-m", "engine", "--help")
    assert done.returncode == 0
    shown = plain(done.stdout)
    for command in (
        "usage: engine ",
        "summary Show the layers",
        "eval Evaluate a run",
        "predict Name what is in image",
    ):
        assert command in shown


def test_a_module_with_a_table_of_commands_adds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    (tmp_path / "greetings.py").write_text(
        "def greet(name: str):\n    print('hello', name)\n\nCOMMANDS = {'greet': greet}\n"
    )
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    main(["greet", "--name", "Ada"])
    assert capsys.readouterr().out == "hello Ada\n"
    assert {"data", "augment", "summary", "eval", "predict", "plan", "export", "pack", "unpack"} < {*find_commands()}


LOADED = """
import sys
try:
    {code}
except SystemExit as stop:
    print("exit", stop.code)
print("loaded", *(name for name in ("jax", "flax", "tensorflow") if name in sys.modules))
"""


def ran_without_jax(code: str) -> tuple[int, str]:
    """(exit code, what was printed) of code that must not load JAX."""
    done = python("-c", LOADED.format(code=code))
    assert done.returncode == 0, done.stderr
    *printed, exited, loaded = done.stdout.splitlines()
    assert loaded.split() == ["loaded"]
    return int(exited.split()[1]), "\n".join(printed)


def test_help_loads_no_jax():
    code, printed = ran_without_jax("from experiments import convnet as e; e.engine.main(e.config(), ['--help'])")
    assert code == 0
    assert "--train.epochs" in printed


def test_mistake_in_an_option_loads_no_jax():
    start = "from experiments import convnet as e; e.engine.main(e.config(), ['--train.batch-size', '0'])"
    assert ran_without_jax(start)[0] == 2


def test_summary_of_an_experiment_shows_its_layers_and_parameters_without_jax(tmp_path: Path):
    graph = tmp_path / "model.svg"
    arguments = f"['summary', 'experiments.convnet', '--graph', {str(graph)!r}]"
    code, printed = ran_without_jax(f"from engine.__main__ import main; main({arguments}); sys.exit(0)")
    assert code == 0
    assert "26×26×32 · 320 parameters" in graph.read_text()
    assert "104,202 parameters" in printed
    for cells in (("conv_1", "32, 3×3", "26×26×32", "320"), ("dense_1", "10", "10", "11,530")):
        assert any(all(cell in line for cell in cells) for line in printed.splitlines()), cells


def test_summary_of_an_experiment_file_is_that_of_its_module():
    done = python("-m", "engine", "summary", "experiments/mlp.py")
    assert done.returncode == 0
    assert "6,442 parameters" in done.stdout


def test_summary_of_a_recipe_is_shown_beside_a_folder_of_that_name(in_tmp: Path, capsys: pytest.CaptureFixture[str]):
    (in_tmp / "flowers" / "rose").mkdir(parents=True)
    summary("flowers", classes=5)
    assert "3,989,285 parameters" in capsys.readouterr().out


def test_summary_says_nothing_of_other_libraries_when_it_decodes(tmp_path: Path):
    done = python("-m", "engine", "summary", "experiments.mlp", ENGINE_CACHE_DIR=str(tmp_path))
    assert done.stderr.splitlines() == ["decoding fashion_mnist_12k train: 10,000 images, once"]


def test_importing_engine_loads_nothing_and_touches_nothing(tmp_path: Path):
    code = """
import sys, os
before = dict(os.environ)
import engine
print(*(name for name in ("jax", "flax", "numpy", "tyro", "PIL", "tensorflow_datasets") if name in sys.modules))
assert dict(os.environ) == before
"""
    home = tmp_path / "home"
    home.mkdir()
    done = python("-c", code, HOME=str(home), ENGINE_CACHE_DIR=str(home / "cache"))
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert list(home.iterdir()) == []


def test_public_names_are_listed_and_found():
    import engine

    assert sorted(engine._HOMES) == sorted(engine.__all__) == sorted(dir(engine))
    for name in engine.__all__:
        public = getattr(engine, name)
        assert callable(public)
        assert public.__name__ == name
    with pytest.raises(AttributeError, match=r"module 'engine' has no attribute 'trian'"):
        _ = engine.trian


@pytest.mark.parametrize("first", ["fit", *further(["dataset"])])
def test_fit_is_a_function_whichever_public_name_is_used_first(first: str):
    done = python("-c", f"import engine; engine.{first}; engine.dataset; print(callable(engine.fit))")
    assert done.stdout.split() == ["True"], done.stderr


def test_options_by_their_former_names_still_work():
    options = tyro.cli(Options, default=Options(config()), args=["--plan.data", "streamed", "--plan.members", "map"])
    assert options.config.plan == PlanConfig(placement="streamed", member_mapping="map")


def test_unknown_option_is_refused_with_the_nearest():
    said = mistake("experiments.convnet", "--optim.learning-rat", "0.1")
    assert "--optim.learning-rat: got an unknown option" in said
    assert "Did you mean --optim.learning-rate?" in said


def test_unknown_optimizer_is_refused_with_the_known():
    said = mistake("experiments.convnet", "--optim.name", "adm")
    assert "'adm'" in said
    assert "--optim.name" in said
    assert "expected one of sgd, momentum, rmsprop, adam, adamw, lion, lamb, lars, muon. Did you mean 'adam'?" in said


def test_batch_size_is_refused_when_it_is_zero():
    said = mistake("experiments.convnet", "--train.batch-size", "0")
    assert "train.batch_size: got 0; expected a whole number of at least 1. Give 64 or so." in said


def test_unknown_command_is_refused_with_the_known():
    said = mistake("engine", "evaluate", "runs/a")
    known = {**find_commands("PARSERS"), **find_commands()}
    assert f"expected one of {', '.join(['train', *sorted({*known} - {'train'})])}. Did you mean 'eval'?" in said


def test_unknown_experiment_is_refused_with_an_example():
    said = error_line("engine", "summary", "experiments.cnvnet")
    assert "target: got 'experiments.cnvnet'" in said
    assert "an experiment like mine.py" in said


@pytest.mark.parametrize("target", ["", "nowhere", "runs/nowhere", "engine"])
def test_summary_is_refused_when_there_is_no_such_target(target: str):
    assert re.search(r"error: .+: got .*; expected .*\. \w+", error_line("engine", "summary", target))


def test_summary_is_refused_when_a_module_has_no_config():
    said = error_line("engine", "summary", "engine.errors")
    assert re.search(r"target: got 'engine\.errors' \(\S+errors\.py, without config\(\)\); expected", said)
    assert "with a function config()" in said


def test_summary_finds_a_users_own_file_and_class_from_its_directory(tmp_path):
    (tmp_path / "mine.py").write_text(OWN_EXPERIMENT, encoding="utf-8")
    command = [sys.executable, "-m", "engine", "summary", "mine.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "OwnNet" in done.stdout


OWN_EXPERIMENT = """
import engine
from flax import nnx



class OwnNet(nnx.Module):
    def __init__(self, *, input_shape, num_outputs, rngs):
        self.dense = nnx.Linear(784, num_outputs, rngs=rngs)

    def __call__(self, x):
        return self.dense(x.reshape(x.shape[0], -1))


def config():
    return engine.RunConfig("own", engine.custom(OwnNet))
"""


@pytest.mark.parametrize("command", [("eval",), ("predict", "a.png")], ids=["eval", "predict"])
def test_command_is_refused_when_there_is_no_such_run(command: tuple[str, ...]):
    said = error_line("engine", command[0], "nowhere", *command[1:])
    assert said == "error: nowhere: got no such directory; expected the directory of a run. Check the path."


def test_predict_is_refused_when_no_images_are_named():
    assert "images: got none; expected at least one file or folder" in error_line("engine", "predict", "nowhere")


def test_run_is_refused_when_its_directory_holds_other_files(tmp_path: Path):
    (tmp_path / "notes.txt").touch()
    said = error_line("experiments.mlp", "--run-dir", str(tmp_path))
    assert f"run_dir: got {tmp_path}, which contains other files; expected an empty or new directory" in said
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
