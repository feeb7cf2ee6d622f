"""`engine predict`: what a run's model sees in pictures, as a table and as a CSV file."""

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from engine.commands.outputs import check_csv_file
from engine.commands.process import set_up_process
from engine.commands.targets import Flag, RunDirectory, Thresholds, find_own_classes, restore_with
from engine.config.data import ResizeRule
from engine.errors import InputError, problem
from engine.host.console import Console, show, tell

if TYPE_CHECKING:
    from engine.inference.classifier import Classifier, Prediction

PARTLY_DONE = 1  # the exit code where some pictures were predicted and some could not be read


def predict(
    run: RunDirectory,
    images: Annotated[tuple[Path, ...], Positional, arg(metavar="IMAGES …")],
    top: int = 1,
    resize: ResizeRule | None = None,
    tta: int = 0,
    value_range: tuple[float, float] | None = None,
    max_pixels: int | None = None,
    out: Annotated[Path | None, arg(aliases=["--csv"])] = None,
    overwrite: Flag = False,
    step: str = "best",
    member: int | None = None,
    thresholds: Thresholds = (),
    trust: Flag = False,
) -> None:
    """Name what is in image files or folders of them, or in each row of a CSV table of pixels or of paths.

    Folders of any size are gone through in little memory. Unreadable files are reported and the rest predicted;
    the exit code is then 1.

    Args:
        run: Directory of the run.
        images: Files, or folders of files; or one CSV table of pixels or paths, a picture a row.
        top: How many classes to name for each.
        resize: How images of another size are made to fit; None for the model's own rule, which may refuse them.
        tta: Average over so many random draws, too, of the augmentation that the model was trained with.
        value_range: Black and white of images with more than 8 bits, or of a table's numbers, like 0 4095; None: as in
            training, or as they say.
        max_pixels: Most pixels of an image, decoded, so that none fills the memory; None: 89,478,485 or as trained.
        out: CSV file to write image, label, probability (label_2, …) and error to, a line for each image; of a table
            ImageId, Label, as Kaggle takes them.
        overwrite: Replace that file if there is one.
        step: Checkpoint to use: best, last or a step number.
        member: Of an ensemble the member with this number alone; None for all, combined.
        thresholds: Of several labels a picture, pairs of a label and the probability above which it is predicted.
        trust: Import the author's own code that the run names, which runs it.
    """
    _check(images, out, overwrite, max_pixels)
    set_up_process()
    warnings.filterwarnings("ignore", module="PIL")  # what it finds odd in a TIFF names no file; bad files are reported
    find_own_classes(trust)
    from PIL import Image

    from engine.data.sources.table import is_table_name, listed_pictures
    from engine.data.sources.walk import picture_files

    classifier = restore_with(run, step, trust, member, thresholds)
    if max_pixels is not None:
        Image.MAX_IMAGE_PIXELS = max_pixels
    listed = listed_pictures(images[0], tell) if is_table_name(images[0].name) else None
    if listed is not None:
        _of_files(classifier, listed, top, resize, tta, value_range, out)
    elif is_table_name(images[0].name):
        _of_table(classifier, images[0], top, tta, value_range, out)
    else:
        _of_files(classifier, picture_files(images, tell), top, resize, tta, value_range, out)


def _check(images: Sequence[Path], out: Path | None, overwrite: bool, max_pixels: int | None) -> None:
    if max_pixels is not None and max_pixels < 1:
        raise InputError(problem("max-pixels", max_pixels, "a positive number", "Give the pixels of the largest."))
    if not images:
        raise InputError(problem("images", "none", "at least one file or folder", "Name them after the run."))
    tables = [path for path in images if path.name.lower().endswith((".csv", ".tsv"))]
    if tables and len(images) > 1:
        got = f"{tables[0]} beside {len(images) - 1:,} more"
        raise InputError(problem("images", got, "a table alone", "Predict it by a command of its own."))
    if out is None:
        return
    if any(path.exists() and out.exists() and path.samefile(out) for path in images):
        raise InputError(problem("out", f"{out}, which is read", "another file", "Choose another name."))
    check_csv_file(out, overwrite)


def _of_table(
    classifier: "Classifier",
    path: Path,
    top: int,
    tta: int,
    value_range: tuple[float, float] | None,
    out: Path | None,
) -> None:
    """Predicts a table of pixels and writes a submission."""
    from engine.data.sources.table import LEVELS, read_unlabelled_table
    from engine.report.predictions import SHOWN_ROWS, csv_file, predictions_table, submission_rows

    spec = classifier.input_spec
    usual = value_range or spec.value_range or LEVELS
    pixels = read_unlabelled_table(path, spec.shape, usual if spec.dtype == "uint8" else None)
    predictions = classifier.predict(
        pixels if spec.dtype == "uint8" else pixels.astype(spec.dtype), top, tta=tta, value_range=value_range
    )
    shown = predictions[:SHOWN_ROWS]
    show(predictions_table([(str(n), p) for n, p in enumerate(shown, 1)], "row", len(predictions)))
    if out is not None:
        with csv_file(out) as file:
            file.writerows(submission_rows(predictions))
        show(f"{len(predictions):,} predictions: {out}")


def _of_files(
    classifier: "Classifier",
    files: Sequence[str],
    top: int,
    resize: ResizeRule | None,
    tta: int,
    value_range: tuple[float, float] | None,
    out: Path | None,
) -> None:
    """Predicts files, a batch at a time. Unreadable ones are reported, and make the exit code PARTLY_DONE.

    Raises InputError, and leaves `out` alone, if none of them can be read.
    """
    from engine.data.pictures.images import NAMED_PICTURES, joined
    from engine.report.predictions import (
        SHOWN_ROWS,
        csv_file,
        picture_header,
        picture_row,
        prediction_lines,
        predictions_table,
        shown_progress,
    )

    places, has_labels = min(top, len(classifier.class_names)), classifier.record.task == "labels"
    shown: list[tuple[str, Prediction]] = []
    bad, num_bad = list[InputError](), 0
    console = Console(stderr=True)
    with contextlib.nullcontext() if out is None else csv_file(out) as file:
        if file is not None:
            file.writerow(picture_header(places, has_labels))
        answers = classifier.stream(files, top, resize, tta, value_range, tell)
        for name, answer in shown_progress(answers, len(files), console):
            if isinstance(answer, InputError):
                num_bad += 1
                bad += [answer] if len(bad) < NAMED_PICTURES else []
            elif out is None or len(shown) < SHOWN_ROWS:
                shown.append((str(name), answer))
            if file is not None:
                file.writerow(picture_row(str(name), answer, places, has_labels))
        if num_bad == len(files):
            raise joined(bad, num_bad)
    num_good = len(files) - num_bad
    if num_good == 1 and top > 1 and not has_labels:
        show(*prediction_lines(shown[0][1]))
    else:
        show(predictions_table(shown, "image", num_good))
    if out is not None:
        show(f"{num_good:,} predictions: {out}")
    if num_bad:
        where = "" if out is None else f" (column error of {out})"
        tell(f"{num_bad:,} of {len(files):,} could not be predicted{where}:\n{joined(bad, num_bad)}")
        raise SystemExit(PARTLY_DONE)


COMMANDS = {"predict": predict}
