"""Batches from what can only be asked for the next one, or for one by its index: generators, loaders, data sets."""

import inspect
import itertools
from typing import Any

import numpy as np

from cnnlite.support.floating import conversion
from cnnlite.support.forms import COUNT, check_form

ANEW = (
    "A generator can be read once: pass an object that yields its batches anew each time that it is iterated, or one "
    "with __len__ and __getitem__."
)


class Stream:
    """Batches that a generator, another iterable, or an object with `__len__` and `__getitem__` yields.

    The first batch is looked at before anything happens, and kept for its turn: a source may go on where it stood.

    Args:
        source: yields (x, y) or (x, y, sample_weight), or x alone where no y is needed. If it has `on_epoch_begin`
            and `on_epoch_end` that take no arguments, these are called round each epoch.
        check: called with x, y and sample_weight of each batch; returns the three as arrays or raises.
        dtype: what x is converted to.
        owner: how errors call the caller ("fit").
    """

    samples: int | None = None

    def __init__(self, source, check, dtype, owner):
        self.source, self.check, self.dtype, self.owner = source, check, dtype, owner
        self.indexed = hasattr(source, "__getitem__") and self.steps is not None
        self._opened: Any = None  # the iterator of the first pass
        nothing = object()
        if self.indexed:
            first = source[0] if self.steps else nothing
        else:
            opened = self._opened = iter(source)
            first = next(opened, nothing)
        self.reads_once = self._opened is source
        if first is nothing:
            raise ValueError(
                f"{owner}: x must yield at least one batch. Received: a {type_name(source)} "
                f"{'of length 0' if self.indexed else 'that yields nothing'}. {ANEW}"
            )
        x, *rest = self._unpack(first)
        # Copies, since the source may put another batch into the same arrays before this one's turn.
        self._first: Any = x, *(None if part is None else part.copy() for part in rest)
        self.shape = x.shape
        self._read = 0  # of what can be read once

    @property
    def steps(self):
        """How many batches the next pass has, by `__len__`, which may change from epoch to epoch; or None."""
        try:
            return len(self.source)
        except (TypeError, NotImplementedError) as error:  # of a loader over a stream, too: a length in name only
            if hasattr(self.source, "__len__") and not hasattr(self.source, "__iter__"):
                raise TypeError(
                    f"{self.owner}: the length of x must be the number of its batches, an integer. Received: a "
                    f"{type_name(self.source)} of which len() says: {error}."
                ) from None
            return None

    def on_epoch_begin(self):
        """Tell the source that an epoch begins, if it wants to know."""
        self._call("on_epoch_begin")

    def on_epoch_end(self):
        """Tell the source that an epoch has ended; what Keras's data sets shuffle themselves at."""
        self._call("on_epoch_end")

    def look_again(self):
        """Ask for the first batch again at its turn, if the source may be another one by then."""
        if self.indexed and (self._hook("on_epoch_begin") or self._hook("on_epoch_end")):
            self._first = None

    def _call(self, hook):
        function = self._hook(hook)
        if function is not None:
            function()
            if self.indexed:
                self._first = None  # another one may have its index now

    def _hook(self, name):
        """Return a hook of the source, or None if it has none; nor is that of a callback one, which takes an epoch."""
        function = getattr(self.source, name, None)
        if not callable(function):
            return None
        try:
            inspect.signature(function).bind()
        except TypeError:
            return None
        except ValueError:  # a built-in function that does not say what it takes
            pass
        return function

    def batches(self, random=None, skip=0):
        """Yield (x, y, sample_weight), but not the first `skip`; with `random`, those with an index in a new order."""
        if self.indexed:
            steps = self.steps
            order = np.arange(steps) if random is None else random.generator().permutation(steps)
            for index in order[skip:]:
                if index == 0 and self._first is not None:
                    first, self._first = self._first, None
                    yield first
                else:
                    yield self._unpack(self.source[int(index)])
            return
        first, self._first = self._first, None
        rest = iter(self.source) if self._opened is None else self._opened
        self._opened = None
        if self.reads_once:
            skip = 0  # set_state has read it
        ahead = first is not None
        if ahead and not skip:
            self._read += self.reads_once
            yield first
        for batch in itertools.islice(rest, max(0, skip - ahead), None):
            self._read += self.reads_once
            yield self._unpack(batch)

    def get_state(self):
        """Return what another process must have, too, and how much of what can be read once has been read."""
        return {"steps": self.steps, "read": self._read}

    def set_state(self, state):
        """Read as much as had been read when `state` was returned; a ValueError if that is not there."""
        check_form(state, {"steps": (COUNT, None), "read": COUNT}, "where the data stand")
        if state["steps"] is not None:  # earlier versions did not ask what has no index for its length
            check_same_data({"steps": self.steps}, {"steps": state["steps"]})
        if self._read > state["read"]:
            raise ValueError(f"{self._read} batches of x have been read already, more than {state['read']}")
        while self._read < state["read"]:
            self._read += 1
            if self._first is not None:
                self._first = None
            elif next(self.source, None) is None:
                raise ValueError(f"x ends before the {state['read']} batches that have been read of it")

    def _unpack(self, batch):
        parts = batch if isinstance(batch, (tuple, list)) else (batch,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                f"{self.owner}: a batch must be (x, y) or (x, y, sample_weight). "
                f"Received: a {type_name(batch)} of {len(parts)}."
            )
        x, y, sample_weight = self.check(*parts, *[None] * (3 - len(parts)))
        with conversion():
            return np.array(x, dtype=self.dtype, order="C"), y, sample_weight


def check_same_data(mine, other):
    """Raise a ValueError if two states of data differ."""
    if mine != other:
        texts = [", ".join(f"{name}={value}" for name, value in sorted(state.items())) for state in (mine, other)]
        raise ValueError(f"the data have {texts[0]}, and had {texts[1]}")


def type_name(value):
    """Return how messages call what kind of thing a value is."""
    return type(value).__name__
