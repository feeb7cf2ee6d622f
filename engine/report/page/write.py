"""`write_report`: a run → one HTML page."""

from collections.abc import Callable, Sequence
from pathlib import Path

from engine.data.decoded.dataset import Splits
from engine.devices.precision import computes
from engine.errors import InputError, Say, problem
from engine.host.console import tell
from engine.host.storage import check_file_place, expanded, write_atomically
from engine.report.page import answers, inside, outcome, settings
from engine.report.page.material import Material, read_material
from engine.report.page.parts import LeftOut, Part, Section
from engine.report.page.render import is_our_page, render_page
from engine.text import one_line

PAGE = "report.html"
# Heading → what makes its parts, or raises LeftOut with the reason why the run has none.
SECTIONS: dict[str, Callable[[Material], Sequence[Part]]] = {
    "In short": outcome.describe_run,
    "Curves": outcome.draw_history,
    "Scores": outcome.show_scores,
    "Confusion matrix": answers.show_confusion,
    "Class by class": answers.show_classes,
    "Mistakes": answers.show_mistakes,
    "Errors": answers.show_errors,
    "Calibration": outcome.show_calibration,
    "Members": outcome.show_members,
    "Data": inside.survey_data,
    "Augmentation": inside.show_augmentation,
    "Model": inside.show_model,
    "First kernels": inside.show_kernels,
    "Feature maps": inside.show_maps,
    "Settings": settings.show_settings,
    "Time and machine": settings.show_machine,
}


def write_report(
    run: Path, out: Path | None = None, *,
    trust: bool = False, splits: Splits | None = None, say: Say = tell, step: int | str = "best",
) -> Path:  # fmt: skip
    """Writes the page of a run, a directory or packed, and returns its path: `out`, or `report.html` in the directory.

    trust: import the author's own code that the run names. splits: the run's data where they are at hand, as those of a
    run on arrays; None: read again as its config says. step: of the model, "best", "last" or a number. What the page
    leaves out, it says with the reason.
    Raises InputError where the run cannot be opened or `out` not be written, and for another file at that place.
    """
    path = expanded(run)
    out = find_place(path, out)
    write_atomically(out, make_page(read_material(path, trust, say, splits, step)))
    return out


def find_place(run: Path, out: Path | None) -> Path:
    """Where a page goes; raises InputError unless it can be put there without losing anything but another page."""
    place = expanded(out) if out is not None else run / PAGE if run.is_dir() else run.with_suffix(".html")
    check_file_place(place, "out", ".html")
    if place.exists() and not is_our_page(place):
        got, rule = f"{place}, another file", "a new file, or a page that was written before"
        raise InputError(problem("out", got, rule, "Choose another name with --out."))
    return place


@computes
def make_page(material: Material) -> str:
    """The page as HTML."""
    sections, left_out = list[Section](), list[tuple[str, str]]()
    for title, make in SECTIONS.items():
        try:
            sections.append(Section(title, make(material)))
        except LeftOut as reason:
            left_out.append((title, str(reason)))
    config = material.record.config
    return render_page(one_line(config.name), f"{config.name} on {_name_data(material)}", sections, left_out)


def _name_data(material: Material) -> str:
    return one_line(material.record.config.data.path or material.record.config.data.name)
