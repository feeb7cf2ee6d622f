"""What each field of a config matters for is said beside it, and resuming, sharing of programs and plans follow it."""

from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated

import pytest

from engine import RunConfig, TrainConfig, mlp
from engine.config.matters import NOTHING, PLAN, PROGRAM, RESULT, read_marks

CONFIG = RunConfig("a", mlp())


def test_every_field_of_every_config_says_what_it_matters_for():
    said = {path[:2] for path in read_marks(RunConfig)}
    for section in fields(RunConfig):
        value = getattr(CONFIG, section.name)
        names = [field.name for field in fields(value)] if is_dataclass(value) else []
        assert (section.name,) in said or said.issuperset((section.name, name) for name in names)


def test_field_that_does_not_say_it_is_an_error():
    @dataclass
    class Silent:
        loud: Annotated[int, RESULT] = 0
        silent: int = 0

    with pytest.raises(TypeError, match=r"Silent\.silent does not say"):
        read_marks(Silent)


def test_a_field_of_its_own_mark_goes_before_its_section():
    marks = read_marks(RunConfig)
    assert marks["data", "path"] == NOTHING
    assert marks["data", "split"] == RESULT
    assert marks["train", "members"] == RESULT | PROGRAM | PLAN


def test_programs_are_shared_by_configs_that_differ_in_what_they_do_not_see():
    other = replace(
        CONFIG, name="b", train=TrainConfig(seed=3), data=replace(CONFIG.data, path=Path("x")),
        checkpoint=replace(CONFIG.checkpoint, keep_last=5), finetune=replace(CONFIG.finetune, init=Path("run")),
    )  # fmt: skip
    assert other.as_computed() == CONFIG.as_computed()
    assert replace(CONFIG, train=TrainConfig(9)).as_computed() == CONFIG.as_computed()
    for changed in (
        replace(CONFIG, train=TrainConfig(batch_size=8)),
        replace(CONFIG, data=replace(CONFIG.data, image_size="9x9", center_crop="8x8")),
        replace(CONFIG, optim=replace(CONFIG.optim, learning_rate=0.5)),
    ):
        assert changed.as_computed() != CONFIG.as_computed()


def test_number_of_epochs_matters_while_a_schedule_depends_on_it():
    cosine = replace(CONFIG, optim=replace(CONFIG.optim, schedule="cosine"))
    assert CONFIG.marks()["train", "epochs"] == NOTHING
    assert cosine.marks()["train", "epochs"] == RESULT | PROGRAM
    assert replace(cosine, train=TrainConfig(9)).as_computed() != cosine.as_computed()
