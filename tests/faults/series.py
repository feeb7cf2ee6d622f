"""Rounds of several processes, one after another, and the tables of how they ended."""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from engine.host.console import Console
from tests.faults.several import FAULTS, HEARTBEAT_SECONDS, MOMENTS, SILENT_SECONDS, Ending, Several
from tests.faults.starts import median_of, start_often


def hurt_several(options: argparse.Namespace) -> int:
    """Plays the rounds, or starts so often, and prints tables of how they ended; the exit code."""
    directory = options.directory or Path(tempfile.mkdtemp(prefix="faults-"))
    place, begun = Several(directory, options.processes, options.in_shares), time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # not without those that were forked
    try:
        found = _starts(options, directory) if options.starts else _rounds(options, place)
    finally:
        place.close()
    cores = len(os.sched_getaffinity(0))
    Console().print(f"{found} failures in {time.monotonic() - begun:.0f} s, {cores} cores, seed {options.seed}")
    if not found and options.directory is None:
        shutil.rmtree(directory)
    return min(found, 1)


def _rounds(options: argparse.Namespace, place: Several) -> int:
    """The failures of these rounds. The table, and the file, have those that were played before with this seed too."""
    names = [name for name in FAULTS if any(part in name for part in options.only)]
    numbers = range(options.first, options.first + options.rounds) if options.round is None else [options.round]
    how = f"{options.processes} processes{', in shares' * options.in_shares}"
    key, endings = f"{how}, seed {options.seed}, {', '.join(names)}", {}
    if options.json.exists() and isinstance(before := json.loads(options.json.read_text(encoding="utf-8")), dict):
        endings = {int(number): Ending(**each) for number, each in before.get(key, {}).items()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        each = endings[number] = place.play(number, options.seed, names)
        text = f"{number} {each.fault} of {each.rank} {each.moment}: {each.codes} in {each.seconds:.1f} s, resumed in"
        failure = f" FAILED: {each.failure}" if each.failure else ""
        _print(f"{text} {each.resumed_seconds:.1f} s{failure}")
        told = {key: {number: asdict(ending) for number, ending in endings.items()}}
        options.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    Console().print(_tabulate([*endings.values()]))
    _print(f"others are lost after {SILENT_SECONDS:.0f} s of silence, JAX's heartbeat is {HEARTBEAT_SECONDS} s")
    return sum(endings[number].failure is not None for number in numbers)


def _tabulate(endings: Sequence[Ending]) -> Table:
    """By fault: how many rounds there were and how they ended."""
    table = Table("fault", "rounds", *MOMENTS, "of rank 0", "as due, same bits", "end, median s", "longest")
    for name in [*FAULTS, "all"]:
        if own := [each for each in endings if name in (each.fault, "all")]:
            moments = [str(sum(each.moment == moment for each in own)) for moment in MOMENTS]
            good, first = sum(each.failure is None for each in own), sum(each.rank == 0 for each in own)
            # Of runs that end well there is no end to be measured.
            seconds = [each.seconds for each in own if any(each.codes)]
            times = [f"{median_of(seconds):.1f}", f"{max(seconds):.1f}"] if seconds else ["", ""]
            table.add_row(name, str(len(own)), *moments, str(first), str(good), *times)
    return table


def _starts(options: argparse.Namespace, directory: Path) -> int:
    """The starts that did not end well."""
    found = start_often(directory, options.processes, options.starts)
    for number, (_, failures) in enumerate(found):
        for failure in failures:
            _print(f"FAILED start {number}: {failure}")
    seconds = [each for each, _ in found]
    _print(
        f"{len(found)} starts of {options.processes}: median {median_of(seconds):.2f} s, longest {max(seconds):.2f} s"
    )
    return sum(bool(failures) for _, failures in found)


def _print(text: str) -> None:
    Console().print(text, soft_wrap=True, markup=False, highlight=False)
