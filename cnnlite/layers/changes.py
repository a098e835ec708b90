"""Whether anything about any layer has changed: what was worked out from layers holds as long as nothing has.

A model finds out which of its layers run as one, where their weights lie, and so on. That takes as long as computing
a small image, so it is kept together with the `last_change()` that it was true for.
"""

from __future__ import annotations

_last_change = object()


def last_change() -> object:
    """Return an object that is another one as soon as an attribute of a layer, or one of its arrays, is replaced."""
    return _last_change


def note_change() -> None:
    """Say that something has changed; to be called after it has, or another thread would keep what was before."""
    global _last_change
    _last_change = object()
