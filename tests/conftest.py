"""What holds for all tests."""

import signal


def pytest_configure(config):
    # A process that a script starts in the background is born deaf to Ctrl-C, and so are its children. Tests send it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
