# make demo   installs the package and trains the built-in sample
# make test   formatting, lint, types, tests
# make test-oldest   the tests of all strategies, on the oldest TensorFlow that is supported
# make test-long     the whole table of benchmarks/README.md on equivalence, as a test
# make test-slow     tests with real modules and real processes that take many seconds each
# make test-tutorials   every command of every tutorial
# PYTHON=python3.12 make test chooses the interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := trainer launch tests benchmarks tutorials setup.py
OLDEST_TENSORFLOW := 2.20
OLDEST_VENV := $(VENV)-tensorflow-$(OLDEST_TENSORFLOW)
# Each imports TensorFlow; the tests of a file stay together, because they share what they train.
TWO_PROCESSES := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-slow test-oldest test-long test-tutorials lint format clean

demo: $(VENV)/.installed
	$(BIN)/python -m trainer.task --strategy=mirrored

test: lint
	$(BIN)/python -m pytest $(TWO_PROCESSES)

test-oldest: $(OLDEST_VENV)/.installed-test
	$(OLDEST_VENV)/bin/python -m pytest $(TWO_PROCESSES) -m "strategies and not long"

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(TWO_PROCESSES) -m slow

test-long: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m long

test-tutorials: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m tutorials

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

clean:
	rm -rf $(VENV) $(OLDEST_VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

# The pip of a Python 3.10 virtual environment (23.0) does not find versions that go together in half an hour.
# Stamps: what is installed is installed again only when the requirements change.
$(VENV)/.installed: setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@

$(OLDEST_VENV)/.installed-test: setup.py pyproject.toml
	test -x $(OLDEST_VENV)/bin/python || $(PYTHON) -m venv $(OLDEST_VENV)
	$(OLDEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25'
	$(OLDEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		'tensorflow==$(OLDEST_TENSORFLOW).*' --editable '.[test]'
	touch $@
