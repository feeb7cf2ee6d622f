"""Our C++ as XLA sees it: registered once loaded, and refused where it was compiled for another FFI."""

import re
import shutil
import subprocess
from pathlib import Path

import jax
import pytest

from engine.config import FineTuneConfig, PlanConfig, RunConfig
from engine.host import library
from engine.host.compiler import COMPILERS
from engine.host.library import shipped_file
from engine.kernels import libraries
from engine.models import BatchNorm, Conv, Dense, DepthwiseConv, Flatten, GlobalAveragePool, Layer, MaxPool, Sequential
from engine.models.blocks import residual
from engine.runs import needed_kernels

TINY = """
#include "xla/ffi/api/ffi.h"
XLA_FFI_DEFINE_HANDLER_SYMBOL(engine_tiny_NAME, [] { return xla::ffi::Error::Success(); }, xla::ffi::Ffi::Bind());
"""
HEADS = (GlobalAveragePool(), Dense())


def test_headers_are_those_of_jax():
    assert libraries._find_headers() == jax.ffi.include_dir()


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C++ compiler")
@pytest.mark.parametrize(("name", "version", "is_accepted"), [("now", None, True), ("later", 9, False)])
def test_library_for_another_ffi_is_refused(
    name: str, version: int | None, is_accepted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    headers = tmp_path / "include"
    shutil.copytree(jax.ffi.include_dir(), headers)
    if version is not None:
        header = headers / "xla" / "ffi" / "api" / "c_api.h"
        other = re.sub(r"(#define XLA_FFI_API_MAJOR) \d+", rf"\1 {version}", header.read_text())
        header.write_text(other)
    source = tmp_path / "cpu" / f"{name}.cc"
    source.parent.mkdir()
    source.write_text(TINY.replace("NAME", name))
    compiler = next(filter(None, map(shutil.which, COMPILERS)))
    made = shipped_file(source, "x86-64-v3")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-std=c++17", f"-I{headers}", str(source), "-o", str(made)], check=True
    )
    monkeypatch.setattr(library, "find_level", lambda: "x86-64-v3")
    monkeypatch.setattr(library, "find_compiler", lambda: None)
    monkeypatch.setattr(libraries, "__file__", str(tmp_path / "libraries.py"))
    jax.devices("cpu")
    assert (libraries._make_library(name, "tests", [f"engine_tiny_{name}"]).load() is not None) == is_accepted


@pytest.mark.parametrize(
    ("layers", "needed"),
    [
        ((Flatten(), Dense(32), Dense()), set()),
        ((Conv(32), MaxPool(), Flatten(), Dense()), {"convolutions"}),
        ((Conv(8), *HEADS), set()),  # too few filters for our code
        ((Conv(16, 1), *HEADS), {"separable"}),
        ((residual((Conv(32, padding="same"), BatchNorm())), *HEADS), {"convolutions", "batch norms"}),
        ((Conv(32), DepthwiseConv(), *HEADS), {"convolutions", "separable"}),
    ],
)
def test_only_what_a_layer_needs_is_compiled(
    layers: tuple[Layer, ...], needed: set[str], monkeypatch: pytest.MonkeyPatch
):
    begun = set[str]()
    monkeypatch.setattr(needed_kernels.CONVOLUTIONS, "begin", lambda: begun.add("convolutions"))
    monkeypatch.setattr(needed_kernels.SEPARABLE, "begin", lambda: begun.add("separable"))
    monkeypatch.setattr(needed_kernels.BATCH_NORM, "begin", lambda: begun.add("batch norms"))
    monkeypatch.setattr(needed_kernels, "_has_only_cpu", lambda: True)
    needed_kernels.begin_kernels(RunConfig("a", Sequential(layers), plan=PlanConfig(mode="safe")))
    needed_kernels.begin_kernels(RunConfig("a", Sequential(layers), plan=PlanConfig(lowering="eigen")))
    assert not begun
    needed_kernels.begin_kernels(RunConfig("a", Sequential(layers)))
    assert begun == needed


def test_batch_norms_that_stay_frozen_need_no_code(monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise AssertionError("they are folded into convolutions")

    monkeypatch.setattr(needed_kernels.BATCH_NORM, "begin", fail)
    monkeypatch.setattr(needed_kernels, "_has_only_cpu", lambda: True)
    layers = (Conv(8), BatchNorm(), *HEADS)
    needed_kernels.begin_kernels(RunConfig("a", Sequential(layers), finetune=FineTuneConfig(freeze=("*norm*",))))
    with pytest.raises(AssertionError):
        needed_kernels.begin_kernels(RunConfig("a", Sequential(layers)))
