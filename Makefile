# What a newcomer types. Debian 12 with `apt install make git python3-venv` is enough for `make demo`.
#
# Installing happens once: the stamps under .venv/.stamps are older than the files they depend on, or nothing is done.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
ARGS ?=
PYTEST_ARGS ?=
# Most tests wait for servers and clocks, so that three workers fill two cores without getting into each other's way.
WORKERS ?= 3
SHORT ?=
export SHORT

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
NPM := tests/servers/npm
PAGE_NPM := tests/page/npm
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input

PACKAGES := schemas adapters gateway simulators
BENCHMARKS = $(filter-out _%,$(basename $(notdir $(wildcard benchmarks/*.py))))

##@ Use
.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@/ { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z%-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@printf '\nVariables: PYTHON=%s  ARGS= (to guantong demo, bundle)  PYTEST_ARGS= (to pytest)  WORKERS=3 (of pytest)  SHORT=1 (short benchmarks)\n' '$(PYTHON)'

.PHONY: demo
demo: $(STAMPS)/runtime ## Install and run the simulated workshop with the gateway, in the foreground
	@$(BIN)/guantong demo $(ARGS)

.PHONY: install
install: $(STAMPS)/runtime ## Create .venv and install the pinned requirements and the package

##@ Develop
.PHONY: test
test: test-needs ## Install what the tests need and run them
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

.PHONY: chaos
chaos: test-needs ## Let faults fall on a running gateway and look for what is missing (SEED=, RUNS=, FIRST=, SHORT=1)
	@$(BIN)/python -m tests.faults --seed $(SEED) --runs $(RUNS) --first $(FIRST) $(ARGS)
SEED ?= 1
FIRST ?= 1
RUNS ?= $(if $(SHORT),12,200)

.PHONY: chaos-usual
chaos-usual: test-needs chaos-usual-needs ## The same faults on the usual ways: a loop with QoS 1, and ThingsBoard Gateway (SEED=, RUNS=)
	@$(BIN)/python -m tests.faults.usual --seed $(SEED) --runs $(if $(filter file,$(origin RUNS)),14,$(RUNS)) --first $(FIRST) $(ARGS)

.PHONY: chaos-usual-needs
chaos-usual-needs: build/thingsboard-gateway/.stamp

# An environment of its own, for nothing else. Its Modbus connector asks for exactly this pymodbus.
build/thingsboard-gateway/.stamp: | $(BIN)/python
	@echo "installing ThingsBoard Gateway, as a yardstick, into build/thingsboard-gateway"
	@$(PYTHON) -m venv build/thingsboard-gateway
	@build/thingsboard-gateway/bin/python -m pip --disable-pip-version-check --quiet --no-input install \
	  --only-binary thingsboard-gateway thingsboard-gateway==3.8.5 pymodbus==3.9.2 pyserial==3.5 pyserial-asyncio==0.6
	@touch $@

.PHONY: chaos-opcua
chaos-opcua: test-needs ## Run the OPC UA faults in their long form: 1,440 cuts of each of two servers, sixty restarts
	@LONG=1 $(BIN)/python -m pytest tests/adapters/test_opcua_resumption.py tests/adapters/test_opcua_faults.py $(PYTEST_ARGS)

.PHONY: test-needs
test-needs: $(STAMPS)/dev programs $(NPM)/node_modules/.stamp $(PAGE_NPM)/node_modules/.stamp ## Install what the tests need: packages, programs, foreign servers

.PHONY: lint
lint: $(STAMPS)/dev ## ruff, mypy --strict and the import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict $(PACKAGES)
	@$(BIN)/lint-imports

.PHONY: format
format: $(STAMPS)/dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: schemas
schemas: $(STAMPS)/runtime ## Regenerate the JSON Schema and AsyncAPI files
	@$(BIN)/python -m schemas.generate

.PHONY: docs
docs: $(STAMPS)/runtime ## Regenerate the configuration reference, in English and Chinese
	@$(BIN)/python -m gateway.config.reference

.PHONY: bench
bench: $(addprefix bench-,$(BENCHMARKS)) ## Run all benchmarks, one after the other

bench-%: $(STAMPS)/runtime ## Run one benchmark, benchmarks/%.py
	@$(BIN)/python -m benchmarks.$*

.NOTPARALLEL:

.PHONY: build
build: $(STAMPS)/runtime ## Build the source archive and the wheel into dist/
	@$(BIN)/hatchling build

.PHONY: bundle
bundle: $(STAMPS)/runtime ## Build the archive that installs without a network (ARGS= --machine, --python; needs the network itself)
	@$(BIN)/python deploy/bundle/build.py $(ARGS)

.PHONY: docs-html
docs-html: $(STAMPS)/runtime ## Write the documentation as HTML into build/docs
	@$(BIN)/python -m gateway.documentation build/docs

.PHONY: lock
lock: ## Write requirements*.txt anew from pyproject.toml (needs the network)
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip --disable-pip-version-check --quiet install 'pip-tools>=7.5'
	@$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' > build/dev.in
	@build/lock/bin/pip-compile $(LOCK) --extra fast --build-deps-for editable -o requirements.txt pyproject.toml
	@build/lock/bin/pip-compile $(LOCK) -o requirements-dev.txt requirements.txt build/dev.in
LOCK := --quiet --generate-hashes --strip-extras --allow-unsafe --no-header --no-emit-index-url --no-emit-find-links --no-emit-options

.PHONY: clean
clean: ## Remove the environment, caches and everything that was built
	rm -rf $(VENV) $(NPM)/node_modules $(PAGE_NPM)/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find $(PACKAGES) tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# --- what is installed ------------------------------------------------------------------------------------------------

# Debian's python3 has no ensurepip without python3-venv, and `python3 -m venv` then fails half-way: look first.
$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { \
	  echo "$(PYTHON) is not installed; install it with: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), and 3.11 or later is needed (Debian 12 has it: apt-get install python3 python3-venv);" \
	    "name another with: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments; install the missing part with: apt-get install python3-venv" >&2; exit 1; }
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(STAMPS)/runtime: requirements.txt pyproject.toml | $(BIN)/python
	@echo "installing requirements.txt and guantong into $(VENV)"
	@$(PIP) install --require-hashes -r requirements.txt
	@$(PIP) install --no-deps --no-build-isolation --no-index --editable .
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/dev: requirements-dev.txt $(STAMPS)/runtime
	@echo "installing requirements-dev.txt into $(VENV)"
	@$(PIP) install --require-hashes -r requirements-dev.txt
	@touch $@

.PHONY: programs
programs:
	@tests/servers/install-programs

$(NPM)/node_modules/.stamp: $(NPM)/package.json $(NPM)/package-lock.json | programs
	@echo "installing the foreign test servers into $(NPM)/node_modules"
	@cd $(NPM) && npm ci --ignore-scripts --omit=optional --no-audit --no-fund --loglevel=error
	@touch $@

$(PAGE_NPM)/node_modules/.stamp: $(PAGE_NPM)/package.json $(PAGE_NPM)/package-lock.json | programs
	@echo "installing what drives the browser into $(PAGE_NPM)/node_modules"
	@cd $(PAGE_NPM) && npm ci --ignore-scripts --omit=optional --no-audit --no-fund --loglevel=error
	@touch $@
