"""Shipped libraries: which one is taken, and what happens where none can be."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.data.pictures.resampling import SOURCE
from engine.errors import InputError
from engine.host import library, processor
from engine.host.compiler import COMPILERS
from engine.host.library import Library, shipped_file

V4 = "flags : fpu sse2 avx avx2 bmi1 bmi2 f16c fma abm movbe avx512f avx512bw avx512cd avx512dq avx512vl"
V3 = V4.split(" avx512f")[0]
V2 = "flags : fpu sse2 avx popcnt"  # as of 2012: AVX, which jaxlib needs, and not AVX2

needs_compiler = pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C++ compiler")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source of a library in an empty directory, an empty cache, and a processor of level x86-64-v3."""
    monkeypatch.setenv("ENGINE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(library.VARIABLE, raising=False)
    monkeypatch.setattr(library, "find_level", lambda: "x86-64-v3")
    (tmp_path / "package").mkdir()
    return Path(shutil.copy(SOURCE, tmp_path / "package"))


def ship(source: Path) -> None:
    """Puts a library beside its source, as a wheel has it, compiled for any processor."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)))
    made = shipped_file(source, "x86-64-v3")
    subprocess.run([compiler, "-O0", "-shared", "-fPIC", "-std=c++17", str(source), "-o", str(made)], check=True)


@pytest.mark.parametrize(
    ("machine", "flags", "level"),
    [
        ("x86_64", V4, "x86-64-v4"),
        ("x86_64", V3, "x86-64-v3"),
        ("x86_64", V4.replace(" avx512vl", ""), "x86-64-v3"),
        ("x86_64", V2, None),
        ("aarch64", "Features : fp asimd evtstrm", "aarch64"),
        ("riscv64", "", None),
    ],
)
def test_level_is_the_best_that_the_processor_has(
    machine: str, flags: str, level: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(processor.platform, "machine", lambda: machine)
    monkeypatch.setattr(processor, "instructions", flags.encode)
    assert processor.find_level() == level


@needs_compiler
def test_shipped_library_is_loaded_without_a_compiler(package: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    ship(package)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    found = Library(package, "pictures")
    assert found.is_available()
    found.begin()
    loaded = found.load()
    assert loaded is not None
    assert loaded.engine_resample
    assert capfd.readouterr() == ("", "")


@needs_compiler
@pytest.mark.parametrize("why", ["native", "other level", "damaged", "refused"])
def test_library_is_compiled_where_none_that_is_shipped_can_be_used(
    why: str, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd
):
    ship(package)
    seen = []
    if why == "native":
        monkeypatch.setenv(library.VARIABLE, "native")
    elif why == "other level":
        monkeypatch.setattr(library, "find_level", lambda: None)
    elif why == "damaged":
        shipped_file(package, "x86-64-v3").write_bytes(b"no library")

    def accept(loaded: object) -> bool:
        seen.append(loaded)
        return why != "refused" or len(seen) == 2

    assert Library(package, "pictures", accept).load() is not None
    assert len(list((tmp_path / "cache").glob("native-*/*.so"))) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("compiling our C++ code for pictures with ")
    assert Library(package, "pictures").load() is not None
    assert capfd.readouterr().err == ""  # from the cache, or shipped


def test_missing_library_is_reported_once(package: Path, monkeypatch: pytest.MonkeyPatch, capfd):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    found = Library(package, "pictures")
    assert not found.is_available()
    found.begin()
    assert found.load() is None
    assert not found.is_available()
    needed = "needs a C++ compiler (c++, g++ or clang++) here"
    assert capfd.readouterr().err == f"slower here: pictures, without our C++ code, which {needed}\n"


@needs_compiler
def test_shipped_library_that_is_refused_is_named_where_nothing_can_be_compiled(
    package: Path, monkeypatch: pytest.MonkeyPatch, capfd
):
    ship(package)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    assert Library(package, "pictures", lambda loaded: False).load() is None
    remedy = "update jaxlib, or install a C++ compiler (c++, g++, clang++)"
    said = f"slower here: pictures, without our C++ code, which was built for a newer jaxlib: {remedy}\n"
    assert capfd.readouterr().err == said


@needs_compiler
def test_nothing_is_compiled_to_say_whether_there_is_a_library(package: Path, tmp_path: Path, capfd):
    assert Library(package, "pictures").is_available()
    assert not (tmp_path / "cache").exists()
    assert capfd.readouterr().err == ""


def test_other_word_for_native_is_refused(package: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(library.VARIABLE, "natve")
    with pytest.raises(InputError, match=r"ENGINE_KERNELS: got 'natve'; expected native"):
        Library(package, "pictures").load()


@pytest.mark.skipif(sys.platform == "win32", reason="nothing is compiled on Windows")
def test_process_that_ends_leaves_no_compiler_and_no_file(package: Path, tmp_path: Path):
    script, started = tmp_path / "compiler", tmp_path / "started"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\nsleep 600 &\necho $! > {started}\nwait\n')
    script.chmod(0o755)
    begin = (
        "import sys, time; from pathlib import Path; from engine.host.library import Library; "
        f"kept = Library(Path({str(package)!r}), 'x'); kept.begin()\n"
        f"while not Path({str(started)!r}).exists() or not Path({str(started)!r}).read_text(): time.sleep(0.01)"
    )
    environment = {**os.environ, "CXX": str(script), "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", begin], env=environment, check=True, capture_output=True)
    while _runs(int(started.read_text())):
        time.sleep(0.01)
    assert not list((tmp_path / "cache").glob("native-*/*"))
    assert not list((tmp_path / "cache").glob("native-*/.*"))


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # ended, and not yet waited for by its parent
