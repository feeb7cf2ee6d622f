"""`engine export`: a run's model as a file or directory that answers without this package."""

import os
from pathlib import Path

from engine.commands.process import set_up_process
from engine.commands.targets import Flag, RunDirectory, find_own_classes, step_of
from engine.exporting.formats import SUFFIXES, ExportFormat, check_target, find_format
from engine.host.console import show
from engine.host.storage import expanded


def export(
    run: RunDirectory,
    format: ExportFormat | None = None,
    out: Path | None = None,
    overwrite: Flag = False,
    step: str = "best",
    member: int | None = None,
    trust: Flag = False,
) -> None:
    """Write a run's model, its preprocessing inside, for use by jax alone, onnxruntime or TensorFlow.

    Args:
        run: Directory of the run.
        format: stablehlo (a directory, runs with jax alone), onnx (a file) or savedmodel (a directory, for TensorFlow);
            None: by the suffix of --out, else stablehlo.
        out: File or directory to write; None for the run's name with the format as its suffix, in this directory.
        overwrite: Replace an earlier export there.
        step: Checkpoint to use: best, last or a step number.
        member: Of an ensemble the member with this number alone; None for all, combined.
        trust: Import the author's own code that the run names, which runs it.
    """
    name = run.resolve().name.removesuffix(".engine")
    format = format or find_format(out)
    target = expanded(out or name + SUFFIXES[format])
    check_target(target, format, overwrite)
    set_up_process()
    find_own_classes(trust)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # otherwise TensorFlow prints CPU features at every start
    from engine.exporting.export import description, usage
    from engine.exporting.export import export as write
    from engine.inference.restore import restore

    classifier = restore(run, step_of(step), trust, member)
    write(classifier, target, format, overwrite)
    files = [target] if target.is_file() else [file for file in target.rglob("*") if file.is_file()]
    size_bytes = sum(file.stat().st_size for file in files)
    about = description(classifier, format, target.name)
    show(f"{target}: {size_bytes / 1e6:,.2f} MB, step {classifier.record.step:,}, compared with the run's own answers")
    show("to ask it:", *(f"  {line}" for line in usage(about, str(target))))


COMMANDS = {"export": export}
