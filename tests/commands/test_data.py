"""`engine data`: what it finds in data of every kind, what it draws, what it refuses."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from engine.__main__ import main
from engine.commands import data as data_module
from engine.commands.data import _next_commands
from engine.commands.options import options_of
from engine.commands.targets import ShownData
from engine.config.data import DataConfig
from engine.data.decoded.dataset import Splits
from engine.data.kinds import open_source
from engine.data.load import load_splits
from engine.data.locate import located
from engine.report.data import classes_table, extremes_text, sample_indices
from engine.report.grid import draw_grid, grid_figure, is_our_picture
from engine.report.survey import Survey, with_one_size
from tests.commands.test_command_line import ran_without_jax
from tests.conftest import make_dataset

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")


def command(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Runs `engine …` in this process; what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "110")
        for hook in ("excepthook", "unraisablehook"):  # which a command replaces in its own process
            patch.setattr(sys, hook, getattr(sys, hook))
        main([str(argument) for argument in arguments])
    return capsys.readouterr().out


def mistake(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a command says of a mistake, after what it told meanwhile."""
    capsys.readouterr()
    with pytest.raises(SystemExit, match="2"):
        command(capsys, *arguments)
    said = capsys.readouterr()
    assert said.out == ""
    *told, line = said.err.splitlines()
    assert all(text.startswith("decoding ") for text in told), said.err
    assert re.fullmatch(r"error: .+: got .+; expected .+\. .+", line), said.err
    return line


def photographs(root: Path, per_class: int = 3, sizes: tuple[tuple[int, int], ...] = ((60, 80),)) -> Path:
    """A folder of four classes: photographs of several sizes in turn, PNG and JPEG in turn, no two alike."""
    for name in PHOTOGRAPHS:
        (root / name).mkdir(parents=True)
        whole = Image.fromarray(getattr(skimage.data, name)())
        for k in range(per_class):
            height, width = sizes[k % len(sizes)]
            corner = 10 * (k + 1)
            part = whole.crop((corner, corner, corner + 200, corner + 200)).resize((width, height))
            part.save(root / name / f"{k}.{'jpg' if k % 2 else 'png'}")
    return root


def panels(path: Path) -> tuple[int, int]:
    """(rows, columns) of pictures on white paper."""
    is_ink = np.asarray(Image.open(path).convert("L")) < 250
    return _stretches(is_ink.mean(1) > 0.3), _stretches(is_ink.mean(0) > 0.3)


def _stretches(flags: np.ndarray) -> int:
    return int((np.diff(flags.astype(int), prepend=0) == 1).sum())


def line_of(text: str, start: str) -> str:
    """The one line that starts with this, in a frame or without one."""
    found = [line for line in text.splitlines() if line.removeprefix("│ ").startswith(f"{start} ")]
    assert len(found) == 1, text
    return found[0]


# What it finds


def test_packaged_data_is_shown_with_splits_classes_statistics_and_a_next_command(capsys, in_tmp):
    shown = command(capsys, "data", "fashion_mnist_12k")
    splits = load_splits(DataConfig(), 0)
    for name, split in (("train", splits.train), ("validation", splits.validation), ("test", splits.test)):
        assert f"{len(split):,}" in line_of(shown, name)
    counts = [int((split.labels == 1).sum()) for split in (splits.train, splits.validation, splits.test)]
    assert re.findall(r"\d+", line_of(shown, "Trouser")) == [str(count) for count in counts]
    levels = np.asarray(splits.train.images) / 255
    assert f"{levels.mean():.4f}" in line_of(shown, "mean")
    assert f"{levels.std():.4f}" in line_of(shown, "deviation")
    assert "28×28×1" in line_of(shown, "images")
    assert "none between splits" in line_of(shown, "duplicates")
    assert "fewest Bag (886), most Trouser (910)" in shown
    assert "nine of the training images: data.png" in shown
    assert shown.splitlines()[-2].endswith("engine augment fashion_mnist_12k")
    assert shown.splitlines()[-1].endswith("engine train convnet --data.name fashion_mnist_12k")
    assert panels(in_tmp / "data.png") == (3, 3)
    assert is_our_picture(in_tmp / "data.png")


def test_packaged_data_is_shown_without_jax(tmp_path):
    start = (
        f"from engine.__main__ import main; main(['data', 'fashion_mnist_12k', '--out', {str(tmp_path / 'a.png')!r}])"
    )
    code, printed = ran_without_jax(f"{start}; sys.exit(0)")
    assert code == 0
    assert "9,000" in printed


def test_pictures_of_several_sizes_are_surveyed_and_brought_to_one(capsys, tmp_path, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(data_module, "tell", told.append)
    root = photographs(tmp_path / "pets", 3, ((60, 80), (90, 70), (200, 150)))
    shown = command(capsys, "data", root, "--out", tmp_path / "a.png")
    assert "128×128×3, cut to this size because sizes differ" in line_of(shown, "images")
    assert "8 PNG, 4 JPEG" in line_of(shown, "files")
    assert "3 different: smallest 60×80, median 90×70, largest 200×150" in line_of(shown, "sizes")
    assert told[0].startswith("sizes differ: cutting all images to 128x128")
    assert panels(tmp_path / "a.png") == (3, 3)


@pytest.mark.parametrize(("sizes", "reason"), [(["-1", "-1", "3"], "sizes differ"), (["28", "28", "1"], "")])
def test_prepared_data_that_declares_several_sizes_is_brought_to_one(sizes: list[str], reason: str, tmp_path):
    (tmp_path / "dataset_info.json").write_text('{"name": "flowers"}')
    features = {"image": {"image": {"shape": {"dimensions": sizes}}}, "label": {"classLabel": {}}}
    (tmp_path / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    config = DataConfig(path=tmp_path)
    sized, why = with_one_size(config, open_source(config), Survey())
    assert why == reason
    assert sized.image_size == ("128x128" if reason else None)


def test_pictures_that_would_fill_the_disk_are_brought_to_a_smaller_size(tmp_path):
    config = DataConfig(path=photographs(tmp_path / "pets", 2))
    found = Survey(sizes=((3000, 4000),) * 200)
    sized, why = with_one_size(config, open_source(config), found)
    assert (sized.image_size, sized.resize) == ("128x128", "crop")
    assert why == "all of them take 7 GiB as they are"
    given = replace(config, image_size="3000x4000")
    assert with_one_size(given, open_source(given), found) == (given, "")


def test_pictures_of_one_size_keep_it_and_sizes_that_are_set_are_taken(capsys, tmp_path):
    root = photographs(tmp_path / "pets", 2)
    out = ("--out", tmp_path / "a.png")
    shown = command(capsys, "data", root, *out)
    assert "60×80, all of them" in line_of(shown, "sizes")
    assert line_of(shown, "images").split() == ["images", "60×80×3"]
    shown = command(capsys, "data", root, *out, "--data.image-size", "32x32", "--data.color", "grayscale")
    assert line_of(shown, "images").split() == ["images", "32×32×1"]


def test_validation_share_follows_the_options_and_the_seed(capsys, tmp_path):
    root = photographs(tmp_path / "pets", 4)
    options = ("--data.validation-fraction", "0.25", "--data.stratified", "--out", tmp_path / "a.png")
    shown = command(capsys, "data", root, *options)
    for name in PHOTOGRAPHS:
        assert re.findall(r"\d+", line_of(shown, name)) == ["3", "1"]
    assert "3 of each in train" in shown


def test_duplicates_across_and_within_splits_are_counted(capsys, tmp_path):
    root = tmp_path / "pets"
    photographs(root / "train", 3)
    (root / "test").mkdir()
    for name in PHOTOGRAPHS:
        (root / "test" / name).mkdir()
        (root / "test" / name / "same.png").write_bytes((root / "train" / name / "0.png").read_bytes())
    (root / "train" / "coffee" / "again.png").write_bytes((root / "train" / "coffee" / "0.png").read_bytes())
    shown = command(capsys, "data", root, "--data.validation-fraction", "0", "--out", tmp_path / "a.png")
    assert "4 of test in train, 1 within train" in line_of(shown, "duplicates")


def test_skipped_files_are_listed(capsys, tmp_path):
    root = photographs(tmp_path / "pets", 2)
    for k in range(7):
        (root / "coffee" / f"bad{k}.png").write_bytes(b"no picture")
    shown = command(capsys, "data", root, "--data.on-bad-file", "skip", "--out", tmp_path / "a.png")
    assert "7 unreadable" in line_of(shown, "files")
    assert "7" in line_of(shown, "skipped files")
    assert "bad4.png" in shown
    assert "… and 2 more" in shown


def test_table_of_files_and_table_of_pixels_and_arrays_are_shown(capsys, tmp_path):
    root = photographs(tmp_path / "pets", 2, ((60, 80), (50, 50)))
    lines = [f"{name}/{k}.{'jpg' if k else 'png'},{name}" for name in PHOTOGRAPHS for k in (0, 1)]
    table = root / "list.csv"
    table.write_text("\n".join(["path,label", *lines]) + "\n")
    out = ("--out", tmp_path / "a.png")
    assert "2 different: smallest 50×50" in command(capsys, "data", table, *out)
    pixels = tmp_path / "digits.csv"
    numbers = make_dataset(40, num_classes=2)
    rows = (
        ",".join(map(str, [label, *image.ravel()])) for image, label in zip(numbers.images, numbers.labels, strict=True)
    )
    pixels.write_text("\n".join([",".join(["label", *(f"pixel{i}" for i in range(64))]), *rows]) + "\n")
    shown = command(capsys, "data", pixels, *out)
    assert line_of(shown, "images").split() == ["images", "8×8×1"]
    assert "files " not in shown.replace("skipped files", "")
    np.savez(tmp_path / "d.npz", x_train=numbers.images, y_train=numbers.labels)
    assert "36" in line_of(command(capsys, "data", tmp_path / "d.npz", *out), "train")


def test_many_classes_are_cut_short_with_the_extremes():
    dataset = make_dataset(600, num_classes=4, size=8)
    names = tuple(f"class {k}" for k in range(30))
    labels = np.arange(600, dtype=np.int32) % 30
    labels[:11] = 29
    splits = Splits(type(dataset)(dataset.images, labels, names, "many", "x"))
    table = classes_table(splits)
    assert table.row_count == 21
    assert list(table.columns[0].cells)[-2:] == ["class 19", "… and 10 more"]
    assert extremes_text(splits.train) == "in train: fewest class 0 (19), most class 29 (31)"


def test_samples_are_one_of_each_class_first_and_then_the_next_of_each():
    dataset = make_dataset(9, num_classes=3)
    labels = np.array([2, 2, 2, 0, 0, 0, 0, 0, 1], np.int32)
    mixed = type(dataset)(dataset.images, labels, dataset.class_names, "mixed", "x")
    assert sample_indices(mixed) == [3, 8, 0, 4, 1, 5, 2, 6, 7]
    assert sample_indices(mixed, 4) == [3, 8, 0, 4]


# Names, paths and the commands that are suggested


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist_12k", "mnist:3.0.1", "imagenet_v2/matched:3.1.0"])
def test_name_is_taken_for_a_name(name: str, in_tmp):
    config = located(name, DataConfig())
    assert (config.name, config.path) == (name, None)


@pytest.mark.parametrize("path", ["there", "./nowhere", "no/where", "data.csv", "~/pictures", "x.npz"])
def test_path_is_taken_for_a_path(path: str, in_tmp):
    (in_tmp / "there").mkdir()
    assert located(path, DataConfig()).path == Path(path)


def test_prepared_name_with_a_configuration_is_taken_for_a_name(in_tmp):
    (in_tmp / "tfds" / "cifar10_corrupted" / "fog_1" / "1.0.0").mkdir(parents=True)
    config = located("cifar10_corrupted/fog_1", DataConfig(data_dir=in_tmp / "tfds"))
    assert config.path is None


def test_options_are_spelled_as_they_are_typed():
    config = DataConfig(image_size="3x4", stratified=True, background=(1, 2, 3), validation_fraction=0.25)
    assert options_of(config, DataConfig(), "data") == [
        "--data.validation-fraction", "0.25", "--data.stratified", "--data.image-size", "3x4",
        "--data.background", "1", "2", "3",
    ]  # fmt: skip


@pytest.mark.parametrize(("channels", "experiment"), [(1, "convnet"), (3, "flowers")])
def test_next_command_suits_the_images_and_keeps_the_options(channels: int, experiment: str):
    dataset = make_dataset(8)
    images = np.repeat(dataset.images, channels, -1)
    splits = Splits(type(dataset)(images, dataset.labels, dataset.class_names, "d", "x"))
    config = located("some folder/", ShownData(color="rgb"))
    commands = _next_commands("some folder/", config, splits)
    assert commands[0].endswith("engine augment 'some folder/'")
    assert commands[1].endswith(f"engine train {experiment} --data.path 'some folder/' --data.color rgb")


# The picture


def test_grid_has_a_cell_for_each_image_with_readable_titles():
    images = [np.zeros((5, 5, 1), np.uint8)] * 4
    titles = ["$x", "a long name of a class " * 5, "averylongword" * 9, ""]
    figure = grid_figure(images, titles, "data")
    shown = [axes for axes in figure.axes if axes.images]
    assert len(shown) == 4
    assert len(figure.axes) == 6
    assert shown[0].get_title() == "$x"
    for axes in shown:
        assert max(map(len, axes.get_title().split("\n"))) <= 24
        assert axes.get_title().count("\n") <= 1
    assert shown[1].get_title().endswith("…")


@pytest.mark.parametrize("shapes", [[(40, 80, 3)], [(80, 40, 3)], [(40, 80, 3), (80, 40, 1), (9, 9, 3)]])
def test_cells_do_not_overlap_and_pictures_keep_their_proportions(shapes: list[tuple[int, ...]]):
    images = [np.zeros(shapes[i % len(shapes)], np.uint8) for i in range(9)]
    figure = grid_figure(images, ["one line\nanother line"] * 9, "data")
    figure.canvas.draw()
    boxes = [axes.get_tightbbox() for axes in figure.axes]
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
    for axes, image in zip(figure.axes, images, strict=True):
        height, width = image.shape[:2]
        (left, top), (right, bottom) = axes.transData.transform([(0, 0), (width, height)])
        np.testing.assert_allclose((top - bottom) / (right - left), height / width, rtol=1e-6)


def test_grid_shows_levels_as_they_are_and_names_in_other_scripts(tmp_path):
    draw_grid([np.full((4, 4, 1), 90, np.uint8)] * 9, ["日本語"] * 9, tmp_path / "a.png", "\x07 data")
    levels = np.asarray(Image.open(tmp_path / "a.png").convert("L"))
    assert (levels == 90).mean() > 0.5
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


# Mistakes


def test_grid_is_replaced_but_no_other_file(capsys, tmp_path):
    out = tmp_path / "a.png"
    for _ in range(2):
        command(capsys, "data", "fashion_mnist_12k", "--out", out)
    Image.new("RGB", (9, 9)).save(out)
    for others in (out.read_bytes(), b"no picture"):
        out.write_bytes(others)
        said = mistake(capsys, "data", "fashion_mnist_12k", "--out", out)
        assert f"out: got {out}, another file; expected a new file" in said
        assert out.read_bytes() == others


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("fashion_mnist_12k", "--out", "no/a.png"), r"out: got no/a.png; .*mkdir -p no"),
        (("fashion_mnist_12k", "--out", "a.jpg"), r"out: got a.jpg; expected a name that ends in .png. Name it a.png"),
        (("fashion_mnist_12k", "--out", "."), r"out: got \., a directory; .*like out.png"),
        (("fashion_mnist_12k", "--seed", "-1"), r"seed: got -1; expected a whole number"),
        (("fashion_mnist_12k", "--data.test-split", "tst"), r"data.test_split: got 'tst'; .*'test'"),
        (("no/where",), r"data.path: got no/where; expected a folder or file that exists"),
        (("",), r"NAME\|PATH: got ''; expected a tfds name"),
        (("fashion_mnist_13k",), r"data.name: got 'fashion_mnist_13k'; .*Did you mean fashion_mnist_12k"),
    ],
)
def test_mistake_is_told_in_one_line(arguments, expected, capsys, in_tmp):
    Image.new("RGB", (9, 9)).save("photo.png")
    assert re.search(expected, mistake(capsys, "data", *arguments))
    assert [path.name for path in in_tmp.iterdir()] == ["photo.png"]


def test_bad_option_is_told_with_its_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        command(capsys, "data", "fashion_mnist_12k", "--data.image-size", "3x")
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert "data.image_size: got '3x'; expected HEIGHTxWIDTH in pixels" in said
    assert "tyro" not in said


def test_help_names_the_options_of_data_but_not_what_changes_nothing(capsys):
    with pytest.raises(SystemExit, match="0"):
        command(capsys, "data", "--help")
    shown = capsys.readouterr().out
    assert "Look at a dataset" in shown
    for option in (
        "NAME|PATH",
        "--out",
        "--data.image-size",
        "--data.stratified",
        "--data.on-bad-file",
        "--data.data-dir",
    ):
        assert option in shown
    for option in ("--data.name", "--data.path", "--data.scale", "--data.standardize"):
        assert f"{option} " not in shown
