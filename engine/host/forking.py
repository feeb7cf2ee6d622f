"""Processes forked after JAX was used: they lack its threads, so waiting for these never ends."""

import os
import sys

from engine.errors import InputError, problem

_IS_CUT_OFF = False


def check_not_forked() -> None:
    """Raises InputError in a process that was forked from one in which JAX had started."""
    if _IS_CUT_OFF:
        rule = "one that was spawned, because the threads of JAX are lost in a fork"
        remedy = 'Start it with multiprocessing.get_context("spawn").'
        raise InputError(problem("process", "one that was forked after JAX was used", rule, remedy))


def _note() -> None:
    global _IS_CUT_OFF
    # Calls nothing of JAX, which may want a lock that another thread held.
    backends = getattr(sys.modules.get("jax._src.xla_bridge"), "_backends", None)
    _IS_CUT_OFF = _IS_CUT_OFF or bool(backends)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note)
