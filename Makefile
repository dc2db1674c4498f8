# Every target does its own set-up. Needs Python 3.11+, make, g++ and the Python headers (DeepSpeed compiles a CPU op).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false
# Nothing is downloaded but packages.
export HF_HUB_OFFLINE := 1
export HF_EVALUATE_OFFLINE := 1
export RAY_USAGE_STATS_ENABLED := 0
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo test test-slow check format

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[demo,dev]' --constraint constraints.txt
	$(BIN)/python -m ray_jobs.build_ops
	touch $@

demo: setup
	$(BIN)/python -m ray_jobs.demo configs/demo.yaml

test: setup
	$(BIN)/python -m pytest -m "not slow" --durations=10

test-slow: setup
	$(BIN)/python -m pytest -m slow --durations=10

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
