"""Meshes: what can be said without one, and the tests that need one in a process of their own."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import tyro

from engine.commands.experiment import Options
from engine.config import PlanConfig, RunConfig, TrainConfig, mesh_shape
from engine.devices.mesh import ONE_DEVICE, Devices, check_mesh
from engine.errors import InputError
from engine.models import custom
from engine.runs.setup import splits_by_hand
from tests import further
from tests.conftest import HANG_SECONDS, TINY


def test_several_devices_give_the_numbers_of_one(tmp_path: Path):
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    environment.pop("PYTEST_XDIST_WORKER", None)
    tests = str(Path(__file__).parents[1] / "on_eight_devices.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", tests]
    command += [f"--basetemp={tmp_path / 'their'}", *(["-m", ""] if further.is_all else [])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_function_of_ones_own_that_may_look_at_the_whole_batch_leaves_the_splitting_to_the_compiler():
    config, own = RunConfig("a", TINY), custom(np.tanh)
    assert splits_by_hand(config) == (jax.default_backend() == "cpu")
    for changed in ({"loss": own}, {"metrics": (own,)}):
        assert not splits_by_hand(replace(config, train=replace(config.train, **changed)))


def test_mesh_is_an_option_of_its_own():
    options = tyro.cli(Options, default=Options(RunConfig("a", TINY)), args=["--mesh", "data=8"])
    assert options.config.plan.mesh == "data=8"


@pytest.mark.parametrize(
    ("mesh", "shape"), [(None, (1, 1)), ("data=8", (1, 8)), ("member=2", (2, 1)), ("data=4,member=12", (12, 4))]
)
def test_mesh_is_read_in_any_order(mesh: str | None, shape: tuple[int, int]):
    assert mesh_shape(mesh) == shape
    assert PlanConfig(mesh=mesh).mesh == mesh


@pytest.mark.parametrize("mesh", ["", "8", "data", "data=0", "data=-1", "data=2,data=4", "data=2, member=2", "batch=2"])
def test_mesh_is_refused_when_it_does_not_say_devices_along_axes(mesh: str):
    with pytest.raises(InputError, match=r"plan\.mesh: got .*; expected numbers of devices along .* data=8"):
        PlanConfig(mesh=mesh)


@pytest.mark.parametrize(("members", "mesh", "remedy"), [(10, "member=4", "2"), (1, "member=2,data=4", "1")])
def test_members_that_the_mesh_cannot_share_out_evenly_are_refused_with_both(members: int, mesh: str, remedy: str):
    rule = rf"plan\.mesh: got {mesh}; expected a number along member that divides .* \({members}, .* Give {remedy}"
    with pytest.raises(InputError, match=rule):
        RunConfig("a", TINY, train=TrainConfig(members=members), plan=PlanConfig(mesh=mesh))


def test_member_alone_needs_no_mesh():
    config = RunConfig("a", TINY, train=TrainConfig(members=4), plan=PlanConfig(mesh="member=2"))
    assert config.of_member(3).plan.mesh is None


@pytest.mark.parametrize(
    ("mesh", "batch_size", "multiple", "padded"),
    [(None, 63, 2, 63), ("data=1", 64, 1, 64), ("data=3", 64, 1, 66), ("data=8", 64, 2, 64), ("data=8", 24, 2, 32)],
)
def test_batches_are_padded_to_equal_shares(mesh: str | None, batch_size: int, multiple: int, padded: int):
    assert Devices(mesh).padded(batch_size, multiple) == padded


def test_mesh_of_one_device_is_no_mesh():
    assert Devices("member=1,data=1").is_one
    assert Devices("data=1") != ONE_DEVICE
    check_mesh("data=1")


def test_mesh_larger_than_the_devices_is_refused_with_both():
    count = jax.device_count()
    rule = rf"plan\.mesh: got data={2 * count}, which is {2 * count} devices; expected one for the {count} × "
    with pytest.raises(InputError, match=rule):
        check_mesh(f"data={2 * count}")


@pytest.mark.parametrize("mesh", [None, "data=16", "member=2,data=9"])
def test_mesh_that_leaves_one_of_several_processes_without_a_device_is_refused(
    mesh: str | None, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    rule = (
        rf"plan\.mesh: got {mesh or 'none'}, which is \d+ devices?; expected one for all 8 devices of the 2 processes"
    )
    with pytest.raises(InputError, match=rule):
        check_mesh(mesh)
    check_mesh("member=2,data=4")
