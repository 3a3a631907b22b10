# The commands of this repository; `make` alone lists them. CI runs the same ones (.ci/run).

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMP := .venv/.installed
LITERT := .venv-litert
BENCHMARKS := $(sort $(wildcard benchmarks/*.py))

# PyTorch's wheels are large: uv's usual limit of 30 seconds a request is too short on a slow line.
export UV_HTTP_TIMEOUT ?= 600

# uv from PATH where there is one; else one of our own inside .venv, from any Python 3.11 or newer with pip.
# uv keeps pip and itself when it syncs an environment that `python -m venv` made.
UV := $(shell command -v uv 2>/dev/null)
ifeq ($(UV),)
UV := $(BIN)/uv
PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.13 python; do \
	if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$name; break; fi; done)
MAKE_VENV = $(PYTHON) -m venv .venv
else
MAKE_VENV = $(UV) venv --python 3.11 .venv
endif

.PHONY: help
help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: install
install: $(STAMP)  ## environment in .venv, exactly as locked, and this package, editable

# Without a working interpreter whatever else lies in .venv is of no use, so it goes.
$(BIN)/python:
ifeq ($(UV)$(PYTHON),$(BIN)/uv)
	@echo "make: neither uv nor a Python 3.11 or newer was found. Install one of them, or say: make PYTHON=/path/to/python" >&2
	@exit 2
endif
	rm -rf .venv
	$(MAKE_VENV)

# Only where UV is our own does anything depend on this.
$(BIN)/uv: | $(BIN)/python
	$(BIN)/python -m pip install -q uv

# The stamp makes a second `make` cost nothing, and a changed lock or pyproject.toml a new sync.
# --python is named so that another environment that happens to be active is never touched.
$(STAMP): requirements.lock pyproject.toml | $(BIN)/python $(UV)
	$(UV) pip sync --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --python $(BIN)/python --no-deps -e .
	@touch $@

# All extras but litert, which would hold PyTorch back for everybody.
LOCKED_EXTRAS = $(shell $(BIN)/python -c "import tomllib; \
	extras = tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']; \
	print(*(f'--extra {name}' for name in extras if name != 'litert'))")

.PHONY: lock
lock: | $(BIN)/python $(UV)  ## solve pyproject.toml anew into requirements.lock
	$(UV) pip compile pyproject.toml $(LOCKED_EXTRAS) --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-header -o requirements.lock

# What a first demo finished is not done again, so that the command can be repeated, also after it was broken off.
.PHONY: demo
demo: install  ## the whole pipeline on synthetic lesions, into runs/demo
	@resume=; if [ -f runs/demo/run.json ]; then resume=--resume; fi; \
	set -x; $(BIN)/dermdistill run quick --out runs/demo $$resume
	@echo "Report: $(CURDIR)/runs/demo/report.html"

# One worker a core, and one thread a worker: two threads each would stand in each other's way. A file stays with one
# worker, so that what its tests share is made once; files keep their order, in which the longest are not the last.
.PHONY: test
test: install  ## all tests; those on the real HAM10000 are skipped, loudly, where it is missing
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

# litert-torch brings an anyio whose pytest plugin warns, and a warning is an error here.
.PHONY: litert
litert: $(LITERT)/.installed  ## LiteRT in an environment of its own, .venv-litert, and its tests
	$(LITERT)/bin/pytest -p no:anyio tests/compress/test_litert.py tests/pipeline/test_litert.py

$(LITERT)/bin/python: | $(UV)
	rm -rf $(LITERT)
	$(UV) venv --python $(or $(PYTHON),3.11) $(LITERT)

$(LITERT)/.installed: pyproject.toml | $(LITERT)/bin/python
	$(UV) pip install --python $(LITERT)/bin/python -e '.[litert,offline]' pytest
	@touch $@

.PHONY: lint
lint: install  ## style, format and the direction of imports; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

.PHONY: format
format: install  ## format, and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# mypy takes its files from pyproject.toml, but refuses a folder without a Python file; so while there is
# no benchmark, only src is named.
.PHONY: types
types: install  ## mypy, strict
	$(BIN)/mypy $(if $(BENCHMARKS),,src)

.PHONY: results
results: install  ## fail where docs/results.md is not what the committed results give
	$(BIN)/dermdistill results check

# Warnings of the notebook machinery are not ours to mend.
.PHONY: notebooks
notebooks: install  ## run the notebooks on synthetic data; nothing is written into them
	$(BIN)/pytest --nbmake --nbmake-timeout=600 -W default notebooks

.PHONY: check-all
check-all: lint types test notebooks results  ## all that CI runs

.PHONY: bench
bench: install  ## every benchmark; the last line of each is one JSON object
	@$(if $(BENCHMARKS),,echo "benchmarks/ holds no benchmark yet")
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

# Runs, image stores and the environment cost time to make again: they stay. `rm -rf .venv` starts afresh.
.PHONY: clean
clean:  ## remove build products and tool caches; runs/ and .venv stay
	rm -rf build dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
