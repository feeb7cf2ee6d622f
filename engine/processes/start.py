"""Start: this process joins the others of its run, before it does anything else with JAX."""

import errno
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO

from engine.errors import InputError, problem
from engine.host.console import open_standard_streams

DISTRIBUTED, NUM_PROCESSES, PROCESS_ID = "ENGINE_DISTRIBUTED", "ENGINE_NUM_PROCESSES", "ENGINE_PROCESS_ID"
LAUNCHED = "ENGINE_LAUNCHED"  # how many processes `engine launch` has started, for the commands that are suggested
START_SECONDS = 45  # for all to come
# After which JAX takes a process that answers no more to be lost: in truth after half of it to the whole, because it
# asks every half. So it is more than twice `lost.SILENT_SECONDS`, at which we end the run and say who it is.
HEARTBEAT_SECONDS = 45
SPARE_SECONDS = 5
ARRIVALS = re.compile(  # in JAX's log
    r"reached the barrier: (\d+)/(\d+)\.[^\n]*\n[^\n]*timed out task names:\n((?:\d+\s+)+)"
)
CAME_TWICE = "newer incarnation"  # in that log, where another process has come with the number of this one
MOST_LOGGED = 2**20  # bytes
FIELD = "distributed"
_claims: set[str] = set()  # numbers of this process, which nobody else gets as long as it runs


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
    patience = START_SECONDS + SPARE_SECONDS  # longer than that of the service, so that the processes hear from it
    how: dict[str, Any] = {"initialization_timeout": patience, "heartbeat_timeout_seconds": HEARTBEAT_SECONDS}
    if given != "auto":
        how |= {**_read_numbers(), "coordinator_address": given, "coordinator_bind_address": _bind_address(given)}
        _claim_number(how["coordinator_bind_address"], how["process_id"])
        if how["process_id"] == 0:
            _check_can_listen(given, how["coordinator_bind_address"])
    _keep_exchange_from_preempting()
    log = b""
    try:
        with _raising_errors(), _holding_back_the_log() as held:
            try:
                jax.distributed.initialize(**how)
            except RuntimeError:
                _forget_failed_start()
                raise
            finally:
                log = _read_back(held)
    except ValueError as error:
        if given != "auto":
            raise
        rule = "to be started by Slurm, Open MPI, a Kubernetes JobSet or as a TPU pod"
        remedy = f"Give --distributed HOST:PORT, with {NUM_PROCESSES} and {PROCESS_ID}, or use engine launch."
        raise InputError(problem(FIELD, f"auto ({error})", rule, remedy)) from None
    except RuntimeError as error:
        own = how.get("process_id"), str(error), log.decode(errors="replace")
        raise InputError(_failure(given, *own)) from None
    os.write(2, log)


@contextmanager
def _raising_errors() -> Iterator[None]:
    """Lets JAX raise an error if the others do not come, where it would abort the process with a stack of C++.

    Its service gives up after START_SECONDS, not after an hour, and says then who has not come.
    """
    from jax._src import distributed

    module: Any = getattr(distributed, "_jax")  # noqa: B009  # not exported
    options: dict[str, dict[str, Any]] = {  # JAX itself passes neither
        "get_distributed_runtime_client": {"missed_heartbeat_callback": lambda status: None},
        "get_distributed_runtime_service": {"cluster_register_timeout": START_SECONDS},
    }
    usual = {name: getattr(module, name) for name in options}
    for name, function in usual.items():
        setattr(module, name, partial(function, **options[name]))
    try:
        yield
    finally:
        for name, function in usual.items():
            setattr(module, name, function)


def _keep_exchange_from_preempting() -> None:
    """Lets the thread of gloo run when others wait, not as soon as the network has something for it.

    While another thread sends, it waits for that one's lock by asking the kernel again and again. On the same core it
    keeps it from ever giving the lock back: 4 ms for each exchange, in place of 1.
    """
    if not hasattr(os, "SCHED_BATCH"):  # Linux
        return
    from jax._src import xla_bridge

    module: Any = getattr(xla_bridge, "_jax")  # noqa: B009  # not exported
    usual = module.make_gloo_tcp_collectives
    if isinstance(usual, partial):
        return

    def make(usual: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        policy, usually = os.sched_getscheduler(0), os.sched_param(0)
        if policy != os.SCHED_OTHER:
            return usual(*arguments, **options)
        os.sched_setscheduler(0, os.SCHED_BATCH, usually)  # of this thread; those that it starts inherit it
        try:
            return usual(*arguments, **options)
        finally:
            os.sched_setscheduler(0, policy, usually)

    module.make_gloo_tcp_collectives = partial(make, usual)


@contextmanager
def _holding_back_the_log() -> Iterator[BinaryIO]:
    """The file that C++ logs to meanwhile: who has not come stands there alone, because the error loses its text."""
    open_standard_streams()
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield held
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _read_back(held: BinaryIO) -> bytes:
    held.seek(0)
    return held.read(MOST_LOGGED)


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


def _claim_number(address: str, number: int) -> None:
    """Raises InputError if another process of this host, which still runs, has this number in the same run."""
    if sys.platform != "linux" or (name := f"\0engine {address} {number}") in _claims:
        return
    claim = socket.socket(socket.AF_UNIX)  # by a name that is no file, and is free again when the process ends
    try:
        claim.bind(name)
    except OSError as error:
        claim.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(_doubled(number)) from None
        return
    claim.detach()  # closed when the process ends
    _claims.add(name)


def _doubled(number: int | None) -> str:
    """number: None if the scheduler gave it."""
    got = "the number of this process" if number is None else f"{PROCESS_ID}={number}"
    rule = "a number that no other process of the run has"
    remedy = f"Give each process its own {PROCESS_ID}, from 0 on; if it is from an earlier run, end that first."
    return problem(FIELD, f"{got} a second time", rule, remedy)


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


def _check_can_listen(given: str, address: str) -> None:
    """Raises InputError if process 0 cannot listen there: JAX's service fails, at times by a segmentation fault."""
    host, _, port = address.rpartition(":")
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as JAX does, after an earlier run
            probe.bind(("" if host == "[::]" else host, int(port)))
    except OSError as error:
        raise InputError(_no_listening(given, error.strerror or "cannot be bound")) from None


def _no_listening(given: str, why: str) -> str:
    rule = "an address of this host, which runs process 0, and a port that is free"
    return problem(FIELD, f"{given} ({why})", rule, "Choose another port, or name the host of process 0.")


def _failure(given: str, number: int | None, text: str, log: str) -> str:
    if CAME_TWICE in log:
        return _doubled(number)
    if "DEADLINE_EXCEEDED" not in text and "bad_cast" not in text:  # JAX cannot pass the status to a callback of Python
        return _no_listening(given, _first_line(text))
    remedy = "Start all of them at once, each with a number of its own, and see that they can reach process 0."
    if came := ARRIVALS.search(log):
        arrived, count, absent = came.groups()
        numbers = absent.split()
        who = f"without process {', '.join(numbers)}{' …' if len(numbers) < int(count) - int(arrived) else ''}"
        got = f"{arrived} of {count} processes after {START_SECONDS} s, {who}"
    else:
        where = "" if given == "auto" else f" at {given}"
        got = f"no answer of process 0{where} within {START_SECONDS + SPARE_SECONDS} s"
    return problem(FIELD, got, "every process of the run", remedy)


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:200]
