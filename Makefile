# Every target does its own set-up: a fresh machine needs Python 3.11 or later, and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The tools that list and audit dependencies have an environment of their own: they are no part of what they look at.
AUDIT := $(VENV)/audit
DEMO ?=
BENCH ?=
PYTEST ?=
# A quarter of the time a test waits for a server: three are faster on two cores, but then some come too late at times.
# Longest files come first in the folders' order, so that order is kept.
PYTEST_PROCESSES ?= 2
CHAOS ?=
FUZZ ?=

.DEFAULT_GOAL := help
.PHONY: help setup check test demo bench chaos fuzz backlog render lock docs servers sbom audit-deps clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

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
	$(BIN)/python -m pytest --numprocesses $(PYTEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(PYTEST)

demo: setup ## run the whole pipeline on this machine: make demo DEMO="--gpus 512 --seconds 20 --once"
	$(BIN)/kvandal demo $(DEMO)

bench: setup ## measure everything, write docs/performance.md; make bench QUICK=1 compares smaller sizes with before
	$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(BENCH)

chaos: setup ## break a site at random for 20 minutes and hold the store against what was produced
	$(BIN)/python -m tests.chaos --kills 500 $(CHAOS)

fuzz: setup ## read a million hostile inputs, and more: make fuzz FUZZ="--inputs 100000 --target dsx"
	$(BIN)/python -m tests.fuzz $(FUZZ)
	KVANDAL_EXAMPLES=20000 $(BIN)/python -m pytest -q tests/property/test_hostile_messages.py

backlog: setup ## drain 5 and then 20 million rows in the same memory
	KVANDAL_BACKLOG_ROWS=5000000 $(BIN)/python -m pytest -q -rA tests/integration/test_reliability_memory.py -k real
	KVANDAL_BACKLOG_ROWS=20000000 $(BIN)/python -m pytest -q -rA tests/integration/test_reliability_memory.py -k real

render: setup ## write the files that are generated from code
	$(BIN)/python -m kvandal.render

lock: setup ## resolve the dependencies anew into constraints.txt
	$(BIN)/uv pip compile --quiet --universal --all-extras --generate-hashes --no-emit-index-url --no-annotate \
		--no-header --python-version 3.11 pyproject.toml -o constraints.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
		--python-version 3.11 --group pyproject.toml:audit -o constraints-audit.txt

$(AUDIT)/.ready: constraints-audit.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints-audit.txt
	@touch $@

sbom: setup $(AUDIT)/.ready ## write build/sbom.cdx.json: every installed package, in CycloneDX
	@mkdir -p build
	$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-format JSON --output-file build/sbom.cdx.json $(BIN)/python

audit-deps: $(AUDIT)/.ready ## ask a vulnerability service about every locked package; its last line is the answer
	@mkdir -p build && rm -f build/audit.json
	@$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes --requirement constraints.txt \
		--format json --output build/audit.json; code=$$?; \
	test -s build/audit.json || { echo "NOT CHECKED: no vulnerability service answered for every package; see above" >&2; exit 2; }; \
	test $$code -eq 0 || { echo "VULNERABLE: build/audit.json names what is known" >&2; exit 1; }; \
	echo "CHECKED: nothing is known about any locked version"

docs: setup ## build/site: the documentation as a site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict # not --quiet, which would hide dead links from --strict

servers: setup ## fetch what the tests use: Apache Kafka, Helm, clickhouse-go, Grafana's types of dashboards
	$(BIN)/python -m tests.servers.kafka --prepare
	$(BIN)/python -m tests.servers.helm
	$(BIN)/python -m tests.servers.plugin_client --prepare
	$(BIN)/python -m tests.servers.grafana_types --prepare

clean: ## remove what was built, not what was measured
	rm -rf $(VENV) .cache build dist *.egg-info
