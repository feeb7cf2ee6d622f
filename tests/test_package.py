"""What is shipped: the wheel holds the code, the embedded data and the licences, and nothing of this machine."""

import os
import platform
import re
import runpy
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.host.library import shipped_file
from engine.host.processor import FLAGS, LEVELS, find_parts, find_sources

ROOT = Path(__file__).parents[1]


MACHINES = ("x86_64", "aarch64")


def make_compilers(directory: Path, machines: tuple[str, ...]) -> dict[str, str]:
    """An environment whose compilers write their arguments into what they are to make."""
    directory.mkdir()
    for machine in machines:
        script = directory / f"{machine}-linux-gnu-g++"
        script.write_text('#!/bin/sh\nfor made; do :; done\necho "$@" > "$made"\n')
        script.chmod(0o755)
    own = directory / f"{platform.machine()}-linux-gnu-g++"
    return {**os.environ, "PATH": str(directory), "CXX": str(own), "ENGINE_KERNELS": "all"}


def build(target: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    target = tmp_path_factory.mktemp("wheel")
    done = build(target, make_compilers(target / "bin", MACHINES))
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(target.glob("*.whl"))) as archive:
        yield archive


needs_linux = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() not in MACHINES, reason="needs Linux on one of these machines"
)


@needs_linux
def test_wheel_has_a_library_of_each_source_for_each_level(wheel):
    sources = find_sources(ROOT / "engine")
    assert {source.name for source in sources} >= {"convolution.cc", "separable.cc", "resampling.cc"}
    parts = {source: find_parts(source) for source in sources}
    assert sorted(part for each in parts.values() for part in each) == sorted((ROOT / "engine").rglob("*.cc"))
    for source in sources:
        for name, level in LEVELS.items():
            arguments = wheel.read(str(shipped_file(source, name).relative_to(ROOT))).decode().split()
            assert {*FLAGS, *level.options} <= set(arguments)
            assert set(map(str, parts[source])) <= set(arguments)


@needs_linux
def test_wheel_for_all_processors_needs_all_compilers(tmp_path: Path):
    done = build(tmp_path / "dist", make_compilers(tmp_path / "bin", (platform.machine(),)))
    assert done.returncode != 0
    other = next(machine for machine in MACHINES if machine != platform.machine())
    assert f"{other}-linux-gnu-g++ is missing" in done.stderr


@needs_linux
def test_wheel_for_this_kind_of_machine_is_not_built_without_its_libraries(tmp_path: Path):
    environment = make_compilers(tmp_path / "bin", (platform.machine(),)) | {"ENGINE_KERNELS": "own"}
    assert build(tmp_path / "dist", environment).returncode == 0
    Path(environment["CXX"]).write_text('#!/bin/sh\nfor made; do :; done\nprintf "\\0GLIBCXX_3.4.33\\0" > "$made"\n')
    done = build(tmp_path / "dist", environment)
    assert done.returncode != 0
    assert "it needs GLIBCXX 3.4.33" in done.stderr


def test_wheel_contains_the_embedded_data_and_its_licence(wheel):
    names = wheel.namelist()
    inside = "engine/data/embedded/fashion_mnist_12k/1.0.0/"
    for name in ("dataset_info.json", "features.json", "label.labels.txt"):
        assert inside + name in names
    records = [wheel.getinfo(name) for name in names if name.startswith(inside) and ".array_record-" in name]
    assert len(records) == 2
    assert sum(info.file_size for info in records) < 8e6
    assert any(name.endswith("LICENSE.fashion_mnist") for name in names)
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_readme_on_a_package_index_has_no_link_that_leads_nowhere(wheel):
    metadata = wheel.read(next(name for name in wheel.namelist() if name.endswith("METADATA"))).decode()
    assert "Project-URL" not in metadata, "the README's links must lead there: see docs/package_readme.py"
    assert not re.findall(r"\]\((?!https://)", metadata)
    assert ".example" not in metadata
    for page in re.findall(r"\(`([\w/]+\.md)`\)", metadata):
        assert (ROOT / page).is_file(), page
    assert "[Data]" not in metadata
    assert "Data (`docs/data.md`)" in metadata.replace("\n", " ")
    assert "--no-binary :all: engine-jax`" in metadata


def test_readme_links_to_the_repository_once_it_has_an_address():
    made = runpy.run_path(str(ROOT / "docs" / "package_readme.py"))
    text = made["with_addresses"]((ROOT / "README.md").read_text("utf-8"), "https://git.example/engine")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("#")]
    assert "https://git.example/engine/blob/main/docs/data.md" in links
    assert "https://git.example/engine/raw/main/docs/pictures/terminal.png" in links
    for link in links:
        assert (ROOT / link.split("/main/")[-1]).exists() or not link.startswith("https://git.example"), link
        assert link.startswith("https://"), link


def test_wheel_tells_type_checkers_that_it_is_typed(wheel):
    assert "engine/py.typed" in wheel.namelist()


def test_wheel_contains_the_package_and_the_command_only(wheel):
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"engine"}
    entry_points = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    assert "engine = engine.__main__:main" in wheel.read(entry_points).decode()


def test_constraints_pin_exact_versions_and_name_no_index():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[\w.\-]+(\[[\w,]+\])?==\S+( ; .+)?", line) for line in lines), "a line that pins nothing"
    pinned = {line.split("==")[0].split("[")[0].lower() for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    needed += project["optional-dependencies"]["docs"]
    names = {re.match(r"[\w\-]+", name).group().lower().replace("_", "-") for name in needed}
    assert names <= pinned


def test_tensorflow_torch_and_keras_are_in_extras_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert not [name for name in project["dependencies"] if re.match(r"(tensorflow(-cpu)?|torch|keras)\b(?!-)", name)]
