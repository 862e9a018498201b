# Two commands set everything up by themselves: `make drill EXP=oom-workers` and `make test`.
#
# make turns every failure into its own exit code 2; drill's own code is in its last line, and `./drill run NAME`
# hands it through: 0 met, 1 missed, 2 undecided, 3 refused, 4 rollback incomplete, 64 bad input, 70 internal error.

SHELL := /bin/sh
VENV := .venv/bin
# Tests side by side. Those on a cluster wait for most of their time.
BESIDE := --dist loadgroup -n
# What may be set beside EXP. Empty means: the default of `drill run`.
export EXP PROFILE DRILL_CLUSTER RESPONDER CONTEXT
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help drill drills smoke test test-kind check e2e torture peers down clean lock runtime dev

help: ## Show this
	@echo "usage: make TARGET [VARIABLE=VALUE]"; echo
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F'|' '{printf "  %-9s %s\n", $$1, $$2}'
	@echo
	@echo "  make drill EXP=oom-workers [PROFILE=smoke|gameday] [RESPONDER=autopilot|human]"
	@echo "             [DRILL_CLUSTER=auto|local|kind|context] [CONTEXT=name] [ARGS='further options']"

drill: runtime ## Run the drill EXP, set-up included
	@if [ -z "$$EXP" ]; then echo "make drill: name an experiment, like: make drill EXP=oom-workers" >&2; \
	  $(VENV)/drill list >&2; exit 64; fi; \
	exec $(VENV)/drill run $(ARGS) -- "$$EXP"

drills: runtime ## Run all experiments, or those of EXP, one after another; one table
	@$(VENV)/drill series $(ARGS) -- $$EXP

smoke: runtime ## What CI runs: a cluster of its own, a few drills or those of EXP, junit.xml and summary.md, cluster gone
	@$(VENV)/drill smoke $(ARGS) -- $$EXP

test: check ## Install what tests need, check, run all tests; those on a real cluster last
	@tools/test-packages.sh
	$(VENV)/python -m pytest -m "not cluster and not kind" $(BESIDE) 2
	DRILL_TEST_CLUSTERS=each $(VENV)/python -m pytest -m "cluster and not apart and not peers" --durations=12 \
	  --dist loadfile --no-loadscope-reorder -n 2
	$(VENV)/python -m pytest -m "cluster and apart" --durations=12 $(BESIDE) 3

check: dev ## Lint, format, types, layers
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy
	$(VENV)/lint-imports

torture: dev ## Kill the harness at every step on the local cluster, and see that nothing stays broken
	@tools/test-packages.sh
	$(VENV)/python -m tests.torture $(ARGS)

e2e: dev ## Only the tests on a real cluster
	$(VENV)/python -m pytest -m "cluster and not peers" -v

test-kind: dev ## Only the tests through the real kind tool, on a Docker engine of their own
	@tools/test-packages.sh
	$(VENV)/python -m pytest -m kind --durations=8

peers: dev ## Compare with Chaos Toolkit on the real cluster; renews benchmarks/peers.json
	DRILL_PEERS_FIGURES=benchmarks/peers.json $(VENV)/python -m pytest -m peers -q

down: runtime ## Take the local cluster down and leave nothing behind
	@$(VENV)/drill cluster down

clean: ## Remove .venv and caches; keeps runs/ and the cluster
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

LOCK = $(VENV)/uv pip compile --quiet --generate-hashes --no-emit-index-url --universal --python-version 3.11 \
	--custom-compile-command "make lock"
lock: dev ## Renew requirements/*.lock from pyproject.toml (UPGRADE=1 takes newer versions)
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --group build -o requirements/runtime.lock
	$(LOCK) $(if $(UPGRADE),--upgrade) pyproject.toml --group dev -c requirements/runtime.lock -o requirements/dev.lock
	$(LOCK) $(if $(UPGRADE),--upgrade) --group pyproject.toml:peers -o requirements/peers.lock

runtime:
	@tools/bootstrap.sh runtime

dev:
	@tools/bootstrap.sh dev
