"""Save and restore what a metric has counted while it counts something else."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np

from cnnlite.metrics.base import Metric


@contextlib.contextmanager
def preserved_counts(metrics: Iterable[Any]) -> Iterator[None]:
    """Restore the metrics among these objects on exit, whatever they count inside the block.

    The metrics stay the same objects, and so do the arrays and containers in them, since a user's metric may refer to
    one twice. Helper objects from the metric's own package are restored too; objects of other libraries are left alone.
    """
    kept: dict[int, tuple[Any, Any]] = {}
    for metric in metrics:
        if isinstance(metric, Metric):
            _keep(metric, kept, type(metric))
    try:
        yield
    finally:
        for thing, contents in kept.values():
            _put_back(thing, contents)


def _keep(thing: Any, kept: dict[int, tuple[Any, Any]], owner: type) -> None:
    if id(thing) in kept:
        return
    if isinstance(thing, np.ndarray):
        if thing.flags.writeable:
            kept[id(thing)] = thing, thing.copy()
        return
    inner: Any = ()
    if isinstance(thing, Metric) or _is_helper(thing, owner):
        kept[id(thing)] = thing, vars(thing).copy()
        inner = vars(thing).values()
    elif isinstance(thing, dict):
        kept[id(thing)] = thing, dict(thing)
        inner = thing.values()
    elif isinstance(thing, (list, set, deque, bytearray)):
        kept[id(thing)] = thing, list(thing)
        inner = () if isinstance(thing, bytearray) else thing
    elif isinstance(thing, tuple):
        inner = thing
    for item in inner:
        _keep(item, kept, owner)


def _is_helper(thing: Any, owner: type) -> bool:
    """Return whether an object that a metric of class `owner` refers to is part of what it counts with.

    A logger, a model or a data set is not the metric's to change, and may refer to any number of other objects.
    """
    if isinstance(thing, (type, FunctionType)) or not hasattr(thing, "__dict__"):
        return False
    if isinstance(thing, SimpleNamespace):
        return True
    packages = {base.__module__.partition(".")[0] for base in type(thing).__mro__}
    return "cnnlite" not in packages and owner.__module__.partition(".")[0] in packages


def _put_back(thing: Any, contents: Any) -> None:
    if isinstance(thing, np.ndarray):
        thing[...] = contents
        return
    container = thing if isinstance(thing, (dict, list, set, deque, bytearray)) else vars(thing)
    container.clear()
    extend = container.update if isinstance(container, (dict, set)) else container.extend
    extend(contents)
