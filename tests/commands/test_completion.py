"""Completion in the shells that it is for: what the tab key offers."""

import shutil
import subprocess
from pathlib import Path

import pytest

from engine.commands.completion import write_script
from engine.commands.every import find_commands
from engine.recipes import RECIPES

ASK = """
complete -p engine > /dev/null || exit 1
while IFS= read -r line; do
  read -ra COMP_WORDS <<< "$line"
  [ "${line: -1}" != " " ] || COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
  _engine
  echo "${COMPREPLY[*]}"
done
"""


@pytest.fixture(scope="module")
def script() -> str:
    return write_script(find_commands())


@pytest.fixture
def complete(script: str, in_tmp: Path):
    """What bash offers for some lines, in a directory with the file `mine.py`."""
    if not shutil.which("bash"):
        pytest.skip("needs bash")
    Path("mine.py").touch()

    def offer(*lines: str) -> list[list[str]]:
        command = ["bash", "--norc", "-c", script + ASK]
        done = subprocess.run(command, input="\n".join(lines) + "\n", capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return [line.split() for line in done.stdout.split("\n")[:-1]]

    return offer


def test_tab_completes_commands_recipes_options_values_and_files(complete):
    cases = {
        "engine tr": ["train"],
        "engine lr": ["lr-find"],
        "engine train ": list(RECIPES),
        "engine lr-find conv": [name for name in RECIPES if name.startswith("conv")],
        "engine train m": [name for name in RECIPES if name.startswith("m")],
        "engine train min": ["mine.py"],
        "engine predict ": ["mine.py"],
        "engine train convnet --train.ep": ["--train.epochs"],
        "engine train convnet --optim.schedule cosine_": ["cosine_restarts"],
        "engine train convnet --data.path ": ["mine.py"],
        "engine lr-find convnet --num": ["--num-rates"],
        "engine eval mine.py --data.spl": ["--data.split"],
        "engine nothing --": [],
    }
    for line, offered in zip(cases, complete(*cases), strict=True):
        assert offered == cases[line], line


def test_two_dashes_offer_the_usual_options_and_a_section_all_of_them(complete):
    usual, section = complete("engine train convnet --", "engine train convnet --augment.")
    assert 15 < len(usual) < 30
    assert {"--help", "--train.epochs", "--optim.learning-rate", "--augment.rotation", "--run-dir"} <= set(usual)
    assert len(section) > 40
    assert all(option.startswith("--augment.") for option in section)


def test_commands_offered_are_those_that_there_are(complete):
    (offered,) = complete("engine ")
    assert set(offered) == {*find_commands("PARSERS"), *find_commands()}
