# make demo: train, extract, search and measure on scikit-learn's digits.  make test: the suite.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python

.PHONY: demo test check conformance benchmark lock wheel clean

$(VENV)/.runtime: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "Python 3.11 to 3.13 is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --require-hashes -r requirements.txt
	touch $@

$(VENV)/.development: $(VENV)/.runtime requirements-dev.txt
	$(RUN) -m pip install --quiet --require-hashes -r requirements-dev.txt
	touch $@

demo: $(VENV)/.runtime
	$(RUN) -m cbir_tf.commands.demo

test: $(VENV)/.development
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy
	$(RUN) -m pytest $(TESTS)
