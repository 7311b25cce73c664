# make reproduce     set up, run the whole study, say where the report is
# make search        set up, run the search for a better trade-off
# make study         set up, run the study by its protocol: quick, standard or full (PROFILE=)
# make test          set up, run the tests
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# the series: nothing = as params.yaml says; a path or a URL of a CSV or a zip file, or a folder = that
DATA ?=
NAME ?=
# of `make study`: quick (minutes) | standard (an hour) | full (a night)
PROFILE ?= quick
# as they were written: neither make nor the shell reads them as code
override DATA := $(value DATA)
override NAME := $(value NAME)
export DATA NAME
export PATH := $(CURDIR)/$(BIN):$(PATH)

$(READY): constraints.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found: install Python 3.11 or newer, or call make PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed: call make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
	links="$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null)}"; \
	UV_FIND_LINKS="$$links" $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt --compile-bytecode -e '.[dev]'
	@$(BIN)/python -m isotrain.lstm.kernels
	@touch $@

.PHONY: help setup reproduce study search record test test-fast fuzz faults check bench bench-gpu sanitize

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: $(READY) ## make .venv from the pinned versions

reproduce: $(READY) ## run the study (DATA=path/or/url.csv, a zip file or a folder, for your own) and say where the report is
	@test -z "$$DATA" || $(BIN)/python pipelines/fetch.py "$$DATA" params.yaml
	@$(BIN)/dvc repro
	@echo
	@echo "report:  reports/tradeoff.html (and .md, .json beside it); the data: reports/data/data_report.md"
	@printf "runs:    "; $(BIN)/python -m isotrain.training.outbox params.yaml

study: $(READY) ## what isolation does to time and accuracy, by docs/protocol.md (PROFILE=quick|standard|full, DATA as above)
	@test -z "$$DATA" || $(BIN)/python pipelines/fetch.py "$$DATA" params.yaml
	@$(BIN)/dvc repro window
	@$(BIN)/isotrain study --profile $(PROFILE)

search: $(READY) ## run the study of section search on this machine, or go on with it, and say where the report is
	@$(BIN)/dvc repro pipelines/dvc.yaml
	@echo
	@echo "report:  reports/search.html; while it runs: $(BIN)/isotrain search status"

record: $(READY) ## keep the report of the last run as docs/results/NAME (no slice of a series is in it)
	@$(BIN)/python pipelines/record.py "$$NAME" params.yaml

# three processes, since many tests wait for servers; a file of tests at a time, in the order of tests/conftest.py
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: $(READY) ## run the tests
	@$(PYTEST)

test-fast: $(READY) ## the tests but for the slow ones: two minutes
	@$(PYTEST) -m "not slow"

sanitize: $(READY) ## the native kernels under the address and undefined-behaviour sanitizers: two minutes
	@$(BIN)/python tests/lstm/sanitize.py

fuzz: $(READY) ## 10,000 inputs made wrong on purpose, and what became of each, as a table: two minutes
	@$(BIN)/python -m tests.fuzz.run

faults: $(READY) ## kills, full and read-only disks, two commands at once, as a table: ten minutes
	@$(BIN)/python -m tests.fuzz.faults

check: $(READY) ## ruff, mypy, import-linter
	@$(BIN)/ruff check && $(BIN)/ruff format --check && $(BIN)/mypy && $(BIN)/lint-imports

bench: $(READY) ## time a training step of the LSTM by every method (QUICK=1: two shapes only), results in benchmarks/results
	@$(BIN)/python -m benchmarks.lstm.run $(if $(QUICK),--quick)

# the python whose torch was built for CUDA, which that of .venv was not
bench-gpu: ## the gpu tests, training steps and trainings on a GPU, nine minutes (PYTHON=/path/to/python3), results as bench
	@PYTHONPATH=src:. $(PYTHON) -m benchmarks.gpu.run
