# The targets create the virtual environment .venv and install what they need.
#
#   make mnist                              train on MNIST; writes to results/
#   make mnist ARGS="--epochs 10 --seed 1"  with options
#   make test                               all tests
#   make test ARGS="-k conv2d"              some of them
#   make test-bounds                        the kernels with numba's bounds checking
#   make test-guards                        the kernels with guard pages next to every array (Linux)
#   make test-plain                         the library in plain NumPy, nothing compiled
#   make test-oldest PYTHON=python3.10      with the oldest versions of NumPy, numba etc. that setup.cfg allows
#   make test-newest                        with the newest versions
#   make test-install                       build the package, install it for every Python found, freeze a program
#   make stress                             attack the library for some minutes; prints a table of what it survived
#   make lint                               ruff and mypy
#   make parity                             install PyTorch and Keras for the parity tests
#   make bench                              measure cnnlite against PyTorch, Keras on TensorFlow, JAX, ONNX Runtime and
#                                           OpenVINO; 35 minutes; results in results/benchmarks
#   make bench ARGS="--quick"               a trial run of a few minutes

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=
CONSTRAINT =
# Silences setuptools' warning about editable installations.
INSTALL = PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet

.PHONY: mnist test test-bounds test-guards test-plain test-oldest test-newest test-install stress lint parity bench clean

mnist: $(VENV)/installed-plot
	$(BIN)/python examples/train_mnist.py $(ARGS)

# Two processes, as most tests keep one core busy. Tests of the same module or class stay in one process.
PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadscope

test: $(VENV)/installed-test
	$(PYTEST) $(ARGS)

# A stage with a bad index fails its run with an error, whichever thread it runs on. Only kernels and layers, as nothing
# above them indexes arrays; test_jit runs other kernels.
test-bounds: $(VENV)/installed-test
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest tests/kernels tests/layers --ignore=tests/kernels/test_jit.py $(ARGS)

# Run twice, because an array can touch a guard page at its end or at its beginning, not both. The processes that
# test_guard_pages starts set up such pages themselves.
test-guards: $(VENV)/installed-test
	for where in after before; do \
	    $(BIN)/python -m pytest -p tests.helpers.guarded_memory --guard-page $$where tests/kernels tests/layers \
	        --ignore=tests/kernels/test_guard_pages.py --ignore=tests/kernels/test_jit.py $(ARGS) || exit 1; \
	done

# Leaves out long training runs, which take minutes without kernels, tests that have nothing to do with kernels, and the
# example of `plan`, as there are no plans. Tests of compiled code skip themselves.
test-plain: $(VENV)/installed-test
	NUMBA_DISABLE_JIT=1 $(PYTEST) $(ARGS) --ignore=tests/keras_scripts --ignore=tests/test_keras_scripts.py \
	    --ignore=tests/test_examples.py --ignore=tests/benchmarks --ignore=tests/test_determinism.py \
	    --ignore=tests/test_readme.py --ignore=tests/test_typing.py --ignore=tests/datasets \
	    --deselect=cnnlite/model/sequential.py::cnnlite.model.sequential.Sequential.plan

# These two use separate virtual environments. The oldest Matplotlib has no build for Python 3.12 and later.
test-oldest:
	$(MAKE) test VENV=$(VENV)-oldest CONSTRAINT="--constraint tests/oldest.txt"

test-newest:
	rm -rf $(VENV)-newest
	$(MAKE) test VENV=$(VENV)-newest

# ARGS are the Pythons, as commands or paths; by default, those found as python3.10 and so on.
test-install: $(VENV)/installed-install
	$(BIN)/python -m tests.install $(ARGS)

# These tests are marked `stress`, which setup.cfg excludes from all other runs.
stress: $(VENV)/installed-test $(VENV)/installed-stress $(VENV)/installed-torch
	$(BIN)/python -m pytest tests/stress -m stress $(ARGS)

lint: $(VENV)/installed-lint
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

parity: $(VENV)/installed-test $(VENV)/installed-torch
	$(INSTALL) --editable ".[parity]"

bench: $(VENV)/installed-torch
	$(INSTALL) --editable ".[bench]"
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) $(VENV)-oldest $(VENV)-newest build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip

# An unpinned torch may pull in gigabytes of CUDA; this version has a CPU build.
$(VENV)/installed-torch: | $(VENV)/bin/python
	@echo "Installing PyTorch into $(VENV) ..."
	$(INSTALL) torch==2.13.0
	@touch $@

# A stamp file for each extra, so that it is installed once, and again when setup.cfg or pyproject.toml changes.
$(VENV)/installed-%: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing cnnlite into $(VENV), with what .[$*] names ..."
	$(INSTALL) $(CONSTRAINT) --editable ".[$*]"
	@touch $@
