"""The plan of a run: by rule, or that of the resumed run, or a measured one, except for what the config pins."""

from dataclasses import replace

import jax

from engine.checkpoints.record import Record
from engine.config import Lowering, RunConfig
from engine.config.contract import InputSpec
from engine.config.plan import Plan, PlanFile, given_plan, keeps_lowering
from engine.data.decoded.dataset import Splits
from engine.data.load import num_outputs
from engine.devices.mesh import has_enough_devices
from engine.errors import InputError, Say, problem
from engine.kernels.lowerings import choose_lowering, runs_here
from engine.processes.together import exchange
from engine.runs.feature_cache import affordable_megabytes, may_cache
from engine.runs.setup import Architecture, splits_by_hand
from engine.training.feed import choose_placement
from engine.training.program import choose_plan


def find_given_plan(
    config: RunConfig, splits: Splits, resumed: Record | None, measured: PlanFile | None
) -> Plan | None:
    """The plan that was decided before: that of the run to resume, or a measured one; None to choose by rule."""
    if resumed and resumed.device.startswith(jax.default_backend()):
        # The same bits, even where a newer version or another machine would choose otherwise.
        return resumed.plan if has_enough_devices(resumed.plan.mesh) else replace(resumed.plan, mesh=None)
    return replace(measured.plan, placement=choose_placement(config.plan, splits.train)) if measured else None


def find_lowering(config: RunConfig, inputs: InputSpec, given: Plan | None, say: Say) -> Lowering:
    """The lowering of the convolutions that train."""
    kept = given.lowering if given and keeps_lowering(config.plan, given) else None
    if kept and runs_here(kept):
        return _agree_on(kept, say)
    of_config = config.plan, jax.default_backend(), config.train.precision, inputs.shape
    chosen = choose_lowering(*of_config, is_by_hand=splits_by_hand(config))
    if kept:
        say(f"the run's {kept} convolutions do not run here: continuing with {chosen}")
    return _agree_on(chosen, say)


def _agree_on(chosen: Lowering, say: Say) -> Lowering:
    """The lowering of all processes: where one cannot run that of the others, what runs everywhere."""
    found = exchange(chosen)
    if len(set(found)) == 1:
        return chosen
    common: Lowering = "eigen" if jax.default_backend() == "cpu" else "xla"
    others = ", ".join(f"{name} in process {rank}" for rank, name in enumerate(found))
    say(f"processes would run other convolutions ({others}): {common} in all")
    return common


def make_architecture(
    config: RunConfig, splits: Splits, contract: InputSpec, given: Plan | None, say: Say
) -> Architecture:
    """The model of a run."""
    lowering = find_lowering(config, contract, given, say)
    model = Architecture(config, contract, num_outputs(config, splits.train), lowering)
    for path, leaf in jax.tree_util.tree_leaves_with_path(model.shapes):
        if not leaf.size:
            got = f"an array of shape {leaf.shape} ({jax.tree_util.keystr(path, simple=True, separator='/')})"
            raise InputError(problem("model", got, "arrays of at least one number, for checkpoints", "Leave it out."))
    return model


def make_plan(config: RunConfig, splits: Splits, model: Architecture, given: Plan | None, is_resumed: bool) -> Plan:
    """The plan of a run; given: as of `find_given_plan`; a resumed run keeps to the memory for features it has."""
    network, placement = model.make_network(model.lowering), choose_placement(config.plan, splits.train)
    platform, shape = jax.default_backend(), model.inputs.network_shape
    plan = choose_plan(config.plan, model.lowering, platform, network, shape, model.shapes, placement)
    if given:
        plan = replace(given_plan(config.plan, plan, given), lowering=model.lowering)
    if may_cache(config) and not (given and is_resumed):
        plan = replace(plan, cache_megabytes=affordable_megabytes(config, splits, model))
    return plan
