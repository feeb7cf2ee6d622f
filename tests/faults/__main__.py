"""python -m tests.faults --rounds 200 --jobs 2: hurts real runs and tells in a table whether any of them lost anything.

A round is one kill; of all else each scenario has one round for every twenty kills. Every file of a checkpoint is
damaged `--corruptions` times. With `--processes 4` a round is one fault of one of four processes, see `several`.
Exits with 1 if anything failed; its files are then kept in the directory that is named.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.faults.runs import CASES


def main(arguments: Sequence[str] | None = None) -> int:
    """Plays all rounds and prints the tables; the exit code."""
    options = _options().parse_args(arguments)
    if options.processes > 1:
        # Before JAX is imported; this process must not start it, nor threads, because it forks those of the runs.
        os.environ |= {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}
        from tests.faults.series import hurt_several

        return hurt_several(options)
    from tests.faults.alone import hurt_one

    return hurt_one(options)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200, help="kills, or with several processes faults (200)")
    parser.add_argument("--processes", type=int, default=1, help="of each run, of which one is hurt (1: other faults)")
    parser.add_argument("--first", type=int, default=0, help="number of the first round, with several processes (0)")
    parser.add_argument("--round", type=int, help="play this one again, with several processes")
    parser.add_argument("--in-shares", action="store_true", help="each of several processes saves its share")
    parser.add_argument("--starts", type=int, default=0, help="start several processes so often, and hurt none (0)")
    parser.add_argument("--corruptions", type=int, default=50, help="damages of each file of a checkpoint (50)")
    parser.add_argument("--seed", type=int, default=0, help="decides all that is random, but not when the system acts")
    parser.add_argument("--jobs", type=int, default=1, help="rounds at a time (1)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES), help="runs to hurt (all)")
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names of the scenarios to play (all)")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary one that goes if all went well")
    parser.add_argument("--json", type=Path, default=Path("runs/faults.json"), help="where to leave the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
