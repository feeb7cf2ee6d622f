# `make run` trains a convnet on real images; `make test` passes all tests. Both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: run test lint types site docs lock clean

run: $(READY)
	$(BIN)/python -m experiments.convnet --resume

test: $(READY)
	$(BIN)/python -m pytest -n auto --dist loadfile

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
	$(MAKE) site

# Exact versions for Python 3.11 and later. Run after changing the dependencies in pyproject.toml.
lock:
	uv pip compile --universal --python-version 3.11 --all-extras --no-annotate --no-header \
	  --upgrade --quiet pyproject.toml --output-file constraints.txt

$(READY): pyproject.toml constraints.txt
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python '>=3.11' .venv && \
	  uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,docs]'; \
	else \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 run")' && \
	  $(PYTHON) -m venv .venv && \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,docs]'; \
	fi
	@touch $(READY)

clean:
	rm -rf .venv site .pytest_cache .ruff_cache .hypothesis
