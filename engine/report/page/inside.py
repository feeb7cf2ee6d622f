"""Sections on what goes in and what is inside: data, augmentation, layers, kernels, feature maps."""

import numpy as np
from markupsafe import Markup

from engine.data.decoded.dataset import Splits
from engine.errors import InputError
from engine.inference.single import SingleClassifier
from engine.models.specs import Sequential
from engine.models.summary import summary_table
from engine.report.augmentation import DRAWS, augmentation_text, draws_of
from engine.report.data import classes_table, extremes_text, facts_table, sample_indices, splits_table, targets_table
from engine.report.page.images import as_address, has_few_pixels, tile
from engine.report.page.material import Material
from engine.report.page.parts import Chart, LeftOut, Part, Pictures, Shown, Text, facts_of, rows_of
from engine.report.survey import Survey

MOST_CLASSES = 2_000
MOST_SAMPLES = 12
MOST_MAPS = 16  # of a layer
MOST_LAYERS = 40
MOST_KERNELS = 64
MOST_NODES = 120  # of a graph that can be read
LARGE_BYTES = 2 * 2**30  # of images, of which the mean takes too long


def survey_data(material: Material) -> list[Part]:
    """How many examples of what there are, and some of them."""
    splits = material.need_splits()
    train = splits.train
    parts: list[Part] = [rows_of(splits_table(splits, "Splits"))]
    if train.images.dtype == "uint8" and train.images.nbytes <= LARGE_BYTES:
        parts.append(facts_of(facts_table(splits, Survey(), "")))
    if train.class_names:
        parts += [Text(f"Examples by class: {extremes_text(train)}."), rows_of(classes_table(splits, MOST_CLASSES))]
    else:
        parts.append(rows_of(targets_table(splits)))
    if len(train.input_shape) == 3:
        indices = sample_indices(train, MOST_SAMPLES)
        shown = [_show_sample(splits, index) for index in indices]
        parts.append(Pictures("Training examples", shown))
    return parts


def show_augmentation(material: Material) -> list[Part]:
    """One training example as training sees it, epoch after epoch."""
    config, train = material.record.config.augment, material.need_splits().train
    if not config.is_active:
        raise LeftOut("It was trained without augmentation.")
    if train.images.dtype != "uint8" or train.input_shape[-1] not in (1, 3):
        raise LeftOut("The examples are no pictures of one or three channels.")
    image = np.asarray(train.images[0])
    numbers = range(1, 1 + min(DRAWS, len(train) - 1) if config.pairs_examples else 1)
    others = [(np.asarray(train.images[number]), number) for number in numbers]
    draws, _ = draws_of(image, 0, others, material.record.config.train.seed, config)
    named = [(image, "as it is"), *((drawn, f"epoch {epoch}") for epoch, drawn in enumerate(draws, 1))]
    shown = [Shown(as_address(each), name, (name,), False, has_few_pixels(each)) for each, name in named]
    return [Text(augmentation_text(config)), Pictures("The first training example, augmented", shown)]


def show_model(material: Material) -> list[Part]:
    """The layers, as a table and as a graph."""
    record = material.record
    model, shape = record.config.model, record.input_spec.network_shape
    if not isinstance(model, Sequential):
        raise LeftOut("The model is a class of its author's own, whose layers have no order.")
    model = model.with_outputs(record.num_outputs)
    parts: list[Part] = [rows_of(summary_table(model, shape), "Layers")]
    if len(model.named) > MOST_NODES:
        return [*parts, Text(f"The graph of {len(model.named):,} layers is left out: engine summary --graph draws it.")]
    label = f"The model as a graph: {', '.join(model.layer_names)}"
    return [*parts, Chart(label, Markup(model.graph(shape).svg), is_tall=True)]


def show_maps(material: Material) -> list[Part]:
    """What each layer makes of one picture, before and after its activation."""
    answers = material.need_answers("classes", "labels", "numbers")
    if not answers.are_pictures:
        raise LeftOut("The examples are no pictures.")
    network, which = material.find_one_network()
    image = np.asarray(answers.data.images[0])
    try:
        found = network.feature_maps(image)
    except InputError as error:
        raise LeftOut(str(error)) from None
    if not found:
        raise LeftOut("No layer gives images.")
    shown = [
        Shown(
            as_address(image),
            "the picture",
            (f"the picture, example 0 of {answers.split}",),
            False,
            has_few_pixels(image),
        )
    ]
    for name, maps in list(found.items())[:MOST_LAYERS]:
        shown.append(_show_maps(name, maps))
    note = f"What each layer{which} makes of one picture; each map from black for its least value to white."
    if len(found) > MOST_LAYERS:
        note += f" The first {MOST_LAYERS} of {len(found)}."
    return [Text(note), Pictures("Layer by layer", shown, is_wide=True)]


def show_kernels(material: Material) -> list[Part]:
    """The kernels of the first convolution, which look at the picture itself."""
    network, which = material.find_one_network()
    kernels = find_first_kernels(network)
    if kernels is None:
        raise LeftOut("No convolution looks at an image of one or three channels.")
    h, w, channels, count = kernels.shape
    shown = [kernels[..., k] for k in range(min(count, MOST_KERNELS))]
    sheet = tile(shown)
    few = f", the first {MOST_KERNELS}" if count > MOST_KERNELS else ""
    text = f"{count:,} kernels of {h}×{w}×{channels}{few}"
    picture = Shown(as_address(sheet, 1024), f"kernels of the first layer{which}", (text,), False, True)
    return [
        Text(f"Each{which} from black for its least to white for its largest weight."),
        Pictures("", [picture], True),
    ]


def find_first_kernels(network: SingleClassifier) -> np.ndarray | None:
    """float32[h w c n] of the first convolution of a picture of one or three channels; None where there is none."""
    from flax import nnx

    channels = network.input_spec.network_shape[-1]
    for _, leaf in nnx.to_flat_state(network.params):
        if leaf.ndim == 4 and leaf.shape[2] == channels in (1, 3) and max(leaf.shape[:2]) > 1:
            return np.asarray(leaf[...], np.float32)
    return None


def _show_maps(name: str, maps: np.ndarray) -> Shown:
    count = maps.shape[2]
    chosen = [maps[..., k : k + 1] for k in range(min(count, MOST_MAPS))]
    size = f"{maps.shape[0]}×{maps.shape[1]}×{count}"
    lines = (name, size + (f", the first {MOST_MAPS}" if count > MOST_MAPS else ""))
    return Shown(as_address(tile(chosen, columns=4), 320), f"{name}, {size}", lines, False, maps.shape[0] <= 64)


def _show_sample(splits: Splits, index: int) -> Shown:
    train = splits.train
    image = np.asarray(train.images[index])
    if train.task == "classes":
        text = train.class_names[train.class_numbers[index]]
    elif train.task == "labels":
        text = ", ".join(train.class_names[k] for k in np.flatnonzero(train.labels[index])) or "none"
    else:
        text = " ".join(f"{value:g}" for value in train.labels[index][:4])
    return Shown(as_address(image), text, (text,), False, has_few_pixels(image))
