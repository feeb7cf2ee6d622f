"""Both ends of a pipe to a process that trains a workload with one library, one round whenever it is asked to.

The process builds once, warms up and says what it built; then it answers each line with the rate of one round. So
rounds of several libraries can take turns, though none shares a process with another.
"""

import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from benchmarks.workloads import Workload
from engine.config import Precision

LIBRARIES = {
    "engine": "benchmarks.peers_engine",
    "torch": "benchmarks.peers_torch",
    "torch_ensemble": "benchmarks.peers_torch_ensemble",
    "keras": "benchmarks.peers_keras",
    "flax": "benchmarks.peers_flax",
}
# Several processes share an accelerator, so none may take its memory in advance.
SHARED_DEVICE = {
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
_PROGRAM = "import sys; from benchmarks.peers_worker import Job, serve; serve(Job.from_json(sys.argv[1]))"


class Unavailable(Exception):
    """A variant that this machine cannot run, and why."""


@dataclass(frozen=True)
class Job:
    """What a process is to measure.

    options: of the variant, passed to the library's peer. num_images: of an epoch, whole batches.
    seconds: what a round lasts at least. inference: measure prediction in place of training.
    """

    library: str
    workload: Workload
    num_images: int
    seconds: float = 1.0
    inference: bool = False
    precision: Precision = "float32"
    options: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Text that `from_json` turns back into an equal job."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Job":
        """The job that `to_json` wrote."""
        fields = json.loads(text)
        workload = fields.pop("workload")
        return cls(workload=Workload(**{**workload, "input_shape": tuple(workload["input_shape"])}), **fields)


class Peer(Protocol):
    """A workload in some library."""

    num_params: int

    def train(self, epochs: int) -> None:
        """Trains so many epochs on the job's images; returns when the device is done."""
        ...

    def predict(self, images: np.ndarray, batch_size: int) -> np.ndarray:
        """uint8[n h w c] on the host → probabilities float32[n k] on the host."""
        ...


class Rounds:
    """Rounds of a peer that is built and warm: whole epochs, or whole predictions, for about the job's seconds."""

    def __init__(self, job: Job, peer: Peer):
        self.job, self.peer = job, peer
        if job.inference:
            self._images = np.asarray(job.workload.images(job.workload.num_predicted).images)
            self._run = self._fastest()
        else:
            self._run = peer.train
        self._run(1)
        self._count = max(1, round(job.seconds / _seconds(lambda: self._run(1))))

    def _fastest(self) -> Callable[[int], None]:
        """Prediction in the workload's batch size, else in that, of three, that suits the library best."""
        if (size := self.job.workload.predicted_at_once) is not None:
            return lambda count: self._predict(count, size)
        sizes = sorted({max(1, len(self._images) // parts) for parts in (2, 8, 40)})
        runs = [lambda count, size=size: self._predict(count, size) for size in sizes]
        for run in runs:
            run(1)
        return min(runs, key=lambda run: min(_seconds(lambda: run(1)) for _ in range(3)))

    def _predict(self, count: int, batch_size: int) -> None:
        for _ in range(count):
            self.peer.predict(self._images, batch_size)

    def images_per_second(self) -> float:
        """The rate of one round."""
        images = len(self._images) if self.job.inference else self.job.num_images
        return self._count * images / _seconds(lambda: self._run(self._count))


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def serve(job: Job) -> None:
    """The process's life: builds, says so, measures a round for each line it reads, ends with its input."""
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not be taken for a reply
    start = time.perf_counter()
    try:
        peer = importlib.import_module(LIBRARIES[job.library]).build(job)
        rounds = Rounds(job, peer)
    except Unavailable as reason:
        print(json.dumps({"unavailable": str(reason)}), file=replies)
        return
    ready = {"num_params": int(peer.num_params), "ready_seconds": time.perf_counter() - start}
    print(json.dumps(ready), file=replies)
    for _ in sys.stdin:
        print(json.dumps({"images_per_second": rounds.images_per_second()}), file=replies)


class Worker:
    """The other end: starts the process and asks it for rounds. Raises Unavailable with the process's reason."""

    def __init__(self, job: Job, ready_limit_seconds: float, round_limit_seconds: float = 600):
        self._round_limit_seconds = round_limit_seconds
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, job.to_json()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, bufsize=1,
            cwd=Path(__file__).parents[1], env={**SHARED_DEVICE, **os.environ},
            start_new_session=True,  # so that compilers which it started can be ended with it
        )  # fmt: skip
        try:
            ready = self._reply(ready_limit_seconds)
            if "unavailable" in ready:
                raise Unavailable(ready["unavailable"])
        except BaseException:
            self.close()
            raise
        self.num_params: int = ready["num_params"]
        self.ready_seconds: float = ready["ready_seconds"]

    def images_per_second(self) -> float:
        """The rate of one round."""
        assert self._process.stdin is not None
        self._process.stdin.write("round\n")
        self._process.stdin.flush()
        return self._reply(self._round_limit_seconds)["images_per_second"]

    def close(self) -> None:
        """Ends the process and what it started."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def _reply(self, limit_seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(limit_seconds):
                raise Unavailable(f"no answer within {limit_seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(f"it failed: {self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        errors = [line for line in lines if "Error" in line or "error:" in line]
        return (errors or lines or ["without a word"])[-1][:300]
