"""What the processes of benchmarks/startup.py do. Nothing heavy is imported here before their clocks start."""

import json
import os
import runpy
import sys
import time
from pathlib import Path
from typing import Any

IMPORTS = "import jax, flax"
TO_FIRST_STEP = "from jax and flax to the first step"


def until_first_step(scratch: str) -> None:
    """Runs the convnet's command in this process until its first step is done, prints the seconds and exits."""
    start = time.perf_counter()
    import jax  # noqa: F401

    imported = time.perf_counter()
    from engine.runs.session import Session

    loaded = time.perf_counter()
    train_chunk = Session.train_chunk

    def train_first_chunk(session: Any, *limit: Any) -> None:
        train_chunk(session, *limit)
        done, parts = time.perf_counter(), session.clock.seconds
        _leave(
            {
                IMPORTS: imported - start,
                "import engine": loaded - imported,
                "data": parts["data"],
                "compile": parts["compile"],
                "first step": parts["train"],
                "everything else": done - loaded - parts["data"] - parts["compile"] - parts["train"],
                TO_FIRST_STEP: done - imported,
            }
        )

    Session.train_chunk = train_first_chunk  # type: ignore[method-assign]
    sys.argv = ["convnet", "--run-dir", str(Path(scratch) / f"run{os.getpid()}")]
    sys.stdout = sys.stderr
    runpy.run_module("experiments.convnet", run_name="__main__")


def until_first_prediction(scratch: str) -> None:
    """Restores the saved run and asks it about a picture twice, prints the seconds and exits."""
    saved, times = Path(scratch) / "saved", [time.perf_counter()]
    import jax  # noqa: F401

    times.append(time.perf_counter())
    from engine import restore
    from engine.commands.process import set_up_process

    set_up_process()
    times.append(time.perf_counter())
    classifier = restore(saved)
    times.append(time.perf_counter())
    for _ in range(2):
        classifier.predict(saved / "example.png")
        times.append(time.perf_counter())
    names = (IMPORTS, "import engine", "restore", "first prediction", "second prediction")
    _leave({name: times[i + 1] - times[i] for i, name in enumerate(names)})


def _leave(seconds: dict[str, float]) -> None:
    print(json.dumps(seconds), file=sys.__stdout__, flush=True)
    os._exit(0)
