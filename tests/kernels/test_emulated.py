"""Convolutions as shipped for other processors, run by an emulator: equal values, no instruction that they lack."""

import shutil
import subprocess
from pathlib import Path

import pytest

from engine.host.processor import FLAGS, LEVELS
from engine.kernels import libraries

SOURCES = Path(libraries.__file__).parent / "cpu"


@pytest.mark.long
@pytest.mark.parametrize(
    ("level", "compiler", "emulator"),
    [
        ("x86-64-v3", "x86_64-linux-gnu-g++", ("qemu-x86_64-static", "-cpu", "Haswell")),
        ("aarch64", "aarch64-linux-gnu-g++", ("qemu-aarch64-static",)),
    ],
)
def test_convolutions_of_other_processors_are_those_of_a_plain_loop(
    level: str, compiler: str, emulator: tuple[str, ...], tmp_path: Path
):
    if not (shutil.which(compiler) and shutil.which(emulator[0])):
        pytest.skip(f"needs {compiler} and {emulator[0]}")
    parts = [SOURCES / f"convolution_{name}.cc" for name in ("direct", "minimal")]
    include = ["-I", str(SOURCES), "-I", libraries._find_headers()]
    flags = [flag for flag in FLAGS if flag != "-shared"]
    program, main = tmp_path / "program", Path(__file__).with_name("emulated.cc")
    command = [compiler, *flags, *LEVELS[level].options, "-static", *include, str(main), *map(str, parts)]
    subprocess.run([*command, "-o", str(program)], check=True)
    done = subprocess.run([*emulator, str(program)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split(",")[:2]) == (0, ["72 cases", " LANES 8"])
