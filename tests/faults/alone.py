"""Runs of one process that are hurt: the rounds that are played, and the tables of how they ended."""

import argparse
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from random import Random

from rich.table import Column, Table

from engine.host.console import Console
from tests.faults.kills import KILLS
from tests.faults.play import Job, Verdict, corrupt, play
from tests.faults.rounds import Place
from tests.faults.troubles import TROUBLES

KILLS_PER_TROUBLE = 20
CORRUPTED_CASES = ("convnet", "ensemble")


def hurt_one(options: argparse.Namespace) -> int:
    """Plays all rounds and prints the tables; the exit code."""
    console, directory = Console(), options.directory or Path(tempfile.mkdtemp(prefix="faults-"))
    jobs = plan(options.rounds, options.cases, options.only, Random(options.seed))
    corrupted = [case for case in CORRUPTED_CASES if case in options.cases] or options.cases[:1]
    corrupted = corrupted if options.corruptions else []
    place, started = Place(directory), time.monotonic()
    console.print(f"{len(jobs)} rounds in {directory}, seed {options.seed}", soft_wrap=True)
    with ThreadPoolExecutor(options.jobs) as pool:
        cases = sorted({job.case for job in jobs} | {*corrupted})
        references = dict(zip(cases, pool.map(place.reference, cases), strict=True))
        console.print(f"{len(cases)} uninterrupted runs in {time.monotonic() - started:.0f} s")
        tallies = [
            pool.submit(corrupt, place, references[case], options.corruptions, options.seed) for case in corrupted
        ]
        verdicts = []
        for verdict in pool.map(lambda job: play(place, references[job.case], job, options.seed), jobs):
            verdicts.append(verdict)
            if verdict.failure:
                text = f"FAILED round {verdict.number}, {verdict.scenario}, {verdict.case}: {verdict.failure}"
                console.print(text, soft_wrap=True, markup=False, highlight=False)
        corruptions = [tally.result() for tally in tallies]
    failures = [v.failure for v in verdicts if v.failure] + [text for each in corruptions for text in each["failures"]]
    for table in (rounds_table(verdicts), moments_table(verdicts), corruptions_table(corruptions)):
        console.print(table)
    for text in (text for each in corruptions for text in each["failures"][:10]):
        console.print(f"FAILED {text}", soft_wrap=True, markup=False, highlight=False)
    report = {"seed": options.seed, "seconds": round(time.monotonic() - started, 1), "failures": len(failures),
              "rounds": [asdict(verdict) for verdict in verdicts], "corruptions": corruptions}  # fmt: skip
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    console.print(f"{len(failures)} failures in {report['seconds']} s; every round is in {options.json}")
    if not failures and options.directory is None:
        shutil.rmtree(directory)
    return 1 if failures else 0


def plan(rounds: int, cases: Sequence[str], only: Sequence[str], random: Random) -> list[Job]:
    """`rounds` kills, their scenarios in turn, and one round of each trouble for every twenty; cases are drawn evenly.

    only: parts of the names of those scenarios that are wanted.
    """
    kills = [name for name in KILLS if any(part in name for part in only)]
    names = [kills[i % len(kills)] for i in range(rounds)] if kills else []
    names += [name for name in TROUBLES if any(part in name for part in only)] * max(1, rounds // KILLS_PER_TROUBLE)
    drawn: list[str] = []
    while len(drawn) < len(names):
        drawn += random.sample(list(cases), len(cases))
    return [Job(number, name, case) for number, (name, case) in enumerate(zip(names, drawn, strict=False))]


def rounds_table(verdicts: Sequence[Verdict]) -> Table:
    """By scenario: how many rounds there were and how they ended."""
    table = Table("scenario", *_right("rounds", "survived", "saved steps lost", "seconds a round"))
    for name in [*KILLS, *TROUBLES, "all"]:
        own = [verdict for verdict in verdicts if name in (verdict.scenario, "all")]
        if own:
            survived, lost = sum(v.failure is None for v in own), sum(v.lost for v in own)
            seconds = sum(v.seconds for v in own) / len(own)
            table.add_row(name, f"{len(own)}", f"{survived}", f"{lost}", f"{seconds:.1f}", style=_style(name, own))
    return table


def moments_table(verdicts: Sequence[Verdict]) -> Table:
    """What the killed runs were doing."""
    table = Table("killed while", *_right("kills"))
    for name, count in Counter(moment for verdict in verdicts for moment in verdict.moments).most_common():
        table.add_row(name, str(count))
    return table


def corruptions_table(corruptions: Sequence[dict]) -> Table:
    """What came of damaged files."""
    table = Table("damaged files of", *_right("damages", "same model", "refused, named", "earlier step", "failures"))
    for each in corruptions:
        found = each["outcomes"]
        numbers = (sum(found.values()) + len(each["failures"]), *(found.get(kind, 0) for kind in
                   ("identical", "refused", "earlier")), len(each["failures"]))  # fmt: skip
        table.add_row(each["case"], *map(str, numbers), style="red" if each["failures"] else None)
    return table


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def _style(name: str, own: Sequence[Verdict]) -> str | None:
    return "red" if any(v.failure for v in own) else "bold" if name == "all" else None
