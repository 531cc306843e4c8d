# `make demo` and `make test` set up everything they need in .venv.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

.PHONY: demo test lint benchmark clean

demo: $(INSTALLED)
	rm -rf demo
	$(VENV)/bin/causcell demo --out demo

test: $(INSTALLED) lint
	$(VENV)/bin/python -m pytest

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

benchmark: $(INSTALLED)
	$(VENV)/bin/python -m pytest tests/benchmarks --benchmark-only

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,plot,export,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist
