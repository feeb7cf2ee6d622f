"""`engine.pretrained(name)`: published weights as a classifier, and as an ordinary run."""

import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from engine.augment.config import AugmentConfig
from engine.checkpoints.record import Provenance, Record
from engine.checkpoints.run_directory import claimed, clear_run, open_run, write_config
from engine.checkpoints.saving import Checkpoints
from engine.checkpoints.steps import step_directories
from engine.config import RunConfig, TrainConfig
from engine.config.data import DataConfig
from engine.config.plan import Plan
from engine.data.contract import under_contract
from engine.errors import InputError, Say, problem
from engine.host.console import tell
from engine.host.storage import expanded
from engine.host.versions import device_text, versions
from engine.importers.catalogue import NUM_CLASSES, UNCLEAR, Published, Variant
from engine.importers.download import download, from_hub, hash_of
from engine.importers.identity import check_identity
from engine.importers.importing import (
    Channels,
    Normalization,
    Wanted,
    Weights,
    checked_class_names,
    imagenet_classes,
    make_spec,
    take_weights,
)
from engine.importers.read import read_weights
from engine.importers.variants import find_variant
from engine.inference.single import SingleClassifier
from engine.kernels.lowerings import evaluation_lowering
from engine.networks.network import network_of

HUB = "hf:"


def pretrained(
    name: str,
    path: str | PathLike[str] | None = None,
    *,
    top: bool = True,
    image_size: int | tuple[int, int] | None = None,
    channels: Channels = 3,
    class_names: Sequence[str] | None = None,
    normalization: Normalization | None = None,
    say: Say = tell,
) -> SingleClassifier:
    """The classifier of weights from elsewhere, by a name that `engine families` lists.

    path: a file of weights, `hf:OWNER/NAME`, or None for the published file, downloaded into the cache.
    top: with the published classifier; else a trunk, whose outputs are the means of its last feature maps, to fine-tune
      with a `head` or to take features from.
    image_size: of the pictures, if another than that of the weights; channels: 1 for grey pictures.
    class_names: of a classifier for other classes than ImageNet's. normalization: see docs/transfer.md.
    Raises InputError if the file cannot be had or read, or is of another model.
    """
    variant = find_variant(name)
    names = None if class_names is None else checked_class_names(tuple(class_names), "class_names")
    wanted = Wanted(top, _height_width(image_size), channels, names, normalization)
    return make_classifier(variant, wanted, None if path is None else str(path), say)


def make_classifier(variant: Variant, wanted: Wanted, weights: str | None, say: Say) -> SingleClassifier:
    """The classifier of a variant; `weights` as `path` of `pretrained`."""
    make_spec(variant, wanted)  # before anything is downloaded
    published = variant.published(wanted.top)
    file, url = find_file(variant, wanted, weights, say)
    given = read_weights(file)
    digests = {kind: hash_of(file, kind) for kind in {"sha256", published.algorithm if published else "sha256"}}
    own = digests[published.algorithm] if published else ""
    check_identity(variant, given, own)
    names = (wanted.class_names or imagenet_classes()) if wanted.top else ()
    taken = take_weights(variant, given, wanted, own, len(names) or NUM_CLASSES)
    about = Provenance(
        variant.name, file.name, digests["sha256"], given.format, url, variant.terms.licence, variant.terms.citation,
        own_version(), taken.notes,
    )  # fmt: skip
    for note in taken.notes:
        say(note)
    return classifier_of_weights(taken, names, about)


def find_file(variant: Variant, wanted: Wanted, weights: str | None, say: Say) -> tuple[Path, str | None]:
    """(a file of weights, where it was published): one at hand, of the hub, or the published one in the cache."""
    if weights is not None and weights.startswith(HUB):
        repository = weights.removeprefix(HUB)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
            raise InputError(problem("weights", repository[:80], "hf:OWNER/NAME", "Give it like hf:timm/vit."))
        return from_hub(repository), f"https://huggingface.co/{repository}"
    published = variant.published(wanted.top)
    if weights is not None:
        return expanded(weights), published.url if published else None
    assert isinstance(published, Published)
    say(f"{variant.name}: {variant.terms.licence}. {variant.terms.citation}")
    say(UNCLEAR)
    return download(published, say), published.url


def classifier_of_weights(
    taken: Weights,
    class_names: Sequence[str],
    about: Provenance,
    loss: str = "softmax_cross_entropy",
    augment: AugmentConfig | None = None,
) -> SingleClassifier:
    """A classifier with a record like that of a run, which trained for no epoch; without classes it gives numbers."""
    data = under_contract(DataConfig(name="imagenet2012"), taken.inputs)
    train = TrainConfig(epochs=0, loss=loss if class_names else "mean_squared_error")
    config = RunConfig(
        re.sub(r"[^\w.-]|^\W", "_", about.model), taken.spec, data, train, augment=augment or AugmentConfig()
    )
    lowering = evaluation_lowering(config.plan)
    record = Record(
        config, taken.inputs, tuple(class_names), taken.num_outputs, "", 0, 1, None, Plan(lowering),
        versions=versions(), device=device_text(), provenance=about,
    )  # fmt: skip
    network, _ = network_of(config.model, taken.inputs.network_shape, taken.num_outputs, lowering)
    return SingleClassifier(record, network, taken.params, taken.model_state)


def save_run(classifier: SingleClassifier, path: Path, overwrite: bool = False) -> None:
    """Writes an ordinary run into a new directory: its config and one checkpoint."""
    directory = expanded(path)
    with claimed(directory):
        _check_free(directory, classifier.record.config, overwrite)
        if overwrite:
            clear_run(directory)
        write_config(directory, classifier.record.config)
        try:
            with Checkpoints(directory, classifier.record.config.checkpoint) as checkpoints:
                checkpoints.save(classifier.record, model=(classifier.params, classifier.model_state))
                checkpoints.wait()
        except InputError as error:  # the advice of a run, to resume it, does not help here
            clear_run(directory)
            remedy = "Free some space there, or choose another --out, and import again."
            rule = error.rule or "a place that can be written"
            raise InputError(problem("out", error.got, rule, remedy)) from error


def _check_free(directory: Path, config: RunConfig, overwrite: bool) -> None:
    """Raises InputError, in the words of an import, if a new run cannot be made there."""
    try:
        open_run(directory, config, False, overwrite)
    except InputError as error:
        replaces = "Add --overwrite, or choose" if step_directories(directory) and not overwrite else "Choose"
        rule = error.rule or "a new directory"
        raise InputError(problem("out", error.got, rule, f"{replaces} another --out.")) from None


def _height_width(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    height_width = (size, size) if isinstance(size, int) else size
    if height_width is not None and not all(isinstance(n, int) and 1 <= n <= 4096 for n in height_width):
        raise InputError(problem("image_size", size, "1 to 4096 pixels a side", "Give one like 180."))
    return height_width


def own_version() -> str:
    """The version of this package."""
    from engine import __version__

    return __version__
