"""`engine plan`: by which plan a run was executed, and what else was possible."""

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from engine.commands.outputs import check_json_file
from engine.commands.process import set_up_process
from engine.commands.targets import Flag, RunDirectory, find_own_classes
from engine.host.console import show, tell
from engine.records.custom import check_trust

if TYPE_CHECKING:
    from engine.checkpoints.record import Record
    from engine.data.decoded.dataset import Dataset


def plan(
    run: RunDirectory, measure: Flag = False, out: Path | None = None, overwrite: Flag = False, trust: Flag = False
) -> None:
    """Show the plan a run was executed by, and the alternatives with the images a second they were measured to train.

    Args:
        run: Directory of the run, or the run packed.
        measure: Measure here and now, on random images, even if the run did when it started.
        out: Write the plan shown first to a file, for --plan FILE.
        overwrite: Replace that file if it is there.
        trust: Import the author's own code that the run names, which runs it.
    """
    if out is not None:
        check_json_file(out, overwrite)
    set_up_process()
    find_own_classes(trust)
    from dataclasses import replace

    from engine.checkpoints.packing import record_of
    from engine.checkpoints.steps import check_model_fits
    from engine.config.plan import Alternative, PlanFile
    from engine.host.versions import device_text
    from engine.report.plans import plan_table
    from engine.runs.plan_search import choice_text, circumstances, measured, write_plan

    record = record_of(run, "last")
    check_trust(record.config.without_source, str(run), trust, "Add --trust")
    check_model_fits(str(run), record, copies=4)  # weights, gradients and two moments
    here, stored = record.device == device_text(), record.alternatives
    if measure or not stored or not here:
        found = measured(record.config, _noise(record), tell, again=measure)
    else:
        found = PlanFile(circumstances(record.config, _noise(record)), record.plan, stored)
    chosen, shown = record.plan if here else None, list(found.alternatives)
    if chosen and chosen not in [each.plan for each in shown]:
        shown.append(Alternative(chosen, float("nan")))  # pinned, or of another placement: not measured
    how = choice_text(record.config, bool(stored))
    show(plan_table(shown, chosen, f"{run} on {device_text()}", how))
    if not here:
        tell(f"{run} was run on {record.device or 'another device'}, so that none of these is the one it was run by")
    if out is not None:
        write_plan(out, replace(found, plan=found.alternatives[0].plan))


def _noise(record: "Record") -> "Dataset":
    """Random examples of the run's shape: what is in them does not change how long they take."""
    import numpy as np

    from engine.checkpoints.steps import check_memory
    from engine.data.decoded.dataset import Dataset
    from engine.runs.plan_search import MEASURED_STEPS

    spec, draw = record.input_spec, np.random.default_rng(0)
    count = MEASURED_STEPS * record.config.train.batch_size
    check_memory("input_spec.shape", 4 * count * prod(spec.shape))
    images = draw.integers(0, 256, (count, *spec.shape), dtype=np.uint8)
    inputs = images if spec.dtype == "uint8" else (images / np.float32(255)).astype(np.float32)
    if record.class_names:
        labels = draw.integers(0, len(record.class_names), count).astype(np.int32)
    else:
        labels = draw.random((count, record.num_outputs), np.float32)
    return Dataset(inputs, labels, record.class_names, "noise", "noise")


COMMANDS = {"plan": plan}
