"""Our own compiled code: when it is there, when it is not, and what a run does then. What it computes: test_ops.py."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from engine import native
from engine.config import PlanConfig, RunConfig, TrainConfig
from engine.data.dataset import Splits
from engine.errors import InputError
from engine.models import Conv, Dense, Flatten, MaxPool, Sequential
from engine.ops import evaluation_lowering
from engine.program import choose_lowering
from tests.test_plan import run

NET = Sequential((Conv(16, activation="relu"), MaxPool(), Flatten(), Dense()))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own."""
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_is_registered", lambda: False)


def compiler_that_fails(tmp_path: Path) -> tuple[str, Path]:
    """(its command, a file with a line for each time it was asked to compile)."""
    script, calls = tmp_path / "compiler", tmp_path / "calls"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\necho called >> {calls}\necho broken >&2\nexit 1\n')
    script.chmod(0o755)
    return str(script), calls


@pytest.mark.skipif(not native.is_available(), reason="needs a C++ compiler")
def test_library_is_compiled_once_and_read_from_the_cache_after_that(cache: Path):
    assert native._library() is not None
    (file,) = cache.glob("native-*/*.so")
    assert list(file.parent.iterdir()) == [file]  # nothing is left of the compilation
    made = file.stat().st_mtime_ns
    assert native._library() is not None
    assert file.stat().st_mtime_ns == made


@pytest.mark.parametrize("command", ["no-such-compiler", "false", 'g++ "'])
def test_without_a_compiler_there_is_no_library(command: str, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", command)
    assert native._library() is None


def test_without_a_compiler_on_the_path_there_is_no_library(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert native._library() is None


def test_compilation_that_failed_leaves_nothing_and_is_tried_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command, calls = compiler_that_fails(tmp_path)  # as a full disk or Ctrl-C may have it
    monkeypatch.setenv("CXX", command)
    assert [native._library() for _ in range(3)] == [None] * 3
    assert calls.read_text() == "called\n" * 3
    assert not list(cache.glob("native-*/*"))


@pytest.mark.skipif(not native.is_available(), reason="needs a C++ compiler")
@pytest.mark.parametrize("content", [b"", b"no library"])
def test_damaged_library_is_compiled_again(content: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch):
    compiler = next(filter(None, map(shutil.which, native.COMPILERS)))
    monkeypatch.setenv("CXX", compiler)
    file = native._own_directory() / f"convolution-{native._key([compiler])}.so"
    file.write_bytes(content)
    assert native._library() is not None
    assert file.stat().st_size > 10_000
    assert list(file.parent.iterdir()) == [file]


def test_library_is_not_loaded_from_where_others_can_write(cache: Path):
    directory = cache / f"native-{os.getuid()}"
    directory.mkdir(parents=True)
    directory.chmod(0o777)
    assert native._library() is None
    assert not list(directory.iterdir())


def test_library_that_cannot_be_kept_is_none(cache: Path):
    cache.write_text("a file where a directory should be")
    assert native._library() is None


def test_without_the_library_convolutions_are_eigens_and_evaluation_the_backends(no_compiler: None):
    assert choose_lowering(PlanConfig(), "cpu") == "eigen"
    assert evaluation_lowering(PlanConfig()) == "native"


@pytest.mark.skipif(not native.is_available(), reason="needs a C++ compiler")
@pytest.mark.parametrize(
    ("config", "lowering", "of_evaluation"),
    [
        (PlanConfig(), "direct", "direct"),
        (PlanConfig(mode="safe"), "native", "native"),
        (PlanConfig(lowering="eigen"), "eigen", "native"),
        (PlanConfig(mesh="data=2"), "matrix", "direct"),
    ],
)
def test_with_the_library_convolutions_are_direct_unless_something_else_is_asked_for(
    config: PlanConfig, lowering: str, of_evaluation: str
):
    assert (choose_lowering(config, "cpu"), evaluation_lowering(config)) == (lowering, of_evaluation)


def test_direct_convolutions_are_refused_where_they_do_not_run(no_compiler: None):
    with pytest.raises(InputError, match=r"plan\.lowering: got 'direct'; expected another .* C\+\+ compiler"):
        choose_lowering(PlanConfig(lowering="direct"), "cpu")
    with pytest.raises(InputError, match=r"plan\.lowering: got 'direct' with the mesh data=2; expected another"):
        choose_lowering(PlanConfig(lowering="direct", mesh="data=2"), "cpu")


@pytest.mark.skipif(not native.is_available(), reason="needs a C++ compiler")
def test_run_that_was_begun_directly_goes_on_where_there_is_no_compiler(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = RunConfig("net", NET, train=TrainConfig(1, 64))
    assert run(config, splits, tmp_path / "run").plan.lowering == "direct"
    monkeypatch.setattr(native, "_is_registered", lambda: False)
    longer = replace(config, train=replace(config.train, epochs=2))
    record = run(longer, splits, tmp_path / "run", resume=True)
    assert (record.plan.lowering, record.epochs_done) == ("eigen", 2)
