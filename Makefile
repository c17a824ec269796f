# Everything runs from one virtual environment in .venv; PYTHON is only used to create it.
PYTHON ?= python3
BIN := .venv/bin
# A file's tests share what it sets up; files in their order, or those of few and long tests would be left for the end.
BY_FILE := --dist loadfile --no-loadscope-reorder

.PHONY: help install quickstart test test-all test-chaos fuzz audit benchmark lint docker-check docker-lock clean

help:  ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/installed  ## Create .venv and install the suite into it

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 install"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install -qq --editable '.[test,lint]'
	touch $@

quickstart: install  ## Run the main job: 4 methods x 2 data sets, then the report
	$(BIN)/bench run quickstart
	$(BIN)/bench report quickstart

test: install  ## The tests (about 10 minutes on 2 cores)
	$(BIN)/pytest -n 2 $(BY_FILE) -m "not slow and not chaos"

test-all: install  ## All tests, slow ones and random kills included
	$(BIN)/pytest -n 2 $(BY_FILE) -m "not chaos"
	$(MAKE) test-chaos

test-chaos: install  ## 100 random kills, full disks, jumping clocks, damaged files (under 30 minutes); CHAOS_SEED=N repeats
	$(BIN)/pytest tests/chaos

fuzz: install  ## 10,000 inputs made to break it: YAML, data files, command lines (under 15 minutes)
	$(BIN)/python -W ignore -m tests.fuzz --cases 10000

audit: .venv/audited  ## Known weaknesses of the packages used, and of our own code
	$(BIN)/pip-audit --local --skip-editable --progress-spinner off
	$(BIN)/bandit -q -r -c pyproject.toml bench methods datasets analysis

.venv/audited: .venv/installed
	$(BIN)/pip install -qq --editable '.[audit]'
	touch $@

benchmark: install  ## Speed and memory against named baselines, as ratios of one run
	$(BIN)/python -m tests.benchmarks

lint: install  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docker-check: install  ## Check docker/: lint, schema, lock files, entry points; with an engine the images too
	$(BIN)/pip install -qq --editable '.[docker]'
	$(BIN)/python docker/check.py

docker-lock: install  ## Write the images' lock files anew after a change of pyproject.toml
	$(BIN)/pip install -qq --editable '.[docker]'
	$(BIN)/python docker/lock.py

clean:  ## Remove the virtual environment and caches (never results)
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
