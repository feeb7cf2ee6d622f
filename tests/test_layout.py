"""The rooms of the engine: every module lies in one, and imports only from rooms that its own may import."""

import ast
import subprocess
import sys
from pathlib import Path
from statistics import median

import pytest

from docs.draw_rooms import ENGINE, find_floors, read_arrows, read_imports, read_modules, room_of

ROOT = Path(__file__).parents[1]
GROUND = {"text", "errors", "host", "records"}
SETTINGS = GROUND | {"models", "augment", "config"}
# Each room may import those named beside it, which all stand above it here. What they are for: docs/architecture.md.
ROOMS: dict[str, set[str]] = {
    "text": set(),
    "keys": set(),
    "errors": {"text"},
    "host": {"text", "errors"},
    "records": {"errors", "host"},
    "processes": {"errors", "host"},
    "models": {"text", "errors", "host", "records"},
    "augment": {"text", "errors", "records", "keys"},
    "config": GROUND | {"models", "augment"},
    "recipes": {"models", "augment"},  # and the public names of `engine`, as files of users
    "data": GROUND | {"config"},
    "devices": GROUND | {"config", "processes"},
    "kernels": GROUND | {"config"},
    "metrics": GROUND | {"models", "config"},
    "networks": GROUND | {"models", "config", "keys", "devices", "kernels"},
    "checkpoints": SETTINGS | {"metrics", "processes"},
    "training": SETTINGS | {"keys", "data", "devices", "kernels", "metrics", "networks", "processes"},
    "inference": SETTINGS | {"keys", "data", "devices", "kernels", "metrics", "networks", "checkpoints", "training",
                             "processes"},
    "importers": SETTINGS | {"data", "kernels", "metrics", "networks", "checkpoints", "inference"},
    "exporting": SETTINGS | {"devices", "metrics", "networks", "inference"},
    "trackers": SETTINGS | {"checkpoints"},
    "report": SETTINGS | {"data", "devices", "metrics", "checkpoints", "inference", "recipes"},
    "runs": SETTINGS
    | {"data", "devices", "kernels", "metrics", "networks", "checkpoints", "training", "inference", "report",
       "importers", "trackers", "processes"},
    "commands": SETTINGS
    | {"data", "metrics", "networks", "checkpoints", "inference", "exporting", "report", "runs", "importers",
       "recipes", "processes"},
    "__main__": {"host", "commands"},
}  # fmt: skip
# The same within `data`, whose modules that lie in none of these may import all of them.
DATA_ROOMS: dict[str, set[str]] = {
    "data.arrays": set(),
    "data.pictures": set(),
    "data.classes": {"data.arrays"},
    "data.decoded": {"data.arrays", "data.pictures", "data.classes"},
    "data.sources": {"data.arrays", "data.pictures", "data.classes", "data.decoded"},
}
MOST_FLOORS = 14
MOST_LINES = 300  # of a module
MOST_FUNCTION_LINES, MOST_MEDIAN_LINES = 60, 7
# Loaded where a question is answered without a device: by `engine summary` and the like.
WITHOUT_JAX = ("text", "errors", "records", "models", "config", "metrics.stopping", "metrics.combination",
               "metrics.calibration", "augment.rules", "augment.config", "augment.preset_config", "augment.generator",
               "augment.presets", "augment.keras_arguments", "commands.process", "commands.experiment",
               "commands.train", "commands.recipes", "recipes")  # fmt: skip

MODULES = read_modules(ENGINE)
ARROWS = read_arrows(ENGINE)


def test_every_module_lies_in_a_room():
    assert set(ARROWS) == set(ROOMS)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str):
    assert ARROWS[room] <= ROOMS[room]


def test_no_room_imports_one_above_it():
    order = list(ROOMS)
    assert not [(room, other) for room in ROOMS for other in ROOMS[room] if order.index(other) >= order.index(room)]
    assert max(find_floors(ARROWS).values()) <= MOST_FLOORS


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("data.")])
def test_the_rooms_of_data_import_only_what_they_may(module: str):
    place = ".".join(module.split(".")[:2])
    imported = read_imports(MODULES[module], MODULES)
    found = {".".join(other.split(".")[:2]) for other in imported if room_of(other) == "data"}
    assert place not in DATA_ROOMS or found - {place} <= DATA_ROOMS[place]


def test_no_module_grows_long():
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def test_functions_are_short():
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
    functions = [(name, node) for name, tree in trees.items() for node in ast.walk(tree) if hasattr(node, "returns")]
    lengths = [(f"{name}.{node.name}", node.end_lineno - node.lineno + 1) for name, node in functions]
    assert median(lines for _, lines in lengths) <= MOST_MEDIAN_LINES
    assert not [(name, lines) for name, lines in lengths if lines > MOST_FUNCTION_LINES]


def test_no_circle_among_modules():
    arrows = {name: read_imports(path, MODULES) - {name} for name, path in MODULES.items()}
    faces = {name for name, path in MODULES.items() if path.name == "__init__.py"}  # they only hand names on
    find_floors({name: below - faces for name, below in arrows.items() if name not in faces})


@pytest.mark.parametrize("start", WITHOUT_JAX)
def test_what_answers_without_a_device_does_not_import_jax(start: str):
    heavy = ("jax", "flax", "optax", "orbax", "tensorflow_datasets", "matplotlib")
    for name in (name for name in MODULES if name == start or name.startswith(f"{start}.")):
        for node in ast.parse(MODULES[name].read_text(encoding="utf-8")).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.split(".")[0] in heavy], name


def test_the_page_shows_the_rooms_as_they_are():
    assert not subprocess.run([sys.executable, ROOT / "docs" / "draw_rooms.py", "--check"], check=False).returncode


@pytest.mark.parametrize(("code", "message"), [("import engine.runs.loop", "may"), ("", "")])
def test_an_import_that_runs_up_is_found(code: str, message: str, tmp_path: Path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.py").write_text(code)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "loop.py").write_text("")
    assert (read_arrows(tmp_path)["models"] <= ROOMS["models"]) == (not message)
