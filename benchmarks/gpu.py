"""Every number that needs a GPU, in order of worth, in ten minutes: one command for a machine that is lent for as long.

    python -m benchmarks.gpu --minutes 9 --json gpu.json
    python -m benchmarks.gpu --minutes 9 --json gpu.json --continue    # what is missing in the file

Each part is a process with a time limit of its own. What it prints is shown as it comes; after each part the file is
written. `benchmarks/gpu_bundle.sh` makes a folder of the wheels that a machine with JAX and PyTorch, but without a
network, lacks. TensorFlow is not needed.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from benchmarks.measure import Measuring, show_circumstances
from benchmarks.peers_worker import SHARED_DEVICE

TORCH = ("torch eager, channels_last", "torch CUDA graph", "torch compiled, CUDA graph, channels_last")
COMPILED = ("torch compiled, channels_last", "torch compiled, CUDA graph, channels_last")
MOST_LINES = 400  # of what a part printed that are kept


@dataclass(frozen=True)
class Part:
    """A benchmark, the most seconds it may take, and its arguments. has_figures: it takes --json and --smoke."""

    module: str
    seconds: float
    arguments: tuple[str, ...] = ()
    needs_data: bool = False
    has_figures: bool = True


def _peers(workload: str, precision: str, variants: tuple[str, ...] = TORCH, seconds: float = 150) -> Part:
    arguments = ("--workloads", workload, "--precision", precision, "--variants", *variants)
    return Part("benchmarks.peers", seconds, (*arguments, "--rounds", "5", "--seconds", "0.5"))


PARTS = {
    "numbers are right": Part(
        "pytest", 120, ("-q", "-m", "gpu", "-n", "8", "-p", "no:benchmark", "tests"), has_figures=False
    ),
    "convnet against PyTorch, float32": _peers("convnet, batch 512", "float32"),
    "convnet against PyTorch, bfloat16": _peers("convnet, batch 512", "bfloat16"),
    "ten members": Part(
        "benchmarks.ensemble", 100, ("--members", "1", "10", "--torch-members", "--separate", "0", "--rounds", "5")
    ),
    "ten members, bfloat16": Part(
        "benchmarks.ensemble", 100,
        ("--members", "1", "10", "--torch-members", "--separate", "0", "--rounds", "5", "--precision", "bfloat16"),
    ),
    "fashion_fast": Part(
        "benchmarks.accuracy", 150, ("--recipe", "fashion_fast", "--seeds", "0", "1", "2", "3", "4"), needs_data=True
    ),
    "MobileNet": _peers("mobilenet_128, batch 64", "bfloat16", COMPILED, seconds=330),
    "ResNet50": _peers("resnet50_224, batch 64", "bfloat16", COMPILED, seconds=330),
    "cifar_fast": Part("benchmarks.fast_steps", 60),
    "saving": Part("benchmarks.checkpoint", 90, ("--rounds", "3", "--epochs", "6", "--calls", "100")),
    "convnet against PyTorch, tf32": _peers("convnet, batch 512", "tf32"),
    "limits": Part("benchmarks.roofline", 90, ("--rounds", "3")),
}  # fmt: skip


@dataclass(frozen=True)
class Options(Measuring):
    """What to run and for how long."""

    minutes: float = 9.0
    """After so many no further part is begun, and what runs is ended."""
    continued: Annotated[bool, tyro.conf.arg(name="continue"), tyro.conf.FlagCreatePairsOff] = False
    """Run only the parts that the file lacks, or that failed."""
    parts: tuple[str, ...] = tuple(PARTS)
    """Which parts, in this order."""
    data: Path | None = None
    """The four official files of Fashion-MNIST; without them fashion_fast is left out."""


def main(options: Options) -> None:
    """Runs the parts, one after another."""
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        raise SystemExit(f"--parts: got {'; '.join(unknown)}; expected some of {'; '.join(PARTS)}. Correct the names.")
    console, end = Console(width=120, highlight=False), time.monotonic() + 60 * options.minutes
    found = _read(options.json) if options.continued else {}
    show_circumstances(console)
    for name in options.parts:
        if found.get(name, {}).get("status") == "done":
            continue
        remaining = end - time.monotonic()
        part = PARTS[name]
        if remaining < 10:
            console.print(f"{name}: no time left; --continue runs it")
            continue
        if part.needs_data and options.data is None and not options.smoke:
            console.print(f"{name}: left out, for it needs --data, the four official files of Fashion-MNIST")
            continue
        console.rule(name)
        found[name] = run(part, remaining if options.smoke else min(part.seconds, remaining), options)
        console.print(f"{name}: {found[name]['status']} after {found[name]['seconds']:.0f} s")
        if options.json:
            options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    bad = [name for name in options.parts if found.get(name, {}).get("status") != "done"]
    console.print(f"not done: {'; '.join(bad)}" if bad else "all parts done")


def run(part: Part, limit_seconds: float, options: Options) -> dict[str, Any]:
    """What a part printed and found, and whether it was done, failed or ended at its limit."""
    start, lines = time.monotonic(), list[str]()
    with tempfile.TemporaryDirectory() as directory:
        figures = Path(directory) / "figures.json"
        with subprocess.Popen(
            [sys.executable, "-m", part.module, *_arguments(part, figures, options)],
            cwd=Path(__file__).parents[1], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**SHARED_DEVICE, "PYTHONUNBUFFERED": "1", **os.environ}, start_new_session=True,
        ) as process:  # fmt: skip
            timer = threading.Timer(limit_seconds, os.killpg, (process.pid, signal.SIGKILL))
            timer.start()
            try:
                for line in process.stdout or ():
                    print(line, end="", flush=True)
                    lines.append(line.rstrip("\n"))
                code = process.wait()
            finally:
                timer.cancel()
                with contextlib.suppress(ProcessLookupError):  # also what it has started
                    os.killpg(process.pid, signal.SIGKILL)
        seconds = time.monotonic() - start
        status = "done" if code == 0 else "out of time" if seconds >= limit_seconds else "failed"
        return {"status": status, "seconds": seconds, "printed": lines[-MOST_LINES:], "figures": _read(figures)}


def _arguments(part: Part, figures: Path, options: Options) -> list[str]:
    if not part.has_figures:
        return ["--collect-only", *part.arguments] if options.smoke else list(part.arguments)
    data = ["--data.name", "fashion_mnist", "--data.manual-dir", str(options.data)] if part.needs_data else []
    arguments = [*part.arguments, "--json", str(figures)]
    return [*arguments, "--smoke"] if options.smoke else [*arguments, *data]


def _read(path: Path | None) -> dict[str, Any]:
    if path is None or not path.exists():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
