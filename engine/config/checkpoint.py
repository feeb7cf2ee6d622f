"""CheckpointConfig: when a run is saved, and which of its checkpoints are kept."""

from dataclasses import dataclass

from engine.records import check, check_all, check_whole


@dataclass(frozen=True)
class CheckpointConfig:
    """When a run is saved, and which of its checkpoints are kept."""

    every_epochs: int = 1
    """Epochs between two saves; the last one is always saved. The best step is the best of those saved."""
    every_steps: int | None = None
    """Save after so many steps too, in the middle of an epoch."""
    every_seconds: float | None = None
    """Save once so many seconds have passed since the last save, too."""
    keep_last: int = 2
    """How many of the newest checkpoints stay; with 2, one is left if the last is damaged."""
    keep_best: int = 1
    """How many of those with the best validation metric stay (train.best_by)."""

    def __post_init__(self):
        check_all(self, "checkpoint", self._range_problems)

    def _range_problems(self) -> list[str]:
        problems = []
        for name in ("every_epochs", "keep_last", "keep_best"):
            problems += check_whole(f"checkpoint.{name}", getattr(self, name), 1, "Give 1 or more.")
        if self.every_steps is not None:
            problems += check_whole("checkpoint.every_steps", self.every_steps, 1, "Leave it out to save by epochs.")
        holds = self.every_seconds is None or self.every_seconds > 0
        problems += check("checkpoint.every_seconds", self.every_seconds, holds, "above 0", "Give 600 or so.")
        return problems
