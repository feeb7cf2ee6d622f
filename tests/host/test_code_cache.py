"""Machine code is taken only from where nobody else can have put it, whole and unchanged."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax._src import compilation_cache

from engine.host import code_cache, xla_cache
from engine.host.code_cache import CodeDirectory, Distrusted, find_code_directory, open_code_directory
from engine.host.xla_cache import CheckedCache, keep_programs, keep_programs_unless_set

CODE = bytes(range(256)) * 20
STRANGER = 12_345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the user's that is empty, and messages that are said again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    code_cache.say_once.cache_clear()
    return tmp_path / "home" / "engine"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "code"


def opened(place: Path) -> CodeDirectory:
    return open_code_directory(place)


def stored(place: Path, name: str = "a") -> Path:
    """The file of code that was just written."""
    with opened(place) as directory:
        directory.write(name, CODE)
    return place / name


def read(place: Path, name: str = "a") -> bytes | None:
    with opened(place) as directory:
        return directory.read(name)


def test_code_is_read_as_it_was_written_and_replaced_in_one_go(place: Path):
    stored(place)
    assert read(place) == CODE
    with opened(place) as directory:
        directory.write("a", b"other")
        assert directory.read("a") == b"other"
        assert directory.read("b") is None
    assert [path.name for path in place.iterdir()] == ["a"]
    assert place.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 4096, 5000, 5151])
def test_code_that_was_cut_short_is_not_there(size: int, place: Path):
    os.truncate(stored(place), size)
    assert read(place) is None


@pytest.mark.parametrize("at", [0, 2500, 5119, 5120, 5151])
def test_code_of_which_one_bit_is_another_is_not_there(at: int, place: Path):
    file = stored(place)
    changed = bytearray(file.read_bytes())
    changed[at] ^= 1
    file.write_bytes(changed)
    assert read(place) is None


def test_code_under_the_name_of_another_is_not_there(place: Path):
    stored(place).rename(place / "b")
    assert read(place, "b") is None


def as_link(file: Path) -> None:
    file.rename(file.with_name("elsewhere"))
    file.symlink_to(file.with_name("elsewhere"))


def of_stranger(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER)


BAD_FILES: dict[str, Callable[[Path], object]] = {
    "a link": as_link,
    "a second name": lambda file: os.link(file, file.with_name("elsewhere")),
    "written by all": lambda file: file.chmod(0o602),
    "written by a group": lambda file: file.chmod(0o620),
    "a directory": lambda file: (file.unlink(), file.mkdir()),
    "a pipe": lambda file: (file.unlink(), os.mkfifo(file)),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_file_that_others_may_have_changed_is_not_read(name: str, place: Path):
    BAD_FILES[name](stored(place))
    assert read(place) is None


@needs_root
def test_file_of_another_user_is_not_read(place: Path):
    of_stranger(stored(place))
    assert read(place) is None


def of_group(path: Path, mode: int) -> None:
    os.chown(path, -1, 12_300)
    path.chmod(mode)


def through_link(place: Path) -> None:
    place.rename(place.with_name("clone"))
    place.symlink_to(place.with_name("clone"))


def through_link_of_all(place: Path) -> None:
    """A link on the way, laid where everybody can lay one."""
    common = place.parent.with_name("common")
    place.parent.rename(common)
    place.parent.mkdir()
    (place.parent / "way").symlink_to(common)
    place.parent.chmod(0o1777)


BAD_DIRECTORIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "is a link": (through_link, ""),
    "is written by all": (lambda place: place.chmod(0o707), ""),
    "is sticky": (lambda place: place.chmod(0o1777), ""),
    "is written by a group": (lambda place: of_group(place, 0o770), ""),
    "lies where all can write": (lambda place: place.parent.chmod(0o777), ""),
    "lies further down where all can write": (lambda place: place.parents[1].chmod(0o777), ""),
    "lies where a group can write": (
        lambda place: (os.chown(place.parent, -1, 12_300), place.parent.chmod(0o2775)),
        "",
    ),
    "lies behind a link that anybody laid": (through_link_of_all, "way/code"),
}


@pytest.mark.parametrize("name", BAD_DIRECTORIES)
def test_directory_that_others_can_change_or_exchange_is_refused(name: str, place: Path):
    spoil, below = BAD_DIRECTORIES[name]
    if "group" in name and os.geteuid() != 0:
        pytest.skip("only root can give a directory to a group it is not in")
    stored(place)
    spoil(place)
    with pytest.raises(Distrusted, match=r"link|others can write"):
        opened(place.parent / below if below else place)


@needs_root
@pytest.mark.parametrize("level", [0, 1, 2])
def test_directory_of_another_user_on_the_way_is_refused(level: int, place: Path):
    stored(place)
    of_stranger([place, *place.parents][level])
    with pytest.raises(Distrusted, match="which belongs to another user"):
        opened(place)


def test_sticky_directories_and_links_of_ones_own_may_be_on_the_way(place: Path, tmp_path: Path):
    stored(place)
    place.parent.chmod(0o1777)  # as /tmp
    assert read(place) == CODE
    (tmp_path / "own").mkdir(mode=0o700)
    (tmp_path / "own" / "far").symlink_to(place.parent)
    (tmp_path / "own" / "near").symlink_to("../cache")
    assert read(tmp_path / "own" / "far" / "code") == read(tmp_path / "own" / "near" / "code") == CODE


def test_links_that_lead_in_a_circle_are_refused(tmp_path: Path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Distrusted, match="in a circle"):
        opened(tmp_path / "a" / "code")


def test_directory_that_is_exchanged_after_it_was_checked_is_not_used(place: Path, tmp_path: Path):
    stored(place)
    evil = tmp_path / "evil"
    with opened(evil) as directory:
        directory.write("a", b"evil")
    with opened(place) as directory:
        place.rename(tmp_path / "kept")
        evil.rename(place)
        assert directory.read("a") == CODE
        directory.write("b", CODE)
    assert (tmp_path / "kept" / "b").exists()
    assert not (place / "b").exists()


def test_scratch_of_processes_that_were_killed_is_removed_and_of_others_kept(place: Path):
    with opened(place) as directory:
        directory.write("a", CODE)
        old = time.time() - 2 * code_cache.ABANDONED_SECONDS
        for name in (".killed", ".busy"):
            (place / name).mkdir()
            (place / name / "library.so").write_text("half")
        (place / ".half").write_text("half")
        for path in (place / ".killed", place / ".half", place / "a"):
            os.utime(path, (old, old))
        with directory.scratch() as scratch:
            assert scratch.parent == place
            assert scratch.stat().st_mode & 0o777 == 0o700
        assert sorted(path.name for path in place.iterdir()) == [".busy", "a"]


def test_where_the_cache_is_others_the_users_own_is_taken_and_this_is_said_once(
    place: Path, own_home: Path, caplog: pytest.LogCaptureFixture
):
    place.parent.mkdir()
    place.parent.chmod(0o777)
    for _ in range(2):
        found = find_code_directory("code", place.parent)
        assert found is not None
        with found:
            assert found.path == own_home / "code"
    (line,) = caplog.messages
    assert line == f"compiled code is cached in {own_home / 'code'}, because of {place.parent}, where others can write"
    assert not list(place.parent.iterdir())


def test_where_no_directory_can_be_trusted_nothing_is_kept_and_this_is_said(
    place: Path, own_home: Path, caplog: pytest.LogCaptureFixture
):
    for directory in (place.parent, own_home):
        directory.mkdir(parents=True)
        directory.chmod(0o777)
    assert find_code_directory("code", place.parent) is None
    (line,) = caplog.messages
    assert str(place.parent) in line
    assert str(own_home) in line
    assert "Set ENGINE_CACHE_DIR to a directory of your own" in line


def test_file_where_the_cache_should_be_is_passed_over(place: Path, own_home: Path, caplog: pytest.LogCaptureFixture):
    place.parent.write_text("a file")
    found = find_code_directory("code", place.parent)
    assert found is not None
    with found:
        assert found.path == own_home / "code"
    assert "Not a directory" in caplog.text


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Path]:
    """The directory in which this process keeps its programs, as a command's does."""
    least_seconds = "jax_persistent_cache_min_compile_time_secs"
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_enable_xla_caches", least_seconds)
    before, made = {name: jax.config.values[name] for name in names}, compilation_cache.get_file_cache
    jax.config.update(least_seconds, 0.0)  # commands, which other tests call, leave quick compilations out
    keep_programs(tmp_path / "cache")
    yield tmp_path / "cache" / "xla"
    compilation_cache.get_file_cache = made
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def compile_again() -> None:
    """Compiles a function that was not compiled in this process, as far as JAX knows."""
    jax.clear_caches()
    jax.jit(lambda x: jnp.sin(x) * 7 + 3)(jnp.ones(3)).block_until_ready()


def test_programs_of_xla_are_kept_and_read_under_the_same_rule(programs: Path, monkeypatch: pytest.MonkeyPatch):
    answers: list[bool] = []
    plain = CheckedCache.get

    def get(self: CheckedCache, key: str) -> bytes | None:
        found = plain(self, key)
        answers.append(found is not None)
        return found

    monkeypatch.setattr(CheckedCache, "get", get)
    compile_again()
    files = list(programs.glob("*-cache"))
    assert files
    assert not any(answers)
    compile_again()
    assert answers[len(answers) // 2 :] == [True] * (len(answers) // 2)
    for file in files:
        file.chmod(0o666)
    answers.clear()
    compile_again()
    assert answers
    assert not any(answers)
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)  # written again


def test_without_a_trusted_directory_programs_are_not_kept(
    programs: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(xla_cache, "find_code_directory", lambda name, given: None)
    keep_programs(programs.parent)
    assert jax.config.values["jax_compilation_cache_dir"] is None


def test_program_of_a_users_own_gets_a_cache_unless_it_has_set_one(programs: Path, tmp_path: Path):
    keep_programs_unless_set(tmp_path / "other")
    assert jax.config.values["jax_compilation_cache_dir"] == str(programs)
    jax.config.update("jax_compilation_cache_dir", None)
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        keep_programs_unless_set(tmp_path / "other")
        assert jax.config.values["jax_compilation_cache_dir"] is None
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
    keep_programs_unless_set(tmp_path / "other")
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "other" / "xla")


def test_programs_of_another_processor_are_not_read(place: Path, monkeypatch: pytest.MonkeyPatch):
    here = CheckedCache(opened(place))
    here.put("jit_f-0", CODE)
    assert here.get("jit_f-0") == CODE
    monkeypatch.setattr(xla_cache, "instructions", lambda: b"flags: of another")
    assert CheckedCache(opened(place)).get("jit_f-0") is None


def test_full_disk_stops_no_program_and_is_said(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fill_up(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    cache = CheckedCache(opened(place))
    with caplog.at_level(logging.WARNING):
        monkeypatch.setattr(os, "fsync", fill_up)
        cache.put("jit_f-0", CODE)
    assert "cannot be kept" in caplog.text
    assert not list(place.iterdir())
