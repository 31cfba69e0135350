# One command per task; CI calls the same ones. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO ?= flights
.DEFAULT_GOAL := help
.PHONY: help install tools up test test-late lint format bench bench-hostile smoke lock clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

install: $(STAMP) ## Make .venv with everything, from hash-locked requirements
$(STAMP): pyproject.toml requirements/dev.txt requirements/demo.txt scripts/venv.sh
	@PYTHON=$(PYTHON) scripts/venv.sh $(VENV)
	@touch $@

tools: install ## Install what only the tests need: Redis, age, node with pusher-js, Chromium
	@scripts/need.sh age curl redis-server
	@scripts/install-node.sh
	@scripts/install-browser.sh

up: install ## Serve the flights demo (DEMO=tasks for the other, DEMO= for an empty database)
	@$(BIN)/mag up $(if $(DEMO),--demo $(DEMO))

test: tools ## Run every test against real servers
	@$(BIN)/pytest $(PYTEST_ARGS)

test-late: tools ## The same with answers that come late now and then, to find races (PYTEST_ARGS=tests/integration/magds)
	@$(BIN)/python -m pytest -p tests.late $(or $(PYTEST_ARGS),tests/integration)

lint: install ## Style, types, the import rule
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . || { echo "next: make format mends most of it" >&2; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: install ## Rewrite the code in the project's style
	@$(BIN)/ruff check --fix --exit-zero .
	@$(BIN)/ruff format .

bench: install ## Measure and write docs/performance.md (BENCH_ARGS=--quick only prints)
	@scripts/need.sh wrk
	@$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

bench-hostile: install ## How little a flooding and a spinning extension cost a good one
	@$(BIN)/python -m benchmarks.hostile $(BENCH_ARGS)

smoke: install ## Boot a throw-away node, read a row, receive a change, stop
	@$(BIN)/python scripts/smoke.py

lock: ## Recompute requirements/*.txt
	@scripts/lock.sh

clean: ## Remove what the commands above made, except mag_data
	rm -rf $(VENV) clients/js/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
