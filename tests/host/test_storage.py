"""Files are written under names that nobody can foretell, and never through a link that somebody laid."""

import ast
import contextlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import engine
from engine.checkpoints.checksums import check_sums, write_sums
from engine.checkpoints.packing import pack, unpack
from engine.checkpoints.run_directory import claimed, clear_run
from engine.errors import InputError
from engine.host.storage import check_file_place, new_directory, open_own, replaced, replaced_whole, write_atomically
from engine.report.grid import draw_grid
from engine.report.history import draw_curves
from engine.report.pictures import save_picture
from engine.report.predictions import csv_file
from tests.conftest import TINY, make_dataset

PICTURE = np.zeros((4, 4, 1), np.uint8)
PACKAGE = Path(engine.__file__).parent


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    result = engine.fit(TINY, make_dataset(80), epochs=1, batch_size=64, verbose=False)
    return result.save(tmp_path_factory.mktemp("runs") / "tiny")


def write_csv(path: Path) -> None:
    with csv_file(path) as rows:
        rows.writerow(["a"])


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_atomically(path, "new"),
    "table": write_csv,
    "grid": lambda path: draw_grid([PICTURE], ["a"], path, "a"),
    "curves": lambda path: draw_curves([{"epoch": 1, "loss": 1.0}], "a", ("loss",), None, path),
    "picture": lambda path: save_picture(PICTURE, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_link_at_the_place_of_a_file_is_replaced_and_what_it_points_to_is_left_alone(name: str, tmp_path: Path):
    victim, planted = tmp_path / "victim", tmp_path / "out"
    victim.write_text("precious")
    planted.symlink_to(victim)
    WRITERS[name](planted)
    assert victim.read_text() == "precious"
    assert planted.is_file()
    assert not planted.is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "victim"]


@pytest.mark.parametrize("name", WRITERS)
def test_names_of_scratch_files_cannot_be_foretold_and_are_taken_exclusively(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made: list[str] = []
    plain = os.open

    def noted(path: str, flags: int, *arguments: object, **named: object) -> int:
        if flags & os.O_CREAT and str(path).startswith(str(tmp_path)):
            assert flags & os.O_EXCL
            assert str(os.getpid()) not in Path(path).name
            made.append(Path(path).name)
        return plain(path, flags, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", noted)
    for _ in range(2):
        WRITERS[name](tmp_path / "out")
    assert len(set(made)) == len(made) == 2


def test_packing_and_unpacking_do_not_write_through_links(run: Path, tmp_path: Path):
    victim, out = tmp_path / "victim", tmp_path / "tiny.engine"
    victim.mkdir()
    out.symlink_to(tmp_path / "elsewhere")
    pack(run, out, overwrite=True)
    assert out.is_file()
    assert not out.is_symlink()
    (tmp_path / f".back.{os.getpid()}").symlink_to(victim)  # the name that scratch directories had
    unpack(out, tmp_path / "back")
    assert (tmp_path / "back" / "config.json").is_file()
    assert not list(victim.iterdir())
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="dangling, which exists"):
        unpack(out, tmp_path / "dangling")
    assert not (tmp_path / "nowhere").exists()


def test_directory_that_fails_half_way_leaves_nothing(tmp_path: Path):
    def fill() -> None:
        with new_directory(tmp_path / "out") as directory:
            (directory / "half").write_text("")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fill()
    assert not list(tmp_path.iterdir())


def test_new_files_and_directories_have_the_rights_that_the_umask_leaves(tmp_path: Path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "")
        with new_directory(tmp_path / "directory"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "directory").stat().st_mode) == 0o750


@pytest.mark.parametrize("lay", [os.symlink, os.link])
def test_nothing_is_appended_through_a_link(lay: Callable[..., None], tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lay(victim, tmp_path / "log.txt")
    with pytest.raises(OSError, match=r"link|symbolic"):
        open_own(tmp_path / "log.txt", "a")
    assert victim.read_text() == "precious"


def test_lock_of_a_run_is_not_taken_through_a_link(tmp_path: Path):
    victim, run = tmp_path / "victim", tmp_path / "run"
    victim.write_text("precious")
    run.mkdir()
    (run / ".lock").symlink_to(victim)
    with pytest.raises(InputError, match=r"run_dir: got .*\.lock .*Remove it"), claimed(run):
        pass
    assert victim.read_text() == "precious"


def test_clearing_a_run_removes_links_and_not_what_they_point_to(tmp_path: Path):
    kept, run = tmp_path / "kept", tmp_path / "run"
    (kept / "8").mkdir(parents=True)
    run.mkdir()
    (run / "checkpoints").symlink_to(kept)
    (run / "log.txt").symlink_to(kept / "nowhere")
    clear_run(run)
    assert not list(run.iterdir())
    assert (kept / "8").is_dir()


def test_failure_while_writing_keeps_what_was_there(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"old")

    def fail() -> None:
        with replaced(tmp_path / "file") as file:
            file.write(b"new")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# Where files are made in a directory that was made there and then, under a name that nobody could foretell.
IN_SCRATCH = {"exporting/writers.py": 3, "data/decoded/cache.py": 2, "checkpoints/packing.py": 2}


def is_writing(call: ast.Call) -> bool:
    """Whether a call opens a file by its name to write to it."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    texts = {one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    is_opened = name == "open" and any(set(text) <= set("wxabt+") and set(text) & set("wxa") for text in texts)
    return is_opened or name in ("write_text", "write_bytes", "touch")


def test_every_module_writes_by_way_of_storage():
    found: dict[str, int] = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        if name not in ("host/storage.py", "host/code_cache.py", "data/embedded/draw.py"):
            calls = [
                node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)
            ]
            found |= {name: count} if (count := sum(map(is_writing, calls))) else {}
    assert found == IN_SCRATCH


def test_files_and_directories_are_put_in_place_by_storage_alone():
    ways = re.compile(r"os\.(replace|rename)\(|\.rename\(|mkstemp|mkdtemp\(prefix=f|NamedTemporaryFile")
    found = {path.name for path in PACKAGE.rglob("*.py") if ways.search(path.read_text(encoding="utf-8"))}
    # Code is written by descriptor of its directory; an entry of the cache that another run has finished is kept.
    assert found == {"storage.py", "code_cache.py", "cache.py"}


@pytest.mark.parametrize("is_directory", [False, True])
def test_what_is_there_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path, is_directory: bool):
    def make(path: Path, text: str) -> None:
        path.mkdir() if is_directory else None
        (path / "inner" if is_directory else path).write_text(text, encoding="utf-8")

    make(tmp_path / "out", "old")
    with contextlib.suppress(KeyError), replaced_whole(tmp_path / "out") as path:
        make(path, "half")
        raise KeyError
    inner = tmp_path / "out" / "inner" if is_directory else tmp_path / "out"
    assert inner.read_text(encoding="utf-8") == "old"
    with replaced_whole(tmp_path / "out") as path:
        make(path, "new")
    assert inner.read_text(encoding="utf-8") == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_pipes_in_a_saved_step_are_refused_and_not_waited_for(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a").write_bytes(b"1")
    write_sums(tmp_path)
    check_sums(tmp_path)
    for name in ("model/a", "B2SUMS"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(InputError, match=f"{name}: got .*no regular file"):
            check_sums(tmp_path)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("pipe.png", "a pipe or device"),
        (f"{'x' * 300}.png", "File name too long"),
        ("a b/c.png", r"mkdir -p '.*/a b'$"),
        ("file/c.png", "Choose another: .*/file is a file"),
    ],
)
def test_place_where_no_file_can_be_made_is_refused_before_it_is(tmp_path, place, reason):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=reason):
        check_file_place(tmp_path / place, "out", ".png")


def test_place_that_cannot_be_written_is_refused():
    if not Path("/proc").is_dir():
        pytest.skip("needs a directory where nobody may write")
    with pytest.raises(InputError, match=r"out: got /proc/x.png .* expected a file that can be written"):
        check_file_place(Path("/proc/x.png"), "out", ".png")
