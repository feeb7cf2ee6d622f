"""Our own compiled code: when it is there, and when it is not."""

import ctypes
import os
import shutil
from pathlib import Path

import pytest

from engine.data.pictures.resampling import SOURCE
from engine.host import compiler
from engine.host.library import Library

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, compiler.COMPILERS)), reason="needs a C++ compiler")


def load() -> ctypes.CDLL | None:
    return Library(SOURCE, "resizing of pictures").load()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own."""
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def compiler_that_fails(tmp_path: Path) -> tuple[str, Path]:
    """(its command, a file with a line for each time it was asked to compile)."""
    script, calls = tmp_path / "compiler", tmp_path / "calls"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\necho called >> {calls}\necho broken >&2\nexit 1\n')
    script.chmod(0o755)
    return str(script), calls


@needs_compiler
def test_library_is_compiled_once_and_read_from_the_cache_after_that(cache: Path):
    assert load() is not None
    (file,) = cache.glob("native-*/*.so")
    assert list(file.parent.iterdir()) == [file]  # nothing is left of the compilation
    made = file.stat().st_mtime_ns
    assert load() is not None
    assert file.stat().st_mtime_ns == made


@pytest.mark.parametrize("command", ["no-such-compiler", "false", 'g++ "'])
def test_without_a_compiler_there_is_no_library(command: str, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CXX", command)
    assert load() is None


def test_without_a_compiler_on_the_path_there_is_no_library(cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    assert load() is None


def test_compilation_that_failed_leaves_nothing_and_is_tried_again(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    command, calls = compiler_that_fails(tmp_path)  # as a full disk or Ctrl-C may have it
    monkeypatch.setenv("CXX", command)
    assert [load() for _ in range(3)] == [None] * 3
    assert calls.read_text() == "called\n" * 3
    assert not list(cache.glob("native-*/*"))


def test_compilation_that_takes_too_long_says_so(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    script = tmp_path / "compiler"
    script.write_text('#!/bin/sh\n[ "$1" = --version ] && exit 0\nexec sleep 60\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))
    assert compiler.find_compiler()  # which asks for its version, within the time for that
    monkeypatch.setattr(compiler, "MOST_SECONDS", 0.01)
    assert load() is None
    assert "which took more than 0.01 s to compile; the next process tries again" in capsys.readouterr().err


@needs_compiler
def test_library_cut_short_is_compiled_again(cache: Path):
    assert load() is not None
    (file,) = cache.glob("native-*/*.so")
    whole = file.stat().st_size
    os.truncate(file, int(0.999 * whole))
    assert load() is not None
    assert file.stat().st_size == whole
    assert list(file.parent.iterdir()) == [file]


def test_key_is_of_all_that_decides_what_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    command = str(tmp_path / "compiler")
    Path(command).write_text("#!/bin/sh\nexit 0\n")
    Path(command).chmod(0o755)
    (tmp_path / "other.h").write_text("#define ONE 1")
    keys = [
        compiler._key(SOURCE, [command]),
        compiler._key(SOURCE, [command, "-ffast-math"]),
        compiler._key(SOURCE, [command], str(tmp_path)),
    ]
    for name in ("CPATH", "LIBRARY_PATH"):
        monkeypatch.setenv(name, "/elsewhere")
        keys.append(compiler._key(SOURCE, [command]))
    (tmp_path / "other.h").write_text("#define ONE 2")
    keys.append(compiler._key(SOURCE, [command], str(tmp_path)))
    Path(command).write_text(Path(command).read_text() + "# of the same version\n")
    keys.append(compiler._key(SOURCE, [command]))
    assert len(set(keys)) == len(keys)
    assert compiler._key(SOURCE, [command]) == keys[-1]


def test_library_is_not_loaded_from_where_others_can_write(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for directory in (cache / f"native-{os.getuid()}", tmp_path / "home" / "engine"):
        directory.mkdir(parents=True)
        directory.chmod(0o777)
    assert load() is None
    assert not list((cache / f"native-{os.getuid()}").iterdir())


def test_library_that_cannot_be_kept_is_none(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    for file in (cache, tmp_path / "home"):
        file.write_text("a file where a directory should be")
    assert load() is None
