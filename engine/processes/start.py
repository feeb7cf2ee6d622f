"""Start: this process joins the others of its run, before it does anything else with JAX."""

import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from engine.errors import InputError, problem

DISTRIBUTED, NUM_PROCESSES, PROCESS_ID = "ENGINE_DISTRIBUTED", "ENGINE_NUM_PROCESSES", "ENGINE_PROCESS_ID"
LAUNCHED = "ENGINE_LAUNCHED"  # how many processes `engine launch` has started, for the commands that are suggested
START_SECONDS = 50  # for all to come
# After which JAX takes a process that answers no more to be lost: in truth after half of it to the whole, because it
# asks every half. So it is more than twice `lost.SILENT_SECONDS`, at which we end the run and say who it is.
HEARTBEAT_SECONDS = 45
FIELD = "distributed"


def join(distributed: str | None = None) -> None:
    """Joins the other processes of a run, on JAX's distributed runtime; does nothing if there are to be none.

    distributed: "auto", to find them as Slurm, Open MPI, a Kubernetes JobSet or a TPU pod says, or the HOST:PORT at
      which process 0 can be reached, with the number of processes in ENGINE_NUM_PROCESSES and that of this one, from 0,
      in ENGINE_PROCESS_ID. None: as ENGINE_DISTRIBUTED says, which `engine launch` sets.
    Raises InputError if they cannot be found, or have not come after START_SECONDS.
    """
    given = distributed or os.environ.get(DISTRIBUTED)
    if given is None:
        return
    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from this process
    how: dict[str, Any] = {"initialization_timeout": START_SECONDS, "heartbeat_timeout_seconds": HEARTBEAT_SECONDS}
    if given != "auto":
        how |= {**_read_numbers(), "coordinator_address": given, "coordinator_bind_address": _bind_address(given)}
    try:
        with _raising_errors():
            jax.distributed.initialize(**how)
    except ValueError as error:
        if given != "auto":
            raise
        rule = "to be started by Slurm, Open MPI, a Kubernetes JobSet or as a TPU pod"
        remedy = f"Give --distributed HOST:PORT, with {NUM_PROCESSES} and {PROCESS_ID}, or use engine launch."
        raise InputError(problem(FIELD, f"auto ({error})", rule, remedy)) from None
    except RuntimeError as error:
        _forget_failed_start()
        raise InputError(_failure(given, str(error))) from None


@contextmanager
def _raising_errors() -> Iterator[None]:
    """Lets JAX raise an error if the others do not come, where it would abort the process with a stack of C++."""
    from jax._src import distributed

    module: Any = getattr(distributed, "_jax")  # noqa: B009  # not exported
    name = "get_distributed_runtime_client"  # JAX itself passes no callback
    usual = getattr(module, name)
    setattr(module, name, partial(usual, missed_heartbeat_callback=lambda status: None))
    try:
        yield
    finally:
        setattr(module, name, usual)


def _forget_failed_start() -> None:
    """Keeps JAX from taking leave, at the end of this process, of others that it has never met."""
    from jax._src import distributed

    distributed.global_state.client = distributed.global_state.service = None


def _read_numbers() -> dict[str, int]:
    """num_processes and process_id, as the environment says."""
    texts = {name: os.environ.get(name, "") for name in (NUM_PROCESSES, PROCESS_ID)}
    wrong = [name for name, text in texts.items() if not re.fullmatch(r"\d{1,6}", text)]
    count, number = (int(text) if re.fullmatch(r"\d{1,6}", text) else -1 for text in texts.values())
    if not wrong and number < count:
        return {"num_processes": count, "process_id": number}
    got = ", ".join(f"{name}={text or 'nothing'}" for name, text in texts.items())
    rule = "the number of processes, and that of this one from 0 on"
    raise InputError(problem(FIELD, f"an address with {got}", rule, "Set both, or use engine launch, which does."))


def _bind_address(address: str) -> str:
    """Where process 0 listens: at the address that the others are given, and not at all that the machine has.

    A host whose own name means 127.0.1.1 to itself, as on Debian, cannot be reached there: it listens everywhere.
    """
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) < 2**16):
        rule = "auto or HOST:PORT, where process 0 can be reached"
        raise InputError(problem(FIELD, repr(address), rule, "Give it like node1:1234."))
    try:
        found = socket.gethostbyname(host)
    except OSError:
        rule, remedy = "a host whose name is known here", "Correct it, or give its number."
        raise InputError(problem(FIELD, repr(address), rule, remedy)) from None
    is_named_otherwise = found.startswith("127.") and host not in ("localhost", found)
    return f"[::]:{port}" if is_named_otherwise else f"{found}:{port}"


def _failure(given: str, text: str) -> str:
    if "DEADLINE_EXCEEDED" in text or "bad_cast" in text:  # JAX cannot pass the status to a callback of Python
        came = f"fewer than all within {START_SECONDS} s"
        remedy = "Start all of them at once, and see that they can reach process 0."
        return problem(FIELD, came, "every process of the run", remedy)
    return problem(FIELD, f"{given} ({_first_line(text)})", "an address and port that are free", "Choose another port.")


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:200]
