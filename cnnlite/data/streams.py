"""Batches from sources that give only the next batch, or one by its index: generators, loaders, data sets."""

import inspect
import itertools
from typing import Any

import numpy as np

from cnnlite.support.floating import conversion
from cnnlite.support.schema import COUNT, check_form

ANEW = (
    "A generator can be read only once: pass an object that yields its batches again each time it is iterated, or one "
    "with __len__ and __getitem__."
)


class Stream:
    """Batches that a generator, another iterable, or an object with `__len__` and `__getitem__` yields.

    The first batch is read and checked at once, and kept for its turn, as reading the source again may not repeat it.

    Args:
        source: yields (x, y) or (x, y, sample_weight), or x alone where no y is needed. If it has `on_epoch_begin`
            and `on_epoch_end` that take no arguments, these are called before and after every epoch.
        check: called with x, y and sample_weight of every batch; returns the three as arrays or raises.
        dtype: what x is converted to.
        owner: the caller's name in error messages ("fit").
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
        # Copies, since the source may reuse the same arrays for another batch before this one's turn.
        self._first: Any = x, *(None if part is None else part.copy() for part in rest)
        self.shape = x.shape
        self._read = 0  # how many batches, of a source that can be read only once

    @property
    def steps(self):
        """How many batches the next pass has, by `__len__`, which may change from epoch to epoch; or None."""
        try:
            return len(self.source)
        except (TypeError, NotImplementedError) as error:  # also a loader over a stream, with a length in name only
            if hasattr(self.source, "__len__") and not hasattr(self.source, "__iter__"):
                raise TypeError(
                    f"{self.owner}: the length of x must be the number of its batches, an integer. Received: a "
                    f"{type_name(self.source)} whose len() says: {error}."
                ) from None
            return None

    def on_epoch_begin(self):
        """Tell the source that an epoch begins, if it wants to know."""
        self._call("on_epoch_begin")

    def on_epoch_end(self):
        """Tell the source that an epoch has ended, which is when Keras's data sets shuffle themselves."""
        self._call("on_epoch_end")

    def look_again(self):
        """Read the first batch again at its turn, if the source may have changed by then."""
        if self.indexed and (self._hook("on_epoch_begin") or self._hook("on_epoch_end")):
            self._first = None

    def _call(self, hook):
        function = self._hook(hook)
        if function is not None:
            function()
            if self.indexed:
                self._first = None  # another batch may have its index now

    def _hook(self, name):
        """Return a hook of the source, or None; a callback's method of that name, which takes an epoch, is no hook."""
        function = getattr(self.source, name, None)
        if not callable(function):
            return None
        try:
            inspect.signature(function).bind()
        except TypeError:
            return None
        except ValueError:  # a built-in function without a signature
            pass
        return function

    def batches(self, random=None, skip=0):
        """Yield (x, y, sample_weight), without the first `skip`; with `random`, shuffled if batches have an index."""
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
            skip = 0  # set_state has already skipped them
        ahead = first is not None
        if ahead and not skip:
            self._read += self.reads_once
            yield first
        for batch in itertools.islice(rest, max(0, skip - ahead), None):
            self._read += self.reads_once
            yield self._unpack(batch)

    def get_state(self):
        """Return what must be the same in another process, and how much of a one-time source has been read."""
        return {"steps": self.steps, "read": self._read}

    def set_state(self, state):
        """Read as much as had been read when `state` was returned; a ValueError if the source ends before."""
        check_form(state, {"steps": (COUNT, None), "read": COUNT}, "the position in the data")
        if state["steps"] is not None:  # earlier versions did not record the length of a source without an index
            check_same_data({"steps": self.steps}, {"steps": state["steps"]})
        if self._read > state["read"]:
            raise ValueError(f"{self._read} batches of x have been read already, more than {state['read']}")
        while self._read < state["read"]:
            self._read += 1
            if self._first is not None:
                self._first = None
            elif next(self.source, None) is None:
                raise ValueError(f"x ends before the {state['read']} batches that had been read before")

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
        raise ValueError(f"the data have {texts[0]}, but had {texts[1]}")


def type_name(value):
    """Return the name of a value's type, for messages."""
    return type(value).__name__
