# Two commands: `make up` starts a cluster and an example; `make test` runs every test.
PYTHON ?= python3
VENV := .venv

.PHONY: venv check test up down
venv: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --editable '.[node]' --group dev
	touch $@

check: venv
	$(VENV)/bin/ruff check src tests tools
	$(VENV)/bin/ruff format --check src tests tools
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python tools/generate_types.py --check

test: check
	$(VENV)/bin/pytest
