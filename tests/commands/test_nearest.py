"""Mistyped commands, options and files, each answered with the nearest."""

from pathlib import Path

import pytest

from engine.__main__ import main
from engine.commands.experiment import Options
from engine.commands.experiments import find_config
from engine.commands.nearest import check_all_known, find_nearest, option_names
from engine.errors import InputError
from engine.recipes.convnet import config

KNOWN = [*option_names(Options(config()))]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--lr", "--optim.learning-rate"),
        ("--learning_rate", "--optim.learning-rate"),
        ("--optim.learning-rat", "--optim.learning-rate"),
        ("--bs", "--train.batch-size"),
        ("--epoch", "--train.epochs"),
        ("--wd", "--optim.weight-decay"),
        ("--optimizer", "--optim.name"),
        ("--name", "--data.name"),
        ("--resum", "--resume"),
        ("--horizontal-flip", "--augment.horizontal-flip"),
        ("--plan.mesh", "--mesh"),
        ("--finetune.init", "--init"),
        ("--qqqq", None),
    ],
)
def test_the_nearest_option_is_named(typed: str, meant: str | None):
    assert find_nearest(typed, KNOWN) == meant


def test_what_the_parser_does_not_know_is_refused():
    check_all_known([], Options(config()), "engine train convnet")
    with pytest.raises(InputError, match=r"--lr: got an unknown option; .* Did you mean --optim.learning-rate\?"):
        check_all_known(["--lr=3", "--x"], Options(config()), "engine train convnet")
    with pytest.raises(InputError, match=r"engine train convnet: got more 3; expected an option"):
        check_all_known(["more", "3"], Options(config()), "engine train convnet")


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("evaluate", "eval"), ("predicts", "predict")])
def test_the_nearest_command_is_named(typed: str, meant: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([typed, "convnet"])
    assert ended.value.code == 2
    assert f"command: got '{typed}'; expected one of train" in (said := capsys.readouterr().err)
    assert f"Did you mean '{meant}'?" in said


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("nofile.py", r"'nofile.py', a file that does not exist; .* engine new nofile.py --like convnet writes one\."),
        ("mime.py", r"'mime.py', a file that does not exist; .* Did you mean mine.py\?"),
        ("convnt", r"'convnt', neither a recipe nor a module; .* Did you mean convnet\?"),
        ("bad.py", r"bad.py, which is not Python at line 2: .*; expected a file that Python can read. Correct line 2"),
        ("mine.py", r"\(\S*mine.py, without config\(\)\); .* Write one that returns an engine.RunConfig"),
    ],
)
def test_a_file_that_is_no_experiment_is_refused(typed: str, said: str, in_tmp: Path):
    Path("mine.py").write_text("x = 1\n")
    Path("bad.py").write_text("import engine\ndef config(:\n")
    with pytest.raises(InputError, match=said):
        find_config(typed)
