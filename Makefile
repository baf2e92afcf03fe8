# Two commands on a fresh machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Child processes import SAMO again: what it compiles to is kept, whatever the shell says.
PYTEST = PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help install dev demo quick test mutants coverage lint types contracts check hooks dist clean

help:
	@echo "make demo       train and evaluate a model on each built-in demo corpus, of speech and of text"
	@echo "make quick      the tests but those marked slow: some 2 minutes, for every edit"
	@echo "make test       all tests"
	@echo "make mutants    do the tests see planted bugs? a quarter of an hour on two cores, before a release"
	@echo "make coverage   all tests, and which lines they ran; fails below the floor in pyproject.toml"
	@echo "make lint types contracts   ruff and codespell; mypy; who may import whom"
	@echo "make check      lint, types, contracts and test: what CI runs"
	@echo "make hooks      let git run lint and types before each commit"
	@echo "make dist       build and check the files of a release, in dist/"
	@echo "make install    only set up $(VENV) with the samo command"

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or newer is needed (hint: make PYTHON=/path/to/python3.11 demo)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[train]"
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@# What the tests use of librosa is compiled by numba once (16 s): here, not by every test worker.
	@$(BIN)/python -c "import numpy, librosa; clip = numpy.zeros(1024, 'f'); librosa.feature.melspectrogram(y=clip, n_fft=256); librosa.effects.trim(clip)"
	@touch $@

install: $(VENV)/.installed

dev: $(VENV)/.dev

demo: $(VENV)/.installed
	$(BIN)/samo train --modality audio --dataset demo --preset demo
	$(BIN)/samo evaluate
	$(BIN)/samo train --modality text --dataset demo --preset textcnn --epochs 6
	$(BIN)/samo evaluate

quick: $(VENV)/.dev
	$(PYTEST) -m "not slow"

test: $(VENV)/.dev
	$(PYTEST)

# Not part of `make test`; that holds whether every planted bug of tests/mutants/mutants.toml still applies.
mutants: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants/run_mutants.py -j 2

# Child processes are measured too. Slower than `make test`, so CI does without.
coverage: $(VENV)/.dev
	$(PYTEST) --cov --cov-report=term:skip-covered

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.dev
	$(BIN)/mypy

contracts: $(VENV)/.dev
	PYTHONPATH=cli $(BIN)/lint-imports

check: lint types contracts test

hooks: $(VENV)/.dev
	$(BIN)/pre-commit install

# With the versions that constraints-release.txt pins, those inside the isolated build included.
dist: $(VENV)/.installed
	rm -rf build dist
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-release.txt build twine
	PIP_CONSTRAINT=$(CURDIR)/constraints-release.txt $(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .coverage*
