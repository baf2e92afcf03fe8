# Two commands on a fresh machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install dev demo test lint types contracts check clean

help:
	@echo "make demo       train and judge a model on each built-in demo corpus, of speech and of text"
	@echo "make test       run the tests"
	@echo "make check      lint, types, import contracts and tests: what CI runs"
	@echo "make install    only set up $(VENV) with the samo command"

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed (hint: make PYTHON=/path/to/python3.11 demo)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

install: $(VENV)/.installed

dev: $(VENV)/.dev

demo: $(VENV)/.installed
	$(BIN)/samo train --modality audio --dataset demo --preset demo
	$(BIN)/samo evaluate
	$(BIN)/samo train --modality text --dataset demo --preset textcnn --epochs 6
	$(BIN)/samo evaluate

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	PYTHONPATH=cli $(BIN)/lint-imports

check: lint types contracts test

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
