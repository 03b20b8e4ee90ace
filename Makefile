# Five things to do with the course. Each makes the virtual environment on first use and says what it does.
#
#   make course   run the project, print its table, build the site, say how to go on
#   make test     execute every notebook and every test
#   make lab      open JupyterLab in nbs/
#   make demo     open a page to draw, speak and type a digit on
#   make site     build the site into _site/
#
# `make update` fetches the newest state and keeps what you have changed, in mine/.
#
# And, for authors: `make quick` checks in two minutes what can be checked in two (no notebook is executed, no browser
# started), `make format` formats everything, `make lint` says what is not clean, `make export` writes mmcourse/ from the
# notebooks and `make check-export` tells whether it is what they export, `make notebooks` executes all notebooks in place and
# cleans them, `make density` prints how dense the chapters are, `make readme` writes README.md from nbs/index.ipynb.
# Everything needs Python 3.11 or newer; another interpreter: make course PYTHON=python3.12. An index with CPU builds of
# PyTorch (Linux): make course TORCH_INDEX=ADDRESS. Options for JupyterLab: make lab LAB_ARGS="--port 9000";
# for the page: make demo DEMO_ARGS="--port 9000 --no-browser".

PYTHON ?= python3
VENV   ?= .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
PY  := $(BIN)/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet --no-compile --constraint constraints.txt

# JupyterLab refuses to run as root, as in a container, unless it is told to.
LAB_ARGS ?=
ifeq ($(shell id -u 2>/dev/null),0)
override LAB_ARGS += --allow-root
endif

export KERAS_BACKEND := torch
# Networks this small gain nothing from threads.
export OMP_NUM_THREADS ?= 1
export PYTHONUTF8 := 1
# Compiled modules are kept, whatever the shell says: without them every start of torch, Keras and NLTK takes some 15 s longer.
export PYTHONDONTWRITEBYTECODE :=
export PYTHONWARNINGS := ignore::DeprecationWarning

.PHONY: help course test quick lab demo update site format lint density notebooks readme export check-export clean
help:
	@sed -n 's/^#   make/  make/p' Makefile

$(VENV)/pyvenv.cfg:
	@echo "==> making the virtual environment $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "make needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make … PYTHON=python3.12")'
	@$(PYTHON) -m venv $(VENV)

# One stamp a set of requirements, so that a change of settings.ini or constraints.txt installs again.
$(VENV)/.course: settings.ini constraints.txt setup.py pyproject.toml | $(VENV)/pyvenv.cfg
	@echo "==> installing the course and what it needs (a few minutes, once)"
	@$(if $(TORCH_INDEX),$(PIP) torch --index-url $(TORCH_INDEX))
	@$(PIP) --editable '.[site]'
	@touch $@

$(VENV)/.lab: $(VENV)/.course
	@echo "==> installing JupyterLab"
	@$(PIP) --editable '.[site,lab]'
	@-git config filter.notebook.clean "$(PY) tools/nb.py clean" 2>/dev/null
	@touch $@

$(VENV)/.demo: $(VENV)/.course
	@echo "==> installing Gradio, which draws the page"
	@$(PIP) --editable '.[site,demo]'
	@touch $@

$(VENV)/.test: $(VENV)/.course
	@echo "==> installing what the tests need"
	@$(PIP) --editable '.[dev,real]'
	@touch $@

course: $(VENV)/.course
	@echo "==> the project: three weak views of a digit, and what fusing them gives"
	@$(PY) -m mmcourse.project
	@$(MAKE) --no-print-directory site
	@echo
	@echo "The site is in _site/: open _site/index.html, or see it served with: $(PY) tools/site.py serve"
	@echo "To work through the course:  make lab   (JupyterLab opens in nbs/; begin with 1_data/01_three_views.ipynb)"

test: $(VENV)/.test
	@echo "==> every notebook, cell by cell, and every test"
	@$(PY) -m pytest --nbval --nbval-current-env --numprocesses logical --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

quick: lint
	@echo "==> the quick tests"
	@$(PY) -m pytest tests -q -m "not slow" --numprocesses logical --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

lab: $(VENV)/.lab
	@echo "==> JupyterLab in nbs/"
	@$(PY) -m jupyterlab --notebook-dir nbs $(LAB_ARGS)

update:
	@$(PYTHON) tools/update.py

demo: $(VENV)/.demo
	@$(PY) -m mmcourse.demo $(DEMO_ARGS)

site: $(VENV)/.course
	@echo "==> building the site into _site/"
	@$(PY) tools/site.py build

notebooks: $(VENV)/.test
	@echo "==> executing every notebook in place"
	@$(PY) tools/nb.py run

export: $(VENV)/.test
	@echo "==> exporting nbs/ to mmcourse/"
	@$(PY) tools/nb.py export

format: $(VENV)/.test
	@echo "==> formatting notebooks, library, tests and tools"
	@$(PY) -m ruff check --quiet --fix . || true
	@$(PY) -m ruff format --quiet .
	@$(MAKE) --no-print-directory export

lint: $(VENV)/.test
	@echo "==> is everything formatted and clean?"
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

density: $(VENV)/.test
	@$(PY) tools/nb.py density

check-export: export
	@git diff --exit-code --stat -- mmcourse && echo "mmcourse/ is what the notebooks export"

readme: $(VENV)/.course
	@echo "==> writing README.md from nbs/index.ipynb"
	@$(PY) tools/readme.py

clean:
	@echo "==> removing the virtual environment and what was built"
	@rm -rf $(VENV) _site _proc
