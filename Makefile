# `make quick` while you work, `make all` before a change is shown. VENV is the environment of CONTRIBUTING.md.
VENV ?= .venv
BIN := $(VENV)/bin/

.PHONY: quick lint types test slow docs package mutations traps all

quick: lint types ## Lint, types, and the tests of what changed since the last commit (BASE=main for a branch)
	$(BIN)pytest -q -n 2 --dist worksteal $$($(BIN)python .ci/changed.py $(or $(BASE),HEAD))

lint:
	$(BIN)ruff check
	$(BIN)ruff format --check
	$(BIN)python .ci/house.py > /dev/null

types:
	$(BIN)mypy

test: ## What README runs
	$(BIN)pytest -q -n 2 --dist worksteal

slow: ## What takes seconds each: whole matrices, processes, the demo
	$(BIN)pytest -q -n 2 --dist worksteal -m slow

docs: ## The site in docs/_build/html, notebooks and cells executed
	$(BIN)sphinx-build -W --keep-going -q -b html docs docs/_build/html
	$(BIN)python .ci/links.py docs/_build/html

package: ## Wheel and sdist, installed elsewhere and used
	$(BIN)python .ci/package.py

mutations: ## Every known mistake, one by one, must make a test fail (an hour; WORD=file for some)
	$(BIN)python -m tests.mutations $(WORD)

all: lint types package test slow docs mutations
