# Every target does the set-up it needs. A second run starts at once.

# The first Python that is new enough.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help demo up down status test lint gen check-contracts typecheck pytest chaos chaos-ledger bench bench-ledger lock docs clean runtime dev

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

runtime:
	@test -n "$(PYTHON)" || { echo "Kente needs Python 3.11 or later, and none is on the PATH."; exit 2; }
	@$(PYTHON) tools/install.py runtime

dev:
	@test -n "$(PYTHON)" || { echo "Kente needs Python 3.11 or later, and none is on the PATH."; exit 2; }
	@$(PYTHON) tools/install.py dev

demo: runtime ## Start the mesh and take real payments through it, hop by hop
	@$(BIN)/kente demo

up: runtime ## Run the mesh until Ctrl-C
	@$(BIN)/kente up

down: runtime ## Stop a mesh that runs in the background
	@$(BIN)/kente down

status: runtime ## Show the processes of the mesh
	@$(BIN)/kente status

test: dev check-contracts lint typecheck pytest ## Run every check

check-contracts: dev ## Lint the contracts, compare them with the last commit, check that gen/ is current
	@$(BIN)/python tools/contracts.py check

lint: dev ## Check style and the dependency rule
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@PYTHONPATH=.:gen/python $(BIN)/lint-imports

typecheck: dev ## Check the types
	@$(BIN)/mypy

pytest: dev ## Run the tests
	@$(BIN)/python -m tools.tests

chaos-ledger: dev ## Break the ledger at any statement, 100 times, and count what is lost, doubled or unbalanced
	@$(BIN)/python -m tests.system.chaos_ledger --runs 100

chaos: dev ## Kill things during payments, 50 times each, and count
	@$(BIN)/python -m tests.system.chaos --runs 50

bench: dev ## Measure
	@$(BIN)/python -m bench

bench-ledger: dev ## Measure the ledger beside its baselines (ARGUMENTS="--quick", "--minutes 10")
	@$(BIN)/python -m bench.ledger $(ARGUMENTS)

gen: dev ## Generate code from the contracts
	@$(BIN)/python tools/contracts.py generate

docs: dev ## Write the pages that are made from the code
	@$(BIN)/python -m tools.pages write

lock: dev ## Lock the dependencies anew
	@$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet -o requirements.lock
	@$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet -o requirements-dev.lock

clean: ## Forget the environment and the state of the mesh
	rm -rf .venv .kente .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
