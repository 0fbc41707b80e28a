# Two commands: `make up` starts a cluster and an example; `make test` runs every test.
PYTHON ?= python3
VENV := .venv
HAVEN := $(VENV)/bin/haven

.NOTPARALLEL:  # The virtual environment needs what the host gets first.
.PHONY: up down test check venv host host-for-tests bench clean

up: host venv
	@$(HAVEN) up --example

down:
	@$(HAVEN) down

test: host-for-tests check
	$(VENV)/bin/pytest

check: venv
	$(VENV)/bin/ruff check src tests tools bench
	$(VENV)/bin/ruff format --check src tests tools bench
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python tools/generate_types.py --check

# BENCH="--upstream-bin DIR --rounds 5" measures another server beside; `make bench BENCH=--help` tells more.
bench: venv
	@sh tools/install-host.sh bench
	@$(VENV)/bin/python -m bench $(BENCH)

# What containers need on this machine, installed if missing (Debian, Ubuntu).
host:
	@PYTHON=$(PYTHON) sh tools/install-host.sh

host-for-tests:
	@PYTHON=$(PYTHON) sh tools/install-host.sh tests

venv: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml requirements.lock
	@test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing Python packages into $(VENV)"
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --retries 10 --timeout 60 --require-hashes --requirement requirements.lock
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --editable .
	@$(VENV)/bin/python -m compileall -q src  # So that the first start is as fast as the second.
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
