# What a contributor types. Every step is here or in tools/; each says what it installs.

SHELL := bash
.DEFAULT_GOAL := help

PYTHON ?= python3
SETUP_DEBIAN ?= tools/setup-debian
# Further arguments for pytest, as in: make test PYTEST='tests/envelope -x'
PYTEST ?=
export PYTHON SETUP_DEBIAN

TEST_PACKAGES := $(wildcard tests/packages.txt tests/modules/packages.txt)

.PHONY: help demo test lint format man lock lock-upgrade clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: ## The main job from end to end, on a software token and emulated tape drives, in .demo/
	@$(SETUP_DEBIAN) softhsm2
	@tools/venv runtime
	@tools/demo

test: ## Everything that must hold: lint, types and the whole test suite
	@$(SETUP_DEBIAN) $(TEST_PACKAGES:%=--from %)
	@tools/venv dev
	@tools/test $(PYTEST)

lint: ## Only the checks that read the sources
	@tools/venv dev
	@tools/test --lint

format: ## Lay the Python out as the checks want it
	@tools/venv dev
	@.venv/bin/ruff check --fix . tools/manpages
	@.venv/bin/ruff format . tools/manpages

man: ## Make docs/man/ again from the commands' own help
	@tools/venv dev
	@.venv/bin/python tools/manpages docs/man

lock: ## Renew requirements/ from pyproject.toml, keeping versions
	@tools/lock

lock-upgrade: ## Renew requirements/ with the newest versions
	@tools/lock --upgrade

clean: ## Remove the environment, the demonstration and all caches here; the Bacula tree in /var/cache/hwkm-tests stays
	rm -rf .venv .demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
