# Every target first makes .venv if it is missing or older than the package's metadata.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The tests of what a backend computes; tests/conftest.py says which they are. A file stays with one
# worker (`--dist loadfile`), so that what its tests share is compiled and built once.
EVERY_BACKEND := 'backend and not slow and not gpu'

.PHONY: help test test-tensorflow test-jax test-torch test-wheel test-slow mutants lint audit demo bench docs

help:
	@echo "make demo        compare S-CONV, S-LOCAL, S-FC and S-FC + beta-LASSO on an embedded data set"
	@echo "make test        set up .venv and run the tests (all on TensorFlow, then what JAX and PyTorch compute)"
	@echo "make test-wheel  install the built package in a fresh environment and try tcb there"
	@echo "make mutants     whether the tests see bugs that are planted (needs the extra 'mutants')"
	@echo "make lint        ruff, mypy and bandit"
	@echo "make audit       installed packages with known flaws (needs the network)"
	@echo "make docs        the site, in build/docs, with warnings as errors and all links checked"
	@echo "make bench       side-by-side timings (needs the extra 'bench')"

$(READY): setup.py pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -e '.[test]'
	touch $@

test: test-tensorflow test-jax test-torch

test-tensorflow: $(READY)
	KERAS_BACKEND=tensorflow $(BIN)/pytest -n 2

test-jax: $(READY)
	KERAS_BACKEND=jax $(BIN)/pytest -n 2 --dist loadfile -m $(EVERY_BACKEND)

test-torch: $(READY)
	KERAS_BACKEND=torch $(BIN)/pytest -n 2 --dist loadfile -m $(EVERY_BACKEND)

test-wheel: $(READY)
	.ci/test_wheel $(VENV)

test-slow: $(READY)
	KERAS_BACKEND=tensorflow $(BIN)/pytest -m slow

# For example MUTANTS="--modules surgery --sample 40 --seed 2", or MUTANTS=--named.
MUTANTS ?= --sample 18 --seed 1

mutants: $(READY)
	$(BIN)/pip install --quiet -e '.[mutants]'
	KERAS_BACKEND=tensorflow $(BIN)/python tests/mutants $(MUTANTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy benchmarks/*.py
	$(BIN)/mypy recipes/*.py
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive \
	  tfconvbias recipes benchmarks setup.py

# Asks a service on the network which installed versions have known flaws. It stands apart from
# `lint`, which works without a network. pip-audit's status is 1 for flaws and for no answer alike.
audit: $(READY)
	$(BIN)/pip install --quiet pip-audit
	@$(BIN)/python -c "import urllib.request; urllib.request.urlopen('https://pypi.org', timeout=10)" \
	  || { echo "make audit: pypi.org, which knows the flaws, can't be reached: nothing was checked."; \
	  exit 1; }
	$(BIN)/pip-audit --skip-editable

demo: $(READY)
	$(BIN)/python recipes/sconv_cifar100.py --demo
	$(BIN)/python recipes/compare_s_family.py --demo

bench: $(READY)
	$(BIN)/pip install --quiet -e '.[bench]'
	$(BIN)/python benchmarks/run.py

docs: $(READY)
	$(BIN)/pip install --quiet -e '.[docs]'
	TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python docs/gallery.py
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --doctree-dir build/doctrees docs build/docs
	$(BIN)/python docs/check_links.py build/docs
