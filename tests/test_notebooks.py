"""The notebooks of docs/ run as they are, in a kernel of their own; what they show is tables and pictures."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import HANG_SECONDS, QUICK_FLAGS

nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel")
pytest.importorskip("ipykernel", reason="needs nbclient and ipykernel")
nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def run_notebook(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The cells of a notebook after they ran in a folder, with their outputs."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("IPYTHONDIR", str(folder / ".ipython"))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", QUICK_FLAGS)
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=int(HANG_SECONDS), resources={"metadata": {"path": str(folder)}})
    return client.execute().cells


def shown_kinds(cell: dict[str, Any]) -> set[str]:
    return {kind for each in cell.get("outputs", []) for kind in each.get("data", {})}


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=() if path.stem == "mlp" else pytest.mark.long, id=path.stem) for path in NOTEBOOKS],
)
@pytest.mark.filterwarnings("ignore")  # of Jupyter's own
def test_notebook_runs_and_shows_what_it_says(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    cells = [cell for cell in run_notebook(path, tmp_path, monkeypatch) if cell["cell_type"] == "code"]
    streams = [each for cell in cells for each in cell["outputs"] if each["output_type"] == "stream"]
    assert not [each["text"] for each in streams if each["name"] == "stderr" and "Warning" in each["text"]]
    assert sum("image/png" in shown_kinds(cell) for cell in cells) >= 1
    trained = [cell for cell in cells if "engine.fit(" in cell["source"]]
    assert trained
    for cell in trained:
        updated = [each for each in cell["outputs"] if each.get("transient", {}).get("display_id")]
        html = "".join(each["data"].get("text/html", "") for each in cell["outputs"] if "data" in each)
        assert html.count("<th>top5</th>") <= 2  # the metrics at the end, once; and beside the history
        assert not re.search("[━┃│]", html)  # and not as text too
        assert len(updated) <= 1  # one line of progress, however long it takes


def test_every_tutorial_has_a_notebook_without_outputs_of_an_earlier_run():
    assert {path.stem for path in NOTEBOOKS} == {"mlp", "convnet", "flowers", "malaria", "ensemble", "transfer"}
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
