# The two commands of the README. Both make the virtual environment .venv and install into it by themselves.
#
#   make mnist                              train on MNIST; what it leaves is in results/
#   make mnist ARGS="--epochs 10 --seed 1"  with options
#   make test                               all tests
#   make test ARGS="-k conv2d"              some of them
#   make lint                               ruff and mypy
#   make parity                             install PyTorch and Keras, which the parity tests compare with
#   make bench                              measure cnnlite beside PyTorch, Keras on TensorFlow, JAX and ONNX Runtime;
#                                           20 minutes; results in results/benchmarks
#   make bench ARGS="--quick"               a try of some minutes

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
ARGS ?=

.PHONY: mnist test lint parity bench clean

mnist: $(VENV)/installed-plot
	$(BIN)/python examples/train_mnist.py $(ARGS)

test: $(VENV)/installed-test
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/installed-lint
	$(BIN)/python -m ruff check .
	$(BIN)/python -m mypy

# PyTorch's plain name may bring gigabytes of CUDA; this version has a build for the CPU.
parity: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[test,parity]"

bench: $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python -m benchmarks $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# A file for each extra, so that an installation happens once, and again when setup.cfg changes.
$(VENV)/installed-%: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing cnnlite[$*] into $(VENV) ..."
	$(BIN)/python -m pip install --quiet --editable ".[$*]"
	@touch $@
