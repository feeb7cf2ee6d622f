"""Reading ahead: Grain's threads or processes, which fetch the chunks of a stream before they are wanted."""

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax

from engine.errors import InputError, problem
from engine.host.cores import num_cores

CHUNKS_AHEAD = 2


def read_ahead(chunks: Any, readers: int) -> Any:
    """An iterable of the items of a sequence, read by that many processes, or by threads of this one for 0.

    Raises InputError if processes cannot be started from this script.
    """
    import grain

    if readers:
        _check_can_start_processes(readers)
    options = grain.ReadOptions(num_threads=min(CHUNKS_AHEAD, num_cores()), prefetch_buffer_size=CHUNKS_AHEAD)
    dataset = grain.MapDataset.source(chunks).to_iter_dataset(options)
    if not readers:
        return dataset
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, which only an absl program would parse
    workers = grain.MultiprocessingOptions(num_workers=readers, per_worker_buffer_size=1)
    return dataset.mp_prefetch(workers, worker_init_fn=_set_up_reader)


def _check_can_start_processes(readers: int) -> None:
    """Raises InputError if a new process, which Python sets up by importing the script, would run its work again."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    if script is None:  # a notebook or a prompt: nothing to run again
        return
    path = Path(script)
    if not path.is_file() or "__main__" not in path.read_text(encoding="utf-8", errors="replace"):
        rule = 'a script whose work is below `if __name__ == "__main__":`'
        raise InputError(problem("plan.readers", f"{readers} in {script}", rule, "Put it there, or leave out readers."))


def _set_up_reader(worker: int, num_workers: int) -> None:
    """Keeps a reader process off accelerators, and ends it with the run, even if that is killed."""
    jax.config.update("jax_platforms", "cpu")
    run = os.getppid()

    def watch() -> None:
        while os.getppid() == run:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
