# The commands of FoodFlow OS. `make demo` is the first one to try.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/foodflow
export FOODFLOW_TEST_PYTHON ?= $(CACHE)/venv-test/bin/python
NEXTEST := $(shell command -v cargo-nextest >/dev/null && echo "nextest run" || echo "test --no-fail-fast --lib --bins --tests")

.PHONY: help demo test test-dashboard check bench soak dashboard setup setup-test setup-bench build fmt clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup:  ## install what is missing to run
	@scripts/setup.sh run

setup-test:
	@scripts/setup.sh test

setup-bench:
	@scripts/setup.sh bench

DASHBOARD_SOURCES := $(shell find cloud-hub/dashboard -path '*/node_modules' -prune -o -path '*/dist' -prune -o -type f -print 2>/dev/null)
dashboard: cloud-hub/dashboard/dist/index.html  ## build the dashboard
cloud-hub/dashboard/dist/index.html: $(DASHBOARD_SOURCES) | setup
	cd cloud-hub/dashboard && export PATH="$$(../../scripts/node-path.sh):$$PATH" && npm ci --no-audit --no-fund && npm run build
	@touch $@

build: setup dashboard
	cargo build --workspace --bins

demo: build  ## a simulated line, an edge agent and a hub; ARGS=--once runs the journeys and stops
	cargo run --quiet -p cloud-hub --example demo -- $(ARGS)

test: setup-test dashboard test-dashboard  ## every test
	cargo build --workspace --bins
	PATH="$$(scripts/node-path.sh):$$PATH" cargo $(NEXTEST) --workspace
	cargo test --quiet --workspace --doc

test-dashboard: dashboard
	cd cloud-hub/dashboard && PATH="$$(../../scripts/node-path.sh):$$PATH" npm test
	cd cloud-hub/dashboard && PATH="$$(../../scripts/node-path.sh):$$PATH" OFFLINE=0 npm run e2e:fake
	! grep -q '"resolved"' cloud-hub/dashboard/package-lock.json cloud-hub/tests/peers/*/package-lock.json

check: setup-test dashboard  ## formatting, lints, documentation, dependencies, then every test
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
	scripts/deny.sh
	scripts/check-deploy.sh
	$(MAKE) --no-print-directory test

bench: build setup-bench  ## every benchmark, as ratios; writes target/bench/summary.json
	scripts/bench.sh

soak: setup-test dashboard  ## the heavy suites in full
	cargo build --workspace --bins
	PATH="$$(scripts/node-path.sh):$$PATH" FOODFLOW_SOAK=1 NEXTEST_PROFILE=soak cargo $(NEXTEST) --workspace
	cargo $(NEXTEST) -p edge-agent --features rtu --test agent serial::

fmt:  ## format everything
	cargo fmt --all

clean:  ## remove what was built here
	cargo clean
	rm -rf cloud-hub/dashboard/node_modules cloud-hub/dashboard/dist/assets cloud-hub/dashboard/dist/index.html* data
