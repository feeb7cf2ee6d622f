"""`engine predict`: what a run's model sees in pictures, as a table and as a CSV file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from engine.commands.outputs import check_csv_file
from engine.commands.targets import Flag, RunDirectory, find_own_classes, show, step_of
from engine.data.config import ResizeRule
from engine.entry import set_up_process
from engine.errors import InputError, problem

if TYPE_CHECKING:
    from engine.predict import Classifier, Prediction


def predict(
    run: RunDirectory,
    images: Annotated[tuple[Path, ...], Positional, arg(metavar="IMAGES …")],
    top: int = 1,
    resize: ResizeRule | None = None,
    tta: int = 0,
    csv: Path | None = None,
    overwrite: Flag = False,
    step: str = "best",
    member: int | None = None,
    trust: Flag = False,
) -> None:
    """Name what is in image files or folders of them, or in each row of a CSV table of pixels.

    Args:
        run: Directory of the run.
        images: Files, or folders of files; or one CSV table of pixels, a picture a row.
        top: How many classes to name for each.
        resize: How images of another size are made to fit; None for the model's own rule, which may refuse them.
        tta: Average over so many random draws, too, of the augmentation that the model was trained with.
        csv: File to write image, label, probability (label_2, …) to; of a table ImageId, Label, as Kaggle takes them.
        overwrite: Replace that file if there is one.
        step: Checkpoint to use: best, last or a step number.
        member: Of an ensemble the member with this number alone; None for all, combined.
        trust: Import the model class that the run names, which runs its code.
    """
    _check(images, csv, overwrite)
    set_up_process()
    find_own_classes(trust)
    from engine.ensemble import restore

    classifier = restore(run, step_of(step), trust, member)
    if _is_table(images[0]):
        names, predictions = _of_table(classifier, images[0], top, tta)
    else:
        names, predictions = _of_files(classifier, images, top, resize, tta)
    _report(names, predictions, csv, _is_table(images[0]))


def _check(images: Sequence[Path], csv: Path | None, overwrite: bool) -> None:
    if not images:
        raise InputError(problem("images", "none", "at least one file or folder", "Name them after the run."))
    tables = [path for path in images if _is_table(path)]
    if tables and len(images) > 1:
        got = f"{tables[0]} beside {len(images) - 1:,} more"
        raise InputError(problem("images", got, "a table of pixels alone", "Predict it by a command of its own."))
    if csv is None:
        return
    if any(path.exists() and csv.exists() and path.samefile(csv) for path in images):
        raise InputError(problem("csv", f"{csv}, which is read", "another file", "Choose another name."))
    check_csv_file(csv, overwrite)


def _is_table(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _of_table(classifier: "Classifier", path: Path, top: int, tta: int) -> tuple[list[str], list["Prediction"]]:
    """(row numbers from 1, predictions) of a table of pixels."""
    from engine.data.table import read_unlabelled_table

    pixels = read_unlabelled_table(path, classifier.input_spec.shape)
    return [str(number) for number in range(1, len(pixels) + 1)], classifier.predict(pixels, top, tta=tta)


def _of_files(
    classifier: "Classifier", images: Sequence[Path], top: int, resize: ResizeRule | None, tta: int
) -> tuple[list[str], list["Prediction"]]:
    from engine.data.images import picture_files

    files = picture_files(images)
    return [str(file) for file in files], classifier.predict(files, top, resize, tta)


def _report(names: list[str], predictions: list["Prediction"], csv: Path | None, are_rows: bool) -> None:
    """Shows all predictions, or the first where they are many and are written or come from a table."""
    from engine.report.predictions import predictions_csv, predictions_table, submission_csv
    from engine.run_directory import write_atomically

    show(predictions_table(names, predictions, "row" if are_rows else "image", is_short=are_rows or csv is not None))
    if csv is not None:
        write_atomically(csv, submission_csv(predictions) if are_rows else predictions_csv(names, predictions))
        show(f"{len(predictions):,} predictions: {csv}")
