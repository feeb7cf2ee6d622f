"""`engine augment`: what an augmentation makes of one image, before anything is trained with it."""

import shlex
from dataclasses import fields, replace
from pathlib import Path

from engine.augment.config import AugmentConfig
from engine.commands.experiments import experiment_config
from engine.commands.options import options_of
from engine.commands.outputs import check_picture_file
from engine.commands.process import set_up_process
from engine.commands.targets import Flag, NameOrPath, PictureData, check_seed, find_own_classes
from engine.config import RunConfig
from engine.data.locate import located
from engine.data.pictures.images import is_picture_name
from engine.errors import InputError, problem
from engine.host.console import show, tell
from engine.host.storage import expanded
from engine.records.custom import check_trust

DATA = PictureData()
NONE = AugmentConfig()
SHOWN_BY_DEFAULT = AugmentConfig(horizontal_flip=True, rotation=36.0, zoom=0.1)


def augment(
    source: NameOrPath,
    out: Path = Path("augment.png"),
    index: int = 0,
    seed: int = 0,
    experiment: str | None = None,
    run: Path | None = None,
    data: PictureData = DATA,
    augment: AugmentConfig = NONE,
    trust: Flag = False,
) -> None:
    """See what augmentation makes of an image, in eight random draws; if nothing is said: flips, turns and zooms.

    Args:
        source: An image file, or data that one training image is taken of: a tfds name, or a path as data takes it.
        out: PNG to draw to; a grid that was drawn before is replaced.
        index: Which of the training images, counted from 0.
        seed: Decides the draws, as --train.seed does in training.
        experiment: Recipe or experiment to take augmentation and image size from, like flowers_augmented or mine.py.
        run: Directory of a run, or the run packed, to take them from. --augment options come on top of either.
        data: Where the image comes from and how it is decoded.
        augment: Random changes, each drawn again for every example in every epoch.
        trust: Import the author's own functions that the run names, which runs their code.
    """
    check_seed(seed)
    check_picture_file(out)
    model = _model_config(experiment, run)
    if run is not None and model is not None:
        check_trust(model.augment, str(run), trust, "Add --trust")
        find_own_classes(trust)
    chosen = _chosen(augment, model, str(experiment or run))
    config = located(source, _sized(data, model), "NAME|PATH")
    is_file = config.path is not None and expanded(config.path).is_file() and is_picture_name(config.path.name)
    if is_file:
        chosen = _without_mixing(chosen)
    set_up_process(config.cache_dir)
    _draw(config, chosen, out, index, seed, is_file)
    if model is None:
        _show_options(augment, chosen)


def _draw(config: PictureData, chosen: AugmentConfig, out: Path, index: int, seed: int, is_file: bool) -> None:
    """Writes the grid and says what is in it."""
    from engine.report.augmentation import DRAWS, augmentation_text, draws_of
    from engine.report.examples import example_of_data, example_of_file
    from engine.report.grid import draw_grid

    if is_file:
        assert config.path is not None
        example = example_of_file(expanded(config.path), config)
    else:
        example = example_of_data(config, index, DRAWS if chosen.pairs_examples else 0, tell)
    if chosen.pairs_examples and not example.others:
        raise InputError(problem("augment", "mixup or cutmix of 1 example", "at least 2", "Use other data."))
    images, shares = draws_of(example.image, example.number, example.others, seed, chosen)
    marks = [str(draw) if share == 1 else f"{share:.0%} original" for draw, share in enumerate(shares, 1)]
    draw_grid([example.image, *images], ["original", *marks], out, example.title)
    show(f"{example.title}: {augmentation_text(chosen)}", f"the image and {DRAWS} draws: {out}")


def _model_config(experiment: str | None, run: Path | None) -> RunConfig | None:
    if experiment is not None and run is not None:
        raise InputError(problem("run", "both it and --experiment", "one of them", "Leave one out."))
    if run is not None:
        from engine.checkpoints.packing import record_of

        return record_of(run).config
    return None if experiment is None else experiment_config(experiment)


def _chosen(given: AugmentConfig, model: RunConfig | None, name: str) -> AugmentConfig:
    """The augmentation to draw: options on top of the model's, or of the default if they change nothing."""
    base = model.augment if model else NONE if given.is_active else SHOWN_BY_DEFAULT
    options = {field.name: getattr(given, field.name) for field in fields(given)}
    chosen = replace(base, **{name: value for name, value in options.items() if value != getattr(NONE, name)})
    if not chosen.is_active:
        rule = "an experiment or run that augments its images"
        raise InputError(problem("augment", f"none in {name}", rule, "Add options like --augment.rotation 10."))
    return chosen


def _without_mixing(chosen: AugmentConfig) -> AugmentConfig:
    """What can be done to a single file, which has no other example beside it."""
    if not chosen.pairs_examples:
        return chosen
    alone = chosen.without_mixing()
    if not alone.is_active:
        remedy = "Name the data that the file is of."
        raise InputError(problem("augment", "mixup or cutmix alone", "other changes, of a single file", remedy))
    tell("mixup and cutmix are left out, because a single file has no other example to be mixed with")
    return alone


def _sized(data: PictureData, model: RunConfig | None) -> PictureData:
    """The data options, with the size and colours that the model sees where they say nothing else."""
    if model is None:
        return data
    given = model.data
    if data.image_size is None:
        data = replace(data, image_size=given.image_size, resize=given.resize)
    return replace(data, color=data.color or given.color)


def _show_options(given: AugmentConfig, chosen: AugmentConfig) -> None:
    options = shlex.join(options_of(replace(chosen, custom=()), NONE, "augment"))
    if not options:
        return
    if given.is_active:
        show(f"to train with it: {options}")
    else:
        show(f"no augmentation was named, so this is an example: {options}")


COMMANDS = {"augment": augment}
