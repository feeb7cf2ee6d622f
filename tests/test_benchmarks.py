"""Benchmarks run, and their arithmetic is right; what they measure is never asserted."""

import importlib
import json
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro
from flax import nnx

from benchmarks import (
    accuracy,
    augment,
    checkpoint,
    ensemble,
    fast_steps,
    gpu,
    latency,
    peers,
    roofline,
    scaling,
    scaling_series,
    startup,
    throughput,
    workloads,
)
from benchmarks import input as input_
from benchmarks.measure import interleaved, median_and_spread, ratio
from benchmarks.peers_worker import Job, Unavailable, Worker
from benchmarks.startup_parts import TO_FIRST_STEP
from engine.models import BatchNorm, Conv, Dense, Flatten, MaxPool, Sequential
from engine.networks.network import network_of
from tests.conftest import QUICK_FLAGS
from tests.further import further


@pytest.fixture(autouse=True)
def quick_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the processes that are measured compile quickly: their figures mean nothing here."""
    monkeypatch.setenv("XLA_FLAGS", f"{QUICK_FLAGS} {os.environ.get('XLA_FLAGS', '')}")


@pytest.mark.long
def test_throughput_runs_and_writes_what_it_printed(tmp_path, capsys):
    throughput.main(throughput.Options(smoke=True, json=tmp_path / "figures.json"))
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["recipes"]) == {"mlp", "convnet"}
    assert figures["circumstances"]["device"] in shown
    assert "times" in shown
    assert len(figures["convnet_against_plain"]["engine"]) == 1


def test_accuracy_runs_every_seed_and_counts_every_test_image(tmp_path, capsys):
    accuracy.main(accuracy.Options(recipe="mlp", smoke=True, json=tmp_path / "figures.json"))
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(figures["accuracy"]) == 2
    assert shown.count("of 100 images") == 2
    assert "n = 2" in shown


@pytest.mark.long
def test_checkpoint_measures_saving_opening_and_one_image(tmp_path, capsys):
    checkpoint.main(checkpoint.Options(smoke=True, json=tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert len(figures["training_seconds"]["each epoch"]) == len(figures["opening_seconds"]) == 1
    assert 0 < figures["blocked_shares"][0] < 1
    assert len(figures["latency_seconds"]) == 5
    assert "restore and first prediction" in capsys.readouterr().out


@pytest.mark.long
def test_latency_runs_and_writes_what_it_printed(tmp_path, capsys):
    latency.main(latency.Options(smoke=True, json=tmp_path / "figures.json"))
    seconds = json.loads((tmp_path / "figures.json").read_text())["seconds"]
    assert {name: len(values) for name, values in seconds.items()} == {"predict": 1, "imports": 1}
    assert "beyond the imports" in capsys.readouterr().out


def test_operations_count_each_multiply_add_of_forward_and_both_gradients():
    model = Sequential((Conv(2, 3), Flatten(), Dense(10)))
    first, second = 26 * 26 * 2 * 9, 26 * 26 * 2 * 10
    assert workloads.operations(model) == 2 * (2 * first + 3 * second)
    assert workloads.operations(model, is_training=False) == 2 * (first + second)


def test_families_of_the_peers_have_the_parameters_and_products_of_their_papers():
    nets = workloads.FAMILY_WORKLOADS
    counts = {
        name: nets[f"{name}, batch 8"].model().num_params((224, 224, 3))
        for name in ("mobilenet_v2_224", "resnet50_224")
    }
    assert counts == {"mobilenet_v2_224": 3_504_872, "resnet50_224": 25_583_592}
    forward = workloads.operations(nets["resnet50_224, batch 8"].model(), (224, 224, 3)) / 3
    assert 7.6e9 < forward < 7.8e9
    assert nets["resnet50_224, 32 at once"].num_predicted == 32
    frozen = nets["mobilenet_128_frozen, batch 32"]
    rows = frozen.model().rows((128, 128, 3))
    assert sum(row.num_params for row in rows[frozen.num_frozen :]) == 2_625_026
    assert rows[frozen.num_frozen - 1].output_shape == (4, 4, 1024)


def test_variants_take_turns_and_the_first_round_is_thrown_away():
    calls: list[str] = []

    def variant(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    rates = interleaved({"a": lambda: variant("a"), "b": lambda: variant("b")}, rounds=2)
    assert calls == ["a", "b"] * 3
    assert rates == {"a": [3.0, 5.0], "b": [4.0, 6.0]}


def test_ratio_is_taken_round_by_round():
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == (2.0, 1.0, 3.0)
    assert median_and_spread([1.0, 2.0, 3.0]) == (2.0, pytest.approx(0.5))


def test_ensemble_measures_each_size_against_one(tmp_path, capsys):
    ensemble.main(ensemble.Options(smoke=True, json=tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())["images_per_second"]
    assert set(figures) == {"engine 1", "engine 2"}
    assert "cost of one" in capsys.readouterr().out


@pytest.mark.long
def test_fast_steps_measure_recipes_and_open_a_run_on_a_cpu(tmp_path, capsys):
    fast_steps.main(fast_steps.Options(smoke=True, json=tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["images_per_second"]) == {"cifar_fast", "fashion_fast", "convnet", "convnet, deterministic"}
    assert figures["largest_difference_on_cpu"] < 1e-5
    assert "determinism costs" in capsys.readouterr().out


def test_gpu_writes_after_each_part_goes_on_where_it_was_and_ends_what_takes_too_long(tmp_path, capfd, monkeypatch):
    parts = {
        "quick": gpu.Part("platform", 60, has_figures=False),
        "endless": gpu.Part("http.server", 1.0, ("--bind", "127.0.0.1", "0"), has_figures=False),
        "wrong": gpu.Part("no_such_module", 60, has_figures=False),
    }
    monkeypatch.setattr(gpu, "PARTS", parts)
    monkeypatch.setattr(gpu, "_arguments", lambda part, figures, options: list(part.arguments))
    file = tmp_path / "gpu.json"
    gpu.main(gpu.Options(parts=tuple(parts), json=file))
    found = json.loads(file.read_text())
    assert {name: part["status"] for name, part in found.items()} == {
        "quick": "done", "endless": "out of time", "wrong": "failed",
    }  # fmt: skip
    assert "not done: endless; wrong" in capfd.readouterr().out
    seconds = found["quick"]["seconds"]
    gpu.main(gpu.Options(parts=tuple(parts), json=file, continued=True))
    assert json.loads(file.read_text())["quick"]["seconds"] == seconds
    with pytest.raises(SystemExit, match=r"--parts: got slow; expected some of"):
        gpu.main(gpu.Options(parts=("slow",)))


def test_every_part_for_a_gpu_is_a_script_here_that_takes_its_arguments():
    for name, part in gpu.PARTS.items():
        if part.module.startswith("benchmarks."):
            script = importlib.import_module(part.module)
            tyro.cli(script.Options, args=[*part.arguments, "--smoke"])
        else:
            assert part.module == "pytest", name


def test_every_script_has_a_smoke_mode_that_is_run_here():
    texts = {path.stem: path.read_text() for path in Path(workloads.__file__).parent.glob("*.py")}
    scripts = {name for name, text in texts.items() if 'if __name__ == "__main__"' in text}
    here = Path(__file__).read_text()
    assert scripts
    for name in scripts - {"parity", "parity_torch"}:  # they time nothing; tests/importers compares small models so
        assert f"{'input_' if name == 'input' else name}.Options(" in here, name
        assert "smoke" in texts[name], name


@pytest.mark.long
def test_augment_measures_every_variant_against_none(tmp_path, capsys):
    augment.main(augment.Options(smoke=True, json=tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["images_per_second"]) == set(augment.SMOKE) <= set(augment.VARIANTS)
    assert "flip + crop" in capsys.readouterr().out


@pytest.mark.long
def test_input_decodes_a_folder_and_streams(tmp_path, capsys):
    pytest.importorskip("skimage", reason="needs the photographs of scikit-image")
    input_.main(input_.Options(smoke=True, json=tmp_path / "figures.json"))
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["decoding"]) == {"engine", "second start"}
    assert set(figures["placements"]) == {"resident", "streamed"}
    assert "streamed / resident" in shown
    assert set(figures["checks"]) == {"mlp", "convnet"}
    assert all(0 < share < 1 for shares in figures["checks"].values() for share in shares)
    assert "checks while reading, mlp: " in shown


@pytest.mark.parametrize("inference", further([False, True]))
def test_peers_compares_those_that_are_installed_and_names_the_others(tmp_path, capsys, inference: bool):
    variants = ("torch eager", "flax, a jitted step") if inference else tuple(peers.SMOKE)
    options = peers.Options(variants=variants, inference=inference, smoke=True, json=tmp_path / "figures.json")
    peers.main(options)
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())["workloads"]["convnet, batch 64"]
    assert {"engine", "flax, a jitted step"} <= set(figures["images_per_second"])
    assert set(figures["images_per_second"]) | set(figures["left_out"]) == {"engine", *variants}
    assert f"best peer ({figures['best_peer']})" in shown
    for name, reason in figures["left_out"].items():
        assert f"{name}: left out, {reason}" in shown


def test_worker_says_why_it_is_unavailable():
    job = Job("engine", workloads.WORKLOADS["convnet, batch 64"], 128, precision="tf32")
    with pytest.raises(Unavailable, match=r"."):
        Worker(job, 60)


def test_worker_that_does_not_get_ready_in_time_is_unavailable():
    with pytest.raises(Unavailable, match="no answer within 0 s"):
        Worker(Job("flax", workloads.WORKLOADS["convnet, batch 64"], 128), 0)


def test_job_survives_its_way_to_the_worker():
    job = Job("torch", workloads.WORKLOADS["flowers, batch 32"], 64, 0.5, True, "bfloat16", {"channels_last": True})
    assert Job.from_json(job.to_json()) == job


def test_best_peer_is_the_one_with_the_highest_median():
    rates = {"engine": [9.0, 9.0, 9.0], "a": [1.0, 5.0, 1.0], "b": [2.0, 2.0, 2.0]}
    assert peers.best_peer(rates) == "b"
    assert peers.best_peer({"engine": [1.0]}) is None


NARROW = Sequential(
    (
        Conv(3, 3, padding="same", activation="relu"),
        MaxPool(2, strides=1),
        Conv(4, 3, activation="relu"),
        MaxPool(2),
        Flatten(),
        Dense(5, activation="relu"),
        Dense(3),
    )
)


def narrow_outputs() -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """(images [4 9 10 2], the engine's outputs [4 3], its weights in the order of the layers, kernel before bias)."""
    draw = np.random.default_rng(0)
    network, init = network_of(NARROW, (9, 10, 2), 3, "xla")
    abstract, state = jax.eval_shape(init, np.uint32(0))
    params = jax.tree.map(lambda leaf: draw.normal(size=leaf.shape).astype(np.float32), abstract)
    images = draw.normal(size=(4, 9, 10, 2)).astype(np.float32)
    outputs, _ = network.apply(params, state, images, None, None)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    leaves.sort(key=lambda leaf: str(leaf[0]).replace("kernel", "a"))
    return images, np.asarray(outputs), [weights for _, weights in leaves]


@pytest.mark.parametrize("channels_last", [False, True])
def test_torch_peer_computes_what_the_engine_does(channels_last: bool):
    torch = pytest.importorskip("torch")
    from benchmarks.peers_torch import network

    images, expected, weights = narrow_outputs()
    module = network(NARROW, (9, 10, 2), channels_last)
    for parameter, weight in zip(module.parameters(), weights, strict=True):
        if weight.ndim == 4:
            weight = weight.transpose(3, 2, 0, 1)  # [i j c o] → [o c i j]
        elif weight.shape == (36, 5) and not channels_last:
            weight = weight.reshape(3, 3, 4, 5).transpose(3, 2, 0, 1).reshape(5, 36)  # [h w c d] → [d c h w]
        elif weight.ndim == 2:
            weight = weight.T
        parameter.data = torch.from_numpy(weight.copy())
    outputs = module(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(outputs.detach().numpy(), expected, rtol=1e-4, atol=1e-3)


def test_frozen_layers_of_the_torch_peer_run_as_in_evaluation_and_get_no_gradients():
    torch = pytest.importorskip("torch")
    from benchmarks.peers_torch import Frozen, network

    spec = Sequential((Conv(3, 3, use_bias=False), BatchNorm(), Flatten(), Dense(2)))
    layers = network(spec, (6, 6, 2), channels_last=True)
    module = torch.nn.Sequential(Frozen(layers[:2]), layers[2:]).train()
    module(torch.ones((4, 2, 6, 6))).sum().backward()
    assert [parameter.grad is None for parameter in module.parameters()] == [True, True, True, False, False]
    assert float(layers[1].running_mean.abs().sum()) == 0
    images = torch.arange(4 * 2 * 6 * 6.0).reshape(4, 2, 6, 6)
    module[0].adopt_statistics(images)
    normed = module[0](images)
    np.testing.assert_allclose(normed.mean((0, 2, 3)), np.zeros(3), atol=1e-4)
    np.testing.assert_allclose(normed.var((0, 2, 3)), np.ones(3), rtol=1e-2)


def test_flax_peer_computes_what_the_engine_does():

    from benchmarks.peers_flax import PlainNetwork

    images, expected, weights = narrow_outputs()
    module = PlainNetwork(NARROW, (9, 10, 2), np.float32, nnx.Rngs(0))
    layers = [layer for layer in module.layers if isinstance(layer, nnx.Conv | nnx.Linear)]
    for layer, kernel, bias in zip(layers, weights[::2], weights[1::2], strict=True):
        layer.kernel, layer.bias = nnx.Param(kernel), nnx.Param(bias)
    np.testing.assert_allclose(module(images), expected, rtol=1e-4, atol=1e-3)


def test_roofline_gives_the_limits_of_the_device_and_a_share_a_recipe(tmp_path, capsys):
    roofline.main(roofline.Options(smoke=True, json=tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["product_peak"] > 0
    assert figures["memory_bandwidth"] > 0
    assert set(figures["recipes"]) == {"mlp, batch 64", "convnet, batch 64"}
    assert "share of roofline" in capsys.readouterr().out


def test_traffic_counts_images_outputs_and_weights():
    model = Sequential((Conv(2, 3), Flatten(), Dense(10)))
    outputs, weights = 26 * 26 * 2 + 10, (9 + 1) * 2 + (26 * 26 * 2 + 1) * 10
    assert workloads.traffic(model, (28, 28, 1), 8) == 28 * 28 + 4 * (5 * outputs + 9 * weights / 8)


@pytest.mark.long
@pytest.mark.parametrize("name", scaling.SERIES)
def test_scaling_measures_fresh_processes(name: str, tmp_path, capsys):
    scaling.main(scaling.Options(series=(name,), short=True, json=tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())["series"][name]
    assert figures["values"] == list(scaling.SERIES[name].values[:2])
    assert all(size > 0 for sizes in figures["bytes"] for size in sizes)
    assert "time like work^" in capsys.readouterr().out


def test_points_of_files_and_images_are_what_they_say(tmp_path):
    for name in ("files", "images"):
        series, place = scaling.SERIES[name], tmp_path / name
        place.mkdir()
        series.prepare(1_000, place)
        assert series.measure(1_000, place) > 0
    assert len([*(tmp_path / "files" / "data").rglob("*.png")]) == 1_000
    assert (tmp_path / "images" / "images.raw").stat().st_size == 1_000 * scaling_series.SIDE**2


def test_exponent_is_that_of_the_power():
    work = [1.0, 4.0, 9.0]
    assert scaling.exponent(work, [5 * w**0.7 for w in work]) == pytest.approx(0.7)


@pytest.mark.long
def test_scaling_compares_processes(tmp_path, capsys):
    scaling.main(scaling.Options(processes=2, rounds=1, epochs=1, json=tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())
    found, data = figures["processes"], figures["data"]
    assert [row["rows"] for row in data["2 processes, streamed"]] == [
        196 * 128
    ] * 2  # of batches, the last of them padded
    assert [*found] == ["one process, 2 threads", "one process, mesh data=2", "2 processes"]
    assert all(row["cpu_ms"] > 0 for rows in found.values() for row in rows)
    assert "efficiency" in capsys.readouterr().out


@pytest.mark.parametrize("name", scaling.SERIES)
def test_work_of_a_series_grows_with_its_values(name: str):
    series = scaling.SERIES[name]
    work = [series.work(value) for value in series.values]
    assert work == sorted(set(work))


@pytest.mark.long
def test_startup_times_each_part_of_a_fresh_process(tmp_path, capsys):
    startup.main(startup.Options(smoke=True, json=tmp_path / "figures.json"))
    seconds = json.loads((tmp_path / "figures.json").read_text())["seconds"]
    assert set(seconds) == {"training, cold", "training, warm", "prediction, cold", "prediction, warm"}
    assert {"import jax, flax", "data", "compile", "first step"} <= set(seconds["training, cold"])
    assert {"restore", "first prediction"} <= set(seconds["prediction, warm"])
    assert f"warm, {TO_FIRST_STEP}" in capsys.readouterr().out
