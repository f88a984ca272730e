# One door each. Every door first installs what it needs (scripts/setup), as root, on Debian.

PYTHON_BIN := .venv/bin/python
C_SOURCES = $(shell git ls-files '*.c' '*.h')
C_UNITS = $(filter %.c,$(C_SOURCES))
WARNINGS := -std=gnu17 -D_GNU_SOURCE -Wall -Wextra -Werror -Iphantom_cri/native

.PHONY: run cluster test check bench vm lint unit e2e native clean

## run: a pod from an image, on a daemon and a registry of its own; leaves nothing behind
run:
	@scripts/setup run
	@$(PYTHON_BIN) -m harness.demo

## cluster: a Kubernetes cluster of one node on phantom-cri, until Ctrl-C; CLUSTER_ARGS="--runtime containerd"
cluster:
	@scripts/setup test
	@$(PYTHON_BIN) -m harness.cluster $(CLUSTER_ARGS)

## test: every everyday test
test: check
	@scripts/setup test
	@$(PYTHON_BIN) -m pytest $(PYTEST_ARGS) tests

## check: style, types, dead code, warnings, generated code
check:
	@scripts/setup test
	@$(MAKE) --no-print-directory lint

lint:
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/vulture
	@$(if $(C_SOURCES),clang-format --dry-run --Werror $(C_SOURCES))
	@$(foreach unit,$(C_UNITS),gcc $(WARNINGS) -fsyntax-only $(unit) &&) true
	$(PYTHON_BIN) api/generate --check

unit:
	@scripts/setup run
	@$(PYTHON_BIN) -m pytest tests/unit

e2e:
	@scripts/setup test
	@$(PYTHON_BIN) -m pytest tests/e2e

## bench: Phantom beside containerd + runc and containerd + crun; writes bench/results and docs/benchmarks.md
bench:
	@scripts/setup bench
	@$(PYTHON_BIN) -m bench $(BENCH_ARGS)

## vm: tests on Debian's kernels with cgroup v2, systemd and AppArmor, in emulated machines
vm:
	@scripts/setup test vm
	@$(PYTHON_BIN) -m pytest -m vm -o faulthandler_timeout=0 $(PYTEST_ARGS) tests/e2e/vm

clean:
	rm -rf build dist *.egg-info phantom_cri/native/_native*.so phantom_cri/native/fragment shim/containerd-shim-phantom-v2
	rm -f .venv/native.stamp
