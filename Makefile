# One command for each thing; `make help` lists them. A machine needs Python 3.11 or newer, make and git.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JUPYTER_AS_ROOT = $(if $(filter 0,$(shell id -u)),--allow-root)

.PHONY: help setup hooks lab app run bench check test docs readme lint format prepare lock clean

help:  ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Another Python for a new .venv:  make lab PYTHON=python3.12"

# --- set-up: everything below stands on it, and it is done once

setup: $(READY)  ## make .venv with every package at the version in constraints.txt

# The stamp is written last, so that a broken-off set-up is taken up again.
$(READY): constraints.txt settings.ini setup.py
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "$(PYTHON) is missing or older than 3.11. Name a newer one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }; \
	  echo "Making $(VENV); this takes a few minutes."; \
	  $(PYTHON) -m venv --clear $(VENV) || { \
	    echo "$(PYTHON) can't make virtual environments. On Debian and Ubuntu: apt install python3-venv"; exit 1; }; }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt setuptools
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev]'
	@$(GIT_HOOKS)
	@touch $@

hooks:  ## teach this clone's git to merge and trust notebooks (part of set-up)
	@$(GIT_HOOKS)

# As nbdev_install_hooks does, but within this clone: nothing is written to the home folder.
define GIT_HOOKS
if [ -e .git ]; then \
  git config merge.nbdev-merge.name "merge notebooks cell by cell"; \
  git config merge.nbdev-merge.driver \
    "if [ -x $(BIN)/nbdev_merge ]; then $(BIN)/nbdev_merge %O %A %B %P; else git merge-file %A %O %B; fi"; \
  hook="$$(git rev-parse --git-path hooks)/post-merge"; \
  if [ ! -e "$$hook" ] && ! git config core.hooksPath >/dev/null; then \
    mkdir -p "$$(dirname "$$hook")" && printf '#!/bin/sh\nexec $(BIN)/nbdev_trust\n' >"$$hook" && chmod +x "$$hook"; \
  fi; \
fi
endef

# --- use

lab: $(READY)  ## open JupyterLab on the explorers
	@echo "JupyterLab opens in the browser; if not, its address, with the token, is below."
	$(BIN)/python -m jupyterlab --ServerApp.root_dir='$(CURDIR)' --LabApp.default_url=/lab/tree/nbs/explore \
	  --ContentsManager.pre_save_hook=nbdev.clean.clean_jupyter $(JUPYTER_AS_ROOT)

app: $(READY)  ## serve the explorers as apps, without code
	JUPYTER_PATH='$(CURDIR)/nbs/explore/.voila' $(BIN)/python -m voila nbs/explore --template=explorer

run: $(READY)  ## run the first experiment in a short form, without a browser
	$(BIN)/diffperturb run classification --short

bench: $(READY)  ## time operators and solvers against their peers (quiet machine, a quarter of an hour)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt --no-build-isolation -e '.[bench]'
	$(BIN)/python benchmarks/operators.py --out benchmarks/results
	$(BIN)/python benchmarks/solvers.py --out benchmarks/results
	$(BIN)/python benchmarks/external.py --out benchmarks/results

# --- check

# What one test compiles, the next one, and the next call, reads from here.
CACHE := JAX_COMPILATION_CACHE_DIR='$(CURDIR)/.cache/jax' JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS=0 \
  JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES=-1
# The older emitters of XLA's kernels compile many small programs in two thirds of the time. With DIFFPERTURB_TESTS=all
# everything runs with the default ones.
EMITTERS := $(if $(filter all,$(DIFFPERTURB_TESTS)),,--xla_cpu_use_fusion_emitters=false)
PYTEST = $(CACHE) XLA_FLAGS="$${XLA_FLAGS:+$$XLA_FLAGS }$(EMITTERS)" $(BIN)/python -m pytest -n 2 --dist loadgroup

check: lint  ## before a commit: style, spelling, what changed since main, and the fast tests
	$(PYTEST) --changed

test: $(READY)  ## run every notebook and every test; DIFFPERTURB_TESTS=all adds the exhaustive rows
	$(PYTEST) --durations 10

lint: $(READY)  ## look for faults of style and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

docs: $(READY) readme  ## render the documentation into _docs
	@rm -rf _docs
	@if command -v quarto >/dev/null; then \
	  PATH="$(CURDIR)/$(BIN):$$PATH" nbdev_docs && echo _docs/index.html; \
	else \
	  echo "The full site needs Quarto (quarto.org, 'Get Started'), which is not on the PATH. A preview, by pandoc:"; \
	  $(BIN)/python -m diffperturb.workbench.site; \
	fi

# --- contribute

readme: $(READY)  ## write README.md from nbs/index.ipynb
	@$(BIN)/python -m diffperturb.workbench.site readme

format: $(READY)  ## format notebooks and tests
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

prepare: $(READY)  ## before a commit: format, clean and export the notebooks, write README.md
	$(MAKE) --no-print-directory format
	$(BIN)/nbdev_clean
	$(BIN)/nbdev_export
	$(BIN)/python -c 'from nbdev.quarto import refresh_quarto_yml; refresh_quarto_yml()'
	$(MAKE) --no-print-directory readme lint

lock: $(READY)  ## pin the newest versions that fit, in constraints.txt
	@touch setup.py  # uv reads settings.ini again only where setup.py is newer than what it remembers
	$(BIN)/uv pip compile setup.py --all-extras --universal --fork-strategy fewest --python-version 3.11 \
	  --upgrade --quiet --custom-compile-command "make lock" -o constraints.txt

clean:  ## remove what was built, but neither .venv nor runs
	rm -rf _docs _proc build dist .cache .pytest_cache .ruff_cache nbs/.quarto
	find . -path ./$(VENV) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +
