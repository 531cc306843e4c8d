# `make demo` and `make test` set up everything they need in .venv.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
TRITON := $(VENV)/share/causcell/triton
# Tests run in so many processes, each of one compute thread; threads that spin starve each other on few cores.
WORKERS ?= 2
PYTEST := OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest --numprocesses $(WORKERS)

.PHONY: help demo figure test lint docs coverage fuzz wheel-test versions audit benchmark peers triton clean

help:
	@echo "make demo        train on 700 real PBMC, export, generate, and show what came out (demo/index.html)"
	@echo "make figure      the README's figure, from the demo"
	@echo "make test        linters, types, import rules; then every test and every example in a docstring"
	@echo "make lint        linters, types, import rules"
	@echo "make docs        the site, into docs/_build/html, every warning an error"
	@echo "make coverage    the tests, with the lines that none of them reaches"
	@echo "make fuzz        every reader against twenty times the hostile inputs of make test"
	@echo "make wheel-test  the built wheel with [cpu] alone, without torch"
	@echo "make versions    the lowest and newest versions of dependencies, on every Python that is here"
	@echo "make audit       published holes of the versions in constraints.txt, where a database can be reached"
	@echo "make benchmark   rates on the checked-in model"
	@echo "make peers       other methods beside this one on the same cells (DATA=FOLDER of the files of docs/peers.md; hours)"
	@echo "make triton      a real Triton server for causcell serve and the tests (320 MB)"
	@echo "make clean       remove all of that"

demo: $(INSTALLED)
	rm -rf demo
	$(VENV)/bin/causcell demo --out demo

# The README's figure, from a demo made anew.
figure: demo
	cp demo/map_bulk_labels_CD19_B.svg docs/_static/demo.svg

test: $(INSTALLED) $(TRITON) lint
	@echo "Tests of tests/ and examples in docstrings, some against a real Triton; the summary at the end names what was"
	@echo "skipped and why. Not run: benchmarks (make benchmark), the wheel on its own (make wheel-test)."
	$(PYTEST)

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

docs: $(INSTALLED)
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

coverage: $(INSTALLED) $(TRITON)
	$(PYTEST) --cov --cov-report=term-missing:skip-covered --cov-report=html:build/coverage

# Twenty times the inputs of tests/fuzz, from another seed each time.
fuzz: $(INSTALLED)
	CAUSCELL_FUZZ=$${CAUSCELL_FUZZ:-20} $(PYTEST) tests/fuzz

# The wheel with [cpu] alone, in an environment without torch, generates from the checked-in model repository.
wheel-test: $(INSTALLED)
	rm -rf build/wheel-test
	$(VENV)/bin/python -m build --quiet --wheel --outdir build/wheel-test .
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/python -m pip install --quiet --constraint constraints.txt \
		"$$(echo build/wheel-test/causcell-*.whl)[cpu]"
	build/wheel-test/venv/bin/python tests/installed_client.py model_repository build/wheel-test

# The lowest and the newest versions that pyproject.toml allows: the client, training, export and a part of the tests.
versions:
	PYTHON=$(PYTHON) .ci/versions all

# Strict: a package that no database knows is a failure and not a pass.
audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet pip-audit
	build/audit/bin/pip-audit --strict --no-deps --disable-pip --progress-spinner off --requirement constraints.txt

benchmark: $(INSTALLED)
	$(VENV)/bin/python -m pytest tests/benchmarks --benchmark-only

# An environment for each peer that can be had; then what is not done yet of build/peers/out, and the tables of it.
PEERS ?= --cases kang --seeds 3
peers: $(INSTALLED)
	@test -n "$(DATA)" || { echo "say where the cells are: make peers DATA=FOLDER [PEERS='--cases kang --seeds 1']"; exit 2; }
	$(VENV)/bin/python tests/benchmarks/peers/run.py --build --data $(DATA) --out build/peers/out $(PEERS)
	$(VENV)/bin/python tests/benchmarks/peers/results.py build/peers/out --into tests/benchmarks/results/peers.json
	$(VENV)/bin/python tests/benchmarks/peers/table.py

# A real Triton server for `causcell serve` and the tests, from NVIDIA's wheel.
triton: $(TRITON)

$(TRITON): $(INSTALLED)
	$(VENV)/bin/python -m causcell.serve.install
	touch $@

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[all,dev,docs]'
	touch $@

clean:
	rm -rf $(VENV) demo build dist docs/_build docs/generated .coverage .coverage.*
