"""Data flows one way: a module imports only modules that come before it in this list."""

import ast
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[1] / "engine"

LAYOUT = [
    "text",
    "errors",
    "console",
    "json_files",
    "records",
    "models.shapes",
    "models.activations",
    "models.weights",
    "models.convolutions",
    "models.layers",
    "models.specs",
    "models.cropping",
    "models",
    "checks",
    "augment",
    "augment.rules",
    "augment.config",
    "augment.preset_config",
    "augment.generator",
    "augment.presets",
    "data",
    "data.decoding",
    "data.encodings",
    "data.config",
    "finetuning",
    "optim_config",
    "config",
    "plan",
    "stopping",
    "combination",
    "calibration",
    "keys",
    "clock",
    "interrupts",
    "versions",
    "forking",
    "memory",
    "storage",
    "archives",
    "augment.reading",
    "augment.displacement",
    "augment.geometry",
    "augment.as_keras",
    "augment.color",
    "augment.policies",
    "augment.auto_augment",
    "augment.keras_policies",
    "augment.mixing",
    "augment.apply",
    "data.levels",
    "data.deep",
    "data.ranges",
    "correction",
    "data.stored",
    "data.names",
    "data.matching",
    "data.classes",
    "data.dataset",
    "data.coverage",
    "data.class_order",
    "data.source",
    "data.cache",
    "code_cache",
    "compiled",
    "xla_cache",
    "data.orientation",
    "data.jpeg",
    "data.frames",
    "data.formats",
    "data.opening",
    "data.interpolating",
    "data.resampling",
    "data.images",
    "data.split_names",
    "data.walk",
    "data.deep_ranges",
    "data.files",
    "data.class_folders",
    "data.as_keras",
    "data.folder",
    "data.given",
    "data.axes",
    "data.labels",
    "data.in_memory",
    "data.idx",
    "data.arrays",
    "data.columns",
    "data.rows",
    "data.listed_files",
    "data.table",
    "data.prepare",
    "data.prepared",
    "data.tfds_features",
    "data.tfds_source",
    "data.locate",
    "data.fitting",
    "data.options",
    "data.load",
    "data.embedded.draw",
    "batches",
    "parallel",
    "feed",
    "windows",
    "depthwise",
    "patches",
    "native",
    "convolution",
    "gpu_convolution",
    "direct",
    "ops",
    "models.functions",
    "models.modules",
    "models.build",
    "models.ensemble",
    "models.names",
    "losses",
    "metrics",
    "optim",
    "precision",
    "state",
    "own_outputs",
    "phases",
    "step",
    "members",
    "capacity",
    "executables",
    "program",
    "one_by_one",
    "evaluate",
    "forward",
    "inputs",
    "checksums",
    "checkpoint",
    "saving",
    "run_directory",
    "packing",
    "features",
    "scikit_learn",
    "predict",
    "ensemble",
    "exporting",
    "exporting.formats",
    "exporting.graph",
    "exporting.onnx_rules",
    "exporting.onnx",
    "exporting.writers",
    "exporting.export",
    "report",
    "report.tables",
    "report.history",
    "report.pictures",
    "report.progress",
    "report.grid",
    "report.survey",
    "report.data",
    "report.examples",
    "report.augmentation",
    "report.predictions",
    "report.ensemble",
    "report.members",
    "report.plans",
    "feature_cache",
    "transfer",
    "trainer",
    "session",
    "ensemble_session",
    "planning",
    "result",
    "loop",
    "notebook",
    "entry",
    "experiment",
    "commands",
    "commands.experiments",
    "commands.options",
    "commands.outputs",
    "commands.targets",
    "commands.summary",
    "commands.evaluate",
    "commands.predict",
    "commands.plan",
    "commands.export",
    "commands.pack",
    "commands.data",
    "commands.augment",
    "__main__",
]


def module_name(path: Path) -> str:
    parts = path.relative_to(ENGINE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in ENGINE.rglob("*.py") if module_name(path)}


def imported(path: Path) -> set[str]:
    """The modules of engine that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "engine":
            base = (node.module or "").removeprefix("engine").lstrip(".")
            for alias in node.names:
                inner = f"{base}.{alias.name}".lstrip(".")
                found.add(inner if inner in FILES else base)
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("engine.") for alias in node.names if alias.name.startswith("engine.")}
    return found


def test_layout_names_every_module():
    assert sorted(LAYOUT) == sorted(FILES)


@pytest.mark.parametrize("name", LAYOUT)
def test_imports_run_upwards(name: str):
    later = {other for other in imported(FILES[name]) if LAYOUT.index(other) >= LAYOUT.index(name)}
    assert not later, f"{name} imports {later}, which come after it"


def test_modules_that_answer_without_a_device_do_not_import_jax():
    heavy = ("jax", "flax", "optax", "orbax", "tensorflow_datasets", "matplotlib")
    for name in (
        "errors",
        "records",
        "models.shapes",
        "models.activations",
        "models.weights",
        "models.convolutions",
        "models.layers",
        "models.specs",
        "models.cropping",
        "models",
        "checks",
        "augment.rules",
        "augment.config",
        "augment.preset_config",
        "augment.generator",
        "augment.presets",
        "config",
        "stopping",
        "combination",
        "calibration",
        "entry",
        "experiment",
    ):
        for node in ast.parse(FILES[name].read_text(encoding="utf-8")).body:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [n for n in names if n.split(".")[0] in heavy], name
