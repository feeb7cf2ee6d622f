#!/usr/bin/env bash
# The wheels that `python -m benchmarks.gpu` needs beside JAX, Flax, Optax, Orbax, NumPy, Pillow, Matplotlib, pytest and
# PyTorch, for a machine with Python 3.12 that has those but no network:
#     benchmarks/gpu_bundle.sh wheels
#     there: python3 -m pip install --no-index --no-deps --target site wheels/*.whl; PYTHONPATH=site:. python3 -m benchmarks.gpu
set -euo pipefail
platforms=()
for version in manylinux_2_34 manylinux_2_31 manylinux_2_28 manylinux_2_27 manylinux_2_24 manylinux_2_17 manylinux2014 manylinux1; do platforms+=(--platform "${version}_x86_64"); done
python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp "${platforms[@]}" \
  --dest "${1:?give a folder}" --constraint "$(dirname "$0")/../constraints.txt" \
  tyro rich docstring-parser typeguard simplejpeg importlib_resources \
  tensorflow-datasets array-record dm-tree etils immutabledict simple-parsing tensorflow-metadata termcolor toml \
  googleapis-common-protos einops grain portpicker
# Published as source alone, in pure Python.
python3 -m pip wheel --quiet --no-deps --wheel-dir "$1" --constraint "$(dirname "$0")/../constraints.txt" promise
