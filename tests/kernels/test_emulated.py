"""Kernels as shipped for other processors, run by an emulator: equal values, no instruction that they lack."""

import shutil
import subprocess
from pathlib import Path

import pytest

from engine.host.processor import FLAGS, LEVELS
from engine.kernels import libraries

SOURCES = Path(libraries.__file__).parent / "cpu"
TESTS = Path(__file__).parent
DIRECT = [SOURCES / f"convolution_{name}.cc" for name in ("direct", "minimal")]

emulated = pytest.mark.parametrize(
    ("level", "compiler", "emulator"),
    [
        ("x86-64-v3", "x86_64-linux-gnu-g++", ("qemu-x86_64-static", "-cpu", "Haswell")),
        ("aarch64", "aarch64-linux-gnu-g++", ("qemu-aarch64-static",)),
    ],
)


@pytest.mark.long
@emulated
@pytest.mark.parametrize(
    ("main", "parts", "headers", "cases"),
    [
        ("emulated.cc", DIRECT, "", 72),
        ("emulated_gradients.cc", DIRECT, "", 56),
        ("emulated_pointwise.cc", (), TESTS / "emulated_ffi", 120),
        ("emulated_depthwise.cc", (), TESTS / "emulated_ffi", 48),
        ("emulated_batch_norm.cc", (), TESTS / "emulated_ffi", 28),
    ],
    ids=["convolutions", "gradients", "1x1", "depthwise", "batch norm"],
)
def test_kernels_of_other_processors_are_those_of_a_plain_loop(
    main: str,
    parts: list[Path],
    headers: Path | str,
    cases: int,
    level: str,
    compiler: str,
    emulator: tuple[str, ...],
    tmp_path: Path,
):
    if not (shutil.which(compiler) and shutil.which(emulator[0])):
        pytest.skip(f"needs {compiler} and {emulator[0]}")
    include = ["-I", str(headers or libraries._find_headers()), "-I", str(SOURCES)]
    flags = [flag for flag in FLAGS if flag != "-shared"]
    program = tmp_path / "program"
    command = [compiler, *flags, *LEVELS[level].options, "-static", *include, str(TESTS / main), *map(str, parts)]
    subprocess.run([*command, "-o", str(program)], check=True)
    done = subprocess.run([*emulator, str(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(",")[:2]) == (0, [f"{cases} cases", " LANES 8"])
