# The two commands of the README. Both make the virtual environment .venv and install into it by themselves.
#
#   make mnist                              train on MNIST; what it leaves is in results/
#   make mnist ARGS="--epochs 10 --seed 1"  with options
#   make test                               all tests
#   make test ARGS="-k conv2d"              some of them
#   make test-bounds                        the kernels with numba's check of every index
#   make test-guards                        the kernels with forbidden pages beside every array (Linux)
#   make test-plain                         the library in plain NumPy, nothing compiled
#   make test-oldest PYTHON=python3.10      with the oldest versions of NumPy, numba and all that setup.cfg allows
#   make test-newest                        with the newest ones
#   make test-install                       build the package, install it for each Python there is, freeze a program
#   make stress                             attacks on the library, some minutes; ends with a table of what was survived
#   make lint                               ruff and mypy
#   make parity                             install PyTorch and Keras, which the parity tests compare with
#   make bench                              measure cnnlite beside PyTorch, Keras on TensorFlow, JAX, ONNX Runtime and
#                                           OpenVINO; 35 minutes; results in results/benchmarks
#   make bench ARGS="--quick"               a try of some minutes

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=
CONSTRAINT =
# setuptools warns of every editable installation that it is one.
INSTALL = PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet

.PHONY: mnist test test-bounds test-guards test-plain test-oldest test-newest test-install stress lint parity bench clean

mnist: $(VENV)/installed-plot
	$(BIN)/python examples/train_mnist.py $(ARGS)

# Two processes, as most tests keep one core busy. Tests of a file that share something stay in one of them.
PYTEST = $(BIN)/python -m pytest --numprocesses 2 --dist loadscope

test: $(VENV)/installed-test
	$(PYTEST) $(ARGS)

# A stage with a wrong index ends its run with an error, in whichever thread. Kernels and layers alone, as what lies
# above them indexes nothing; test_jit runs other kernels.
test-bounds: $(VENV)/installed-test
	NUMBA_BOUNDSCHECK=1 $(BIN)/python -m pytest tests/kernels tests/layers --ignore=tests/kernels/test_jit.py $(ARGS)

# Twice, because an array can only end or begin where a page does. What test_guard_pages runs in processes of its own has
# such pages already.
test-guards: $(VENV)/installed-test
	for where in after before; do \
	    $(BIN)/python -m pytest -p tests.helpers.guarded_memory --guard-page $$where tests/kernels tests/layers \
	        --ignore=tests/kernels/test_guard_pages.py --ignore=tests/kernels/test_jit.py $(ARGS) || exit 1; \
	done

# Left out is what trains for long, which takes minutes without kernels, and what has nothing to do with them; and the
# example of `plan`, as there are no plans. The tests of compiled code skip themselves.
test-plain: $(VENV)/installed-test
	NUMBA_DISABLE_JIT=1 $(PYTEST) $(ARGS) --ignore=tests/keras_scripts --ignore=tests/test_keras_scripts.py \
	    --ignore=tests/test_examples.py --ignore=tests/benchmarks --ignore=tests/test_determinism.py \
	    --ignore=tests/test_readme.py --ignore=tests/test_typing.py --ignore=tests/datasets \
	    --deselect=cnnlite/model/sequential.py::cnnlite.model.sequential.Sequential.plan

# In virtual environments of their own. The oldest Matplotlib has no build for Python 3.12 and later.
test-oldest:
	$(MAKE) test VENV=$(VENV)-oldest CONSTRAINT="--constraint tests/oldest.txt"

test-newest:
	rm -rf $(VENV)-newest
	$(MAKE) test VENV=$(VENV)-newest

# ARGS are the Pythons, as commands or paths; without any it finds those that are called python3.10 and so on.
test-install: $(VENV)/installed-install
	$(BIN)/python -m tests.install $(ARGS)

# Marked stress, which setup.cfg leaves out of all other runs.
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

# PyTorch's plain name may bring gigabytes of CUDA; this version has a build for the CPU.
$(VENV)/installed-torch: | $(VENV)/bin/python
	@echo "Installing PyTorch into $(VENV) ..."
	$(INSTALL) torch==2.13.0
	@touch $@

# A file for each extra, so that an installation happens once, and again when setup.cfg changes.
$(VENV)/installed-%: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing cnnlite into $(VENV), with what .[$*] names ..."
	$(INSTALL) $(CONSTRAINT) --editable ".[$*]"
	@touch $@
