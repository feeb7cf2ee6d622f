"""A C++ compiler that keeps what it made: of the same options and source it is compiled once for all tests.

    KEPT_LIBRARIES=DIRECTORY CXX="python kept_compiler.py" …

Many tests, and processes that they start, have a cache of their own; the kernels take ten seconds to compile.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), "")


def main(arguments: list[str]) -> int:
    """Compiles, or copies what was compiled; the compiler's own exit code."""
    if "-o" not in arguments:
        return subprocess.run([COMPILER, *arguments], check=False).returncode
    place = arguments.index("-o")
    made, rest = arguments[place + 1], arguments[:place] + arguments[place + 2 :]
    source = subprocess.run([COMPILER, *rest, "-E"], capture_output=True, check=False)
    if source.returncode:
        return subprocess.run([COMPILER, *arguments], check=False).returncode
    directory = Path(os.environ["KEPT_LIBRARIES"])
    kept = directory / hashlib.sha256(repr(rest).encode() + source.stdout).hexdigest()
    with (directory / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second waits for the first to be done
        if not kept.exists():
            code = subprocess.run([COMPILER, *arguments], check=False).returncode
            if code:
                return code
            shutil.copyfile(made, directory / "half")
            (directory / "half").rename(kept)
    shutil.copyfile(kept, made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
