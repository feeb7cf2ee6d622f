"""`engine augment`: the draws of an image are those of training, and it says what they are and where they lie."""

import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import engine
from engine.augment.apply import augment_batch, example_keys
from engine.augment.config import AugmentConfig
from engine.commands import augment as augment_module
from engine.commands.augment import SHOWN_BY_DEFAULT
from engine.config.data import DataConfig
from engine.data.kinds import open_source
from engine.data.pictures.opening import open_picture
from engine.report import grid as grid_module
from engine.report.augmentation import augmentation_text, draws_of
from engine.report.examples import MOST_PIXELS, example_of_data, example_of_file
from tests.commands.test_command_line import python
from tests.commands.test_data import command, mistake, panels, photographs
from tests.conftest import TINY

FLIPPED = AugmentConfig(horizontal_flip=True)


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch):
    """Keeps the settings of a command's own process out of the tests'."""
    monkeypatch.setattr(augment_module, "set_up_process", lambda cache_dir: None)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[np.ndarray], list[str], str]]:
    """What was drawn instead of drawing it: (images, titles, title)."""
    kept: list[tuple[list[np.ndarray], list[str], str]] = []

    def keep(images, titles, path, title):
        kept.append((list(images), list(titles), title))

    monkeypatch.setattr(grid_module, "draw_grid", keep)
    return kept


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return photographs(tmp_path / "pets", 2, ((60, 80), (90, 70)))


# What it draws


def test_process_draws_nine_panels_and_says_what_was_done(tmp_path):
    out = tmp_path / "a.png"
    done = python("-m", "engine", "augment", "fashion_mnist_12k", "--out", str(out))
    assert done.returncode == 0, done.stderr
    first, second, third = done.stdout.splitlines()
    assert first == "fashion_mnist_12k, example 0, 28×28: horizontal flip, rotation -36 to 36°, zoom 0.9 to 1.1"
    assert second == f"the image and 8 draws: {out}"
    options = "--augment.horizontal-flip --augment.rotation 36 --augment.zoom 0.1"
    assert third == f"no augmentation was named, so this is an example: {options}"
    assert panels(out) == (3, 3)


def test_draws_are_what_training_sees_in_its_first_epochs():
    source = open_source(DataConfig())
    images = source.load("train[:4]", "data.split").images[:]
    config = AugmentConfig(horizontal_flip=True, rotation=20.0, brightness=0.3)
    draws, shares = draws_of(images[2], 2, (), 5, config)
    assert shares == [1.0] * 8
    for epoch, draw in enumerate(draws):
        changed, _ = augment_batch(example_keys(5, epoch, jnp.arange(4)), jnp.asarray(images), config)
        assert draw.dtype == np.uint8
        assert np.abs(draw - np.asarray(changed[2])).max() <= 1


def test_first_panel_is_the_image_and_the_same_seed_draws_the_same(capsys, drawn, pets):
    for seed in (0, 0, 1):
        command(capsys, "augment", pets, "--augment.rotation", "30", "--seed", seed)
    first, again, other = (images for images, _, _ in drawn)
    own = np.asarray(open_picture(pets / "astronaut" / "0.png"))
    np.testing.assert_array_equal(first[0], own)
    assert drawn[0][1] == ["original", *map(str, range(1, 9))]
    np.testing.assert_array_equal(first, again)
    assert any((a != b).any() for a, b in zip(first[1:], other[1:], strict=True))


def test_index_counts_training_examples_in_their_order(capsys, drawn, pets):
    command(capsys, "augment", pets, "--index", "5")
    assert drawn[0][2] == "pets, example 5, 90×70"
    sized = DataConfig(path=pets, image_size="32x32")
    command(capsys, "augment", pets, "--index", "5", "--data.image-size", "32x32")
    expected = open_source(sized).load("train", "data.split").images[5]
    np.testing.assert_array_equal(drawn[1][0][0], expected)


def test_large_picture_is_shown_smaller_and_says_so(capsys, drawn, tmp_path):
    Image.new("RGB", (1200, 600), "red").save(tmp_path / "large.jpg")
    shown = command(capsys, "augment", tmp_path / "large.jpg", "--augment.vertical-flip")
    assert shown.startswith("large.jpg, 128×256 (of 600×1200): vertical flip\n")
    assert drawn[0][0][0].shape == (MOST_PIXELS // 2, MOST_PIXELS, 3)
    command(capsys, "augment", tmp_path / "large.jpg", "--augment.vertical-flip", "--data.image-size", "300x300")
    assert drawn[1][0][0].shape == (300, 300, 3)


def test_arrays_and_names_are_decoded_and_grey_stays_grey(capsys, drawn, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 300, 20, 1), dtype=np.uint8)
    np.savez(tmp_path / "d.npz", x_train=images, y_train=np.arange(6) % 2)
    command(capsys, "augment", tmp_path / "d.npz", "--index", "3")
    assert drawn[0][0][0].shape == (256, 17, 1)
    command(capsys, "augment", "fashion_mnist_12k", "--data.split", "test", "--index", "7")
    expected = open_source(DataConfig()).load("test", "data.split").images[7]
    np.testing.assert_array_equal(drawn[1][0][0], expected)


@pytest.mark.parametrize("option", ["mixup", "cutmix"])
def test_mixing_pairs_the_image_with_other_examples(option: str, capsys, drawn, pets):
    command(capsys, "augment", pets, f"--augment.{option}", "1", "--index", "7")
    images, titles, _ = drawn[0]
    for image, title in zip(images[1:], titles[1:], strict=True):
        share = int(re.fullmatch(r"(\d+)% original", title)[1]) / 100
        if option == "cutmix":
            assert abs((image == images[0]).all(-1).mean() - share) < 0.05
    assert len(set(titles)) > 4


@pytest.mark.parametrize("count", [2, 3, 8, 9, 100])
def test_others_are_never_the_example_itself(count: int, tmp_path):
    images = np.zeros((count, 4, 4, 1), np.uint8)
    np.savez(tmp_path / "d.npz", x_train=images, y_train=np.arange(count) % 2)
    for index in {0, 1, count - 1}:
        example = example_of_data(DataConfig(path=tmp_path / "d.npz"), index, 8, print)
        numbers = [number for _, number in example.others]
        assert len(numbers) == 8
        assert index not in numbers
        assert all(0 <= number < count for number in numbers)
        assert len(set(numbers)) == min(count - 1, 8)


def test_mixing_is_left_out_of_a_single_file(capsys, drawn, pets):
    main_file = pets / "coffee" / "0.png"
    shown = command(capsys, "augment", main_file, "--augment.mixup", "0.4", "--augment.vertical-flip")
    assert shown.startswith("0.png, 60×80: vertical flip\n")
    np.testing.assert_array_equal(example_of_file(main_file, DataConfig()).image, drawn[0][0][0])
    said = mistake(capsys, "augment", main_file, "--augment.mixup", "0.4")
    assert "augment: got mixup or cutmix alone; expected other changes, of a single file" in said


# Where the augmentation comes from


def test_experiment_gives_augmentation_and_size_and_options_come_on_top(capsys, drawn, pets):
    asked = ("augment", pets, "--experiment", "experiments.flowers_augmented")
    shown = command(capsys, *asked)
    assert shown.startswith("pets, example 0, 180×180: horizontal flip, rotation -36 to 36°, zoom 0.9 to 1.1\n")
    assert "to train with it" not in shown
    shown = command(capsys, *asked, "--augment.rotation", "5", "--data.image-size", "64x64", "--augment.fill", "edge")
    assert shown.startswith("pets, example 0, 64×64: horizontal flip, rotation -5 to 5°, zoom 0.9 to 1.1, fill edge\n")


def test_run_gives_its_augmentation(capsys, drawn, tmp_path):
    data = DataConfig(split="train[:64]", test_split=None, image_size="12x12", validation_fraction=0)
    config = engine.RunConfig("r", TINY, data, engine.TrainConfig(epochs=0), augment=FLIPPED)
    engine.run(config, tmp_path / "r", reporter=engine.report.progress.Silent())
    shown = command(capsys, "augment", "fashion_mnist_12k", "--run", tmp_path / "r")
    assert shown.startswith("fashion_mnist_12k, example 0, 12×12: horizontal flip\n")


def test_manner_alone_is_shown_with_the_default(capsys, drawn, pets):
    shown = command(capsys, "augment", pets, "--augment.fill", "constant")
    assert f"{augmentation_text(SHOWN_BY_DEFAULT)}, fill constant" in shown


def test_words_name_only_what_is_changed():
    config = AugmentConfig(
        rotation=(10.0, 20.0), zoom=0.2, crop_padding=4, crop_area=(0.08, 1.0), posterize=0.5, posterize_bits=2,
        policy="rand_augment", erasing=0.25, blur=(0.0, 1.5), noise=8.0, mixup=0.2,
    )  # fmt: skip
    assert augmentation_text(config) == (
        "rotation 10 to 20°, zoom 0.8 to 1.2, crop padding 4 pixels, crop area 0.08 to 1, posterize 50% of the time, "
        "posterize bits 2, blur 0 to 1.5 pixels, noise 8 levels, policy rand_augment, erasing 25% of the time, "
        "mixup 0.2"
    )


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("pets", "--index", "8"), r"index: got 8; expected 0 to 7 for the 8 training examples of pets"),
        (("pets", "--index", "-1"), r"index: got -1; expected 0 to 7"),
        (("fashion_mnist_12k", "--index", "10000"), r"index: got 10000; expected 0 to 9,999"),
        (("pets", "--data.split", "test"), r"data.split: got 'test'; expected one of train"),
        (("pets", "--out", "no/a.png"), r"out: got no/a.png; .*mkdir -p no"),
        (("pets/coffee/0.png", "--out", "pets/coffee/0.png"), r"out: got pets/coffee/0.png, another file"),
        (("pets", "--seed", "4294967296"), r"seed: got 4294967296; expected a whole number of at least 0 and below"),
        (("pets", "--experiment", "a", "--run", "b"), r"run: got both it and --experiment; expected one of them"),
        (("pets", "--run", "nowhere"), r"nowhere: got no such directory; expected the directory of a run"),
        (("pets", "--experiment", "nowhere"), r"target: got 'nowhere'.*an experiment like mine.py"),
        (("pets", "--experiment", "experiments.convnet"), r"augment: got none in experiments.convnet; expected"),
        (("notes.txt",), r"data.path: got notes.txt; expected a folder of images"),
        (("broken.png",), r"broken.png: got a file that is not an image; expected"),
        (("one.npz", "--augment.mixup", "1"), r"augment: got mixup or cutmix of 1 example; expected at least 2"),
    ],
)
def test_mistake_is_told_in_one_line(arguments, expected, capsys, in_tmp, pets, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    Path("notes.txt").write_text("x")
    Path("broken.png").write_text("x")
    np.savez("one.npz", x_train=np.zeros((1, 4, 4), np.uint8), y_train=np.zeros(1, int))
    assert re.search(expected, mistake(capsys, "augment", *arguments))
    assert not Path("augment.png").exists()


def test_bad_range_is_told_with_its_name(capsys):
    with pytest.raises(SystemExit, match="2"):
        command(capsys, "augment", "fashion_mnist_12k", "--augment.zoom", "1.2", "0.8")
    said = re.sub(r"[\s│]+", " ", capsys.readouterr().err)
    assert "augment.zoom: got (1.2, 0.8); expected a range from low to high" in said
