"""How a run is executed on a device: PlanConfig, what the user pins; Plan, what was chosen and is kept."""

import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from engine.config.matters import PLAN, PROGRAM
from engine.errors import problem
from engine.records import check_all, check_whole

DataPlacement = Literal["resident", "streamed"]
MemberMapping = Literal["outer", "vmap", "map"]
Lowering = Literal["direct", "eigen", "matrix", "xla"]
LoweringName = Literal["auto", Lowering]


class _Versioned:
    """Records of plans: how those of an earlier version are read."""

    RECORD_VERSION: ClassVar[int] = 2  # 1: the lowering xla was called native, placement data, member_mapping members

    @classmethod
    def upgraded(cls, given: dict[str, Any], version: int) -> dict[str, Any]:
        """The fields of a record of an earlier version, in today's terms."""
        former = {"data": "placement", "members": "member_mapping"}
        fields = {former.get(name, name): value for name, value in given.items()}
        return {**fields, "lowering": "xla"} if fields.get("lowering") == "native" else fields


@dataclass(frozen=True)
class PlanConfig(_Versioned):
    """How the run is executed on the device. The defaults choose by themselves; pin them to compare."""

    lowering: LoweringName = "auto"
    """Convolutions by our own code for this processor (direct), in the form that XLA hands to Eigen (eigen), as matrix
    products (matrix) or by XLA's own (xla); auto: on the CPU direct, or eigen without our C++; on an NVIDIA GPU
    direct in bfloat16, else matrix for images of up to 32 pixels a side; xla elsewhere."""
    chunk_steps: Annotated[int | None, PROGRAM] = None
    """Most steps a compiled call runs; None: as many as take about one second."""
    placement: Annotated[Literal["auto", DataPlacement], arg(aliases=("--plan.data",))] = "auto"
    """Training images on the device as a whole (resident) or read ahead while it trains (streamed); auto: by size."""
    resident_megabytes: Annotated[int | None, PROGRAM] = None
    """Most megabytes of training images that auto keeps on the device; None: half of the memory that is free."""
    readers: Annotated[int, PROGRAM] = 0
    """Processes that read streamed images ahead; 0: threads of this one."""
    member_mapping: Annotated[Literal["auto", MemberMapping], arg(aliases=("--plan.members",))] = "auto"
    """How the members of an ensemble run: one after another around the loop over steps (outer), or within each step
    side by side (vmap) or in turn (map); auto: outer on the CPU, vmap elsewhere."""

    mode: Annotated[str, arg(name="plan", prefix_name=False, metavar="auto|fast|safe|FILE"), PROGRAM] = "auto"
    """How that is chosen: auto, by rule, or measured where no rule is clear and the run is long; fast, always measured;
    safe, the backend's own operations; or a file that `engine plan RUN --out FILE` wrote."""
    mesh: Annotated[str | None, arg(name="mesh", prefix_name=False), PROGRAM | PLAN] = None
    """Devices that share the work, like data=8 (the examples of a batch), member=2 (the members of an ensemble) or
    member=2,data=4; None: one device, or those that the run to resume was trained on."""

    def __post_init__(self):
        check_all(self, "plan", self._range_problems)

    def _range_problems(self) -> list[str]:
        problems = check_whole("plan.readers", self.readers, 0, "Give 0, or 2 or so.")
        if self.resident_megabytes is not None:
            problems += check_whole("plan.resident_megabytes", self.resident_megabytes, 1, "Leave it out to choose.")
        if self.chunk_steps is not None:
            problems += check_whole("plan.chunk_steps", self.chunk_steps, 1, "Leave it out to choose by time.")
        axis = r"(member|data)=[1-9]\d*"
        if self.mesh is not None and not re.fullmatch(rf"{axis}(,(?!\1){axis})?", self.mesh):
            rule = "numbers of devices along the axes member, data or both"
            problems.append(problem("plan.mesh", repr(self.mesh), rule, "Give it like data=8 or member=2,data=4."))
        return problems


def mesh_shape(mesh: str | None) -> tuple[int, int]:
    """(member, data): the devices along each axis of a mesh like "member=2,data=4"; 1 where an axis is not named."""
    axes = dict(axis.split("=") for axis in mesh.split(",")) if mesh else {}
    return int(axes.get("member", 1)), int(axes.get("data", 1))


@dataclass(frozen=True)
class Plan(_Versioned):
    """How a run is executed on this device.

    lowering: convolutions and pools in the form of Eigen, as matrix products, or the backend's own.
    is_stepwise: one step a compiled call, where a loop would take the threads from XLA's CPU convolution.
    chunk_steps: most steps a call, or None to fit them to a second; results do not depend on it.
    placement: training images on the device as a whole, or streamed to it.
    member_mapping: members one after another around the loop over steps, or by vmap or map within each step.
    mesh: the devices that share the work, as in PlanConfig; None for one.
    cache_megabytes: most that is kept of what frozen layers give for the examples; 0 for nothing.
    """

    lowering: Lowering
    is_stepwise: bool = False
    chunk_steps: int | None = None
    placement: DataPlacement = "resident"
    member_mapping: MemberMapping = "outer"
    mesh: str | None = None
    cache_megabytes: int = 0


@dataclass(frozen=True)
class Alternative:
    """A plan and how many images a second it was measured to train."""

    plan: Plan
    images_per_second: float


@dataclass(frozen=True)
class PlanFile:
    """A plan, what it was made for, and everything that was measured there."""

    made_for: dict[str, Any]
    plan: Plan
    alternatives: tuple[Alternative, ...] = ()


def given_plan(config: PlanConfig, chosen: Plan, given: Plan) -> Plan:
    """The plan of a resumed run, or the plan given to one, except for what the config pins."""
    pinned = {}
    if not keeps_lowering(config, given):
        pinned.update(lowering=chosen.lowering, is_stepwise=chosen.is_stepwise)
    if config.placement != "auto":
        pinned.update(placement=chosen.placement)
    if config.member_mapping != "auto":
        pinned.update(member_mapping=chosen.member_mapping)
    if config.mesh is not None:
        pinned.update(mesh=chosen.mesh)
    return replace(given, chunk_steps=chosen.chunk_steps, **pinned)


def keeps_lowering(config: PlanConfig, given: Plan) -> bool:
    """Whether a given plan's lowering stays: unless another is pinned, or another mesh, which it may not fit."""
    return config.lowering == "auto" and config.mesh in (None, given.mesh)


MEMBER, DATA = "member", "data"
