# Every target does its own set-up: a fresh machine needs Python 3.11 or later, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?=
BENCH ?=
PYTEST ?=

.DEFAULT_GOAL := help
.PHONY: help setup check test demo bench render lock servers clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.ready ## make the virtual environment from the lock file

$(VENV)/.ready: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

check: setup ## lint, types, layers, catalogue policies, freshness of rendered files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy .
	$(BIN)/lint-imports
	$(BIN)/python -m catalogue.lint
	$(BIN)/python -m kvandal.render --check

test: setup ## run every test that this machine can run; it says which servers it could not have
	$(BIN)/python -m pytest $(PYTEST)

demo: setup ## run the whole pipeline on this machine: make demo DEMO="--gpus 512 --seconds 20 --once"
	$(BIN)/kvandal demo $(DEMO)

bench: setup ## measure what the README says
	$(BIN)/python -m benchmarks $(BENCH)

render: setup ## write the files that are generated from code
	$(BIN)/python -m kvandal.render

lock: setup ## resolve the dependencies anew into constraints.txt
	$(BIN)/uv pip compile --quiet --universal --all-extras --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --python-version 3.11 pyproject.toml -o constraints.txt

servers: setup ## fetch the real servers that the tests start: Apache Kafka
	$(BIN)/python -m tests.servers.kafka --prepare

clean: ## remove what was built, not what was measured
	rm -rf $(VENV) .cache build dist *.egg-info
