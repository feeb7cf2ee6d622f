"""`engine import`: weights of Keras, timm and torchvision as an ordinary run."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from engine.commands.process import engine_command, set_up_process
from engine.commands.targets import Flag
from engine.config.data import DataConfig
from engine.errors import InputError, problem
from engine.host.console import show, tell
from engine.models.specs import Sequential
from engine.text import counted

if TYPE_CHECKING:
    from engine.inference.single import SingleClassifier


def import_(
    name: Annotated[str, Positional, arg(metavar="NAME|FILE")],
    weights: str | None = None,
    out: Path | None = None,
    top: bool = True,
    image_size: str | None = None,
    color: Literal["rgb", "grayscale"] = "rgb",
    class_names: Path | None = None,
    normalization: Literal["imagenet", "file"] | None = None,
    scale: float | None = None,
    overwrite: Flag = False,
) -> None:
    """Make a run of weights that another library trained, for predict, eval, features, finetune, export and pack.

    Args:
        name: Model that the weights are of, like resnet50 (engine families lists them); or a whole model of Keras.
        weights: File of weights (.h5, .weights.h5, .keras, .pth, .safetensors), or hf:OWNER/NAME of huggingface.co;
            None for the published ones, which are downloaded into the cache.
        out: Directory to make; None for runs/NAME.
        top: With the classifier that was published; --no-top for a trunk to fine-tune with another head.
        image_size: Height and width of its inputs, like 180x180; None for those that the weights were trained on.
        color: Of its inputs; for grayscale the first kernel is summed over its channels.
        class_names: Text file with the names of the classes, one a line; None for ImageNet's.
        normalization: Of EfficientNet B0 to B7, if the file was not published: imagenet if the model was made by Keras
            with weights='imagenet', else file.
        scale: Of a whole model that does not normalise its inputs: what pixels (0 to 255) are multiplied by.
        overwrite: Replace a run in that directory.
    """
    from engine.importers.importing import read_class_names
    from engine.importers.load import save_run

    height_width = None if image_size is None else DataConfig(image_size=image_size).height_width
    names = None if class_names is None else read_class_names(class_names)
    if names and not top:
        rule = "none with --no-top, which has no classes"
        raise InputError(problem("class-names", class_names, rule, "Leave one out."))
    set_up_process()
    if Path(name).suffix in (".keras", ".h5", ".hdf5") or Path(name).is_file():
        if weights is not None or not top or color != "rgb" or normalization is not None:
            rule = "alone, or with --class-names, --image-size and --scale"
            raise InputError(problem("model", f"the file {name} with other options", rule, "Leave them out."))
        from engine.importers.whole_models import convert_model

        classifier = convert_model(Path(name), names, height_width, scale, tell)
    else:
        from engine.importers.importing import Wanted
        from engine.importers.load import make_classifier
        from engine.importers.variants import find_variant

        if scale is not None:
            rule = "none: that of published weights is known"
            raise InputError(problem("scale", scale, rule, "Leave it out."))
        wanted = Wanted(top, height_width, 3 if color == "rgb" else 1, names, normalization)
        classifier = make_classifier(find_variant(name), wanted, weights, tell)
    out = out or Path("runs") / Path(name).stem
    save_run(classifier, out, overwrite)
    show(*_imported_lines(classifier, out))


def _imported_lines(classifier: "SingleClassifier", out: Path) -> list[str]:
    from engine.importers.catalogue import UNCLEAR

    record = classifier.record
    about, model = record.provenance, record.config.model.with_outputs(record.num_outputs)
    assert about is not None
    assert isinstance(model, Sequential)
    shape = record.input_spec.network_shape
    trained, statistics = model.num_params(shape), model.num_statistics(shape)
    what = (
        counted(len(record.class_names), "class")
        if record.class_names
        else f"a trunk of {record.num_outputs:,} features"
    )
    lines = [
        f"{out}: {about.model} of {about.file} ({about.hash[:15]}…), {what}",
        f"  {trained + statistics:,} parameters: {trained:,} trained, {statistics:,} statistics",
    ]
    if about.licence is not None:  # a whole model of the user's own says nothing of its weights
        lines += [f"  weights: {about.licence}; cite {about.citation}", f"  {UNCLEAR}"]
    words = ["predict", str(out), "dog.jpg", "--top", "3"] if record.class_names else ["summary", str(out)]
    return [*lines, f"next:\n  {shlex.join([engine_command(), *words])}"]


COMMANDS = {"import": import_}
