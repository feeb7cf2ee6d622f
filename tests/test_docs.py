"""The pages: their pictures are drawn by the code, and what they tell people to type exists."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

from engine.augment.config import AugmentConfig
from engine.config import EnsembleConfig, OptimConfig, PlanConfig, TrainConfig
from engine.config.data import DataConfig
from engine.config.finetune import FineTuneConfig

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SECTIONS = {
    "augment": AugmentConfig, "data": DataConfig, "ensemble": EnsembleConfig,
    "finetune": FineTuneConfig, "optim": OptimConfig, "plan": PlanConfig, "train": TrainConfig,
}  # fmt: skip


@pytest.mark.long
def test_pictures_of_the_pages_are_those_the_script_draws(tmp_path: Path):
    pytest.importorskip("skimage", reason="needs the photographs of scikit-image")
    spec = importlib.util.spec_from_file_location("draw_pictures", ROOT / "docs" / "draw_pictures.py")
    assert spec is not None
    script = importlib.util.module_from_spec(spec)
    assert spec.loader is not None
    spec.loader.exec_module(script)
    script.draw_all(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    shown = {
        match for page in PAGES for match in re.findall(r"\]\((?:docs/)?pictures/([\w.]+)\)", page.read_text("utf-8"))
    }
    assert drawn == shown == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    for name in drawn:
        with Image.open(tmp_path / name) as fresh, Image.open(ROOT / "docs" / "pictures" / name) as committed:
            assert fresh.size == committed.size


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_settings_and_modules_named_on_a_page_exist(page: Path):
    text = page.read_text("utf-8")
    for section, name in re.findall(r"--(augment|data|ensemble|finetune|optim|plan|train)\.([a-z-]+)", text):
        fields, field = SECTIONS[section].__dataclass_fields__, name.replace("-", "_")
        assert field in fields or field.removeprefix("no_") in fields, f"--{section}.{name}"
    for module in re.findall(r"python -m ((?:experiments|benchmarks)\.\w+)", text):
        assert importlib.util.find_spec(module), module
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (page.parent / target).exists(), target
