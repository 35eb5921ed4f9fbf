# One door for people and for CI. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
# Tests of different files run beside each other; most of them wait, or use one core.
TEST_PROCESSES ?= 2
INSTALLED := .venv/.installed
WITH_EXTRAS := $(addprefix .venv/.with-,harness ray hf deploy triton)

.DEFAULT_GOAL := help
.PHONY: help install demo test check format gen api baseline unit chaos bits audit containers ray soak clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

install: $(INSTALLED) ## create .venv and install everything into it

# The stamp is written last, so that an interrupted installation is repaired by the next run.
$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "charlm needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Run: make PYTHON=python3.11 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing charlm into .venv (a few minutes the first time) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(INSTALLED)

demo: $(INSTALLED) ## train for a minute, serve, stream text, show surprisal
	@$(BIN)/python demo.py

test: check unit ## everything CI runs

check: $(INSTALLED) ## format, lint, types, import contracts, wire contract, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint
	$(BIN)/buf breaking --against proto/baseline.binpb
	$(BIN)/python proto/generate.py --check
	$(BIN)/python docs/generate_api.py --check

# These bring much along: only their tests need them.
.venv/.with-%: $(INSTALLED)
	@echo "Installing the extra '$*' for its tests ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

unit: $(INSTALLED) $(WITH_EXTRAS) ## all tests
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile

chaos: $(INSTALLED) ## faults and overload: kills, full disks, storms (CHARLM_CHAOS=long: all there is)
	$(BIN)/python -m pytest tests/chaos

containers: $(INSTALLED) .venv/.with-deploy ## build the images and try them on a Docker engine, if one runs
	$(BIN)/python deploy/containers/verify.py

bits: $(INSTALLED) ## the same bits by kernels that are compiled for a processor without AVX-512
	CHARLM_PROCESSORS=1 $(BIN)/python -m pytest tests/model/test_known_bits.py

ray: $(INSTALLED) .venv/.with-ray ## a Ray cluster on this machine: scaled, and a replica and a worker killed
	CHARLM_RAY=1 $(BIN)/python -m pytest tests/e2e/test_ray.py tests/training/test_ray_train.py

audit: $(INSTALLED) .venv/.with-audit ## known vulnerabilities of what is installed
	$(BIN)/python .ci/audit.py $(BIN)/pip-audit

soak: $(INSTALLED) ## half an hour of mixed traffic: the same bits, flat memory
	CHARLM_SOAK_SECONDS=1800 $(BIN)/python -m pytest -s tests/e2e/test_determinism.py

format: $(INSTALLED) ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

gen: $(INSTALLED) ## regenerate the Python code of the wire contract
	$(BIN)/python proto/generate.py

api: $(INSTALLED) ## rewrite docs/api.md from the docstrings of the Python client
	$(BIN)/python docs/generate_api.py

baseline: $(INSTALLED) ## accept the present wire contract as the one not to break
	$(BIN)/buf build --output proto/baseline.binpb

clean: ## remove everything that can be made again
	rm -rf .venv .cache build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
