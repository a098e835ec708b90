"""Ctrl-C, and what else a signal's handler may raise, deferred to a point where nothing is half done."""

from __future__ import annotations

import _signal
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from cnnlite.support.locks import in_forked_children

# Those of the module beneath `signal`, which makes enums of all that they take and return: for each signal that there
# is, this takes ten times as long as all the rest.
_get_handler: Callable[..., Any] = _signal.getsignal
_set_handler: Callable[..., Any] = _signal.signal
_SIGNALS = sorted(map(int, signal.valid_signals()))

_hold: _Hold | None = None  # of the main thread, in which alone Python calls handlers


class _Hold:
    """Signals that wait, and the handlers that they will be passed to.

    Attributes:
        handlers: by number, those that are functions. Python does not get to know of other signals.
        received: (number, frame) of those that wait.
        strict: within how many blocks we are that not even the second Ctrl-C cuts.
        over: whether nothing waits any longer.
    """

    def __init__(self, second_passes: bool) -> None:
        self.second_passes, self.strict, self.over = second_passes, 0, False
        self.received: list[tuple[int, Any]] = []
        self.handlers = {
            number: handler for number, handler in zip(_SIGNALS, map(_get_handler, _SIGNALS)) if callable(handler)
        }
        self.handler = self.note  # one object, by which it is known again

    def begin(self) -> None:
        for number in self.handlers:
            _set_handler(number, self.handler)

    def note(self, number: int, frame: Any) -> None:
        self.received.append((number, frame))
        if self.over:
            self.deliver()
        elif number == signal.SIGINT:
            self.let_second_pass()

    def let_second_pass(self) -> None:
        """Pass on the second Ctrl-C, if the block may be cut and there is one."""
        if self.second_passes and not self.strict:
            interrupts = [arguments for arguments in self.received if arguments[0] == signal.SIGINT]
            if len(interrupts) >= 2:
                self.received = [arguments for arguments in self.received if arguments[0] != signal.SIGINT]
                self.handlers[signal.SIGINT](*interrupts[-1])

    def end(self, numbers: list[int]) -> None:
        """Put the handlers back, also while one of them raises; but not where somebody has set another meanwhile."""
        try:
            while numbers:
                if _get_handler(numbers[-1]) is self.handler:
                    _set_handler(numbers[-1], self.handlers[numbers[-1]])
                numbers.pop()
        except BaseException:
            self.end(numbers)
            raise

    def deliver(self) -> None:
        """Call the handlers of what has been received, each one, also where one before it raises."""
        try:
            while self.received:
                number, frame = self.received.pop(0)
                self.handlers[number](number, frame)
        except BaseException:
            self.deliver()
            raise


@contextlib.contextmanager
def held_back_interrupts(second_passes: bool = False) -> Iterator[None]:
    """Hold back the signals that Python handles until the block is done, and then let them do what they do.

    An optimizer step that is cut in the middle leaves weights from two steps, whether by the KeyboardInterrupt of
    Ctrl-C, or by what a handler of the user's raises: SystemExit at SIGTERM, a TimeoutError at SIGALRM. Python calls
    handlers in the main thread alone, so in any other there is nothing to hold back.

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
        hold = _Hold(second_passes)
        try:
            hold.begin()
            _hold = hold
            yield
        finally:
            _hold = None
            try:
                hold.end(list(hold.handlers))
            finally:
                hold.over = True
                hold.deliver()


def _let_go() -> None:
    # A child that was forked off by another thread never gets to the end of the block.
    global _hold
    if _hold is not None:
        _hold.over = True
        _hold.received.clear()
        _hold = None


in_forked_children(_let_go)
