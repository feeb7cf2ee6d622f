"""Benchmarks run, and their arithmetic is right; what they measure is never asserted."""

import json

import pytest

from benchmarks import accuracy, augment, latency, throughput
from benchmarks import input as input_
from benchmarks.measure import interleaved, median_and_spread, ratio
from engine.models import Conv, Dense, Flatten, Sequential


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


def test_latency_runs_and_writes_what_it_printed(tmp_path, capsys):
    latency.main(latency.Options(smoke=True, json=tmp_path / "figures.json"))
    seconds = json.loads((tmp_path / "figures.json").read_text())["seconds"]
    assert {name: len(values) for name, values in seconds.items()} == {"predict": 1, "imports": 1}
    assert "beyond the imports" in capsys.readouterr().out


def test_operations_count_each_multiply_add_of_forward_and_both_gradients():
    model = Sequential((Conv(2, 3), Flatten(), Dense(10)))
    first, second = 26 * 26 * 2 * 9, 26 * 26 * 2 * 10
    assert throughput.operations(model) == 2 * (2 * first + 3 * second)


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


def test_augment_measures_every_variant_against_none(tmp_path, capsys):
    augment.main(augment.Options(smoke=True, json=tmp_path / "figures.json"))
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["images_per_second"]) == set(augment.SMOKE) <= set(augment.VARIANTS)
    assert "flip + crop" in capsys.readouterr().out


def test_input_decodes_a_folder_and_streams(tmp_path, capsys):
    pytest.importorskip("skimage", reason="needs the photographs of scikit-image")
    input_.main(input_.Options(smoke=True, json=tmp_path / "figures.json"))
    shown = capsys.readouterr().out
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["decoding"]) == {"engine", "second start"}
    assert set(figures["placements"]) == {"resident", "streamed"}
    assert "streamed / resident" in shown
