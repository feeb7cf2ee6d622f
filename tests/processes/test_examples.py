"""The files in examples/, and the table of docs/scale.md: their syntax, their options, and that they are up to date."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from benchmarks.workloads import workload_of
from docs.draw_scaling import BEGIN, END, MODELS, PAGE, Host, Network, make_table, share_of_ideal
from engine.commands.experiment import Options, read_options
from engine.commands.experiments import find_config
from engine.models import mobilenet, resnet

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").iterdir())
SCRIPTS = [path for path in EXAMPLES if path.suffix == ".sh"]


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_script_is_one(path: Path):
    done = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.stat().st_mode & 0o111


def read_command(path: Path) -> list[str]:
    """What follows `engine train` in an example."""
    if path.suffix == ".yaml":
        yaml = pytest.importorskip("yaml", reason="needs PyYAML")
        (job,) = yaml.safe_load(path.read_text())["spec"]["replicatedJobs"]
        words = job["template"]["spec"]["template"]["spec"]["containers"][0]["command"]
        assert all(isinstance(word, str) for word in words)
    else:
        text = re.sub(r"\\\n", " ", path.read_text())
        (line,) = re.findall(r"^(?!#).*?(engine train .*)$", text, re.MULTILINE)
        words = shlex.split(line.rstrip('"'))
    assert words[:2] == ["engine", "train"]
    return words[2:]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_options_of_an_example_are_ours(path: Path):
    recipe, *given = read_command(path)
    options = read_options(find_config(recipe), given, "engine train", Options)
    assert options.resume
    assert options.config.plan.mesh
    assert (options.distributed is None) == (path.name == "one_machine.sh")


def test_jobset_counts_its_pods_alike():
    yaml = pytest.importorskip("yaml", reason="needs PyYAML")
    (job,) = yaml.safe_load((ROOT / "examples" / "jobset.yaml").read_text())["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    number = next(each["value"] for each in container["env"] if each["name"] == "ENGINE_NUM_PROCESSES")
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert spec["parallelism"] == spec["completions"] == int(number)
    assert f"data={int(number) * gpus}" in container["command"]


def test_page_has_the_table_that_the_script_makes():
    assert PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip() == make_table().strip()


def test_estimate_is_that_of_a_calculation_by_hand():
    """100 MB at 10 GB/s (100 Gb/s, 80 %): 2 × 7 / 8 × 10 ms and 14 messages of 0.1 ms beside a step of 20 ms."""
    host, network = Host("any", 1000.0, "", 25_000_000, 20), Network(100, 1e-4)
    exchange = 2 * 7 / 8 * 0.01 + 14e-4
    least, most = share_of_ideal(host, network, 8)
    assert least == pytest.approx(0.02 / (0.02 + exchange))
    assert most == 1
    assert share_of_ideal(host, network, 8, 10)[0] == pytest.approx(0.2 / (0.2 + exchange))


def test_models_of_the_estimate_have_their_parameters():
    sizes = {host.name.split(",")[0]: host.num_params for host in MODELS}
    assert sizes["convnet"] == workload_of("convnet").model().num_params((28, 28, 1))
    assert sizes["MobileNet"] == mobilenet(num_classes=1000).num_params((128, 128, 3))
    assert sizes["ResNet50"] == resnet(num_classes=1000).num_params((224, 224, 3))
