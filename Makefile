# Every target sets up what it needs: Python 3.11 or newer and make are all that must be there.
# ARGS goes to the program behind the target: make run ARGS="--workers 2", make test ARGS="-k drain".

# The environment of the machine's own Python, or that of the one in PYTHON: each version has its own.
PYTHON ?=
VENV := $(if $(PYTHON),.cache/venv-$(shell sh tests/support/python_version.sh "$(PYTHON)"),.venv)
BIN := $(VENV)/bin
# `make run` needs less than the others: no tests, no tools, no clients of brokers.
STAMP := $(VENV)/.complete
RUNS := $(VENV)/.runs
ARGS ?=
FILE ?= config/quickstart.yaml
FLAKE_RUNS ?= 20
SOAK_MINUTES ?= 2
SOAK_LOG ?=
RABBITMQ ?=
# Two for each core of a small machine: half of the time of a test is a wait for somebody else.
WORKERS ?= 4

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some machines forbid byte code. The suite starts hundreds of daemons, and each would compile the package anew.
export PYTHONDONTWRITEBYTECODE :=
# A version that is asked for is a program of this machine. Debian needs no word of ours; 4.0 and 4.3 are unpacked
ifneq ($(filter 4%,$(RABBITMQ)),)
export BROADWAY_TEST_RABBITMQ_SERVER := $(CURDIR)/.cache/rabbitmq-$(RABBITMQ)/bin/rabbitmq-server
endif

ifneq ($(RABBITMQ),)
ifeq ($(BROADWAY_TEST_BROKERS),containers)
$(error RABBITMQ=$(RABBITMQ) asks for a program of this machine, BROADWAY_TEST_BROKERS=containers for a container: leave one of them out)
endif
export BROADWAY_TEST_BROKERS := local
endif
# What is measured is to be compared with what was measured before.
bench bars: export BROADWAY_TEST_BROKERS := local

.DEFAULT_GOAL := help
.PHONY: help run test sabotage mutation lint types format conformance bench bars soak flake ray broker localstack chromium clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo '  Settings: ARGS="…" for the program behind run, test, sabotage, bench and bars; PYTHON=python3.13; FLAKE_RUNS=20; SOAK_MINUTES=2;'
	@echo '  WORKERS=4 processes for test and flake; RABBITMQ=3.10, 4.0, 4.3, or 4 (the newest) for what needs a RabbitMQ;'
	@echo '  BROADWAY_TEST_BROKERS=containers or local (default: containers if an engine answers)'

run: $(RUNS)  ## run an example on the embedded queue (FILE=config/windows.yaml: windows); page on http://127.0.0.1:8080
	@exec $(BIN)/broadway run $(FILE) $(ARGS)

test: $(STAMP) broker localstack chromium  ## run the whole suite against a real RabbitMQ and LocalStack's SQS
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

sabotage: $(STAMP) broker localstack chromium  ## break a copy of the code in known ways, one at a time; the tests must notice (ARGS=part of a name)
	@$(BIN)/python -m tests.sabotage.run $(ARGS)

mutation: $(STAMP)  ## change the core in hundreds of small ways with mutmut; prints what no test notices (ARGS=part of a name)
	@$(BIN)/python -m tests.mutation.run $(ARGS)

lint: $(STAMP)  ## check style and formatting; changes nothing
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)  ## check all types with mypy --strict, and what users write with pyright too
	@$(BIN)/mypy
	@$(BIN)/python -m tests.typing.pages
	@$(BIN)/pyright --pythonpath $(BIN)/python

format: $(STAMP)  ## format, and repair what ruff can repair safely
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

conformance: $(STAMP)  ## write docs/conformance.md from the last complete `make test`
	@$(BIN)/python -m tests.support.conformance $(ARGS)

bench: $(STAMP) broker localstack  ## measure, and print a table with the limits and with other libraries
	@$(BIN)/python -m benchmarks.run $(ARGS)

bars: $(STAMP) broker localstack  ## measure and compare with the bars; writes benchmarks/bars.json, exits 1 if one is missed
	@$(BIN)/python -m benchmarks.bars $(ARGS)

soak: $(STAMP) broker  ## make random faults for SOAK_MINUTES, then prove that nothing was lost; SOAK_LOG=docs/soak.md records it
	@SOAK_MINUTES=$(SOAK_MINUTES) SOAK_LOG=$(SOAK_LOG) $(BIN)/python -m pytest -q -s -m soak $(ARGS)

# In one process: one cluster. The first test waits until it has started.
ray: $(STAMP)  ## run flows on a Ray cluster of three nodes on this machine
	@$(BIN)/python -m pytest -m 'ray and not soak' --timeout=240 $(ARGS)

flake: $(STAMP) broker localstack  ## run the fault suite FLAKE_RUNS times; stops at the first failure
	@for round in $$(seq $(FLAKE_RUNS)); do \
		echo "flake: round $$round of $(FLAKE_RUNS)"; \
		$(BIN)/python -m pytest -q -n $(WORKERS) -m 'faults and not soak and not ray' $(ARGS) || exit 1; \
	done

clean:  ## remove the environment and every cache; keeps queue files in var/
	@rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find broadway_py tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Programs, where no containers are taken; the images, where they are.
broker: $(STAMP)
	@from=$$($(BIN)/python -m tests.support.containers) || exit 1; \
	[ "$$from" = containers ] || sh tests/support/get_rabbitmq.sh $(RABBITMQ)
	@sh tests/support/get_prometheus.sh
	@sh tests/support/get_kubernetes.sh $(BIN)/python

chromium:
	@sh tests/support/get_chromium.sh

localstack: $(STAMP)
	@from=$$($(BIN)/python -m tests.support.containers) || exit 1; \
	[ "$$from" = containers ] || sh tests/support/get_localstack.sh $(BIN)/python

$(STAMP): pyproject.toml constraints.txt
	@sh tests/support/make_venv.sh $(VENV) "$(PYTHON)" all,dev
	@touch $(RUNS) $@

$(RUNS): pyproject.toml constraints.txt
	@sh tests/support/make_venv.sh $(VENV) "$(PYTHON)" daemon,speed
	@touch $@
