# Every target sets up what it needs by itself; a second call finds it done.  `make help` lists them.
#
#   make test PYTHON=python3.13        another interpreter (any from 3.11 on)
#   make test ARGS="-k wait -x"        arguments for pytest
#   make bench ONLY=tasks              see bench/README.md

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The first interpreter that is new enough, unless one is named.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$python; break; }; done)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

VENV := .venv
# Made anew for another interpreter, brought up to date when the dependencies change.
READY := $(VENV)/.ready-$(VERSION)
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check --quiet

ARGS ?=

.PHONY: help setup frameworks demo test lint format bench bench-readme soak wheel lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## */  make \1\t/' | expand -t 22

setup: $(READY) ## create .venv with everything that the other targets need
	@echo "setup: $(VENV) is ready (Python $(VERSION))"

$(READY): pyproject.toml constraints.txt
	@test -n "$(VERSION)" || { echo "Skate needs Python 3.11 or newer; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 1; }
	@echo "setup: $(VENV) with Python $(VERSION) (once; takes a minute or two)"
	@test -e $@ || { rm -rf $(VENV) && $(PYTHON) -m venv $(VENV); } || { echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PIP) install -c constraints.txt hatchling editables
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[all,dev]'
	@touch $@

# Only some tests need them, and they are large: elsewhere than in CI these are skipped without.
frameworks: $(READY) ## PyTorch, Lightning and Keras, for the tests that need them
	@$(PIP) install -c constraints.txt --no-build-isolation -e '.[frameworks]'

demo: $(READY) ## tune a distributed XGBoost model on the breast-cancer data; pictures in results/
	@$(VENV)/bin/python examples/demo.py $(ARGS)

# Several files at a time, how many says tests/conftest.py: half of the time a test waits for its
# processes.  ARGS="-n 0" has one after the other, in one process, and shows what they print (-s).
test: $(READY) ## the whole test suite
	@$(VENV)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(READY) ## ruff, mypy --strict, import-linter
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-logo

format: $(READY) ## let ruff rewrite what it can
	@$(VENV)/bin/ruff check --fix .
	@$(VENV)/bin/ruff format .

wheel: $(READY) ## build the wheel into dist/
	@rm -rf dist
	@$(PIP) wheel --no-build-isolation --no-deps --wheel-dir dist .
	@ls dist/*.whl

bench: $(READY) ## compare with Ray 2.60.0, in environments of its own; ONLY=name for some of it
	@$(VENV)/bin/python -m bench --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" \
		$(if $(ONLY),--only "$(ONLY)") $(if $(PYTHONS),--pythons "$(PYTHONS)") $(ARGS)

bench-readme: $(READY) ## write the last figures of make bench into README.md
	@$(VENV)/bin/python -m bench --readme

soak: $(READY) ## a million tasks, 10,000 actors, 100 GB: does anything grow? (some minutes)
	@$(VENV)/bin/python -m bench.soak

lock: $(READY) ## choose versions anew and pin them in constraints.txt, for all Pythons at once
	@$(PIP) install uv
	@rm -f constraints.txt.new
	@$(VENV)/bin/uv pip compile --quiet --universal --fork-strategy fewest --python-version 3.11 \
		--all-extras --no-header --no-annotate --no-emit-index-url --no-emit-package skate \
		pyproject.toml --output-file constraints.txt.new
	@{ echo "# Written by \`make lock\`: every package of every extra, for Python 3.11 and newer."; \
		cat constraints.txt.new; } > constraints.txt
	@rm constraints.txt.new

clean: ## remove everything that these targets made
	@rm -rf $(VENV) .bench dist build results bench/results .pytest_cache .mypy_cache .ruff_cache \
		.import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
