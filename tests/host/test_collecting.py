"""The collector is held back, and goes on as before."""

import contextlib
import gc

import pytest

from engine.host.collecting import without_collecting


@pytest.fixture(autouse=True)
def collector():
    was_enabled = gc.isenabled()
    yield
    (gc.enable if was_enabled else gc.disable)()


@pytest.mark.parametrize("is_on", [True, False])
def test_collector_is_as_before_afterwards(is_on: bool):
    (gc.enable if is_on else gc.disable)()
    with contextlib.suppress(KeyError), without_collecting(), without_collecting():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled() == is_on
