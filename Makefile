# `make run` trains a convnet on real images; `make test` runs the tests. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
RUNS := .venv/.runs
READY := .venv/.ready
comma := ,

# Creates .venv, and installs this checkout there with the extras $(1). Not in isolation, where building it would install jaxlib twice.
# setuptools and wheel: promise, which tensorflow-datasets needs, is published as source alone.
install = if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python '>=3.11' .venv && install="uv pip install --compile-bytecode --python $(BIN)/python"; \
	else \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 run")' && \
	  $(PYTHON) -m venv .venv && install="$(BIN)/python -m pip install --disable-pip-version-check"; \
	fi && \
	$$install --quiet --constraint constraints.txt hatchling editables setuptools wheel && \
	$$install --constraint constraints.txt --no-build-isolation --editable '.$(1)'

.PHONY: run test test-all lint types site docs lock wheel clean

run: $(RUNS)
	$(BIN)/python -m experiments.convnet --resume

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

# With the tests marked long.
test-all: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile -m ""

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/pyright

# The pages in site/, from docs/, README.md and the docstrings. A warning is an error.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# Draws the pictures and the table of rooms of docs/, then makes the site.
docs: $(READY)
	$(BIN)/python docs/draw_pictures.py
	$(BIN)/python docs/draw_rooms.py
	$(BIN)/python docs/draw_scaling.py
	$(MAKE) site

# Exact versions for Python 3.11 and later. Run after changing the dependencies in pyproject.toml.
lock:
	uv pip compile --universal --python-version 3.11 --all-extras --no-annotate --no-header \
	  --upgrade --quiet pyproject.toml --output-file constraints.txt

$(RUNS): pyproject.toml constraints.txt
	@echo "installing what running needs into .venv (about 1 GB, a minute or two)"
	@$(call install,)
	@touch $(RUNS)

$(READY): pyproject.toml constraints.txt
	@echo "installing what developing needs into .venv (about 3 GB, some minutes)"
	@$(call install,[dev$(comma)docs])
	@touch $(RUNS) $(READY)

# The wheel in dist/, with our C++ compiled for every level of processors: needs g++ and g++-aarch64-linux-gnu.
wheel: $(READY)
	ENGINE_KERNELS=all $(BIN)/python -m hatchling build -t wheel

clean:
	rm -rf .venv dist site .pytest_cache .ruff_cache .hypothesis
