"""Record: everything saved with a step besides its arrays, as JSON."""

from dataclasses import dataclass, field
from math import prod
from typing import Any

from engine.config import RunConfig
from engine.config.contract import InputSpec
from engine.config.plan import Alternative, Plan
from engine.config.scoring import Task, loss_facts
from engine.host.json_files import shown
from engine.metrics.combination import Combination
from engine.metrics.stopping import has_stopped_early
from engine.records import ADDED, check

MOST_INPUTS, MOST_OUTPUTS = 2**31, 2**24  # numbers of one example, of one prediction


DTYPES = ("uint8", "float32")


FORMAT_VERSION = 4
"""3: before optimizers and activations were those of Keras; 2: before checksums of files; 1: before ensembles."""


@dataclass(frozen=True)
class Provenance:
    """Where imported weights come from.

    model: the name in the catalogue, or the kind of file. file, hash: its name and `sha256:…`; url: where it was
    published. importer: the version of this package. notes: what was dropped or converted.
    """

    model: str
    file: str
    hash: str
    format: str
    url: str | None = None
    licence: str | None = None
    citation: str | None = None
    importer: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """A setting that has another value from a step on, at which the run was resumed."""

    step: int
    field: str
    before: Any
    after: Any


@dataclass(frozen=True)
class Record:
    """Everything needed, besides the arrays, to use a model and to resume its training.

    score: the validation metric that selects the best step, higher is better; None in the middle of an epoch.
    totals, epoch_seconds: metric sums and training time of the unfinished epoch. checksums: of the arrays of each item.
    failed_steps: of an ensemble, the step at which each member's loss was not finite; None for the others.
    passed_over: number of files that are not pictures, by kind. skipped: number of unreadable files, by split.
    several_frames: number of pictures with more frames than the one that is read, by split.
    provenance: of imported weights, and of what was trained from them. combination: of an ensemble, how its members are
    combined. alternatives: the measured plans, fastest first. callbacks: the state of each. is_stopped: by one of them.
    changes: of settings, in order. steps_ahead: added to a step, makes it what it were with one batch size throughout.
    """

    config: RunConfig
    input_spec: InputSpec
    class_names: tuple[str, ...]
    num_outputs: int
    data_fingerprint: str
    step: int
    steps_per_epoch: int
    score: float | None
    plan: Plan
    validation_fingerprint: str = ""
    history: tuple[dict[str, Any], ...] = ()
    totals: dict[str, Any] | None = None
    epoch_seconds: float = 0.0
    versions: dict[str, Any] = field(default_factory=dict)
    device: str = ""
    failed_steps: tuple[int | None, ...] = ()
    combination: Combination | None = None
    alternatives: tuple[Alternative, ...] = ()
    checksums: dict[str, Any] = field(default_factory=dict)
    passed_over: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, Any] = field(default_factory=dict)
    several_frames: dict[str, Any] = field(default_factory=dict)
    provenance: Provenance | None = field(default=None, kw_only=True, metadata=ADDED)
    callbacks: dict[str, Any] | None = field(default=None, kw_only=True, metadata=ADDED)
    is_stopped: bool = field(default=False, kw_only=True, metadata=ADDED)
    changes: tuple[Change, ...] | None = field(default=None, kw_only=True, metadata=ADDED)
    steps_ahead: int = field(default=0, kw_only=True, metadata=ADDED)

    @property
    def rank(self) -> tuple[float, float] | None:
        """What is highest at the best step: the score, and of equal scores the lower validation loss."""
        if self.score is None:
            return None
        row = self.history[-1] if self.history else {}
        loss = row.get("validation_loss") if row.get("step") == self.step else None
        return self.score, -loss if isinstance(loss, int | float) else 0.0

    has_several_labels: bool = field(default=False, kw_only=True, metadata=ADDED)

    @property
    def task(self) -> Task:
        """What the model predicts of an example: one class, any of the labels, or numbers."""
        if not self.class_names:
            return "numbers"
        return "labels" if self.has_several_labels else "classes"

    @property
    def epochs_done(self) -> int:
        """Completed epochs."""
        return (self.step + self.steps_ahead) // self.steps_per_epoch

    @property
    def last_epoch(self) -> int:
        """Index of the epoch of the last step."""
        return max(self.step + self.steps_ahead - 1, 0) // self.steps_per_epoch

    @property
    def is_complete(self) -> bool:
        """Whether the run had reached its last epoch."""
        return self.is_complete_for(self.config)

    def is_complete_for(self, config: RunConfig) -> bool:
        """Whether a run of this config would have nothing left to train."""
        is_over = self.epochs_done >= config.train.epochs or has_stopped_early(config.train, self.history)
        return is_over or self.is_stopped_for(config)

    def is_stopped_for(self, config: RunConfig) -> bool:
        """Whether a callback stopped the run for good; other numbers of epochs let it go on."""
        return self.is_stopped and self.config.train.epochs == config.train.epochs


def _contradictions(record: Record) -> list[str]:
    """Contradictions among values that each have the right type."""
    spec, train, remedy = record.input_spec, record.config.train, "Use another step or run."
    names, outputs = record.class_names, record.num_outputs
    is_binary = loss_facts(train.loss, record.task).activation == "sigmoid"
    holds = (len(names), outputs) == (2, 1) if is_binary else len(names) in (0, outputs)
    members = f"{train.members:,}, the members"
    combined = len(record.combination.weights) if record.combination else train.members
    failed = len(record.failed_steps)
    is_size = len(spec.shape) >= 1 and min(spec.shape) >= 1 and prod(spec.shape) <= MOST_INPUTS
    return [
        *check("num_outputs", outputs, 1 <= outputs <= MOST_OUTPUTS, f"1 to {MOST_OUTPUTS:,}", remedy),
        *check("class_names", f"{len(names):,}", holds, f"as many as outputs ({outputs})", remedy),
        *check("input_spec.shape", shown(spec.shape), is_size, f"sizes of 1 or more, {MOST_INPUTS:,} in all", remedy),
        *check("input_spec.dtype", shown(spec.dtype), spec.dtype in DTYPES, f"one of {', '.join(DTYPES)}", remedy),
        *check("step", record.step, record.step >= 0, "0 or more", remedy),
        *check("steps_ahead", record.steps_ahead, record.step + record.steps_ahead >= 0, "at least -step", remedy),
        *check("steps_per_epoch", record.steps_per_epoch, record.steps_per_epoch >= 1, "1 or more", remedy),
        *check("failed_steps", f"{failed:,}", failed in (0, train.members), members, remedy),
        *check("combination", f"{combined:,} weights", combined == train.members, members, remedy),
    ]


def _from_version_1(value: dict[str, Any]) -> dict[str, Any]:
    """Records from before ensembles, when the plan was two fields."""
    value.pop("num_examples", None)
    plan = {"lowering": value.pop("lowering", None), "placement": value.pop("placement", "resident")}
    return {**value, "plan": plan}
