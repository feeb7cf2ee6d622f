"""What the pages tell people to type: each command parses, those of the README and the Python of all pages run."""

import functools
import re
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tyro
from PIL import Image

import engine
from engine.__main__ import main
from engine.commands.every import find_commands
from engine.commands.experiment import Options, read_options
from engine.commands.experiments import find_config
from engine.commands.finders import BatchOptions, RateOptions
from engine.recipes import RECIPES
from engine.report.progress import Silent

ROOT = Path(__file__).parents[1]
PAGES = {path.name: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
# Page → its Python, in which a block goes on from those before it.
PYTHON = {
    name: "\n".join(blocks)
    for name, text in PAGES.items()
    if (blocks := re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
}
COMMANDS, PARSERS = find_commands(), find_commands("PARSERS")
KINDS = {"train": Options, "lr-find": RateOptions, "batch-find": BatchOptions}
SMALL = ("--train.epochs", "1", "--train.batch-size", "8")


def read_commands(text: str) -> list[list[str]]:
    """The words of each line `    engine …`, without the comment behind it."""
    lines = re.findall(r"^    (engine [a-z].*?)(?:  +#.*|  +…)?$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


TYPED = sorted({shlex.join(words[1:]) for text in PAGES.values() for words in read_commands(text)})


@pytest.mark.parametrize("line", TYPED)
def test_command_on_a_page_is_one(line: str):
    name, *given = shlex.split(line)
    if "--help" in given:
        return
    if name in KINDS:
        target = given[0] if given[0] in RECIPES else "convnet"  # for a file of the reader's own
        assert read_options(find_config(target), given[1:], f"engine {name}", KINDS[name]).config.name == target
    elif name not in PARSERS:
        function = COMMANDS[name]

        @functools.wraps(function)
        def parsed_only(*positional: object, **named: object) -> None: ...

        tyro.cli(parsed_only, args=given)


def test_readme_is_short():
    assert len(PAGES["README.md"].splitlines()) <= 120


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Path:
    """A reader's directory: a folder of flowers, a picture, and the convnet trained for a moment."""
    folder, draw = tmp_path_factory.mktemp("desk"), np.random.default_rng(0)
    for name in ("daisy", "tulips"):
        (folder / "flowers" / name).mkdir(parents=True)
        for number in range(10):
            picture = Image.fromarray(draw.integers(0, 256, (24, 32, 3), np.uint8))
            picture.save(folder / "flowers" / name / f"{number}.png")
    picture.save(folder / "photo.jpg")
    config = find_config("convnet")()
    data = replace(config.data, split="train[:64]", test_split="test[:32]", cache_dir=cache_dir)
    train = replace(config.train, epochs=1)
    engine.run(replace(config, data=data, train=train), folder / "runs" / "convnet", reporter=Silent())
    return folder


@pytest.fixture
def desk(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working directory."""
    shutil.copytree(prepared, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")
    return tmp_path / "desk"


@pytest.mark.parametrize("page", PYTHON)
def test_python_on_a_page_runs(page: str, desk: Path):
    if "import optuna" in PYTHON[page]:
        pytest.importorskip("optuna", reason="needs the tune extra")
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (64, 28, 28, 1), np.uint8), np.arange(64) % 2
    names = {"engine": engine, "images": images, "labels": labels}
    names |= {"x_train": images, "y_train": labels, "x_test": images, "y_test": labels}
    exec(compile(PYTHON[page], page, "exec"), {"__name__": "page", **names})  # of our own pages


def test_commands_of_the_readme_run(desk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("HOME", str(desk))
    monkeypatch.setattr(sys, "path", [*sys.path])
    for hook in ("excepthook", "unraisablehook"):  # which a command replaces in its own process
        monkeypatch.setattr(sys, hook, getattr(sys, hook))
    for words in read_commands(PAGES["README.md"]):
        if words[1:] == ["train", "convnet"]:
            continue  # it is there, trained on less
        monkeypatch.setattr(sys, "argv", words)
        main([*words[1:], *(SMALL if words[1] == "train" else ())])
    assert (desk / "runs" / "mine" / "curves.png").exists()
    assert "saved in runs/mine" in capsys.readouterr().out
