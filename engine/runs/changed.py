"""A run resumed with other settings: where in its epochs it then is, and the state that was saved with the old ones."""

from dataclasses import replace

from engine.checkpoints.changes import change_texts, list_changes
from engine.checkpoints.record import Record
from engine.errors import InputError, Say, problem
from engine.runs.setup import Setup
from engine.runs.stage import Stage
from engine.training.state import TrainState


def follow_changes(setup: Setup, resumed: Record, say: Say) -> Setup:
    """The setup with the steps ahead of a resumed run; reports what changes. Raises InputError for what cannot.

    An epoch under way continues where it stopped. If batches of the new size do not end there, the one that reaches
    over that place is trained whole, and so a few examples twice, which is reported.
    """
    if new := list_changes(resumed, setup.config)[len(resumed.changes or ()) :]:
        say(f"changed from here on: {', '.join(change_texts(new))}")
    was, size = resumed.config.train.batch_size, setup.config.train.batch_size
    _check_state(setup, resumed)
    if was == size:
        return replace(setup, steps_ahead=resumed.steps_ahead)
    position = (resumed.step + resumed.steps_ahead) % resumed.steps_per_epoch * was
    if position % size:
        say(f"{position % size} examples of this epoch are trained on twice, because no batch of {size} ends here")
    course_step = resumed.epochs_done * setup.steps_per_epoch + position // size
    return replace(setup, steps_ahead=course_step - resumed.step)


def shapes_before_changes(stage: Stage, record: Record, shapes: TrainState) -> TrainState:
    """The shapes of the state as it was saved: those of the stage, if its optimizer had the same settings."""
    if record.config.optim == stage.setup.config.optim:
        return shapes
    return replace(stage, setup=replace(stage.setup, config=record.config)).abstract_state()


def _check_state(setup: Setup, resumed: Record) -> None:
    before, after = resumed.config, setup.config
    is_late = after.finetune.freezes and bool(after.finetune.unfreeze)
    size, decays = after.train.batch_size, (before.optim.weight_decay, after.optim.weight_decay)
    if size != before.train.batch_size and (is_late or setup.subsets is not None):
        why = "layers that train from a later epoch on count" if is_late else "folds, which count"
        rule = f"{before.train.batch_size}, as before, with {why} steps of their own"
        raise InputError(problem("train.batch_size", size, rule, "Leave it as it was."))
    if is_late and (decays[0] is None) != (decays[1] is None):
        rule = f"{decays[0]}, as before, with layers that train from a later epoch on"
        raise InputError(problem("optim.weight_decay", decays[1], rule, "Leave it as it was, or change it to 0."))
