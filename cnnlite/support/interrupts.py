"""Ctrl-C, and whatever else a signal handler may raise, deferred to a consistent point."""

from __future__ import annotations

import _signal
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from cnnlite.support.locks import in_forked_children

# From `_signal`, since `signal` converts every argument and result to an enum: over all signals, that takes ten times
# as long as everything else here.
_get_handler: Callable[..., Any] = _signal.getsignal
_set_handler: Callable[..., Any] = _signal.signal
_SIGNALS = sorted(map(int, signal.valid_signals()))

_hold: _Hold | None = None  # of the main thread, the only one in which Python calls handlers


class _Hold:
    """The deferred signals, and the handlers that they will be passed to.

    Attributes:
        handlers: by signal number, the handlers that are functions. Python never sees the other signals.
        received: (number, frame) of each deferred signal.
        strict: how many of the enclosing blocks not even a second Ctrl-C may interrupt.
        over: whether signals are no longer deferred.
    """

    def __init__(self, second_passes: bool) -> None:
        self.second_passes, self.strict, self.over = second_passes, 0, False
        self.received: list[tuple[int, Any]] = []
        self.handlers = {
            number: handler for number, handler in zip(_SIGNALS, map(_get_handler, _SIGNALS)) if callable(handler)
        }
        self.handler = self.note  # one object, to recognise it by

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
        """Deliver a second Ctrl-C, if there is one and it may interrupt the block."""
        if self.second_passes and not self.strict:
            interrupts = [arguments for arguments in self.received if arguments[0] == signal.SIGINT]
            if len(interrupts) >= 2:
                self.received = [arguments for arguments in self.received if arguments[0] != signal.SIGINT]
                self.handlers[signal.SIGINT](*interrupts[-1])

    def end(self, numbers: list[int]) -> None:
        """Restore the handlers, even if one of them raises meanwhile, except those that were set since `begin`."""
        try:
            while numbers:
                if _get_handler(numbers[-1]) is self.handler:
                    _set_handler(numbers[-1], self.handlers[numbers[-1]])
                numbers.pop()
        except BaseException:
            self.end(numbers)
            raise

    def deliver(self) -> None:
        """Call the handler of every received signal, even if an earlier one raises."""
        try:
            while self.received:
                number, frame = self.received.pop(0)
                self.handlers[number](number, frame)
        except BaseException:
            self.deliver()
            raise


@contextlib.contextmanager
def deferred_signals(second_passes: bool = False) -> Iterator[None]:
    """Defer the signals that Python handles until the block is done, then deliver them.

    An optimizer step interrupted in the middle leaves weights from two steps, whether by the KeyboardInterrupt of
    Ctrl-C, or by what a user's handler raises: SystemExit on SIGTERM, a TimeoutError on SIGALRM. Python calls
    handlers only in the main thread, so in any other there is nothing to defer.

    Args:
        second_passes: True delivers a second Ctrl-C at once, for a block that may take long.
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
    # A child forked by another thread never reaches the end of the block.
    global _hold
    if _hold is not None:
        _hold.over = True
        _hold.received.clear()
        _hold = None


in_forked_children(_let_go)
