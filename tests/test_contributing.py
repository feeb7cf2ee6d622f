"""CONTRIBUTING.md: its commands exist, and each of its Python examples is short and runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import HANG_SECONDS, QUICK_FLAGS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
EXAMPLES = {
    title.strip(): code
    for title, section in re.findall(r"^#{2,3} (.+?)\n(.*?)(?=^#{2,3} |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    for code in re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
}
MOST_LINES = 20


@pytest.mark.parametrize("title", EXAMPLES)
def test_example_is_short_and_runs(title: str, tmp_path: Path, cache_dir: Path):
    code = EXAMPLES[title]
    assert len([line for line in code.splitlines() if line.strip()]) < MOST_LINES
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ENGINE_CACHE_DIR": str(cache_dir), "JAX_PLATFORMS": "cpu"}
    environment["XLA_FLAGS"] = f"{QUICK_FLAGS} {os.environ.get('XLA_FLAGS', '')}"
    done = subprocess.run(
        [sys.executable, "-c", "import example"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=HANG_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_make_targets_of_the_page_exist():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z]+)", TEXT)) <= targets
