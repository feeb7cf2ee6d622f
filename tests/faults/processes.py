"""Processes of runs as the harness sees them: started, waited for, killed, and how they ended."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_SECONDS = 1800.0
POLL_SECONDS = 0.001
REMOVAL = r"file (remove|rmdir|rename) checkpoints/\d+(/|$)"
KINDS = {"train": "training", "compile": "compiling", "eval": "evaluating", "save": "saving", "data": "loading data",
         "plan": "planning", "import": "importing", "between": "between these"}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """How a process ended: its exit code (−signal where one ended it), and what it wrote."""

    code: int
    output: str
    errors: str

    @property
    def error_lines(self) -> list[str]:
        """What stands on stderr, without empty lines."""
        return [line for line in self.errors.splitlines() if line.strip()]

    def told(self) -> str:
        """The end of what it wrote, for a message."""
        return f"exit code {self.code}\n{self.output[-800:]}\n{self.errors[-1500:]}"


@dataclass
class Started:
    """A process that was started, with the files that it writes to."""

    process: subprocess.Popen
    files: Path
    started: float = field(default_factory=time.monotonic)

    @property
    def trace(self) -> list[str]:
        """What the process has told of its work so far (`inside`)."""
        return _lines(self.files / "trace")

    def reaches(self, pattern: str, count: int = 1) -> bool:
        """Waits until `count` lines of the trace match; whether that came before its end."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            is_over = self.process.poll() is not None
            if sum(re.match(pattern, line) is not None for line in self.trace) >= count:
                return self.process.poll() is None
            if is_over:
                return False
            time.sleep(POLL_SECONDS)
        raise AssertionError(f"nothing told of {pattern} within {TIMEOUT_SECONDS:.0f} s")

    def send(self, number: int) -> bool:
        """Sends a signal; whether the process was still there."""
        is_there = self.process.poll() is None
        self.process.send_signal(number)
        return is_there

    def end(self, timeout_seconds: float = TIMEOUT_SECONDS) -> Outcome:
        """Waits for it to end; fails if it hangs."""
        try:
            code = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"a hang: no end within {timeout_seconds:.0f} s\n{self._outcome(0).told()}") from None
        return self._outcome(code)

    def kill(self) -> Outcome:
        """Kills the process and all that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self._outcome(self.process.wait())

    def _outcome(self, code: int) -> Outcome:
        return Outcome(code, *("\n".join(_lines(self.files / name)) for name in ("output", "errors")))


def start(
    command: list[str],
    files: Path,
    cache: Path,
    faults: dict[str, Any] | None = None,
    variables: dict[str, str] | None = None,
) -> Started:
    """Starts a command in a process group of its own; what it writes goes to files in the directory `files`.

    variables: of its environment, beside those of this process.
    """
    files.mkdir(parents=True)
    told = {"trace": str(files / "trace"), **faults} if faults is not None else {}
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    environment = {
        **os.environ, "PYTHONPATH": path, "ENGINE_CACHE_DIR": str(cache), "FAULTS": json.dumps(told), "COLUMNS": "200",
        **(variables or {}),
    }  # fmt: skip
    with (files / "output").open("wb") as output, (files / "errors").open("wb") as errors:
        process = subprocess.Popen(
            command, stdout=output, stderr=errors, stdin=subprocess.DEVNULL, env=environment, start_new_session=True
        )
    return Started(process, files)


def run_command(case: str, run_dir: Path, data: Path, *options: str) -> list[str]:
    """The command line of a run of `runs.CASES`."""
    places = ["--run-dir", str(run_dir), "--data.path", str(data)]
    return [sys.executable, "-m", "tests.faults.runs", case, *places, *options]


def reported_steps(*texts: str) -> set[int]:
    """The steps that a run said were saved."""
    found = re.findall(r"\bsaved (?:at )?step ([\d,]+)", "\n".join(texts))
    return {int(number.replace(",", "")) for number in found}


def moment(trace: list[str], run_dir: Path) -> str:
    """What a process was doing when it ended, by its trace, and whether it wrote or removed a checkpoint beside it."""
    open_kinds: list[str] = []
    for line in trace:
        if line.startswith("> "):
            open_kinds.append(line[2:])
        elif line.startswith("< ") and open_kinds:
            open_kinds.pop()
    operations = [line for line in trace if line.startswith("file ")]
    beside = " while a checkpoint is written" if any(run_dir.glob("checkpoints/*tmp*")) else ""
    if operations and re.match(REMOVAL, operations[-1]):
        beside = " while a checkpoint is removed"
    kind = open_kinds[-1] if open_kinds else "between" if "ready" in trace else "import"
    return KINDS.get(kind, kind) + beside


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
