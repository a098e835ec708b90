"""Ctrl-C at a time when nothing is half done."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def held_back_interrupts(second_passes=False):
    """Hold back Ctrl-C until the block is done, and then let it do what it does.

    An optimizer step that is cut in the middle leaves weights from two steps. Python tells only the main
    thread of signals, so in any other there is nothing to hold back.

    Args:
        second_passes: True lets the second Ctrl-C do at once what it does, for a block that may take long.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    received = []

    def hold(*arguments):
        received.append(arguments)
        if second_passes and len(received) == 2:
            received.clear()
            previous(*arguments)

    signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        for arguments in received:
            previous(*arguments)
