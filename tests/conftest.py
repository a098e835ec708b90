"""What holds for all tests, and the fixtures that many files of them share."""

import signal

import pytest

import cnnlite


def pytest_configure(config):
    # A process that a script starts in the background is born deaf to Ctrl-C, and so are its children. Tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def path(tmp_path):
    """Where a test may write the file of a model."""
    return tmp_path / "model.safetensors"


@pytest.fixture
def same_weights_in_every_run():
    cnnlite.utils.set_random_seed(0)
