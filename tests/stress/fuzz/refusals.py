"""What every attack on a reader asks: was the input refused, and in the way that SECURITY.md promises?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

CUT = b"\n----\n"  # between the parts of an input
LONGEST_MESSAGE = 5000


def refuses(read: Callable[[], Any], name: str, kinds: tuple[type[Exception], ...] = (ValueError,)) -> bool:
    """Return whether `read` refused what it got, with an error of one of the kinds, that names the file, if any."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read()
    except kinds as error:
        message = str(error)
        if name:
            assert name in message, f"the file is not named: {message[:500]}"
            assert len(message) < LONGEST_MESSAGE, f"a message of {len(message)} characters"
            assert "\x1b" not in message, "a message that moves the cursor"
        cause: BaseException | None = error
        while cause is not None:
            assert not isinstance(cause, MemoryError), f"memory ran out before {message[:500]}"
            cause = cause.__cause__ or cause.__context__
        return True
    return False
