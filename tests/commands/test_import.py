"""`engine import` and `engine families`, as typed."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from engine.__main__ import main
from tests.importers.tiny import draw_arrays, known_as_tiny, write_h5

__all__ = ["known_as_tiny"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(arguments)
    found = capsys.readouterr()
    return found.out + found.err


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        main(arguments)
    return capsys.readouterr().err


def test_an_import_is_predicted_with_by_the_next_command(tmp_path: Path, capsys, known_as_tiny):
    weights, out = str(write_h5(tmp_path / "tiny.h5", draw_arrays())), str(tmp_path / "run")
    shown = run(capsys, "import", "tiny", "--weights", weights, "--out", out)
    assert "1,000 classes" in shown
    assert "MIT" in shown
    assert "the first kernel was reversed" in shown
    picture = tmp_path / "dog.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)).save(picture)
    main(["predict", out, str(picture), "--top", "3"])
    lines = capsys.readouterr().out.splitlines()  # progress, on a slow machine, goes to stderr
    assert len(lines) == 3
    assert all(line.startswith("n") and line.endswith(" %") for line in lines)
    refused = fails(capsys, "import", "tiny", "--weights", weights, "--out", out)
    assert "contains" in refused
    assert "Add --overwrite, or choose another --out." in refused
    shown = run(capsys, "summary", out)
    assert "weights of tiny: tiny.h5, sha256:" in shown
    assert "MIT; He et al. 2015" in shown
    shown = run(capsys, "import", "tiny", "--weights", weights, "--out", out, "--overwrite", "--no-top")
    assert "a trunk of 4 features" in shown
    assert "dropped: 2 arrays of the classifier" in shown
    assert "regression" in fails(capsys, "predict", out, str(picture))


def test_names_of_classes_and_other_mistakes(tmp_path: Path, capsys, known_as_tiny):
    weights, out = str(write_h5(tmp_path / "tiny.h5", draw_arrays(3))), str(tmp_path / "run")
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    typed = ("import", "tiny", "--weights", weights, "--out", out)
    assert "a classifier of 3 classes" in fails(capsys, *typed)
    assert "expected 2, as many as --class-names lists" in fails(capsys, *typed, "--class-names", str(names))
    assert "Leave one out" in fails(capsys, *typed, "--class-names", str(names), "--no-top")
    assert "Leave it out" in fails(capsys, *typed, "--scale", "1")
    assert "image_size" in fails(capsys, *typed, "--image-size", "big")
    assert "Did you mean" in fails(capsys, "import", "resnet5")
    assert "no such file" in fails(capsys, "import", "tiny", "--weights", str(tmp_path / "none.h5")).lower()
    assert "hf:OWNER/NAME" in fails(capsys, "import", "tiny", "--weights", "hf:some")
    names.write_text("cat\ndog\nfox\n")
    assert "3 classes" in run(capsys, *typed, "--class-names", str(names))


def test_families_fit_a_terminal(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = run(capsys, "families").splitlines()
    table = [line for line in lines if line.startswith("│")]
    assert max(map(len, table)) <= 100
    assert any("mobilenet_SIZE" in line and "128 160 192 224" in line for line in table)
    shown = run(capsys, "families", "resnet50")
    for part in ("25,636,712", "25,583,592", "23,587,712", "md5:2cb95161c43110f7111970584f804107", "MIT", "BGR"):
        assert part in shown
    assert "resnet50" in fails(capsys, "families", "resnet5")


@pytest.mark.filterwarnings("ignore")  # of Keras, about itself
def test_a_whole_keras_model_needs_no_name(tmp_path: Path, capsys):
    os.environ.setdefault("KERAS_BACKEND", "jax")
    keras = pytest.importorskip("keras", reason="makes a model by Keras")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, activation="relu", name="first"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax", name="last"),
        ]
    )
    model.save(tmp_path / "mine.keras")
    typed = ("import", str(tmp_path / "mine.keras"), "--out", str(tmp_path / "run"))
    shown = run(capsys, *typed, "--scale", "0.00392156862745098")
    assert "None" not in shown
    assert "ImageNet" not in shown
    assert "3 classes" in shown
    import engine

    classifier = engine.restore(tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    with jax.numpy_rank_promotion("allow"):
        expected = np.asarray(model(images / 255))
    np.testing.assert_allclose(classifier.predict_proba(images), expected, atol=1e-5)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    assert "2 names" in fails(capsys, *typed, "--overwrite", "--class-names", str(names))
    assert "Leave them out" in fails(capsys, *typed, "--no-top")
