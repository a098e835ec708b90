"""Configuration of all tests, and fixtures shared by many files."""

import signal

import pytest

import cnnlite


def pytest_configure(config):
    # A process started in the background by a script ignores SIGINT, and so do its children; some tests send SIGINT.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def path(tmp_path):
    """A path where a test may write a model file."""
    return tmp_path / "model.safetensors"


@pytest.fixture
def same_weights_in_every_run():
    cnnlite.utils.set_random_seed(0)
