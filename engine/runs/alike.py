"""What all processes of a run must have in common, compared before it trains; who differs is named."""

import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from engine.config import RunConfig
from engine.data.decoded.dataset import Splits
from engine.errors import InputError, problem
from engine.host.versions import versions
from engine.processes.together import all_succeed, are_several, exchange
from engine.records import differences, to_json
from engine.runs.checks import validation_fingerprint

CHECK_SECONDS = 50  # for all to come
MOST_LINES = 10


def check_same_start(config: RunConfig) -> None:
    """Raises InputError, in all processes, if one has other versions or another config, or does not come."""
    # Where the data lies, and what is kept of it, may be another place on each host.
    here = replace(config, data=replace(config.data, path=None, cache_dir=None)) if are_several() else config
    facts = {
        "versions": versions(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.local_device_count(),
        "config": to_json(here),
    }
    _check(facts, "Start all processes with the same command, in the same environment.")


def check_same_data(splits: Splits) -> None:
    """Raises InputError, in all processes, if one has loaded other data."""
    facts = {
        "data": splits.train.fingerprint,
        "validation": validation_fingerprint(splits),
        "test": "" if splits.test is None else splits.test.fingerprint,
        "classes": list(splits.train.class_names),
    }
    _check(facts, "Copy the data of process 0 there, or let all read the same files.")


def load_in_turn(load: Callable[[], Any]) -> Any:
    """What `load` returns, in each process: first in one of each host, whose cache then serves the others."""
    if not are_several():
        return load()
    hosts = exchange(socket.gethostname())
    is_leader = hosts.index(hosts[rank := jax.process_index()]) == rank
    own = all_succeed(load if is_leader else lambda: None)
    return all_succeed(lambda: own if is_leader else load())


def _check(facts: dict[str, Any], remedy: str) -> None:
    if not are_several():
        return
    try:
        found = exchange({"host": socket.gethostname(), "facts": facts}, CHECK_SECONDS)
    except TimeoutError as error:
        got = f"processes {error}, which did not come within {CHECK_SECONDS} s"
        raise InputError(problem("distributed", got, "all of the run", "See what they print.")) from None
    at_first = f"on {found[0]['host']} (process 0)"
    lines = [
        f"  process {rank} on {each['host']}: {difference.text(at_first, 'there')}"
        for rank, each in enumerate(found)
        for difference in differences(found[0]["facts"], each["facts"])
    ]
    if lines:
        names = sorted({line.split(":")[0].strip() for line in lines})
        got = f"other settings or data in {', '.join(names[:MOST_LINES])}"
        raise InputError(problem("distributed", got, "those of process 0", remedy), *lines[:MOST_LINES])
