# Everything that people and CI run. `make` alone says what there is.
# Nothing is written outside of this checkout but Maven's and pip's own caches.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

# Names of files are UTF-8 for the parts in Java, so they are for Python, whatever the locale says.
export PYTHONUTF8 := 1

PYTHON3 ?= python3
PYTHON := .venv/bin/python
# Most tests wait for servers more than they compute: two processes end sooner. Each takes the next file, in order;
# tests/conftest.py says which belong together.
WORKERS ?= 2
SIDE_BY_SIDE := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Passed on to what a target runs: make demo ARGS="--help"
ARGS ?=

PACKAGES := $(wildcard schemas adapters models evaluation udfs jobs privacy serving bench deploy freshet)
OPERATORS := jobs/java/target/freshet-operators.jar
# Quick ones first, so that a plain mistake shows before any process is started.
TESTS := $(wildcard tests/unit tests/golden tests/contract tests/operators tests/jobs tests/e2e tests/faults)

.PHONY: help setup warm up down status demo model test privacy-test properties campaign alerts soak collector fuzz check bench bench-read masking docs format client jars-lock constraints clean upgrade-test

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | while IFS=$$'\t' read -r name text; \
	  do printf '  make %-12s %s\n' "$$name" "$$text"; done

setup: .venv/.requirements .venv/bin/freshet .local/jars/.verified $(OPERATORS) ## install the Python environment, the command `freshet` and the jars, and build our own; idempotent

warm: setup ## optional, once: record classes, so that starts take a third less time (a minute, 300 MB)
	@$(PYTHON) -m deploy.local.record_classes

up: setup ## start Kafka, Redis, Flink and the job; ARGS="--task-managers 2", ARGS=--no-job
	@$(PYTHON) -m freshet up $(ARGS)

down: ## stop what `make up` started, and delete its data
	@[ ! -x $(PYTHON) ] || $(PYTHON) -m freshet down $(ARGS)

status: setup ## show what is running, and its addresses
	@$(PYTHON) -m freshet status $(ARGS)

demo: setup ## show how a click changes recommendations
	@$(PYTHON) -m freshet demo $(ARGS)

model: setup ## train on a file, ARGS="FILE --out DIR", or without ARGS on the history of the running stack
	@$(if $(ARGS),$(PYTHON) -m freshet model train $(ARGS),$(PYTHON) -m freshet export history --settings .local/freshet.toml \
	  | $(PYTHON) -m freshet model train - --out .local/model-of-history)

test: check ## check, then every test: quick ones first, real processes last
	@$(PYTHON) -m pytest $(SIDE_BY_SIDE) $(TESTS) $(ARGS)

collector: ## optional, once: build a collector of OpenTelemetry with Go (5 minutes), which `make test` then sends traces to
	@mkdir -p .local/otelcol && cd tests/support/otelcol && go build -trimpath -ldflags "-s -w" -o ../../../.local/otelcol/otelcol .

privacy-test: setup ## run the tests about consent, erasure and identifiers, over many more random histories
	@FRESHET_HISTORIES=$${FRESHET_HISTORIES:-500} $(PYTHON) -m pytest -m privacy $(TESTS) $(ARGS)

properties: setup ## run every property on all its random examples; `make test` takes a quarter of them
	@FRESHET_HISTORIES=$${FRESHET_HISTORIES:-500} $(PYTHON) -m pytest $(SIDE_BY_SIDE) tests/unit tests/operators tests/contract $(ARGS)

campaign: setup ## every case of the faults that `make test` tries one case of: state backends, changes of buckets and take-overs in all modes and formats
	@FRESHET_CAMPAIGN=1 $(PYTHON) -m pytest tests/faults/test_state_backends.py tests/faults/test_rebucket.py tests/faults/test_take_over.py $(ARGS)

upgrade-test: setup ## upgrade from the last release under load, rescale 1, 2, 4, 1, and go back (15 minutes); FROM=REVISION
	@FRESHET_CAMPAIGN=1 FRESHET_UPGRADE_FROM=$(FROM) $(PYTHON) -m pytest tests/faults/test_upgrade_under_load.py $(ARGS)

alerts: setup ## cause the fault of each alert, and see it fire and resolve in a real Prometheus and Alertmanager (10 minutes)
	@FRESHET_CAMPAIGN=1 $(PYTHON) -m pytest tests/faults/test_alert_campaign.py -k "not soak" $(ARGS)

soak: setup ## run the stack for half an hour under the alerts as they are shipped: none may fire
	@FRESHET_CAMPAIGN=1 $(PYTHON) -m pytest tests/faults/test_alert_campaign.py -k soak $(ARGS)

fuzz: setup ## a million garbage records through ingest and personalise, a million hard texts through ingest; FRESHET_FUZZ_SEED=2 for others
	@FRESHET_FUZZ_RECORDS=$${FRESHET_FUZZ_RECORDS:-1000000} $(PYTHON) -m pytest tests/operators/test_fuzz.py tests/unit/test_fuzz_ingest.py $(ARGS)

check: setup ## format, lint, types, layering and documentation
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy $(PACKAGES)
	@$(PYTHON) -m pytest tests/unit/test_layering.py --no-header
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet --site-dir .local/site

bench: setup ## measure throughput, latency and the cost of consent, beside a peer or a limit
	@$(PYTHON) -m freshet bench run $(ARGS)

bench-read: setup ## measure what reading costs: gateway and library beside nginx and Feast (10 minutes)
	@$(PYTHON) -m freshet bench read $(ARGS)

masking: setup ## search for the text that is most expensive to mask: millions of texts, half an hour
	@$(PYTHON) -m freshet bench masking $(ARGS)

docs: setup ## write the generated pages, and show the documentation at http://localhost:8000
	@$(PYTHON) -m deploy.documentation
	@NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs serve

client: setup ## build the client library as a wheel, below .local/dist
	@$(PYTHON) -m freshet client $(ARGS)

format: setup ## format the code
	@$(PYTHON) -m ruff format .
	@$(PYTHON) -m ruff check --fix .

jars-lock: | .venv/.requirements ## after a change of version in deploy/local/jars/pom.xml or jobs/java/pom.xml: pin the new jars
	@$(PYTHON) -m deploy.local.fetch_jars --lock && touch .local/jars/.verified
	@$(PYTHON) -m deploy.local.build_operators --lock

constraints: setup ## after a change of a version: write down all versions that are installed now
	@{ head -1 constraints.txt; $(PYTHON) -m pip freeze; } > .local/constraints.txt && mv .local/constraints.txt constraints.txt

clean: down ## remove what was built, trained and cached here (.venv stays)
	rm -rf .local jobs/java/target .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.venv/.requirements: $(wildcard requirements*.txt serving/requirements*.txt) constraints.txt
	@$(PYTHON3) -c 'import sys; sys.exit(0 if sys.version_info[:2] in ((3, 11), (3, 12)) else 1)' || \
	  { echo "setup: $(PYTHON3) is missing or not Python 3.11 or 3.12 (PyFlink needs one of them);" \
	         "say which to use: make setup PYTHON3=python3.11" >&2; exit 1; }
	@[ -x $(PYTHON) ] || { echo "setup: creating .venv with $$($(PYTHON3) --version)"; $(PYTHON3) -m venv .venv; }
	@echo "setup: installing requirements-dev.txt (the first time takes a few minutes)"
	@$(PYTHON) -m pip install --disable-pip-version-check -r requirements-dev.txt \
	  | { grep --line-buffered -vE 'already satisfied|^ ' || true; }
	@touch $@

.venv/bin/freshet: deploy/local/freshet | .venv/.requirements
	@install -m 755 $< $@

.local/jars/.verified: deploy/local/jars/pom.xml deploy/local/jars/SHA256SUMS | .venv/.requirements
	@$(PYTHON) -m deploy.local.fetch_jars
	@touch $@

$(OPERATORS): jobs/java/pom.xml jobs/java/SHA256SUMS $(wildcard jobs/java/freshet/*.java) | .venv/.requirements
	@$(PYTHON) -m deploy.local.build_operators
