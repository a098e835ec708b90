"""What a metric has counted, kept while it counts something else."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cnnlite.metrics.base import Metric


@contextlib.contextmanager
def counts_kept(metrics: Iterable[Any]) -> Iterator[None]:
    """Put the metrics among these things back to what they were, whatever is counted within.

    They stay the same objects, and so do the arrays and containers in them, since a metric of a user's may hold one of
    them twice. What is in none of these (an object of another library, say) is left as it is.
    """
    kept: dict[int, tuple[Any, Any]] = {}
    for metric in metrics:
        if isinstance(metric, Metric):
            _keep(metric, kept)
    try:
        yield
    finally:
        for thing, contents in kept.values():
            _put_back(thing, contents)


def _keep(thing: Any, kept: dict[int, tuple[Any, Any]]) -> None:
    if id(thing) in kept:
        return
    if isinstance(thing, np.ndarray):
        if thing.flags.writeable:
            kept[id(thing)] = thing, thing.copy()
        return
    inner: Any = ()
    if isinstance(thing, Metric):
        kept[id(thing)] = thing, vars(thing).copy()
        inner = vars(thing).values()
    elif isinstance(thing, dict):
        kept[id(thing)] = thing, dict(thing)
        inner = thing.values()
    elif isinstance(thing, (list, set, deque)):
        kept[id(thing)] = thing, list(thing)
        inner = thing
    elif isinstance(thing, tuple):
        inner = thing
    for item in inner:
        _keep(item, kept)


def _put_back(thing: Any, contents: Any) -> None:
    if isinstance(thing, np.ndarray):
        thing[...] = contents
        return
    container = vars(thing) if isinstance(thing, Metric) else thing
    container.clear()
    extend = container.update if isinstance(container, (dict, set)) else container.extend
    extend(contents)
