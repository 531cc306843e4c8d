# `make demo` and `make test` set up everything they need in .venv.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
TRITON := $(VENV)/share/causcell/triton

.PHONY: demo test lint wheel-test benchmark triton clean

demo: $(INSTALLED)
	rm -rf demo
	$(VENV)/bin/causcell demo --out demo

test: $(INSTALLED) $(TRITON) lint
	OMP_WAIT_POLICY=PASSIVE $(VENV)/bin/python -m pytest  # threads that spin starve each other on few cores

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# The wheel with [cpu] alone, in an environment without torch, generates from the checked-in model repository.
wheel-test: $(INSTALLED)
	rm -rf build/wheel-test
	$(VENV)/bin/python -m build --quiet --wheel --outdir build/wheel-test .
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/python -m pip install --quiet --constraint constraints.txt \
		"$$(echo build/wheel-test/causcell-*.whl)[cpu]"
	build/wheel-test/venv/bin/python tests/installed_client.py model_repository build/wheel-test

benchmark: $(INSTALLED)
	$(VENV)/bin/python -m pytest tests/benchmarks --benchmark-only

# A real Triton server for `causcell serve` and the tests, from NVIDIA's wheel.
triton: $(TRITON)

$(TRITON): $(INSTALLED)
	$(VENV)/bin/python -m causcell.serve.install
	touch $@

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,dask,plot,export,dev]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist
