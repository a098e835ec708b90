"""Locks that survive a fork: one that another thread holds at that moment would never be released in the child."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any


def in_forked_children(function: Callable[[], Any]) -> None:
    """Call a function in every forked child before anything else runs there."""
    if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
        os.register_at_fork(after_in_child=function)


def hold_while_forking(acquire: Callable[[], Any], release: Callable[[], Any]) -> None:
    """Hold a lock during every fork, so that the child gets what it guards in a consistent state."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=acquire, after_in_parent=release, after_in_child=release)


def new_lock() -> Any:
    """Return a `threading.RLock` that is free in a forked child, even if it is held in the parent.

    Use it at module level only: fork handlers can't be unregistered, so the lock lives as long as the process.
    """
    lock: Any = threading.RLock()
    in_forked_children(lock._at_fork_reinit)
    return lock


_users: dict[int, tuple[int, str]] = {}  # by id(thing), while in use: the thread, and what it is doing
in_forked_children(_users.clear)


@contextlib.contextmanager
def used_by_one_thread(owner: str, things: Iterable[Any]) -> Iterator[list[Any]]:
    """Reserve things (layers, metrics, an optimizer) for this thread while the block runs.

    A thread may reserve again what it already has: a callback of `fit` may call `train_on_batch`. Yields what
    it had already.

    Raises:
        RuntimeError: another thread has one of them. Waiting would make results depend on which thread came first.
    """
    mine = (threading.get_ident(), owner)
    taken, again = [], []
    try:
        for thing in things:
            user = _users.setdefault(id(thing), mine)
            if user is mine:
                taken.append(id(thing))
            elif user[0] != mine[0]:
                raise RuntimeError(
                    f"{owner}: a model is trained or evaluated by one thread at a time. Received: a call while another "
                    f"thread, in {user[1]}, uses {getattr(thing, 'name', type(thing).__name__)!r}, which is in this "
                    "model too. Wait for that thread, or give each one a model of its own: "
                    "cnnlite.models.clone_model(model). Any number of threads may predict."
                )
            else:
                again.append(thing)
        yield again
    finally:
        for key in taken:
            _users.pop(key, None)  # already gone in a child forked in the block
