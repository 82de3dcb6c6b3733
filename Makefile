SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules

PYTHON ?= python3
VENV := .venv
GENERATE_VENV := .venv-generate
BENCH_VENV := .venv-bench
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check --require-hashes
PIP_INSTALL_SELF := -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

# What every recipe finds first: buf, pytest and turnwire of the pinned environment.
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export BUF_CACHE_DIR := $(CURDIR)/build/buf

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- environments -------------------------------------------------------------------------------
# server.lock is what `turnwire serve` needs, dev.lock a superset with the same versions.
# generate.lock holds the oldest generators we support, in an environment of its own; bench.lock what the benchmark
# compares with, in another one.

$(VENV)/bin/python $(GENERATE_VENV)/bin/python $(BENCH_VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "turnwire needs Python 3.11 or newer; say which one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(@:/bin/python=)

$(VENV)/server.stamp: requirements/server.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing the server and the client into $(VENV) ..."
	$(VENV)/bin/python $(PIP_INSTALL) --requirement requirements/server.lock
	$(VENV)/bin/python $(PIP_INSTALL_SELF)
	@touch $@

$(VENV)/dev.stamp: requirements/dev.lock pyproject.toml | $(VENV)/bin/python
	@echo "Installing the development environment into $(VENV) ..."
	$(VENV)/bin/python $(PIP_INSTALL) --requirement requirements/dev.lock
	$(VENV)/bin/python $(PIP_INSTALL_SELF)
	@touch $(VENV)/server.stamp $@

$(GENERATE_VENV)/generate.stamp: requirements/generate.lock | $(GENERATE_VENV)/bin/python
	@echo "Installing the code generators into $(GENERATE_VENV) ..."
	$(GENERATE_VENV)/bin/python $(PIP_INSTALL) --requirement requirements/generate.lock
	@touch $@

$(BENCH_VENV)/bench.stamp: requirements/bench.lock | $(BENCH_VENV)/bin/python
	@echo "Installing what the benchmark compares with into $(BENCH_VENV) ..."
	$(BENCH_VENV)/bin/python $(PIP_INSTALL) --requirement requirements/bench.lock
	@touch $@

.PHONY: setup
setup: $(VENV)/dev.stamp $(GENERATE_VENV)/generate.stamp deps ## install and fetch everything development needs

.PHONY: deps
deps: $(VENV)/dev.stamp ## fetch pinned third-party files into third_party/
	@python tools/fetch_deps.py

# --- running ------------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/server.stamp ## start a server and stream one inference to the terminal
	@$(VENV)/bin/turnwire demo

.PHONY: test
test: $(VENV)/dev.stamp deps ## run the tests
	pytest --numprocesses=2 --dist=loadfile

TARGET ?= 127.0.0.1:7450

.PHONY: conformance
conformance: $(VENV)/dev.stamp ## prove a server: make conformance TARGET=host:port
	@turnwire conformance $(TARGET) --known-failing tests/conformance/known_failing.txt

# What `make fault` takes: make fault SEED=7 MINUTES=60
SEED ?= 1
MINUTES ?= 3

.PHONY: fault
fault: $(VENV)/dev.stamp deps ## kill, pause, cut off and starve busy servers at random, and check every promise
	@PYTHONPATH=tests:tests/conformance python -m fault.run --seed $(SEED) --minutes $(MINUTES)

.PHONY: suspensions
suspensions: $(VENV)/dev.stamp ## cancel, crash and kill an inference at each of its suspension points
	@PYTHONPATH=tests:tests/conformance python -m fault.suspension

# How many random sequences of calls each store is held to: make protocol EXAMPLES=1000
EXAMPLES ?= 20000

.PHONY: protocol
protocol: $(VENV)/dev.stamp ## hold each store to the model of the protocol
	@PYTHONPATH=tests:tests/conformance python -m contract.store_protocol --store memory --examples $(EXAMPLES) --seed $(SEED)
	@PYTHONPATH=tests:tests/conformance python -m contract.store_protocol --store sqlite --examples $(EXAMPLES) --seed $(SEED)

# Where the requests of a seed begin: make fuzz SEED=7 FIRST=123 EXAMPLES=1 sends one again.
FIRST ?= 0

.PHONY: fuzz
fuzz: $(VENV)/dev.stamp deps ## send a server requests of all kinds, made from the descriptors
	@PYTHONPATH=tests:tests/conformance python -m fuzz.search --seed $(SEED) --first $(FIRST) --examples $(EXAMPLES)

# What `make bench` takes: make bench SCENARIOS=streams,paced ROUNDS=5
SCENARIOS ?=
ROUNDS ?= 5

.PHONY: bench
bench: $(VENV)/dev.stamp $(BENCH_VENV)/bench.stamp deps ## measure the server beside bare gRPC and peers; report in docs/bench
	@PYTHONPATH=tests:tests/conformance python -m bench.run --scenarios "$(SCENARIOS)" --rounds $(ROUNDS)

.PHONY: soak
soak: MINUTES = 10
soak: $(VENV)/dev.stamp deps ## load a server evenly and see that memory and rates stay flat: make soak MINUTES=60
	@PYTHONPATH=tests:tests/conformance python -m bench.soak --minutes $(MINUTES)

.PHONY: client-conformance
client-conformance: $(VENV)/dev.stamp ## hold the Python client to the contract, through its adapter
	@turnwire client-conformance -- python tests/conformance/adapters/python_sdk.py

# How many sequences are made on each store: make sequences SEED=7 SEQUENCES=50
SEQUENCES ?= 500

.PHONY: sequences
sequences: $(VENV)/dev.stamp ## hold a server to the model of the contract, with random sequences of calls and restarts
	@PYTHONPATH=tests:tests/conformance python -m fuzz.sequences --store memory --examples $(SEQUENCES) --seed $(SEED)
	@PYTHONPATH=tests:tests/conformance python -m fuzz.sequences --store sqlite --examples $(SEQUENCES) --seed $(SEED)

# --- the contract and what is generated from it -------------------------------------------------

.PHONY: generate
generate: $(VENV)/dev.stamp $(GENERATE_VENV)/generate.stamp deps ## write gen/ from proto/
	PATH="$(CURDIR)/$(GENERATE_VENV)/bin:$$PATH" buf generate

.PHONY: generate-check
generate-check: $(VENV)/dev.stamp $(GENERATE_VENV)/generate.stamp deps ## fail if gen/ is not what proto/ generates
	PATH="$(CURDIR)/$(GENERATE_VENV)/bin:$$PATH" python tools/check_generated.py

.PHONY: descriptors
descriptors: $(VENV)/dev.stamp deps ## write build/descriptors.binpb, the contract with its comments
	@mkdir -p build
	buf build --as-file-descriptor-set --output build/descriptors.binpb

# --- checking -----------------------------------------------------------------------------------
# Each part of `make check` can be made by itself; the parts run from the quickest to the slowest.

.PHONY: check
check: check-ruff check-proto check-breaking check-imports generate-check check-mypy check-pyright wheel-check ## run every check but the tests

.PHONY: check-ruff
check-ruff: $(VENV)/dev.stamp
	ruff check
	ruff format --check

.PHONY: check-proto
check-proto: $(VENV)/dev.stamp deps
	buf lint
	buf format --diff --exit-code proto

.PHONY: check-breaking
check-breaking: $(VENV)/dev.stamp deps
	python tools/check_breaking.py

.PHONY: check-imports
check-imports: $(VENV)/dev.stamp
	lint-imports --no-cache

.PHONY: check-mypy
check-mypy: $(VENV)/dev.stamp
	mypy

.PHONY: check-pyright
check-pyright: $(VENV)/dev.stamp
	pyright --warnings

.PHONY: wheel-check
wheel-check: $(VENV)/dev.stamp ## build the wheel and try it on the oldest dependencies we support
	python tools/check_wheel.py

# --- repairing ----------------------------------------------------------------------------------

.PHONY: fmt
fmt: $(VENV)/dev.stamp deps ## repair what ruff and buf can repair
	ruff check --fix-only --quiet
	ruff format
	buf format --write proto

# dev.lock first: server.lock takes its versions.
UV_COMPILE := $(GENERATE_VENV)/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-header --no-strip-extras

.PHONY: lock
lock: $(GENERATE_VENV)/generate.stamp ## resolve pyproject.toml into requirements/*.lock
	$(UV_COMPILE) pyproject.toml --extra server --extra pydantic-ai --extra mcp --extra models --group dev \
		--output-file requirements/dev.lock
	$(UV_COMPILE) pyproject.toml --extra server --extra pydantic-ai --extra mcp --group build \
		--constraint requirements/dev.lock --output-file requirements/server.lock
	$(UV_COMPILE) --group generate --output-file requirements/generate.lock
	$(UV_COMPILE) --group bench --constraint requirements/dev.lock --output-file requirements/bench.lock
	$(UV_COMPILE) pyproject.toml --resolution lowest-direct --output-file requirements/oldest.lock
	@! grep --line-number '://' requirements/*.lock

.PHONY: clean
clean: ## remove what make installed, built and fetched
	rm -rf $(VENV) $(GENERATE_VENV) $(BENCH_VENV) build dist third_party .mypy_cache .pytest_cache .ruff_cache .hypothesis
