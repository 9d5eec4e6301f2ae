# Every target sets up what it needs in .venv; a stamp file makes the second time quick.
# PYTHON=... names the interpreter to use; without it the first of the candidates that fits is taken.

VENV    := .venv
BIN     := $(VENV)/bin
# Without warnings: setuptools remarks at length that an editable installation is one.
PIP     := PYTHONWARNINGS=ignore $(BIN)/python -m pip --disable-pip-version-check
LOCKED  := pyproject.toml requirements.txt constraints.txt
PYTHON  ?=
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3 python3.13 python3.12 python3.11)

# Tests collect their own data under .cache, so that no older dataset of yours gets in.
# One thread: two threads on two busy cores are slower than one, and sums keep their order.
# The cores share the files instead, each file whole: the cells of a chapter need one kernel.
TEST_THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help book test test-all lab bench lint clean
.SUFFIXES:
.DELETE_ON_ERROR:

help:
	@echo "make book      build the book into _build/html"
	@echo "make test      run every test: unit, property, notebook and page tests"
	@echo "make test-all  the same, and every chapter as on Colab"
	@echo "make lab       open the chapters in JupyterLab"
	@echo "make bench     measure speed against the usual ways of doing it"
	@echo "make lint      check style and formatting"
	@echo "make clean     remove what was built (the environment in .venv stays)"
	@echo "Variables: PYTHON=python3.12 chooses the interpreter (3.11, 3.12 or 3.13)."

book: $(VENV)/.stamp-book
	@$(BIN)/jupyter-book build -W -n --keep-going .
	@echo "The book is built. Open $(CURDIR)/_build/html/index.html"

# -m "" takes in what is marked "everything".
test-all: SELECTION := -m ""
test-all: test

test: $(VENV)/.stamp-test
	@$(TEST_THREADS) MINARI_DATASETS_PATH=$(CURDIR)/.cache/minari \
	  $(BIN)/python -m pytest tests notebooks -n auto --maxprocesses 4 --dist loadscope \
	  --nbval --nbval-current-env \
	  --nbval-sanitize-with tests/nbval_sanitize.cfg --nbval-cell-timeout 300 $(SELECTION)

lab: $(VENV)/.stamp-lab
	@$(BIN)/jupyter lab notebooks

bench: $(VENV)/.stamp-bench
	@OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks -p no:cacheprovider

lint: $(VENV)/.stamp-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

clean: 
	@rm -rf _build build .cache *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks

# --- environment -------------------------------------------------------------------------

# Groups of dependencies need pip 25.1; a newer pip is left as it is.
$(VENV)/.stamp-venv:
	@set -e; \
	if [ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1; then :; else \
	  found=; \
	  for candidate in $(CANDIDATES); do \
	    if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	        >/dev/null 2>&1; then found="$$candidate"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "Python 3.11, 3.12 or 3.13 is needed, and none of these is one: $(CANDIDATES). Install one, or name it: make PYTHON=/path/to/python3.12" >&2; \
	    exit 1; \
	  fi; \
	  if ! "$$found" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	    echo "python3-venv is missing: install it with \`apt install python3-venv\` (or name another interpreter: make PYTHON=/path/to/python3.12)" >&2; \
	    exit 1; \
	  fi; \
	  echo "Making $(VENV) with $$found ..."; \
	  "$$found" -m venv $(VENV); \
	fi; \
	$(PIP) install --quiet "pip>=25.1"
	@touch $@

$(VENV)/.stamp-book: $(VENV)/.stamp-venv $(LOCKED)
	@echo "Installing what the pages need ..."
	@$(PIP) install --quiet -c constraints.txt --group book
	@touch $@

$(VENV)/.stamp-test: $(VENV)/.stamp-venv $(LOCKED)
	@echo "Installing the package and what the tests need ..."
	@$(PIP) install --quiet -c constraints.txt -e . --group book --group test --group parity
	@touch $(VENV)/.stamp-book $@

$(VENV)/.stamp-lab: $(VENV)/.stamp-venv $(LOCKED)
	@echo "Installing the package and JupyterLab ..."
	@$(PIP) install --quiet -c constraints.txt -e . --group lab
	@touch $@

$(VENV)/.stamp-bench: $(VENV)/.stamp-venv $(LOCKED)
	@echo "Installing the package and what the measurements need ..."
	@$(PIP) install --quiet -c constraints.txt -e . --group book --group bench
	@touch $@
