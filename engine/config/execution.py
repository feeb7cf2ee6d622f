"""Plan: how a run is executed on a device. Plain data: it is kept with the checkpoint and can be written to a file."""

from dataclasses import dataclass, replace
from typing import Any

from engine.config import DataPlacement, Lowering, MemberMapping, PlanConfig


@dataclass(frozen=True)
class Plan:
    """How a run is executed on this device.

    lowering: convolutions and pools in the form of Eigen, as matrix products, or the backend's own.
    is_stepwise: one step a compiled call, where a loop would take the threads from XLA's CPU convolution.
    chunk_steps: most steps a call, or None to fit them to a second; results do not depend on it.
    placement: training images on the device as a whole, or streamed to it.
    members: those of an ensemble one after another around the loop over steps, or by vmap or map within each step.
    mesh: the devices that share the work, as in PlanConfig; None for one.
    cache_megabytes: most that is kept of what frozen layers give for the examples; 0 for nothing.
    """

    lowering: Lowering
    is_stepwise: bool = False
    chunk_steps: int | None = None
    placement: DataPlacement = "resident"
    members: MemberMapping = "outer"
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
    """The plan of a run that is taken up again, or was given one: that one, except for what the config pins."""
    pinned = {}
    if not keeps_lowering(config, given):
        pinned.update(lowering=chosen.lowering, is_stepwise=chosen.is_stepwise)
    if config.data != "auto":
        pinned.update(placement=chosen.placement)
    if config.members != "auto":
        pinned.update(members=chosen.members)
    if config.mesh is not None:
        pinned.update(mesh=chosen.mesh)
    return replace(given, chunk_steps=chosen.chunk_steps, **pinned)


def keeps_lowering(config: PlanConfig, given: Plan) -> bool:
    """Whether a given plan's lowering stays: unless another is pinned, or another mesh, which it may not fit."""
    return config.lowering == "auto" and config.mesh in (None, given.mesh)
