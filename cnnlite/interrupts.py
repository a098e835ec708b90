"""Ctrl-C at a time when nothing is half done."""

import contextlib
import signal
import threading

_hold = None  # of the main thread, which alone is told of signals


class _Hold:
    """Ctrl-Cs that wait, and what they will call.

    Attributes:
        strict: within how many blocks we are that not even the second one cuts.
    """

    def __init__(self, previous, second_passes):
        self.previous, self.second_passes, self.strict, self.received = previous, second_passes, 0, []

    def note(self, *arguments):
        self.received.append(arguments)
        self.let_second_pass()

    def let_second_pass(self):
        if self.second_passes and not self.strict and len(self.received) >= 2:
            arguments = self.received[-1]
            self.received.clear()
            self.previous(*arguments)


@contextlib.contextmanager
def held_back_interrupts(second_passes=False):
    """Hold back Ctrl-C until the block is done, and then let it do what it does.

    An optimizer step that is cut in the middle leaves weights from two steps. Python tells only the main
    thread of signals, so in any other there is nothing to hold back.

    Args:
        second_passes: True lets the second Ctrl-C do at once what it does, for a block that may take long.
    """
    global _hold
    if threading.current_thread() is not threading.main_thread():
        yield
    elif _hold is not None:
        outer = _hold
        outer.strict += not second_passes
        try:
            yield
        finally:
            outer.strict -= not second_passes
            outer.let_second_pass()
    else:
        previous = signal.getsignal(signal.SIGINT)
        if not callable(previous):
            yield
            return
        hold = _Hold(previous, second_passes)
        signal.signal(signal.SIGINT, hold.note)
        _hold = hold
        try:
            yield
        finally:
            _hold = None
            signal.signal(signal.SIGINT, previous)
            for arguments in hold.received:
                previous(*arguments)
