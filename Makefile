# `make help` lists the targets. Each can be run twice, can be interrupted, and needs no network once `make setup` is done.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
MODEL := models/SmolLM2-135M-Instruct/model.safetensors

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test test-slow test-gpu bench bench-full check docs ui clean lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(MODEL) ## virtual environment from the lock, and the quickstart's language model

run: setup ## two rounds on SmolLM2-135M-Instruct: starts the quickstart, goes on with it, or says that it is done
	$(BIN)/regroup run configs/quickstart.yaml

test: check ## lint, types, import rules, generated documents, and the default tests
	$(PYTEST)

test-slow: setup ## the tests that take longer: whole flows, servers, kills
	$(PYTEST) -m "slow and not gpu"

test-gpu: setup ## the tests that need an NVIDIA GPU
	$(PYTEST) -m gpu

bench: setup ## seconds and memory of a training step against TRL's GRPOTrainer, in turns (under 15 minutes)
	$(BIN)/python -m benchmarks.against_trl

bench-full: setup ## costs by group size, length and model, memory, noise, time to an accuracy; goes on where it was broken off (hours)
	$(BIN)/python -m benchmarks.full

check: $(INSTALLED) ## lint, format, types, import rules, generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python docs/generate.py --check

docs: $(INSTALLED) ## write the generated documents again
	$(BIN)/python docs/generate.py

ui: $(INSTALLED) ## the pages of MLflow and Prefect on this machine; Ctrl-C ends them
	$(BIN)/regroup ui

clean: ## remove the virtual environment and the tools' caches; runs, models and tracking data stay
	rm -rf $(VENV) .venv-ci .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

lock: ## resolve pyproject.toml anew and write requirements.lock
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/pip install --quiet setuptools
	build/lock/bin/pip install --quiet --no-build-isolation -e '.[dev]'
	build/lock/bin/pip check
	{ sed '/^#/!d' requirements.lock; build/lock/bin/pip freeze --all --exclude-editable --exclude pip | sed 's/+.*//'; } > build/requirements.lock
	mv build/requirements.lock requirements.lock
	rm -rf build/lock

# A half-made environment has no stamp and is made again. The second pip finds everything installed, unless this machine's
# build of torch needs more (CUDA libraries), and checks that the lock satisfies pyproject.toml.
$(LOCKED): requirements.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; install Python 3.11 or name it: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -e $(VENV)/pyvenv.cfg || rmdir $(VENV) 2>/dev/null || test ! -e $(VENV) || { echo "$(VENV) is no virtual environment; move it away or set VENV"; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --no-deps -r requirements.lock
	touch $@

$(INSTALLED): $(LOCKED) pyproject.toml
	$(BIN)/pip install --quiet --no-build-isolation -c requirements.lock -e '.[dev]'
	$(BIN)/pip check
	touch $@

$(MODEL): | $(INSTALLED)
	$(BIN)/regroup fetch configs/quickstart.yaml
