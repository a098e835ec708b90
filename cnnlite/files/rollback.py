"""Change several objects together or not at all."""

from __future__ import annotations

import contextlib
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from cnnlite.layers.weights import ArrayDict
from cnnlite.metrics import Metric
from cnnlite.random import RandomStream
from cnnlite.support.interrupts import deferred_signals


@contextlib.contextmanager
def all_or_nothing(
    *objects: Any, others: Iterable[Any] = (), largest: float = 0, layers: Iterable[Any] = ()
) -> Iterator[None]:
    """Put objects back as they were if the block raises anything, Ctrl-C included.

    An array, a list, a set or a dict gets its items back, any other object its attributes; and so do the arrays,
    lists, sets, dicts, metrics and random streams in them. Anything else that an attribute refers to (the
    model of a callback, say) must be passed as well if the block changes it.

    Args:
        *objects: what the block changes.
        others: more of them, but arrays of more than `largest` bytes are not copied: they may be a whole data set.
        layers: objects whose attributes are put back only if they are numbers, strings, booleans or None.
    """
    kept: dict[int, tuple[Any, Any]] = {}
    _keep(objects, kept, math.inf)
    _keep(tuple(others), kept, largest)
    settings = [(layer, name, value) for layer in layers for name, value in vars(layer).items()
                if value is None or isinstance(value, (bool, int, float, str))]
    try:
        yield
    except BaseException:
        with deferred_signals():
            for thing, content in kept.values():
                _put_back(thing, content)
            for layer, name, value in settings:
                if vars(layer).get(name, layer) is not value:
                    setattr(layer, name, value)
        raise


def _keep(objects: tuple[Any, ...], kept: dict[int, tuple[Any, Any]], largest: float) -> None:
    things = [(thing, True) for thing in objects]
    while things:
        thing, given = things.pop()
        if id(thing) in kept:
            continue
        if isinstance(thing, np.ndarray):
            if thing.flags.writeable and thing.nbytes <= largest:
                kept[id(thing)] = thing, thing.copy()
            continue
        content: Any
        inner: Iterable[Any]
        if isinstance(thing, dict) and not isinstance(thing, ArrayDict):  # a layer's arrays are passed on their own
            content, inner = thing.copy(), thing.values()
        elif isinstance(thing, (list, deque, set)):
            content, inner = thing.copy(), thing
        elif isinstance(thing, tuple):
            content, inner = None, thing
        elif given or isinstance(thing, (Metric, RandomStream)):
            content = dict(getattr(thing, "__dict__", {}))
            inner = content.values()
        else:
            continue
        kept[id(thing)] = thing, content
        things += [(item, False) for item in inner]


def _put_back(thing: Any, content: Any) -> None:
    if isinstance(thing, np.ndarray):
        thing[...] = content
    elif isinstance(thing, (list, deque)):
        thing.clear()
        thing.extend(content)
    elif isinstance(thing, (set, dict)):
        thing.clear()
        thing.update(content)
    elif not isinstance(thing, tuple):
        attributes = getattr(thing, "__dict__", {})
        attributes.clear()
        attributes.update(content)
