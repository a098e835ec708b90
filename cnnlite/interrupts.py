"""Ctrl-C at a time when nothing is half done."""

import contextlib
import signal
import threading


@contextlib.contextmanager
def held_back_interrupts():
    """Hold back Ctrl-C until the block is done, and then let it do what it does.

    An optimizer step that is cut in the middle leaves weights from two steps. Python tells only the main
    thread of signals, so in any other there is nothing to hold back.
    """
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    received = []
    signal.signal(signal.SIGINT, lambda *arguments: received.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if received:
            previous(*received[-1])
