"""`engine data`: what is in a dataset, before anything is trained on it."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.commands.options import options_of
from engine.commands.outputs import check_picture_file
from engine.commands.process import engine_command
from engine.commands.targets import NameOrPath, ShownData, check_seed
from engine.config.data import DataConfig
from engine.data.decoded.dataset import Dataset, Splits
from engine.data.locate import located
from engine.data.pictures.images import is_picture_name
from engine.host.console import show, tell
from engine.host.storage import expanded

SMALL_PIXELS = 64 * 64
DATA = ShownData()


def data(
    source: NameOrPath,
    out: Path = Path("data.png"),
    seed: int = 0,
    data: ShownData = DATA,
) -> None:
    """Look at a dataset: its splits, classes, sizes and levels, what occurs twice, and nine of its images.

    Args:
        source: A tfds name, or a path: a folder of images, a CSV table, arrays (.npz, .npy, IDX), prepared tfds data,
            or a single picture.
        out: PNG to draw the nine images to; a grid that was drawn before is replaced.
        seed: Draws the validation share, as --train.seed does in an experiment.
        data: Where the images come from and how they are divided and decoded.
    """
    check_seed(seed)
    check_picture_file(out)
    config = located(source, data, "NAME|PATH")
    if config.path is not None and expanded(config.path).is_file() and is_picture_name(config.path.name):
        _show_picture(expanded(config.path), config, out)
        return
    from engine.data.coverage import class_notes
    from engine.data.kinds import open_source
    from engine.data.load import load_splits
    from engine.report.data import classes_table, extremes_text, facts_table, splits_table, targets_table
    from engine.report.survey import survey, with_one_size

    # Messages of opening are printed once: here for tfds, which may be prepared now, below for data at a path.
    opened = open_source(config, tell if config.path is None else lambda text: None)
    found = survey(file for files in opened.image_files().values() for file in files)
    sized, reason = with_one_size(config, opened, found)
    if reason:
        tell(f"{reason}: cutting all images to {sized.image_size} to look at them; --data.image-size sets another")
    splits = load_splits(sized, seed, tell)
    for line in class_notes(splits):
        tell(line)
    is_of_classes = bool(splits.train.class_names)
    contents = [classes_table(splits), extremes_text(splits.train)] if is_of_classes else [targets_table(splits)]
    show(
        splits_table(splits, opened.name),
        "",
        facts_table(splits, found, f"cut to this size because {reason}" if reason else ""),
        "",
        *contents,
        "",
    )
    _draw_samples(splits, out, opened.name)
    show(f"nine of the training images: {out}", "next:", *_next_commands(source, config, splits))


def _show_picture(path: Path, config: DataConfig, out: Path) -> None:
    """The facts of a single picture, and what can be done with it."""
    from engine.report.data import picture_table
    from engine.report.examples import example_of_file
    from engine.report.grid import draw_grid
    from engine.report.survey import survey

    example = example_of_file(path, config)
    draw_grid([example.image], [path.name], out, example.title)
    augmented = shlex.join([engine_command(), "augment", str(path)])
    predicted = shlex.join([engine_command(), "predict", "RUN", str(path)])
    show(
        picture_table(survey([str(path)]), example.image),
        f"the picture: {out}",
        "a dataset is a folder of pictures with one sub-folder a class, or a table; of a single picture:",
        f"  {augmented}",
        f"  {predicted}",
    )


def _draw_samples(splits: Splits, out: Path, title: str) -> None:
    from engine.report.data import sample_indices
    from engine.report.grid import draw_grid

    train = splits.train
    indices = sample_indices(train)
    names = [_name_of(train, index) for index in indices]
    draw_grid([train.images[index] for index in indices], names, out, title)


def _name_of(dataset: Dataset, index: int) -> str:
    """The class of an example, its labels or its targets."""
    if dataset.task == "classes":
        return dataset.class_names[dataset.class_numbers[index]]
    label = dataset.labels[index]
    if dataset.task == "labels":
        return ", ".join(dataset.class_names[k] for k in np.flatnonzero(label)) or "none"
    return " ".join(f"{value:g}" for value in label)


def _next_commands(source: str, config: DataConfig, splits: Splits) -> list[str]:
    """A look at augmentation; and training, by a recipe that suits the images."""
    given = options_of(replace(config, path=None, name=DataConfig.name), DATA, "data")
    commands = [[engine_command(), "augment", source]]
    height, width, channels = splits.train.input_shape
    is_small = channels == 1 and height * width <= SMALL_PIXELS
    which = "--data.name" if config.path is None else "--data.path"
    commands.append([engine_command(), "train", "convnet" if is_small else "flowers", which, source, *given])
    return [f"  {shlex.join(command)}" for command in commands]


COMMANDS = {"data": data}
