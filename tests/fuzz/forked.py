"""The process that reads HDF5, forked from one that has loaded h5py: 2,000 files without 2,000 interpreters."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class Forked:
    """What `engine.importers.hdf5` uses of a Popen."""

    def __init__(self, pid: int, stdout: IO[bytes]):
        self.pid, self.stdout = pid, stdout
        self._code: int | None = None

    def wait(self) -> int:
        """The exit code; below 0 the signal that ended it."""
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code


@contextlib.contextmanager
def ask_forked(path: Path, start: int, size: int, most_bytes: int) -> Iterator[Forked]:
    """As `engine.importers.hdf5._asked`; it is gone after the block."""
    from engine.importers import hdf5_child

    os.environ["HDF5_PLUGIN_PRELOAD"] = "::"
    import h5py  # noqa: F401  # before the fork

    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        sys.stdout = os.fdopen(1, "w")
        hdf5_child.main(str(path), start, size, most_bytes)
        sys.stdout.flush()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stdout:
        child = Forked(pid, stdout)
        try:
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            child.wait()
