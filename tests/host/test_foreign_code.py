"""Data that names code does not get it run: descriptions of prepared data, names of builders, slips in experiments."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from engine import DataConfig, InputError
from engine.commands.experiments import experiment_config
from engine.data.kinds import open_source
from engine.data.sources import tfds as tfds_source
from engine.data.sources.tfds import EMBEDDED
from engine.data.sources.tfds_features import no_foreign_features

PREPARED = EMBEDDED / "fashion_mnist_12k" / "1.0.0"
EVIL = "downloaded.evil.Features"
PLAIN: dict[str, Any] = json.loads((PREPARED / "features.json").read_text())


@pytest.fixture
def project(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory, also to import from, with a folder of data in it that holds code as well."""
    shutil.copytree(PREPARED, in_tmp / "downloaded" / "1.0.0")
    for name in ("__init__", "evil", "without_config"):
        (in_tmp / "downloaded" / f"{name}.py").write_text(f"open({str(in_tmp / 'RAN')!r}, 'w')\n")
    monkeypatch.syspath_prepend(str(in_tmp))
    yield in_tmp
    for name in [name for name in sys.modules if name.split(".")[0] in ("downloaded", "mine")]:
        del sys.modules[name]


def nested(value: Any) -> str:
    inner = json.loads(json.dumps(PLAIN))
    inner["featuresDict"]["features"]["image"] = value
    return json.dumps(inner)


SPELLINGS = {
    "as tfds writes it": json.dumps({**PLAIN, "pythonClassName": EVIL}),
    "with a space": json.dumps({**PLAIN, "pythonClassName": EVIL}).replace('Name": "down', 'Name" : "down'),
    "by its other name": json.dumps({**PLAIN, "python_class_name": EVIL, "pythonClassName": ""}).replace(
        '"pythonClassName": "", ', ""
    ),
    "escaped key": json.dumps({**PLAIN, "pythonClassName": EVIL}).replace("ClassName", "Class\\u004eame", 1),
    "escaped value": json.dumps({**PLAIN, "pythonClassName": EVIL}).replace("downloaded", "\\u0064ownloaded"),
    "twice": json.dumps(PLAIN)[:-1] + f', "pythonClassName": "{EVIL}"}}',
    "as before": json.dumps({"type": EVIL, "content": {}}),
    "as before, in JSON in JSON": nested({"jsonFeature": {"json": "{}"}, "pythonClassName": EVIL}),
    "nested": nested({"python_class_name": EVIL, "image": {}}),
    "in a sequence": nested({
        "pythonClassName": "tensorflow_datasets.core.features.sequence_feature.Sequence",
        "sequence": {"feature": {"pythonClassName": EVIL, "image": {}}, "length": -1},
    }),
    "a module of tfds": json.dumps({**PLAIN, "pythonClassName": "tensorflow_datasets.scripts.cli.main.X"}),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_class_of_a_feature_is_not_imported_however_it_is_spelled(spelling: str, project: Path):
    file = project / "downloaded" / "1.0.0" / "features.json"
    file.write_text(SPELLINGS[spelling])
    before = set(sys.modules)
    with pytest.raises((InputError, ValueError)) as refused:
        open_source(DataConfig(path=Path("downloaded")), lambda text: None).load("test", "data.split")
    assert not (project / "RAN").exists()
    imported = set(sys.modules) - before
    assert not [name for name in imported if name.startswith(("downloaded", "tensorflow_datasets.scripts"))]
    if spelling != "twice":  # which protocol buffers refuse themselves
        told = r"features\.json: got '(downloaded|tensorflow_datasets)\.\S+'; expected features of"
        assert re.search(told, str(refused.value))


def test_module_that_prepared_data_says_it_is_from_is_not_imported(project: Path):
    file = project / "downloaded" / "1.0.0" / "dataset_info.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "moduleName": "downloaded.evil"}))
    assert len(open_source(DataConfig(path=Path("downloaded")), lambda text: None).load("test", "data.split")) == 2000
    assert not (project / "RAN").exists()


def test_file_that_is_exchanged_after_it_was_looked_at_gets_no_code_run(project: Path, monkeypatch: pytest.MonkeyPatch):
    import tensorflow_datasets as tfds

    plain: Callable[..., Any] = tfds.builder_from_directory

    def exchanged(directory: Path) -> Any:
        (directory / "features.json").write_text(SPELLINGS["as tfds writes it"])
        return plain(directory)

    monkeypatch.setattr(tfds, "builder_from_directory", exchanged)
    with pytest.raises(InputError, match="features of tensorflow_datasets only"):
        open_source(DataConfig(path=Path("downloaded"), cache_dir=project / "cache"), lambda text: None).load(
            "test", "data.split"
        )
    assert not (project / "RAN").exists()


def test_guard_is_gone_afterwards_and_holds_for_threads_meanwhile(tmp_path: Path):
    from tensorflow_datasets.core.features import feature as library

    before = library.importlib, vars(library.FeatureConnector)["cls_from_name"]
    refused: list[BaseException] = []

    def ask() -> None:
        try:
            library.FeatureConnector.cls_from_name(EVIL)
        except ValueError as error:
            refused.append(error)

    with no_foreign_features(tmp_path):
        thread = Thread(target=ask)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert (library.importlib, vars(library.FeatureConnector)["cls_from_name"]) == before


def test_tfds_that_imports_in_another_way_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from tensorflow_datasets.core.features import feature as library

    monkeypatch.delattr(library, "importlib")
    with pytest.raises(InputError, match=r"Install tensorflow-datasets 4\.9"), no_foreign_features(tmp_path):
        pass


@pytest.mark.parametrize("name", ["huggingface:mnist", "kubric:movi_a/128x128", "a:b:1.0.0"])
def test_builders_of_others_whose_code_would_be_downloaded_are_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import tensorflow_datasets as tfds

    monkeypatch.setattr(tfds, "builder", lambda *_, **__: pytest.fail("asked tfds"))
    with pytest.raises(InputError, match=r"data\.name: got .*expected one of tfds's own builders"):
        open_source(DataConfig(name, data_dir=tmp_path), lambda text: None)


def test_preparing_imports_nothing_from_the_working_directory(project: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("tensorflow_datasets", "tensorflow", "numpy"):
        (project / f"{name}.py").write_text(f"open({str(project / 'RAN')!r}, 'w')\n")
    commands: list[tuple[list[str], dict[str, Any]]] = []

    def note(command: list[str], **how: Any) -> SimpleNamespace:
        commands.append((command, how))
        return SimpleNamespace(returncode=1, stderr="stopped")

    monkeypatch.setattr(tfds_source.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tfds_source, "_builder", lambda config: SimpleNamespace(data_path=project / "tfds"))
    monkeypatch.setattr(tfds_source.subprocess, "run", note)
    with pytest.raises(InputError, match="stopped"):
        open_source(DataConfig("fashion_mnist", data_dir=project / "tfds"), lambda text: None)
    ((command, how),) = commands
    monkeypatch.undo()
    asked = [*command[:2], "-c", "import engine, numpy"]
    assert subprocess.run(asked, cwd=project, env=how["env"], capture_output=True, check=False).returncode == 0
    assert not (project / "RAN").exists()


SLIPS = (
    "downloaded",
    "downloaded.zip",
    "downloaded.evil",
    "downloaded.1",
    "downloaded.without_config",
    "this",
    "..downloaded",
)


@pytest.mark.parametrize("target", SLIPS)
def test_name_that_is_no_experiment_imports_nothing(target: str, project: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(InputError, match=r"target: got .*; expected a recipe .*, an experiment like"):
        experiment_config(target)
    assert not (project / "RAN").exists()
    assert "this" not in sys.modules
    assert capsys.readouterr().out == ""


EXPERIMENT = "import engine\n\n\ndef config():\n    return engine.RunConfig('mine', engine.mlp())\n"


@pytest.mark.parametrize("target", ["mine.net", "mine/net.py", "./mine/net.py", "absolute"])
def test_experiment_is_found_by_module_and_by_file(target: str, project: Path):
    (project / "mine").mkdir()
    (project / "mine" / "net.py").write_text(EXPERIMENT)
    path = str(project / "mine" / "net.py") if target == "absolute" else target
    assert experiment_config(path).name == "mine"
    sys.modules.pop("net", None)


@pytest.mark.parametrize(
    "source",
    [
        "from mine.net import config",
        "from mine.net import *",
        "import mine.net\nconfig = mine.net.config",
        "if True:\n    from mine.net import config\nelse:\n    config = None",
    ],
)
def test_config_may_be_bound_in_any_way(source: str, project: Path):
    (project / "mine").mkdir()
    (project / "mine" / "net.py").write_text(EXPERIMENT)
    (project / "mine" / "other.py").write_text(source)
    assert experiment_config("mine.other").name == "mine"


@pytest.mark.parametrize("source", ["def config(:", "x = 1\0", "(" * 5000, "é".encode("latin-1").decode("latin-1")])
def test_file_that_is_no_python_is_told_in_one_line(source: str, project: Path):
    (project / "mine.py").write_bytes(source.encode("latin-1"))
    with pytest.raises(InputError, match="target: got") as told:
        experiment_config("mine.py")
    assert "\n" not in str(told.value)


def test_modules_beside_an_experiment_do_not_come_before_ours_afterwards(
    project: Path, monkeypatch: pytest.MonkeyPatch
):
    (project / "mine.py").write_text(EXPERIMENT)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path != str(project)])
    experiment_config("mine")
    assert sys.path[-1] == str(project)
    assert str(project) not in sys.path[:-1]
