# Everything a developer runs. `make help` lists it; CI runs nothing else.

PYTHON := .venv/bin/python
PYTEST := $(PYTHON) -m pytest

.DEFAULT_GOAL := help
.PHONY: help run check test engine golden record docs bench new-check changelog clean dev

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## set up, and run doctor on this host (without Docker: on an example)
	@sh tools/run.sh

check: ## format, lint, types, import contracts, tests that need no root; 72 s on two idle cores
	@sh tools/check.sh

test: ## everything, installing what it needs (system packages too, when root)
	@sh tools/test.sh

engine: ## the tests on real engines (root), every row on each of them; SUITE=28.5 for one
	@sh tools/setup.sh test
	@$(PYTEST) tests/engine --every-engine $(addprefix --suite ,$(SUITE))

golden: dev ## write tests/golden/ anew; look at the diff
	@$(PYTEST) -q tests/golden --update-golden

record: dev ## as root: record anew what this kernel does with Docker's hosts, tests/kernel/recorded/; look at what differs
	@$(PYTHON) -m tests.kernel.record

docs: dev ## write the generated part of docs/ anew
	@$(PYTHON) -m tools.docs

bench: dev ## ratios to the bare interpreter and, as root, on a host with 20 containers
	@$(PYTHON) -m bench.startup
	@if [ "$$(id -u)" = 0 ]; then $(PYTHON) -m bench.engine small; else echo "bench.engine: skipped, needs root"; fi
	@if [ "$$(id -u)" = 0 ]; then $(PYTHON) -m bench.runtime; else echo "bench.runtime: skipped, needs root"; fi

new-check: dev ## CODE=NET099 NAME=some-name MODULE=bridges [SEVERITY=warning]: function, page and cases, to be filled
	@$(PYTHON) -m tools.new_check "$(CODE)" "$(NAME)" "$(MODULE)" "$(or $(SEVERITY),error)"

changelog: dev ## collect changelog.d/ into CHANGELOG.md for the present version
	@$(PYTHON) -m towncrier build --yes

clean: ## remove .venv and caches; engine roots stay in the user's cache folder
	@rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

dev:
	@sh tools/setup.sh dev
