"""Compiles our C++ for each level of processors while a wheel is built, and puts the libraries into it.

A level whose compiler is missing is left out, with a warning, which pip does not show. With ENGINE_KERNELS=all that is
an error; with ENGINE_KERNELS=own only for processors like this machine's.
"""

import importlib.util
import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# The newest versions of symbols that every system has on which jaxlib can be installed (manylinux_2_27).
NEWEST = {"GLIBC": (2, 27), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}
# What newer compilers otherwise take from newer systems.
OLD_SYSTEMS = """
#include <exception>
#include <ios>
#include <new>
#include <sstream>
#define HIDDEN __attribute__((visibility("hidden")))
extern "C" HIDDEN char __libc_single_threaded;
char __libc_single_threaded = 0;
namespace std { HIDDEN void __throw_bad_array_new_length() { throw bad_array_new_length(); } }
template std::stringstream::basic_stringstream();
extern "C" HIDDEN void initialize_streams() __asm__("_ZSt21ios_base_library_initv");
void initialize_streams() {}
static std::ios_base::Init streams;
extern "C" void* __cxa_begin_catch(void*) noexcept;
extern "C" HIDDEN void __cxa_call_terminate(void* error) { __cxa_begin_catch(error), std::terminate(); }
"""


class KernelsHook(BuildHookInterface):
    """The libraries of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds them to the files of the wheel; a development install compiles what it needs later."""
        if version == "editable":
            return
        known = runpy.run_path(str(Path(self.root, "engine", "host", "processor.py")))
        cores = runpy.run_path(str(Path(self.root, "engine", "host", "cores.py")))
        jobs, self._scratch = [], tempfile.TemporaryDirectory()
        also = Path(self._scratch.name, "old_systems.cc")
        also.write_text(OLD_SYSTEMS, encoding="ascii")
        for name, level in known["LEVELS"].items():
            compiler, headers = _find_compiler(level.machine), _find_headers()
            if compiler is None or headers is None:
                needed = "jaxlib" if compiler else f"{level.machine}-linux-gnu-g++"
                self._report(f"no libraries for {name}: {needed} is missing", level.machine)
                continue
            command = [*compiler, *known["FLAGS"], *level.options, "-s", "-I", headers, str(also)]
            for source in known["find_sources"](Path(self.root, "engine")):
                parts = map(str, known["find_parts"](source))
                jobs.append(([*command, *parts], source, f"{source.stem}-{name}.so", level.machine))
        with ThreadPoolExecutor(cores["num_cores"]()) as pool:
            for job, problem in zip(jobs, pool.map(lambda job: self._compile(job[0], job[2]), jobs), strict=True):
                if problem:
                    self._report(f"no {job[2]}: {problem}", job[3])
                else:
                    inside = job[1].with_name(job[2]).relative_to(self.root)
                    build_data["force_include"][str(Path(self._scratch.name, job[2]))] = str(inside)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Removes what was compiled, which is in the wheel by now."""
        if version != "editable":
            self._scratch.cleanup()

    def _compile(self, command: list[str], name: str) -> str:
        """Compiles one library; gives what is wrong with it, the compiler's first line, or nothing."""
        made = Path(self._scratch.name, name)
        done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
        if done.returncode:
            return (done.stderr.splitlines() or [f"exit code {done.returncode}"])[0]
        return _find_newer(made.read_bytes())

    def _report(self, text: str, machine: str) -> None:
        """A problem of the libraries for one kind of machine: an error where these are required."""
        required = os.environ.get("ENGINE_KERNELS")
        if required == "all" or (required == "own" and machine == platform.machine()):
            raise RuntimeError(text)
        self.app.display_warning(text)


def _find_newer(library: bytes) -> str:
    """What a library needs of a system that is newer than NEWEST."""
    for name, newest in NEWEST.items():
        for found in re.findall(rb"\0%s_([\d.]+)\0" % name.encode(), library):
            if tuple(map(int, found.split(b"."))) > newest:
                return f"it needs {name} {found.decode()}"
    return ""


def _find_compiler(machine: str) -> list[str] | None:
    """$CXX or c++ for this machine, GNU's cross-compiler for another; None if there is none."""
    if platform.system() == "Linux" and machine == platform.machine():
        if "CXX" in os.environ:
            return shlex.split(os.environ["CXX"])
        return next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    name = f"{machine}-linux-gnu-g++"
    return [name] if shutil.which(name) else None


def _find_headers() -> str | None:
    found = importlib.util.find_spec("jaxlib")
    places = found.submodule_search_locations if found else None
    return str(Path(places[0], "include")) if places else None
